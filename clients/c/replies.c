/* replies.c: what a connection keeps of the reply to its handshake. */

#include "internal.h"

#include <string.h>

void (*note_chain)(const void *chain, size_t size);

enum { ATTRIBUTE_HEADER = 8 };

/* Copy the attributes but the peer's certificates, which are long. The size. */
static size_t copy_info(const struct reply *reply, unsigned char *info) {
    size_t length = 0, chain_size = 0;
    const unsigned char *chain = attribute(reply->data, reply->size, ATTRIBUTE_CHAIN, &length);
    size_t before = chain ? (size_t)(chain - ATTRIBUTE_HEADER - reply->data) : reply->size;
    chain_size = chain ? ATTRIBUTE_HEADER + length : 0;
    if (reply->size - chain_size > INFO_ROOM)
        return 0;
    memcpy(info, reply->data, before);
    if (chain)
        memcpy(info + before, chain + length, reply->size - before - chain_size);
    if (chain && note_chain)
        note_chain(chain, length);
    return reply->size - chain_size;
}

/* Keep what the reply says. A client's chain is asked for when it is wanted (`Describe`), unless it has come. */
void note_info(struct connection *connection, const struct reply *reply) {
    size_t length;
    struct guard guard = guard_enter(&connection->lock);
    connection->info_size = copy_info(reply, connection->info);
    atomic_store(&connection->server, attribute(reply->data, reply->size, ATTRIBUTE_REMOTE, &length) != NULL);
    uint32_t largest = attribute_number(reply->data, reply->size, ATTRIBUTE_LARGEST);
    if (largest)
        connection->largest = largest;
    guard_leave(&guard);
}
