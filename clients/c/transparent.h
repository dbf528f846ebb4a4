/* transparent.h: the TCP sockets of a program that knows no TLS. */
#ifndef SSA_TRANSPARENT_H
#define SSA_TRANSPARENT_H

#include <stdbool.h>
#include <sys/socket.h>

struct connection;

extern bool is_transparent; /* the settings say so, and what is below is called */
void transparent_begin(void);
int transparent_socket(int fd, int protocol); /* a socket that libc has made; its number, or -1 */
struct connection *transparent_adopt(int fd); /* a TCP socket that came from elsewhere; NULL: it is none */
int transparent_connect(struct connection *connection, int fd, const struct sockaddr *address, socklen_t size);
int transparent_listen(struct connection *connection, int fd, int backlog);
bool transparent_take_over(int fd); /* before accept(2): a listener that came from elsewhere. False: errno */

/* An operation has failed: say why on standard error, and make errno one that the program knows. */
void transparent_failed(struct connection *connection);

#endif
