/* below.c: the socket below an SSL.
 *
 * A program may have a kind of BIO of its own (curl has), which does not tell its descriptor. Such a BIO is asked to
 * read, and whichever descriptor it then calls recv(2) or read(2) on is the one. For a client nothing is read: the call
 * is told that one byte came, as curl remembers an EAGAIN. For a server the bytes are wanted, and are read.
 */

#include "coerced.h"

#include <errno.h>
#include <string.h>

enum { NOT, PRETEND, NOTE };
static _Thread_local struct { int how, fd; } probe __attribute__((tls_model("initial-exec")));

static ssize_t (*next_recv)(int, void *, size_t, int);
static ssize_t (*next_read)(int, void *, size_t);

/* True: the call was a question, and is answered. */
static bool answers(int fd, void *data, size_t size) {
    if (probe.how == NOT || !size)
        return false;
    bool pretends = probe.how == PRETEND;
    probe.fd = fd;
    probe.how = NOT;
    if (pretends)
        *(char *)data = 0;
    return pretends;
}

static ssize_t probed_recv(int fd, void *data, size_t size, int flags) {
    return answers(fd, data, size) ? 1 : next_recv(fd, data, size, flags);
}

static ssize_t probed_read(int fd, void *data, size_t size) {
    return answers(fd, data, size) ? 1 : next_read(fd, data, size);
}

/* From now on, what libssa takes for libc's functions looks whether there is a question. Only programs that need it
 * have this. */
static void listen_in(void) {
    struct guard guard = guard_enter(&coerced_locks[OF_PROBES]);
    if (!next_recv) {
        next_recv = NEXT(recv);
        next_read = NEXT(read);
        next_functions.recv = probed_recv;
        next_functions.read = probed_read;
    }
    guard_leave(&guard);
}

static int asked(BIO *bio, int how, void *data, int size, int *got) {
    listen_in();
    probe.fd = NO_SOCKET;
    probe.how = how;
    *got = REAL(BIO_read)(bio, data, size);
    probe.how = NOT;
    return probe.fd;
}

static bool is_tcp(int fd) {
    return get_number(fd, SOL_SOCKET, SO_PROTOCOL, -1) == 6 && get_number(fd, SOL_SOCKET, SO_TYPE, -1) == SOCK_STREAM;
}

/* True where the SSL writes to another descriptor than it reads from. */
static bool is_divided(SSL *ssl) {
    return REAL(SSL_get_rfd)(ssl) >= 0 && REAL(SSL_get_rfd)(ssl) != REAL(SSL_get_wfd)(ssl);
}

/* The end of a stream that ssad relays is a TLS socket's, and not a TCP socket: it is told apart later. */
static int checked(int fd) {
    return fd >= 0 && (is_tcp(fd) || connection_look(fd)) ? fd : NO_SOCKET;
}

/* OpenSSL's own BIOs without a descriptor. curl's has the type of one of them, so their names count. */
static bool is_memory(BIO *bio) {
    static const char *const names[] = {"memory buffer", "secure memory buffer", "BIO pair"};
    const char *name = REAL(BIO_method_name)(bio);
    for (size_t at = 0; at < sizeof names / sizeof *names; at++)
        if (!strcmp(name, names[at]))
            return true;
    return false;
}

int socket_below(SSL *ssl, bool *own_kind) {
    BIO *bio = REAL(SSL_get_rbio)(ssl);
    int fd = REAL(SSL_get_rfd)(ssl), got;
    char byte;
    *own_kind = fd < 0;
    if (fd < 0 && bio && !is_memory(bio))
        fd = asked(bio, PRETEND, &byte, 1, &got);
    return is_divided(ssl) ? NO_SOCKET : checked(fd);
}

int read_below(SSL *ssl, void *data, int size, int *fd) {
    BIO *bio = REAL(SSL_get_rbio)(ssl);
    int got = -1, found = REAL(SSL_get_rfd)(ssl);
    if (found >= 0 && (is_divided(ssl) || checked(found) == NO_SOCKET))
        found = NO_SOCKET; /* nothing was read: OpenSSL could go on with it */
    else if (found >= 0)
        got = REAL(BIO_read)(bio, data, size);
    else if (bio && !is_memory(bio))
        found = asked(bio, NOTE, data, size, &got);
    *fd = checked(found);
    return got;
}

bool has_tls(int fd) {
    struct connection *connection = connection_get(fd);
    bool has =
        connection && connection != &hidden && atomic_load(&connection->phase) == LIVE && is_ours(connection, fd);
    if (connection)
        connection_put(connection);
    return has;
}

static struct connection *wrong(struct connection *connection, int number, const char *why) {
    connection_put(connection);
    fail(number, "%s", why);
    return NULL;
}

struct connection *connection_below(int fd) {
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
