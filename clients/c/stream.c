/* stream.c: reading from and writing to a connected TLS socket. */

#include "internal.h"
#include "post_handshake.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static size_t total(const struct iovec *parts, int count) {
    size_t size = 0;
    for (; count > 0; count--)
        size += (parts++)->iov_len;
    return size;
}

static int refuse(int flags) {
    return fail(EOPNOTSUPP, "flags %#x: not on a TLS stream (docs/options.md has what each flag does)", flags);
}

/* The number was closed behind our back, and is another file's now. */
static bool is_stale(struct connection *connection, int fd) {
    int before = errno;
    if ((before != ENOTSOCK && before != EBADF) || is_ours(connection, fd))
        return false;
    connection_forget(fd);
    errno = before;
    return true;
}

/* --- reading --- */

static ssize_t kernel_read(int fd, const struct iovec *parts, int count, int flags) {
    if (count == 1)
        return NEXT(recv)(fd, parts->iov_base, parts->iov_len, flags);
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return NEXT(recvmsg)(fd, &message, flags);
}

static int cut(struct connection *connection) {
    fail(ECONNABORTED, "the connection was cut: its end came without TLS's close_notify");
    return failed(connection);
}

static bool has_gone(int number) {
    return number == ECONNRESET || number == EPIPE || number == ECONNABORTED || number == ETIMEDOUT ||
           number == EHOSTUNREACH || number == ENETUNREACH;
}

static void end_writing(struct connection *connection) {
    atomic_store(&connection->write_ended, true);
    atomic_store(&connection->budget, -1);
}

/* What a read says for an error of the kernel's, and what is remembered of it. */
static ssize_t cannot_read(struct connection *connection, int fd, const struct iovec *parts, int count) {
    int number = errno, alert;
    const char *text;
    if (is_stale(connection, fd))
        return NEXT(readv)(fd, parts, count);
    if (has_gone(number))
        end_writing(connection);
    if (!atomic_load(&connection->relayed) && is_unreadable(number, &alert, &text))
        return break_connection(connection, fd, number, alert, text);
    if (number == EKEYEXPIRED) {
        fail(number, "the peer has changed its key, and no ssad was there to follow");
        return failed(connection);
    }
    if (number == EAGAIN || number == EINTR)
        return -1;
    fail_plainly(number);
    return failed(connection);
}

static ssize_t relayed_end(struct connection *connection, int fd) {
    if (relay_check_end(connection, fd))
        return -1;
    atomic_store(&connection->read_ended, true);
    return 0;
}

/* A read gave nothing: 1 where a record that is no data is next, 0 to read again, -1 where the stream was cut. An empty
 * record before one that is no data reads so too. */
static int look_at_end(struct connection *connection, int fd) {
    unsigned char content[16];
    int type;
    ssize_t size = record_look(fd, content, sizeof content, &type);
    if (size < 0)
        return errno == EAGAIN ? 0 : 1;
    if (type != RECORD_DATA || size)
        return type != RECORD_DATA;
    if (tcp_state(fd) == TCP_CLOSE) /* a reset, as a rule */
        end_writing(connection);
    return cut(connection);
}

enum { ROUNDS = 64 }; /* records that one call serves on a socket that does not wait: others have their turn */

/* Wait for what comes behind a record that was served, where a plain read would not do it as it has to. */
static int wait_to_read_on(int fd, int flags, int rounds, enum served served) {
    bool waits = !(flags & MSG_DONTWAIT) && does_wait(fd);
    if (waits && served != MORE)
        return 0;
    if (!waits && rounds >= ROUNDS)
        return fail(EAGAIN, "records that are no data, and no end yet");
    if (served == MORE && wait_for(fd, POLLIN, waits ? timeout_of(fd, SO_RCVTIMEO) : 0) <= 0)
        return fail(EAGAIN, "the rest of a handshake message has not come yet");
    return 0;
}

static void came_short(struct connection *connection, int fd) {
    int before = errno;
    look_behind_untrusted(connection, fd);
    errno = before;
}

static int cannot_serve(struct connection *connection, int fd) {
    int alert, number = errno;
    const char *text;
    if (atomic_load(&connection->broken) || number == EAGAIN)
        return -1;
    if ((number == EBADMSG || number == EMSGSIZE) && is_unreadable(number, &alert, &text))
        return break_connection(connection, fd, number, alert, text);
    failed(connection);
    errno = number;
    return -1;
}

