/* interpose.c: the functions of libc that libssa replaces. Each looks its descriptor up; what is none of ours goes on.
 *
 * Not seen from here are the calls that libc makes to itself (stdio's, but see fdopen in stdio.c), syscall(2), and
 * static programs.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* `return` the value of `otherwise` for a descriptor that is none of ours; else go on with `connection`. */
#define OURS(fd, otherwise)                                                                                            \
    struct connection *connection = connection_get(fd);                                                                \
    if (!connection)                                                                                                   \
        return otherwise;                                                                                              \
    if (connection == &hidden) {                                                                                       \
        connection_put(connection);                                                                                    \
        return fail_plainly(EBADF);                                                                                    \
    }

static ssize_t done(struct connection *connection, ssize_t result) {
    connection_put(connection);
    return result;
}

/* --- sockets
 * ------------------------------------------------------------------------------------------------------------ */

EXPORT int socket(int family, int type, int protocol) {
    if (protocol == IPPROTO_TLS)
        return tls_socket(family, type);
    int fd = NEXT(socket)(family, type, protocol);
    if (fd >= 0 && connection_look(fd))
        connection_forget(fd);
    return fd;
}

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t size) {
    OURS(fd, NEXT(connect)(fd, address, size))
    if (atomic_load(&connection->phase) == PLAIN)
        return (int)done(connection, NEXT(connect)(fd, address, size));
    return (int)done(connection, tls_connect(connection, fd, address, size));
}

EXPORT int listen(int fd, int backlog) {
    OURS(fd, NEXT(listen)(fd, backlog))
    return (int)done(connection, tls_listen(connection, fd, backlog));
}

static int not_ours(int fd) {
    if (fd >= 0 && connection_look(fd))
        connection_forget(fd);
    return fd;
}

EXPORT int accept(int fd, struct sockaddr *address, socklen_t *size) {
    OURS(fd, not_ours(NEXT(accept)(fd, address, size)))
    return (int)done(connection, tls_accept(connection, fd, address, size, 0));
}

EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    OURS(fd, not_ours(NEXT(accept4)(fd, address, size, flags)))
    return (int)done(connection, tls_accept(connection, fd, address, size, flags));
}

EXPORT int shutdown(int fd, int how) {
    OURS(fd, NEXT(shutdown)(fd, how))
    if (atomic_load(&connection->phase) == PLAIN)
        return (int)done(connection, NEXT(shutdown)(fd, how));
    return (int)done(connection, tls_shutdown(connection, fd, how));
}

/* --- options
 * -------------------------------------------------------------------------------------------------------------- */

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
        connection->many_sets = true;
    }
    return connection ? (int)done(connection, set_option(connection, fd, name, value, size)) : -1;
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    OURS(fd, level == IPPROTO_TLS ? set_first_option(fd, name, value, size)
                                  : NEXT(setsockopt)(fd, level, name, value, size))
    if (level == IPPROTO_TLS)
        return (int)done(connection, set_option(connection, fd, name, value, size));
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
    struct guard guard = guard_enter(&connection->lock);
    int failure = phase == CONNECTING || phase == SHAKING ? EINPROGRESS : connection->failure;
    connection->failure = 0;
    guard_leave(&guard);
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
    if (connection)
        connection_put(connection);
    return result;
}

/* --- reading
 * ---------------------------------------------------------------------------------------------------------------- */

static ssize_t read_message(struct connection *connection, int fd, struct msghdr *message, int flags) {
    if (connection->datagram && atomic_load(&connection->phase) != PLAIN)
        return done(connection, datagram_read(connection, fd, message, flags));
    if (atomic_load_explicit(&connection->phase, memory_order_relaxed) == PLAIN)
        return done(connection, NEXT(recvmsg)(fd, message, flags));
    message->msg_controllen = 0; /* what the kernel would put there are the records' types */
    message->msg_namelen = 0;
    message->msg_flags = 0;
    return done(connection, stream_read(connection, fd, message->msg_iov, (int)message->msg_iovlen, flags));
}

