/* cost: what libssa adds to calls on a live TLS socket, and to a process that makes no TLS; how long many processes
 * take. For bench/native.py and bench/crowds.py:
 *
 *     cost calls PORT           "SEND PLAIN_SEND RECV PLAIN_RECV" in nanoseconds a call, a line a round
 *     cost idle PROGRAM [LIB]   microseconds of processor time of a process that runs PROGRAM, without and with LIB
 * preloaded, a line a round
 *     cost crowd N PROGRAM ...  milliseconds until N processes that began at once have ended; 1 if one has failed
 *
 * The plain calls are system calls on the same descriptor, which libssa does not see.
 */

#include "ssa.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 120, CALLS = 200, LENGTH = 256, STARTS = 100 };

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int64_t sends(int fd, int plain) {
    char data[LENGTH] = {0};
    int64_t begin = now();
    for (int at = 0; at < CALLS; at++)
        if ((plain ? syscall(SYS_sendto, fd, data, sizeof data, 0, NULL, 0) : send(fd, data, sizeof data, 0)) < 0)
            exit(1);
    return (now() - begin) / CALLS;
}

/* Reads that come full: what is measured is the call, and not a wait. */
static int64_t receives(int fd, int plain) {
    char data[LENGTH];
    int64_t begin = now();
    for (int at = 0; at < CALLS; at++)
        if ((plain ? syscall(SYS_recvfrom, fd, data, sizeof data, 0, NULL, NULL) : recv(fd, data, sizeof data, 0)) < 1)
            exit(1);
    return (now() - begin) / CALLS;
}

static int calls(const char *port) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(port))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server)) {
        fprintf(stderr, "cost: %s\n", ssa_error());
        return 1;
    }
    for (int round = 0; round < ROUNDS; round++) {
        usleep(3000); /* so that what is read has come, and what is sent has room */
        long long ours = sends(fd, 0);
        usleep(3000);
        long long plain = sends(fd, 1);
        usleep(3000);
        long long read_ours = receives(fd, 0);
        usleep(3000);
        printf("%lld %lld %lld %lld\n", ours, plain, read_ours, (long long)receives(fd, 1));
    }
    return close(fd);
}

static int64_t start(char **arguments, char **environment) {
    pid_t child;
    int status;
    struct rusage used;
    if (posix_spawn(&child, arguments[0], NULL, NULL, arguments, environment) || wait4(child, &status, 0, &used) < 0)
        exit(1);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * INT64_C(1000000) + used.ru_utime.tv_usec +
           used.ru_stime.tv_usec;
}

static int idle(char *program, const char *library) {
    char preload[4096], *without[] = {NULL}, *with[] = {preload, NULL}, *arguments[] = {program, NULL};
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    for (int round = 0; round < STARTS; round++) {
        long long plain = start(arguments, without);
        printf("%lld %lld\n", plain, (long long)start(arguments, with));
    }
    return 0;
}

/* Processes that run one program at once. Their output is discarded: it is the caller's to check that it came. */
static int crowd(int many, char **arguments) {
    extern char **environ;
    int failed = 0, status;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    int64_t begin = now();
    for (int started = 0; started < many; started++) {
        pid_t child;
        if (posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ))
            return 1;
    }
    while (wait(&status) > 0)
        failed |= status;
    printf("%.3f\n", (double)(now() - begin) / 1e6);
    return !!failed;
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "calls"))
        return calls(arguments[2]);
    if (count > 3 && !strcmp(arguments[1], "crowd"))
        return crowd(atoi(arguments[2]), arguments + 3);
    return count == 4 ? idle(arguments[2], arguments[3]) : 2;
}