/* Serve what the read stumbled over, and read again. */
static ssize_t read_past_records(struct connection *connection, int fd, const struct iovec *parts, int count, int flags,
                                 ssize_t got) {
    enum served served = GO_ON;
    enum { MOST_PASSED = 4 };
    int passed = 0;
    for (int rounds = 1;; rounds++) {
        if (got < 0 && errno != EIO)
            return cannot_read(connection, fd, parts, count);
        int next = got ? 1 : look_at_end(connection, fd);
        if (next < 0)
            return -1;
        if (next)
            served = serve_control_untrusted(connection, fd, served == MORE);
        if (served == END)
            return 0;
        if (served == SERVE_FAILED)
            return cannot_serve(connection, fd);
        passed = served == PASSED ? passed + 1 : 0;
        if (passed > MOST_PASSED)
            return break_connection(connection, fd, EPROTO, UNEXPECTED_MESSAGE,
                                    "the peer broke the TLS protocol: alert after alert, and no end");
        if (wait_to_read_on(fd, flags, rounds, served))
            return -1;
        if (served == MORE) {
            got = -1, errno = EIO;
            continue;
        }
        got = kernel_read(fd, parts, count, flags);
        if (got > 0) {
            if (atomic_load(&connection->rekeyable) && (size_t)got < total(parts, count))
                came_short(connection, fd);
            return got;
        }
    }
}

/* MSG_WAITALL: read until the buffers are full. An end or a failure behind data is told by the next read. */
static ssize_t read_all(struct connection *connection, int fd, const struct iovec *parts, int count, int flags) {
    ssize_t all = 0;
    for (; count > 0; count--, parts++)
        for (size_t at = 0; at < parts->iov_len;) {
            struct iovec rest = {(char *)parts->iov_base + at, parts->iov_len - at};
            ssize_t got = stream_read(connection, fd, &rest, 1, flags & ~MSG_WAITALL);
            if (got <= 0)
                return all ? all : got;
            at += (size_t)got;
            all += got;
        }
    return all;
}

/* What comes behind a read of the kernel's that gave no data. */
ssize_t stream_read_on(struct connection *connection, int fd, const struct iovec *parts, int count, int flags,
                       ssize_t got) {
    if (!got && (atomic_load(&connection->read_ended) || !total(parts, count)))
        return 0;
    if (!got && !is_ours(connection, fd)) { /* the end of another file, which is on the number by now */
        connection_forget(fd);
        return 0;
    }
    if (atomic_load(&connection->relayed) && (!got || errno == ECONNRESET))
        return relayed_end(connection, fd);
    return read_past_records(connection, fd, parts, count, flags, got);
}

ssize_t stream_read(struct connection *connection, int fd, const struct iovec *parts, int count, int flags) {
    int phase = atomic_load_explicit(&connection->phase, memory_order_acquire);
    if (phase == PLAIN) {
        ssize_t plain = kernel_read(fd, parts, count, flags);
        return plain < 0 && is_stale(connection, fd) ? NEXT(readv)(fd, parts, count) : plain;
    }
    if (phase && check_live(connection, fd, flags))
        return -1;
    if (flags & FLAGS_NOT_RECEIVED)
        return refuse(flags & FLAGS_NOT_RECEIVED);
    if ((flags & (MSG_WAITALL | MSG_DONTWAIT | MSG_PEEK)) == MSG_WAITALL && does_wait(fd))
        return read_all(connection, fd, parts, count, flags);
    ssize_t got = kernel_read(fd, parts, count, flags);
    if (got <= 0)
        return stream_read_on(connection, fd, parts, count, flags, got);
    if (atomic_load_explicit(&connection->rekeyable, memory_order_relaxed) && !flags &&
        (size_t)got < total(parts, count))
        came_short(connection, fd);
    return got;
}

/* --- writing --- */

static ssize_t kernel_write(int fd, const struct iovec *parts, int count, int flags) {
    if (count == 1)
        return NEXT(send)(fd, parts->iov_base, parts->iov_len, flags);
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    return NEXT(sendmsg)(fd, &message, flags);
}

/* Remember that writing has ended: the kernel tells of it once, and then takes data that goes nowhere. */
static ssize_t cannot_write(struct connection *connection, int fd) {
    int number = errno, alert;
    const char *text;
    if (number == EPIPE || number == ECONNRESET) {
        end_writing(connection);
        if (atomic_load(&connection->relayed))
            return relay_write_failure(connection, fd);
    } else if (!atomic_load(&connection->relayed) && (number == EBADMSG || number == EMSGSIZE) &&
               is_unreadable(number, &alert, &text)) {
        return break_connection(connection, fd, number, alert, text); /* what came, and nobody has read yet */
    }
    if (number == EAGAIN || number == EINTR)
        return -1;
    fail_plainly(number);
    return failed(connection);
}

/* A look at what is due: nothing may be sent behind our own end, nor under a key that has served its time. */
static int look_at_budget(struct connection *connection, int fd, int flags) {
    int broken = atomic_load(&connection->broken);
    if (broken)
        return fail_again(connection, broken);
    if (atomic_load(&connection->write_ended))
        return end_writing_error(flags);
    if (atomic_load(&connection->relayed))
        return 0;
    int done = change_keys(connection, fd, !(flags & MSG_DONTWAIT) && does_wait(fd));
    return done && errno == EPIPE ? end_writing_error(flags) : done;
}

/* Count the budget down. A thread that does so at the same time may be missed: the look comes a little later then. */
static void spend(struct connection *connection, ssize_t sent) {
    int64_t budget = atomic_load_explicit(&connection->budget, memory_order_relaxed);
    if (budget >= 0 && budget < ENDLESS / 2)
        atomic_compare_exchange_strong_explicit(&connection->budget, &budget, budget - 1 - (sent >> 10),
                                                memory_order_relaxed, memory_order_relaxed);
}