static ssize_t read_part(struct connection *connection, int fd, void *data, size_t size, int flags) {
    struct iovec part = {data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (connection->datagram)
        return read_message(connection, fd, &message, flags);
    return done(connection, stream_read(connection, fd, &part, 1, flags));
}

EXPORT ssize_t read(int fd, void *data, size_t size) {
    OURS(fd, NEXT(read)(fd, data, size))
    return read_part(connection, fd, data, size, 0);
}

EXPORT ssize_t recv(int fd, void *data, size_t size, int flags) {
    OURS(fd, NEXT(recv)(fd, data, size, flags))
    return read_part(connection, fd, data, size, flags);
}

EXPORT ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *room) {
    OURS(fd, NEXT(recvfrom)(fd, data, size, flags, address, room))
    struct iovec part = {data, size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_name = address, .msg_namelen = address && room ? *room : 0};
    ssize_t got = read_message(connection, fd, &message, flags);
    if (got >= 0 && room)
        *room = message.msg_namelen;
    return got;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    OURS(fd, NEXT(recvmsg)(fd, message, flags))
    return read_message(connection, fd, message, flags);
}

EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    OURS(fd, NEXT(recvmmsg)(fd, messages, count, flags, timeout))
    connection_put(connection);
    for (unsigned at = 0; at < count; at++) {
        int more = at && flags & MSG_WAITFORONE ? MSG_DONTWAIT : 0;
        ssize_t got = recvmsg(fd, &messages[at].msg_hdr, (flags & ~MSG_WAITFORONE) | more);
        if (got < 0)
            return at ? (int)at : -1;
        messages[at].msg_len = (unsigned)got;
        if (!got)
            return (int)at + 1;
    }
    return (int)count;
}

static ssize_t read_parts(struct connection *connection, int fd, const struct iovec *parts, int count) {
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)(count < 0 ? 0 : count)};
    return read_message(connection, fd, &message, 0);
}

EXPORT ssize_t readv(int fd, const struct iovec *parts, int count) {
    OURS(fd, NEXT(readv)(fd, parts, count))
    return read_parts(connection, fd, parts, count);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    OURS(fd, NEXT(preadv2)(fd, parts, count, offset, flags))
    if (offset != -1)
        return done(connection, fail_plainly(ESPIPE));
    return read_parts(connection, fd, parts, count);
}

/* What _FORTIFY_SOURCE makes of them: the room that the compiler knows of comes along. */
void __chk_fail(void) __attribute__((noreturn));
ssize_t __read_chk(int fd, void *data, size_t size, size_t room);
ssize_t __recv_chk(int fd, void *data, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *data, size_t size, size_t room, int flags, struct sockaddr *address,
                       socklen_t *length);

EXPORT ssize_t __read_chk(int fd, void *data, size_t size, size_t room) {
    if (size > room)
        __chk_fail();
    return read(fd, data, size);
}

EXPORT ssize_t __recv_chk(int fd, void *data, size_t size, size_t room, int flags) {
    if (size > room)
        __chk_fail();
    return recv(fd, data, size, flags);
}

EXPORT ssize_t __recvfrom_chk(int fd, void *data, size_t size, size_t room, int flags, struct sockaddr *address,
                              socklen_t *length) {
    if (size > room)
        __chk_fail();
    return recvfrom(fd, data, size, flags, address, length);
}

/* --- writing
 * ------------------------------------------------------------------------------------------------------------------ */

static ssize_t write_message(struct connection *connection, int fd, const struct msghdr *message, int flags) {
    if (connection->datagram && atomic_load(&connection->phase) != PLAIN)
        return done(connection, datagram_write(connection, fd, message, flags));
    if (atomic_load_explicit(&connection->phase, memory_order_relaxed) == PLAIN)
        return done(connection, NEXT(sendmsg)(fd, message, flags));
    if (message->msg_controllen)
        return done(connection, fail(EOPNOTSUPP, "there is no ancillary data on a TLS stream"));
    return done(connection, stream_write(connection, fd, message->msg_iov, (int)message->msg_iovlen, flags));
}

