/* interpose_numbers.c: the functions that double and close descriptors, and make streams of them. */

#include "interpose.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

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
static void make_way(int from, int fd) {
    if (!connection_look(fd) || !is_own_process() || syscall(SYS_fcntl, from, F_GETFD) < 0)
        return;
    if (connection_look(fd) == &hidden)
        move_hidden(fd);
    else
        tls_close(fd);
}

EXPORT int dup2(int fd, int to) {
    if (fd == to)
        return NEXT(dup2)(fd, to);
    OURS(fd, (make_way(fd, to), NEXT(dup2)(fd, to)))
    make_way(fd, to);
    return shared(connection, NEXT(dup2)(fd, to));
}

EXPORT int dup3(int fd, int to, int flags) {
    if (fd == to)
        return NEXT(dup3)(fd, to, flags);
    OURS(fd, (make_way(fd, to), NEXT(dup3)(fd, to, flags)))
    make_way(fd, to);
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

/* --- many at once --- */

static int end_one(int fd, void *argument) {
    const unsigned *range = argument;
    if ((unsigned)fd >= range[0] && (unsigned)fd <= range[1] && connection_look(fd) != &hidden)
        tls_close(fd);
    return 0;
}

/* Close a range but for the descriptors of our own, which the program does not know of. */
static int close_around(unsigned first, unsigned last, int flags) {
    unsigned at = first;
    for (int number; (number = next_hidden(at)) >= 0 && (unsigned)number <= last; at = (unsigned)number + 1)
        if ((unsigned)number > at && NEXT(close_range)(at, (unsigned)number - 1, flags))
            return -1;
    return at <= last ? NEXT(close_range)(at, last, flags) : 0;
}

/* The TLS sockets in the range end in order first, and with them go the descriptors that belong to them. */
EXPORT int close_range(unsigned first, unsigned last, int flags) {
    unsigned range[2] = {first, last};
    if (first > last || !is_own_process() || flags & CLOSE_RANGE_CLOEXEC)
        return NEXT(close_range)(first, last, flags);
    each_tls_number(end_one, range);
    return close_around(first, last, flags);
}

EXPORT void closefrom(int lowest) {
    if (close_range(lowest > 0 ? (unsigned)lowest : 0, ~0U, 0))
        NEXT(closefrom)(lowest);
}

/* --- stdio: libc's own reads and writes do not come by here, so a stream of a TLS socket has functions for them --- */

static ssize_t cookie_read(void *cookie, char *data, size_t size) {
    return read((int)(intptr_t)cookie, data, size);
}

static ssize_t cookie_write(void *cookie, const char *data, size_t size) {
    ssize_t done = write((int)(intptr_t)cookie, data, size);
    return done < 0 ? 0 : done; /* fopencookie(3): 0 is an error */
}

static int cookie_close(void *cookie) {
    return close((int)(intptr_t)cookie);
}

/* A socket of a program that knows no TLS, and which is in plain text for good: its number is forgotten, as libc closes
 * the stream unseen. */
static bool stays_plain(int fd) {
    struct connection *connection = connection_look(fd);
    bool stays = connection->transparent && atomic_load(&connection->phase) == PLAIN && tcp_state(fd) != TCP_CLOSE;
    if (stays)
        connection_forget(fd);
    return stays;
}

EXPORT FILE *fdopen(int fd, const char *mode) {
    cookie_io_functions_t functions = {.read = cookie_read, .write = cookie_write, .close = cookie_close};
    if (!connection_look(fd) || stays_plain(fd))
        return NEXT(fdopen)(fd, mode);
    FILE *stream = fopencookie((void *)(intptr_t)fd, mode, functions);
    if (stream)
        stream->_fileno = fd; /* for fileno(3) */
    return stream;
}
