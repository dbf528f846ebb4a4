/* below.c: the socket below a session.
 *
 * Which descriptor a program's own function for reading has is found by calling it. For a client nothing is read: the
 * call is told that one byte came, as curl remembers an EAGAIN. For a server the bytes are wanted, and are read.
 */

#include "coercion.h"

static _Thread_local struct { int how, fd; } probe __attribute__((tls_model("initial-exec")));

static ssize_t (*next_recv)(int, void *, size_t, int);
static ssize_t (*next_read)(int, void *, size_t);

/* True: the call was a question, and is answered. */
static bool answers(int fd, void *data, size_t size) {
    if (!probe.how || !size)
        return false;
    bool pretends = probe.how == PRETEND;
    probe.fd = fd;
    probe.how = 0;
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

void probe_begin(int how) {
    listen_in();
    probe.fd = NO_SOCKET;
    probe.how = how;
}

int probe_end(void) {
    probe.how = 0;
    return probe.fd;
}

static bool is_tcp(int fd) {
    return get_number(fd, SOL_SOCKET, SO_PROTOCOL, -1) == 6 && get_number(fd, SOL_SOCKET, SO_TYPE, -1) == SOCK_STREAM;
}

/* The end of a stream that ssad relays is a TLS socket's, and not a TCP socket: it is told apart later. */
int checked_socket(int fd) {
    return fd >= 0 && (is_tcp(fd) || connection_look(fd)) ? fd : NO_SOCKET;
}

bool has_tls(int fd) {
    struct connection *connection = connection_get(fd);
    bool has =
        connection && connection != &hidden && atomic_load(&connection->phase) == LIVE && is_ours(connection, fd);
    if (connection)
        connection_put(connection);
    return has;
}
