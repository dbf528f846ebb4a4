/* interpose.c: sockets, their options, and epoll_ctl. */

#include "interpose.h"

#include <netinet/tcp.h>
#include <string.h>

/* --- sockets --- */

EXPORT int socket(int family, int type, int protocol) {
    if (protocol == IPPROTO_TLS)
        return tls_socket(family, type);
    int fd = not_ours(NEXT(socket)(family, type, protocol));
    return is_transparent ? transparent_socket(fd, protocol) : fd;
}

EXPORT int socketpair(int family, int type, int protocol, int ends[2]) {
    int result = NEXT(socketpair)(family, type, protocol, ends);
    if (!result)
        not_ours(ends[0]), not_ours(ends[1]);
    return result;
}

/* The TCP socket of a program that knows no TLS may come from elsewhere: of its parent, say. */
static void notice(int fd) {
    struct connection *connection = connection_look(fd) ? NULL : transparent_adopt(fd);
    if (connection)
        connection_put(connection);
}

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t size) {
    if (is_transparent)
        notice(fd);
    OURS(fd, NEXT(connect)(fd, address, size))
    if (connection->transparent)
        return (int)done(connection, transparent_connect(connection, fd, address, size));
    if (atomic_load(&connection->phase) == PLAIN)
        return (int)done(connection, NEXT(connect)(fd, address, size));
    return (int)done(connection, tls_connect(connection, fd, address, size));
}

EXPORT int listen(int fd, int backlog) {
    if (is_transparent)
        notice(fd);
    OURS(fd, NEXT(listen)(fd, backlog))
    if (connection->transparent)
        return (int)done(connection, transparent_listen(connection, fd, backlog));
    return (int)done(connection, tls_listen(connection, fd, backlog));
}

EXPORT int accept(int fd, struct sockaddr *address, socklen_t *size) {
    if (is_transparent && !connection_look(fd) && !transparent_take_over(fd))
        return -1;
    OURS(fd, not_ours(NEXT(accept)(fd, address, size)))
    if (atomic_load(&connection->phase) == PLAIN)
        return (int)done(connection, not_ours(NEXT(accept)(fd, address, size)));
    return (int)done(connection, tls_accept(connection, fd, address, size, 0));
}

EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    if (is_transparent && !connection_look(fd) && !transparent_take_over(fd))
        return -1;
    OURS(fd, not_ours(NEXT(accept4)(fd, address, size, flags)))
    if (atomic_load(&connection->phase) == PLAIN)
        return (int)done(connection, not_ours(NEXT(accept4)(fd, address, size, flags)));
    return (int)done(connection, tls_accept(connection, fd, address, size, flags));
}

EXPORT int shutdown(int fd, int how) {
    OURS(fd, NEXT(shutdown)(fd, how))
    if (atomic_load(&connection->phase) == PLAIN)
        return (int)done(connection, NEXT(shutdown)(fd, how));
    return (int)done(connection, tls_shutdown(connection, fd, how));
}

/* --- options --- */

/* What is for the calls on the descriptor itself, and not for the connection. */
static bool is_of_calls(int level, int name) {
    return level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == SO_RCVLOWAT);
}

static int option_descriptor(struct connection *connection, int fd, int level, int name) {
    int beside = atomic_load(&connection->beside);
    return beside < 0 || (is_of_calls(level, name) && atomic_load(&connection->phase) == LIVE) ? fd : beside;
}

