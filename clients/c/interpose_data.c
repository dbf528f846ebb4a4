/* interpose_data.c: the functions that read and write. */

#include "interpose.h"

#include <fcntl.h>
#include <string.h>

/* --- reading --- */

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

/* What is usual: the stream is connected, its keys do not change, and there is data. */
static inline ssize_t read_quickly(struct connection *connection, int fd, void *data, size_t size, int flags) {
    if (atomic_load_explicit(&connection->phase, memory_order_acquire) == LIVE && !connection->datagram && !flags &&
        !atomic_load_explicit(&connection->rekeyable, memory_order_relaxed)) {
        ssize_t got = NEXT(recv)(fd, data, size, 0);
        if (got > 0)
            return done(connection, got);
        return done(connection, stream_read_on(connection, fd, &(struct iovec){data, size}, 1, 0, got));
    }
    return read_part(connection, fd, data, size, flags);
}

EXPORT ssize_t read(int fd, void *data, size_t size) {
    OURS(fd, NEXT(read)(fd, data, size))
    return read_quickly(connection, fd, data, size, 0);
}

EXPORT ssize_t recv(int fd, void *data, size_t size, int flags) {
    OURS(fd, NEXT(recv)(fd, data, size, flags))
    return read_quickly(connection, fd, data, size, flags);
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
    if (atomic_load_explicit(&connection->phase, memory_order_relaxed) == PLAIN)
        return done(connection, NEXT(readv)(fd, parts, count));
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

/* --- writing --- */

static ssize_t write_message(struct connection *connection, int fd, const struct msghdr *message, int flags) {
    if (connection->datagram && atomic_load(&connection->phase) != PLAIN)
        return done(connection, datagram_write(connection, fd, message, flags));
    if (atomic_load_explicit(&connection->phase, memory_order_relaxed) == PLAIN) {
        if (connection->transparent && flags & MSG_FASTOPEN) /* it connects: programs do so by connect(2) then */
            return done(connection, fail(EOPNOTSUPP, "TCP Fast Open is not for TLS"));
        return done(connection, NEXT(sendmsg)(fd, message, flags));
    }
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

/* What is usual: the stream is connected, its keys do not change, nothing is due, and there is room. */
static inline ssize_t write_quickly(struct connection *connection, int fd, const void *data, size_t size, int flags) {
    if (atomic_load_explicit(&connection->phase, memory_order_acquire) == LIVE && !connection->datagram &&
        !(flags & ~FLAGS_SENT) && !atomic_load_explicit(&connection->rekeyable, memory_order_relaxed) &&
        atomic_load_explicit(&connection->budget, memory_order_relaxed) >= 0) {
        ssize_t sent = NEXT(send)(fd, data, size, flags);
        return done(connection, stream_written(connection, fd, &(struct iovec){(void *)data, size}, 1, sent));
    }
    return write_part(connection, fd, data, size, flags);
}

EXPORT ssize_t write(int fd, const void *data, size_t size) {
    OURS(fd, NEXT(write)(fd, data, size))
    return write_quickly(connection, fd, data, size, 0);
}

EXPORT ssize_t send(int fd, const void *data, size_t size, int flags) {
    OURS(fd, NEXT(send)(fd, data, size, flags))
    return write_quickly(connection, fd, data, size, flags);
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
    if (atomic_load_explicit(&connection->phase, memory_order_relaxed) == PLAIN)
        return done(connection, NEXT(writev)(fd, parts, count));
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

/* --- splice(2) --- */

/* Out of one it is a read, to which a record that is no data is EINVAL: a look passes such records over before. */
static ssize_t splice_out(struct connection *connection, int fd, int out, off_t *out_offset, size_t size,
                          unsigned flags) {
    char byte;
    struct iovec part = {&byte, 1};
    ssize_t got = stream_read(connection, fd, &part, 1, MSG_PEEK);
    return got <= 0 ? got : NEXT(splice)(fd, NULL, out, out_offset, size, flags);
}

static bool has_stream(const struct connection *connection) {
    return connection && !connection->datagram && atomic_load(&connection->phase) != PLAIN;
}

EXPORT ssize_t splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t size, unsigned flags) {
    struct connection *from = connection_get(in), *to = connection_get(out);
    ssize_t moved = -1;
    if (from == &hidden || to == &hidden)
        fail_plainly(EBADF);
    else if (has_stream(to))
        moved = stream_splice(to, in, in_offset, out, size, flags);
    else if (has_stream(from))
        moved = splice_out(from, in, out, out_offset, size, flags);
    else
        moved = NEXT(splice)(in, in_offset, out, out_offset, size, flags);
    if (from)
        connection_put(from);
    if (to)
        connection_put(to);
    return moved;
}