/* What comes behind a write of the kernel's. */
ssize_t stream_written(struct connection *connection, int fd, const struct iovec *parts, int count, ssize_t sent) {
    if (sent >= 0)
        spend(connection, sent);
    else if (is_stale(connection, fd))
        return NEXT(writev)(fd, parts, count);
    else
        return cannot_write(connection, fd);
    return sent;
}

static ssize_t write_once(struct connection *connection, int fd, const struct iovec *parts, int count, int flags) {
    if (atomic_load_explicit(&connection->budget, memory_order_relaxed) < 0 && look_at_budget(connection, fd, flags))
        return is_stale(connection, fd) ? NEXT(writev)(fd, parts, count) : -1;
    return stream_written(connection, fd, parts, count, kernel_write(fd, parts, count, flags));
}

/* Send so much that the key may have to change meanwhile, part by part, as far as one call would come. */
static ssize_t write_parts(struct connection *connection, int fd, const struct iovec *parts, int count, int flags) {
    ssize_t all = 0;
    for (; count > 0; count--, parts++)
        for (size_t at = 0; at < parts->iov_len;) {
            size_t left = parts->iov_len - at, size = left < PART ? left : PART;
            struct iovec part = {(char *)parts->iov_base + at, size};
            ssize_t sent = write_once(connection, fd, &part, 1, flags);
            if (sent < 0)
                return all ? all : sent; /* what was sent is told first, and the next call meets this again */
            all += sent;
            at += (size_t)sent;
            if ((size_t)sent < size)
                return all;
        }
    return all;
}

ssize_t stream_write(struct connection *connection, int fd, const struct iovec *parts, int count, int flags) {
    int phase = atomic_load_explicit(&connection->phase, memory_order_acquire);
    if (phase == PLAIN) {
        ssize_t plain = kernel_write(fd, parts, count, flags);
        return plain < 0 && is_stale(connection, fd) ? NEXT(writev)(fd, parts, count) : plain;
    }
    if (phase && check_live(connection, fd, flags))
        return -1;
    if (flags & ~FLAGS_SENT)
        return refuse(flags & ~FLAGS_SENT);
    struct turn turn = turn_begin(connection, fd);
    bool much = atomic_load_explicit(&connection->rekeyable, memory_order_relaxed) && total(parts, count) > PART;
    ssize_t sent = (much ? write_parts : write_once)(connection, fd, parts, count, flags);
    turn_end(connection, fd, turn);
    return sent;
}

/* --- sendfile(2) --- */

/* Never more than the file has: while the kernel has sent less than it was asked for, it says to TCP that more is to
 * come, behind the file's last byte too before Linux 6.5 (fs/splice.c, SPLICE_F_MORE): the last bytes would wait for
 * 200 ms. */
static size_t due(int in, const off_t *offset, size_t count) {
    struct stat status;
    off_t at = offset ? *offset : lseek(in, 0, SEEK_CUR);
    if (fstat(in, &status) || !S_ISREG(status.st_mode) || at < 0)
        return count;
    size_t left = status.st_size > at ? (size_t)(status.st_size - at) : 0;
    return left && left < count ? left : count;
}

ssize_t stream_sendfile(struct connection *connection, int fd, int in, off_t *offset, size_t count) {
    int phase = atomic_load(&connection->phase);
    if (phase && phase != PLAIN && check_live(connection, fd, 0))
        return -1;
    if (phase == PLAIN || atomic_load(&connection->relayed))
        return NEXT(sendfile)(fd, in, offset, count);
    count = due(in, offset, count);
    ssize_t all = 0;
    struct turn turn = turn_begin(connection, fd);
    while ((size_t)all < count) {
        size_t left = count - (size_t)all, size = left < PART ? left : PART;
        ssize_t sent = -1;
        if (atomic_load(&connection->budget) >= 0 || !look_at_budget(connection, fd, 0))
            if ((sent = NEXT(sendfile)(fd, in, offset, size)) < 0)
                sent = cannot_write(connection, fd);
        if (sent <= 0) {
            all = all ? all : sent;
            break;
        }
        spend(connection, sent);
        all += sent;
        if ((size_t)sent < size)
            break;
    }
    turn_end(connection, fd, turn);
    return all;
}

/* --- splice(2) into a stream --- */

ssize_t stream_splice(struct connection *connection, int in, off_t *offset, int fd, size_t size, unsigned flags) {
    if (atomic_load(&connection->phase) && check_live(connection, fd, 0))
        return -1;
    struct turn turn = turn_begin(connection, fd);
    ssize_t moved = -1;
    if (atomic_load(&connection->budget) >= 0 || !look_at_budget(connection, fd, 0)) {
        moved = NEXT(splice)(in, offset, fd, NULL, size, flags);
        if (moved > 0)
            spend(connection, moved);
    }
    turn_end(connection, fd, turn);
    return moved;
}
