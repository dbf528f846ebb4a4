/* peers.c: addresses of datagrams as bytes, and a set of them: open addressing with linear probing. */

#include "peers.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { DATA = 0, GONE = 1 };

struct prefix { /* in host byte order, but the address */
    uint8_t event, family;
    uint16_t port;
    unsigned char address[16];
    uint32_t scope;
};
_Static_assert(sizeof(struct prefix) == PEER_SIZE, "docs/library.md");

int peer_of(const void *address, socklen_t size, unsigned char *peer) {
    struct prefix prefix = {.event = DATA};
    const struct sockaddr_in *four = address;
    const struct sockaddr_in6 *six = address;
    if (size >= sizeof *four && four->sin_family == AF_INET) {
        prefix.port = ntohs(four->sin_port);
        memcpy(prefix.address, &four->sin_addr, sizeof four->sin_addr);
    } else if (size >= sizeof *six && six->sin6_family == AF_INET6) {
        prefix.port = ntohs(six->sin6_port);
        prefix.scope = six->sin6_scope_id;
        memcpy(prefix.address, &six->sin6_addr, sizeof six->sin6_addr);
    } else {
        return -1;
    }
    prefix.family = (uint8_t)four->sin_family;
    memcpy(peer, &prefix, sizeof prefix);
    return 0;
}

void peer_address(const unsigned char *peer, void *address, socklen_t *size) {
    struct prefix prefix;
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    memcpy(&prefix, peer, sizeof prefix);
    four.sin_port = six.sin6_port = htons(prefix.port);
    six.sin6_scope_id = prefix.scope;
    memcpy(&four.sin_addr, prefix.address, sizeof four.sin_addr);
    memcpy(&six.sin6_addr, prefix.address, sizeof six.sin6_addr);
    socklen_t length = prefix.family == AF_INET ? sizeof four : sizeof six;
    memcpy(address, prefix.family == AF_INET ? (void *)&four : (void *)&six, length < *size ? length : *size);
    *size = length;
}

/* --- the set --- */

enum { ROOM = 1 << 13 }; /* twice as many as ssad serves on a port */

struct peers {
    uint32_t count;
    bool used[ROOM];
    unsigned char keys[ROOM][PEER_SIZE];
};

static uint32_t home(const unsigned char *key) {
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (int at = 1; at < PEER_SIZE; at++)
        hash = (hash ^ key[at]) * 16777619U;
    return hash % ROOM;
}

/* Where the key is, or where it would be. */
static uint32_t place(const struct peers *peers, const unsigned char *key) {
    uint32_t at = home(key);
    while (peers->used[at] && memcmp(peers->keys[at] + 1, key + 1, PEER_SIZE - 1))
        at = (at + 1) % ROOM;
    return at;
}

static void add(struct peers *peers, const unsigned char *key) {
    uint32_t at = place(peers, key);
    if (peers->used[at] || peers->count == ROOM - 1)
        return;
    peers->used[at] = true;
    peers->count++;
    memcpy(peers->keys[at], key, PEER_SIZE);
}

/* Those behind it that could stand where it was move up, so that no search ends too early. */
static void take_away(struct peers *peers, const unsigned char *key) {
    uint32_t hole = place(peers, key);
    if (!peers->used[hole])
        return;
    peers->used[hole] = false;
    peers->count--;
    for (uint32_t at = (hole + 1) % ROOM; peers->used[at]; at = (at + 1) % ROOM)
        if ((at - home(peers->keys[at]) + ROOM) % ROOM >= (at - hole + ROOM) % ROOM) {
            memcpy(peers->keys[hole], peers->keys[at], PEER_SIZE);
            peers->used[hole] = true;
            peers->used[at] = false;
            hole = at;
        }
}

int peers_note(void **peers, const unsigned char *peer) {
    if (!*peers) {
        void *memory = mmap(NULL, sizeof(struct peers), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return -1;
        *peers = memory;
    }
    (*peer == GONE ? take_away : add)(*peers, peer);
    return *peer != GONE;
}

bool peers_have(const void *peers, const unsigned char *peer) {
    const struct peers *set = peers;
    return set && set->used[place(set, peer)];
}

void peers_release(void *peers) {
    if (peers)
        munmap(peers, sizeof(struct peers));
}
