/* sockets.c: small questions to the kernel, as system calls: none of them comes back to what this library replaces. */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int get_number(int fd, int level, int name, int fallback) {
    int value = fallback;
    socklen_t size = sizeof value;
    return syscall(SYS_getsockopt, fd, level, name, &value, &size) ? fallback : value;
}

uint64_t cookie_of(int fd) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    return syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) ? 0 : cookie;
}

bool is_ours(struct connection *connection, int fd) {
    int before = errno;
    bool is = connection->cookie && cookie_of(fd) == connection->cookie;
    errno = before;
    return is;
}

bool does_wait(int fd) {
    return !(syscall(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK);
}

void set_waiting(int fd, bool waits) {
    long flags = syscall(SYS_fcntl, fd, F_GETFL), wanted = waits ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
    if (flags != wanted)
        syscall(SYS_fcntl, fd, F_SETFL, wanted);
}

bool will_close_on_exec(int fd) {
    return syscall(SYS_fcntl, fd, F_GETFD) & FD_CLOEXEC;
}

int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000) + time.tv_nsec / 1000000;
}

int wait_for(int fd, int events, int milliseconds) {
    int64_t end = now() + milliseconds;
    for (;;) {
        struct pollfd poll = {.fd = fd, .events = (short)events};
        struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
        long found = syscall(SYS_ppoll, &poll, 1, milliseconds == FOREVER ? NULL : &left, NULL, 0);
        if (found >= 0 || errno != EINTR)
            return found > 0 ? poll.revents : (int)found;
        if (milliseconds != FOREVER)
            milliseconds = end > now() ? (int)(end - now()) : 0;
    }
}

int timeout_of(int fd, int name) {
    struct timeval interval = {0, 0};
    socklen_t size = sizeof interval;
    syscall(SYS_getsockopt, fd, SOL_SOCKET, name, &interval, &size);
    int64_t milliseconds = interval.tv_sec * INT64_C(1000) + (interval.tv_usec + 999) / 1000;
    return milliseconds <= 0 ? FOREVER : milliseconds > INT32_MAX ? INT32_MAX : (int)milliseconds;
}

void close_quietly(int fd) {
    int before = errno;
    syscall(SYS_close, fd);
    errno = before;
}