/* The first option of TLS on a plain TCP socket: it may be told more, and TLS_UPGRADE makes it a TLS socket. */
static int set_first_option(int fd, int name, const void *value, socklen_t size) {
    if (get_number(fd, SOL_SOCKET, SO_PROTOCOL, -1) != 6 /* TCP */)
        return NEXT(setsockopt)(fd, IPPROTO_TLS, name, value, size);
    struct connection *connection = adopt(fd);
    if (!connection && (connection = connection_new(fd, PLAIN))) {
        connection->family = get_number(fd, SOL_SOCKET, SO_DOMAIN, 0);
        note_cookie(connection, fd);
        connection->find_sets = true;
    }
    return connection ? (int)done(connection, set_option(connection, fd, name, value, size)) : -1;
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    OURS(fd, level == IPPROTO_TLS ? set_first_option(fd, name, value, size)
                                  : NEXT(setsockopt)(fd, level, name, value, size))
    if (level == IPPROTO_TLS)
        return (int)done(connection, set_option(connection, fd, name, value, size));
    if (connection->transparent && level == IPPROTO_TCP && name == TCP_FASTOPEN_CONNECT)
        return (int)done(connection, fail(EOPNOTSUPP, "TCP Fast Open is not for TLS"));
    if (level == SOL_SOCKET && name == SO_PEEK_OFF && atomic_load(&connection->phase) != PLAIN)
        return (int)done(connection, fail(EOPNOTSUPP, "SO_PEEK_OFF: not on a TLS stream"));
    finish(connection, fd);
    return (int)done(connection,
                     NEXT(setsockopt)(option_descriptor(connection, fd, level, name), level, name, value, size));
}

/* SO_ERROR: how a connect(2) that was under way went, told once. */
static int give_error(struct connection *connection, int fd, int *value, socklen_t *size) {
    if (*size < sizeof *value)
        return NEXT(getsockopt)(fd, SOL_SOCKET, SO_ERROR, value, size);
    int phase = atomic_load(&connection->phase);
    int failure = phase == CONNECTING || phase == SHAKING ? EINPROGRESS : atomic_exchange(&connection->failure, 0);
    int beside = atomic_load(&connection->beside);
    if (!failure)
        return NEXT(getsockopt)(beside >= 0 ? beside : fd, SOL_SOCKET, SO_ERROR, value, size);
    *value = failure;
    *size = sizeof *value;
    return 0;
}

static int read_first_option(int fd, int name, void *value, socklen_t *size) {
    struct connection *connection = get_number(fd, SOL_SOCKET, SO_TYPE, 0) ? adopt(fd) : NULL;
    return connection ? (int)done(connection, get_option(connection, fd, name, value, size))
                      : NEXT(getsockopt)(fd, IPPROTO_TLS, name, value, size);
}

EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    OURS(fd, level == IPPROTO_TLS ? read_first_option(fd, name, value, size)
                                  : NEXT(getsockopt)(fd, level, name, value, size))
    if (level == IPPROTO_TLS)
        return (int)done(connection, get_option(connection, fd, name, value, size));
    finish(connection, fd);
    if (level == SOL_SOCKET && name == SO_ERROR && value && size)
        return (int)done(connection, give_error(connection, fd, value, size));
    return (int)done(connection,
                     NEXT(getsockopt)(option_descriptor(connection, fd, level, name), level, name, value, size));
}

EXPORT int getpeername(int fd, struct sockaddr *address, socklen_t *size) {
    OURS(fd, NEXT(getpeername)(fd, address, size))
    finish(connection, fd);
    int beside = atomic_load(&connection->beside);
    if (connection->datagram && beside < 0 && atomic_load(&connection->phase) == LIVE)
        return (int)done(connection, datagram_address(connection, ATTRIBUTE_PEER, address, size));
    return (int)done(connection, NEXT(getpeername)(beside >= 0 ? beside : fd, address, size));
}

EXPORT int getsockname(int fd, struct sockaddr *address, socklen_t *size) {
    OURS(fd, NEXT(getsockname)(fd, address, size))
    int beside = atomic_load(&connection->beside);
    if (connection->datagram && beside < 0 && atomic_load(&connection->phase) == LIVE)
        return (int)done(connection, datagram_address(connection, ATTRIBUTE_LOCAL, address, size));
    return (int)done(connection, NEXT(getsockname)(beside >= 0 ? beside : fd, address, size));
}

EXPORT int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    int result = NEXT(epoll_ctl)(epoll, operation, fd, event);
    struct connection *connection = result ? NULL : connection_get(fd);
    if (connection && connection != &hidden)
        note_epoll(connection, epoll, operation, event ? event->events : 0, event ? event->data.u64 : 0);
    else if (!connection && !result && note_plain_epoll)
        note_plain_epoll(epoll, operation, fd, event ? event->events : 0, event ? event->data.u64 : 0);
    if (connection)
        connection_put(connection);
    return result;
}
