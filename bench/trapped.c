/* trapped: what a supervisor's filter costs a program. For bench/seccomp.py: "TRAPPED OTHER" in nanoseconds a call, a
 * line a round. A call is trapped where there is a filter and a TLS socket: without one, both are calls of a plain
 * socket. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 1000, CALLS = 20, OTHERS = 200 };

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* An option of TCP's: the supervisor looks at the socket, and lets the call go on. */
static int64_t options(int fd) {
    int64_t begin = now();
    for (int at = 0; at < CALLS; at++) {
        int value;
        socklen_t size = sizeof value;
        if (getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size))
            exit(1);
    }
    return (now() - begin) / CALLS;
}

/* close(2) of a number that is none: the filter looks at the number. */
static int64_t closes(void) {
    int64_t begin = now();
    for (int at = 0; at < OTHERS; at++)
        close(-1);
    return (now() - begin) / OTHERS;
}

int main(int count, char **arguments) {
    int fd = socket(AF_INET, SOCK_STREAM, count > 1 && !strcmp(arguments[1], "plain") ? 0 : 205);
    if (fd < 0) {
        perror("socket");
        return 1;
    }
    for (int round = 0; round < ROUNDS; round++)
        printf("%lld %lld\n", (long long)options(fd), (long long)closes());
    return 0;
}
