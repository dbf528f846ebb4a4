/* peers.h: the clients of a datagram socket that serves all of them, by the 24 bytes that stand before each packet. */
#ifndef SSA_PEERS_H
#define SSA_PEERS_H

#include <stdbool.h>
#include <sys/socket.h>

enum { PEER_SIZE = 24 }; /* docs/library.md, "Addresses of datagrams" */

int peer_of(const void *address, socklen_t size, unsigned char *peer); /* 0, or -1: an address of another family */
void peer_address(const unsigned char *peer, void *address, socklen_t *size);

/* Note what stands before a packet: 1: a datagram of that client's; 0: its session has ended; -1: no memory. */
int peers_note(void **peers, const unsigned char *peer);
bool peers_have(const void *peers, const unsigned char *peer);
void peers_release(void *peers);

#endif