static ssize_t write_part(struct connection *connection, int fd, const void *data, size_t size, int flags) {
    struct iovec part = {(void *)data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (connection->datagram)
        return write_message(connection, fd, &message, flags);
    return done(connection, stream_write(connection, fd, &part, 1, flags));
}

EXPORT ssize_t write(int fd, const void *data, size_t size) {
    OURS(fd, NEXT(write)(fd, data, size))
    return write_part(connection, fd, data, size, 0);
}

EXPORT ssize_t send(int fd, const void *data, size_t size, int flags) {
    OURS(fd, NEXT(send)(fd, data, size, flags))
    return write_part(connection, fd, data, size, flags);
}

EXPORT ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                      socklen_t length) {
    OURS(fd, NEXT(sendto)(fd, data, size, flags, address, length))
    struct iovec part = {(void *)data, size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_name = (void *)address, .msg_namelen = address ? length : 0};
    return write_message(connection, fd, &message, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    OURS(fd, NEXT(sendmsg)(fd, message, flags))
    return write_message(connection, fd, message, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    OURS(fd, NEXT(sendmmsg)(fd, messages, count, flags))
    connection_put(connection);
    for (unsigned at = 0; at < count; at++) {
        ssize_t sent = sendmsg(fd, &messages[at].msg_hdr, flags);
        if (sent < 0)
            return at ? (int)at : -1;
        messages[at].msg_len = (unsigned)sent;
    }
    return (int)count;
}

static ssize_t write_parts(struct connection *connection, int fd, const struct iovec *parts, int count) {
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)(count < 0 ? 0 : count)};
    return write_message(connection, fd, &message, 0);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    OURS(fd, NEXT(writev)(fd, parts, count))
    return write_parts(connection, fd, parts, count);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    OURS(fd, NEXT(pwritev2)(fd, parts, count, offset, flags))
    if (offset != -1)
        return done(connection, fail_plainly(ESPIPE));
    return write_parts(connection, fd, parts, count);
}

EXPORT ssize_t sendfile(int fd, int in, off_t *offset, size_t count) {
    OURS(fd, NEXT(sendfile)(fd, in, offset, count))
    if (connection->datagram)
        return done(connection, fail_plainly(EINVAL));
    return done(connection, stream_sendfile(connection, fd, in, offset, count));
}

EXPORT ssize_t sendfile64(int fd, int in, off_t *offset, size_t count) {
    return sendfile(fd, in, offset, count);
}

/* --- numbers
 * ------------------------------------------------------------------------------------------------------------------ */

EXPORT int close(int fd) {
    if (!connection_look(fd))
        return NEXT(close)(fd);
    return tls_close(fd);
}

static int shared(struct connection *connection, int twin) {
    if (twin >= 0 && connection_share(connection, twin)) {
        int number = errno;
        close_quietly(twin);
        errno = number;
        twin = -1;
    }
    return (int)done(connection, twin);
}

EXPORT int dup(int fd) {
    OURS(fd, not_ours(NEXT(dup)(fd)))
    return shared(connection, NEXT(dup)(fd));
}

/* The number that is about to be another file's ends what it was; one of our own moves out of the way. */
static void make_way(int fd) {
    if (!connection_look(fd))
        return;
    if (connection_look(fd) == &hidden)
        move_hidden(fd);
    else if (is_own_process())
        tls_close(fd);
}

EXPORT int dup2(int fd, int to) {
    if (fd == to)
        return NEXT(dup2)(fd, to);
    OURS(fd, (make_way(to), NEXT(dup2)(fd, to)))
    make_way(to);
    return shared(connection, NEXT(dup2)(fd, to));
}

EXPORT int dup3(int fd, int to, int flags) {
    if (fd == to)
        return NEXT(dup3)(fd, to, flags);
    OURS(fd, (make_way(to), NEXT(dup3)(fd, to, flags)))
    make_way(to);
    return shared(connection, NEXT(dup3)(fd, to, flags));
}

static int control(int fd, int command, void *argument) {
    bool doubles = command == F_DUPFD || command == F_DUPFD_CLOEXEC;
    if (!doubles)
        return NEXT(fcntl)(fd, command, argument);
    OURS(fd, not_ours(NEXT(fcntl)(fd, command, argument)))
    return shared(connection, NEXT(fcntl)(fd, command, argument));
}

EXPORT int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return control(fd, command, argument);
}

EXPORT int fcntl64(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return control(fd, command, argument);
}
