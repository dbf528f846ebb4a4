/* epolls.c: epoll sets that a socket was added to before it was connected.
 *
 * A set holds the open file, and loses it with the file. So the file that is there now is added for it. For the
 * program's next epoll_ctl(2) to find it, it has to be on the same number as in the program: that number is used here,
 * or where it is taken in a child, which has a table of its own.
 */

#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void on_epoll(struct call *call) {
    int file = fetch(call, (int)call->arguments[2]);
    struct held *held = file < 0 ? NULL : entry_of(file);
    if (held && !held->paired && held->tls.set_count < MOST_SETS) {
        struct guard guard = guard_enter(&held->tls.lock);
        held->tls.sets[held->tls.set_count++].epoll = (int)call->arguments[0];
        guard_leave(&guard);
    }
    if (file >= 0)
        close_quietly(file);
    entry_release(held);
    let_go_on(call);
}

/* What the set has for the number: "tfd: N events: HEX data: HEX ..." (Documentation/filesystems/proc.rst). The file
 * that was there before is in it still, as ssad has it. */
static bool read_set(int set, int number, struct epoll_event *event) {
    char path[64], line[256];
    bool found = false;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", set);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        int fd;
        unsigned events;
        unsigned long long data;
        if (sscanf(line, "tfd: %d events: %x data: %llx", &fd, &events, &data) == 3 && fd == number) {
            *event = (struct epoll_event){.events = events, .data.u64 = data};
            found = true;
        }
    }
    if (file)
        fclose(file);
    return found;
}

/* One system call after the other: it may run in the child of a process with threads. */
static void add_on(int set, int before, int file, int number, struct epoll_event *event) {
    syscall(SYS_dup3, before, number, O_CLOEXEC);
    syscall(SYS_epoll_ctl, set, EPOLL_CTL_DEL, number, NULL);
    syscall(SYS_dup3, file, number, O_CLOEXEC);
    if (syscall(SYS_epoll_ctl, set, EPOLL_CTL_ADD, number, event) && errno == EEXIST)
        syscall(SYS_epoll_ctl, set, EPOLL_CTL_MOD, number, event);
}

static void add_in_a_child(int set, int before, int file, int number, struct epoll_event *event) {
    int status;
    pid_t child = fork();
    if (!child) {
        add_on(set, before, file, number, event);
        _exit(0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
}

static pthread_mutex_t number_lock = PTHREAD_MUTEX_INITIALIZER;

static void follow(int set, int before, int file, int number) {
    struct epoll_event event;
    if (!read_set(set, number, &event))
        return;
    pthread_mutex_lock(&number_lock);
    if (fcntl(number, F_GETFD) < 0) {
        add_on(set, before, file, number, &event);
        close_quietly(number);
    } else {
        add_in_a_child(set, before, file, number, &event);
    }
    pthread_mutex_unlock(&number_lock);
}

void epolls_follow(struct call *call, struct held *held, int before, int file, int number) {
    for (int at = 0; at < held->tls.set_count; at++) {
        int set = fetch(call, held->tls.sets[at].epoll);
        if (set >= 0) {
            follow(set, before, file, number);
            close_quietly(set);
        }
    }
}
