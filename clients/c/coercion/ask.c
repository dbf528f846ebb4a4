/* ask.c: the handshake by ssad, on a socket that the program has connected, and what ssad says of it. */

#include "coercion.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- what ssad says --- */

static struct reply_copy *copy_of(const void *data, size_t size) {
    struct reply_copy *copy = malloc(sizeof *copy + size);
    if (copy) {
        copy->size = size;
        memcpy(copy->data, data, size);
    }
    return copy;
}

static void keep_info(struct told *told, struct connection *connection) {
    struct guard guard = guard_enter(&connection->lock);
    if (!told->info)
        told->info = copy_of(connection->info, connection->info_size);
    guard_leave(&guard);
}

static _Thread_local struct told *hearing __attribute__((tls_model("initial-exec"))); /* what may get a reply's chain */

static void keep_chain(const void *chain, size_t size) {
    if (hearing && !hearing->chain)
        hearing->chain = copy_of(chain, size);
}

__attribute__((constructor)) static void begin(void) {
    note_chain = keep_chain;
}

void told_drop(struct told *told) {
    free(told->info);
    free(told->chain);
    *told = (struct told){0};
}

const struct reply_copy *told_chain(struct told *told, int fd) {
    int before = errno;
    size_t size;
    struct exchange *exchange = told->chain ? NULL : exchange_open(LOCAL);
    if (!exchange)
        return told->chain;
    request_begin(&exchange->request, KIND_DESCRIBE);
    if (!exchange_ask(exchange, fd, NULL, 0)) {
        const void *chain = attribute(exchange->reply.data, exchange->reply.size, ATTRIBUTE_CHAIN, &size);
        told->chain = chain ? copy_of(chain, size) : NULL;
    }
    exchange_close(exchange);
    errno = before;
    return told->chain;
}

const void *told_bytes(const struct told *told, int type, size_t *size) {
    return told->info ? attribute(told->info->data, told->info->size, type, size) : NULL;
}

void told_text(const struct told *told, int type, char *text, size_t room) {
    size_t size = 0;
    const char *value = told_bytes(told, type, &size);
    copy_text(text, room, value ? value : "", value ? size : 0);
}

static const struct {
    const char *name;
    unsigned number;
} suites[] = {
#define X(number, name, version) {name, number},
    SUITE_ROWS
#undef X
};

unsigned told_suite(const struct told *told) {
    char name[64];
    told_text(told, ATTRIBUTE_CIPHER, name, sizeof name);
    for (size_t at = 0; at < sizeof suites / sizeof *suites; at++)
        if (!strcmp(suites[at].name, name))
            return suites[at].number;
    return 0;
}

unsigned told_version(const struct told *told) {
    char version[16];
    told_text(told, ATTRIBUTE_VERSION, version, sizeof version);
    return strcmp(version, "TLSv1.3") ? 0x0303 : 0x0304;
}

bool told_resumed(const struct told *told) {
    return told->info && attribute_number(told->info->data, told->info->size, ATTRIBUTE_RESUMED) == 1;
}

bool words_say(const char *text, const char *name) {
    const struct reason *reason = reason_named(name, strlen(name));
    return reason && !strncmp(text, reason->text, strlen(reason->text));
}

/* --- the handshake --- */

struct exchange *exchange_for(int fd) {
    return exchange_open(does_wait(fd) ? timeout_of(fd, SO_SNDTIMEO) : LOCAL);
}

static struct connection *wrong(struct connection *connection, int number, const char *why) {
    connection_put(connection);
    fail(number, "%s", why);
    return NULL;
}

/* A connection that may be given a handshake. NULL: errno and the words. */
static struct connection *connection_below(int fd) {
    struct connection *connection = connection_get(fd);
    if (connection == &hidden)
        return wrong(connection, EBADF, "the descriptor is none of the program's");
    if (connection && atomic_load(&connection->phase) == LIVE && !is_ours(connection, fd)) {
        connection_put(connection);
        connection_forget(fd); /* the program has closed it in a way that libssa does not see */
        connection = NULL;
    }
    if (connection && atomic_load(&connection->phase) != PLAIN)
        return wrong(connection, EISCONN, "the socket has a TLS connection already");
    if (!connection && (connection = connection_new(fd, PLAIN)))
        connection->family = get_number(fd, SOL_SOCKET, SO_DOMAIN, 0);
    return connection;
}

static enum shaken judge(struct connection *connection, struct told *told, int done) {
    if (!done)
        keep_info(told, connection);
    if (!done)
        return SHAKEN;
    /* it goes on by itself, also after a signal */
    return atomic_load(&connection->phase) == CONNECTING ? SHAKING_ON : SHAKEN_OFF;
}

enum shaken shake_by(struct exchange *exchange, int fd, struct own_files *files, struct told *told) {
    struct connection *connection = connection_below(fd);
    if (!connection) {
        int number = errno;
        exchange_close(exchange);
        drop_files(files);
        errno = number;
        return SHAKEN_OFF;
    }
    carry_epolls(connection, fd);
    connection->half = true;
    hearing = told;
    int done = tls_shake(connection, fd, exchange, files->descriptors, files->count), number = errno;
    hearing = NULL;
    drop_files(files);
    enum shaken shaken = judge(connection, told, done);
    connection_put(connection);
    errno = number;
    return shaken;
}

static void tell_failure(struct connection *connection) {
    struct guard guard = guard_enter(&connection->lock);
    fail(connection->failure ? connection->failure : EPROTO, "%s", connection->words);
    guard_leave(&guard);
}

enum shaken shake_on(int fd, struct told *told) {
    struct connection *connection = connection_get(fd);
    if (!connection || connection == &hidden) {
        if (connection)
            connection_put(connection);
        fail(EBADF, "the socket was closed in the middle of the handshake");
        return SHAKEN_OFF;
    }
    hearing = told;
    int done = check_live(connection, fd, 0);
    hearing = NULL;
    if (done && atomic_load(&connection->phase) == FAILED)
        tell_failure(connection);
    int number = errno;
    enum shaken shaken = judge(connection, told, done);
    connection_put(connection);
    errno = number;
    return shaken;
}

void end_at_once(int fd) {
    struct connection *connection = connection_get(fd);
    if (connection && connection != &hidden)
        tls_shutdown(connection, fd, SHUT_RDWR);
    if (connection)
        connection_put(connection);
}

/* --- what cannot be mapped to ssa --- */

/* ssad says whether it may be left to the program's own library (the policy's `coercion`), logs it, and counts it.
 * Where nobody can be asked, it is refused. */
bool may_leave(const char *what) {
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return false;
    request_begin(&exchange->request, KIND_FALLBACK);
    request_text(&exchange->request, ATTRIBUTE_DETAIL, what);
    int done = exchange_ask(exchange, -1, NULL, 0);
    exchange_close(exchange);
    return !done;
}
