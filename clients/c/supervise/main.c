/* main.c: ssa-supervise PROGRAM [ARGUMENT...]: becomes the program, and leaves the supervisor behind, which ends with
 * the last process that has the filter. `ssa run --seccomp` calls this. The settings are those of libssa, in the
 * environment.
 *
 * The program is this process, and not a child of it: so its exit status, its signals and its terminal are its own.
 */

#include "supervise.h"

#include "../destinations.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_FOUND = 127, NOT_RUN = 126, LOOK = 1000, BATCH = 16 };

static char directory[108] = "/run/ssa";
static int events = -1; /* the epoll set of the listener and of processes that may end */

/* --- what the files of libssa want --- */

const char *run_directory(void) {
    return directory;
}

int hide(int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? fail_plainly(errno) : copy;
}

void unhide(int fd) {
    close_quietly(fd);
}

/* --- the supervisor --- */

static void (*server_of(int number))(struct call *) {
    static const struct {
        int number;
        void (*serve)(struct call *);
    } servers[] = {
        {SYS_socket, on_socket},
        {SYS_connect, on_connect},
        {SYS_close, on_close},
        {SYS_shutdown, on_shutdown},
        {SYS_listen, on_listen},
        {SYS_accept, on_accept},
        {SYS_accept4, on_accept},
        {SYS_getsockopt, on_get_option},
        {SYS_setsockopt, on_set_option},
        {SYS_getsockname, on_name},
        {SYS_getpeername, on_name},
        {SYS_dup, on_dup},
        {SYS_epoll_ctl, on_epoll},
        {SYS_dup3, on_dup},
        {SYS_fcntl, on_dup},
        {SYS_sendto, on_datagram_out},
        {SYS_sendmsg, on_datagram_out},
        {SYS_sendmmsg, on_datagram_out},
        {SYS_write, on_datagram_out},
        {SYS_writev, on_datagram_out},
        {SYS_read, on_datagram_in},
        {SYS_readv, on_datagram_in},
        {SYS_recvfrom, on_datagram_in},
        {SYS_recvmsg, on_datagram_in},
#ifdef SYS_dup2
        {SYS_dup2, on_dup},
#endif
    };
    for (size_t at = 0; at < sizeof servers / sizeof *servers; at++)
        if (servers[at].number == number)
            return servers[at].serve;
    return let_go_on;
}

static void serve_one(void) {
    struct seccomp_notif what = {0};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &what))
        return; /* the caller is dead */
    struct call call = {.id = what.id, .thread = (pid_t)what.pid, .number = what.data.nr};
    for (int at = 0; at < 6; at++)
        call.arguments[at] = what.data.args[at];
    set_words("");
    server_of(call.number)(&call);
    answer(&call, 0, EIO); /* if it was not answered */
    process_release(call.process);
}

void supervise_watch(int handle) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = handle};
    epoll_ctl(events, EPOLL_CTL_ADD, handle, &event);
}

/* False: the last process is gone. */
static bool serve_event(const struct epoll_event *event) {
    if (event->data.fd != listener) {
        epoll_ctl(events, EPOLL_CTL_DEL, event->data.fd, NULL);
        process_ended(event->data.fd);
        entries_sweep();
        return true;
    }
    if (event->events & EPOLLIN)
        serve_one();
    return event->events & EPOLLIN || !(event->events & EPOLLHUP);
}

static void supervise(void) {
    struct epoll_event happened[BATCH], event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_ctl(events, EPOLL_CTL_ADD, listener, &event))
        _exit(1);
    for (;;) {
        int count = epoll_wait(events, happened, BATCH, entries_wait() ? LOOK : -1);
        if (!count)
            entries_sweep();
        for (int at = 0; at < count; at++)
            if (!serve_event(&happened[at]))
                _exit(0);
    }
}

/* Nothing of the program's is held, and nothing of its terminal's reaches us. */
static void detach(void) {
    struct rlimit limit;
    sigset_t none;
    setsid();
    int nothing = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(nothing, fd);
    if (chdir("/"))
        _exit(1);
    for (int number = 1; number < NSIG; number++)
        signal(number, number == SIGCHLD ? SIG_DFL : number == SIGPIPE ? SIG_IGN : SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    prctl(PR_SET_NAME, "ssa-supervise");
}

/* --- the beginning --- */

static int complain(int status) {
    fprintf(stderr, "ssa: %s\n", words());
    return status;
}

/* What the two processes tell each other, over a pair: the listener there, and a byte back when the supervisor is
 * ready. */
static int pass_listener(int pair, int fd) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec part = {"", 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return sendmsg(pair, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int take_listener(int pair) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    int fd;
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(pair, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
        return -1;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* May the program be looked into at all? The answer is a byte: 0, or an errno. */
static void tell_ready(int pair, pid_t program) {
    int handle = (int)syscall(SYS_pidfd_open, program, 0);
    int file = (int)syscall(SYS_pidfd_getfd, handle, STDERR_FILENO, 0);
    char byte = file < 0 && errno != EBADF ? (char)errno : 0;
    if (file >= 0)
        close_quietly(file);
    close_quietly(handle);
    if (write(pair, &byte, 1) != 1)
        _exit(1);
    close_quietly(pair);
}

static void close_inherited(int kept) {
    for (int fd = 3; fd < kept; fd++)
        close(fd);
    close_range((unsigned)kept + 1, ~0U, 0);
}

static void be_supervisor(int pair, pid_t program) {
    uint64_t flags = 1; /* SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6: the caller goes on at once */
    locks_after_fork();
    detach();
    close_inherited(pair);
    pid_t own = getpid();
    if (write(pair, &own, sizeof own) != sizeof own)
        _exit(1);
    events = epoll_create1(EPOLL_CLOEXEC);
    listener = take_listener(pair);
    if (listener < 0 || events < 0)
        _exit(1);
    ioctl(listener, SECCOMP_IOW(4, uint64_t), flags);
    tell_ready(pair, program);
    supervise();
}

/* Whoever is nobody's child is reaped by init: the program has one child less to wait for. */
static int start_supervisor(int pair, pid_t program) {
    int status;
    pid_t child = fork();
    if (child < 0)
        return fail(errno, "no process for the supervisor: %s", strerrordesc_np(errno));
    if (!child) {
        if (fork())
            _exit(0);
        be_supervisor(pair, program);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return 0;
}

static int explain_no_filter(int number) {
    if (number == EBUSY)
        return fail(number, "another ssa-supervise (or another program that uses seccomp's notifications) watches this "
                            "one already, and the kernel refuses a second one: run it without `ssa run --seccomp`");
    return fail(number, "seccomp's notifications are not to be had: %s", strerrordesc_np(number));
}

static int explain_no_look(int number) {
    return fail(number,
                "ssa-supervise may not look into the program: %s. kernel.yama.ptrace_scope, or another policy "
                "of this system, forbids it",
                strerrordesc_np(number));
}

/* A socket that listens already would serve plain text: accept(2) of a low number is not seen. */
static int check_inherited(void) {
    for (int fd = 0; destinations_have_listeners() && fd < 1024; fd++)
        if (get_number(fd, SOL_SOCKET, SO_ACCEPTCONN, 0) && is_tcp(fd))
            return fail(EOPNOTSUPP,
                        "descriptor %d listens already: with --seccomp the program has to make its "
                        "listener itself",
                        fd);
    return 0;
}

static int watch_me(void) {
    int pair[2];
    char byte = 0;
    pid_t supervisor = 0;
    struct rlimit limit;
    first_number =
        !getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < 2 * FIRST_TLS ? (unsigned)limit.rlim_cur / 2 : FIRST_TLS;
    if (first_number <= WATCHED)
        return fail(EMFILE, "RLIMIT_NOFILE is too low: %u", first_number * 2);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return fail_plainly(errno);
    if (start_supervisor(pair[0], getpid()))
        return -1;
    close(pair[0]);
    if (read(pair[1], &supervisor, sizeof supervisor) != sizeof supervisor)
        return fail(EIO, "the supervisor did not start");
    prctl(PR_SET_PTRACER, supervisor, 0, 0, 0); /* where Yama is: for this process, and not for its children */
    int fd = filter_install(first_number, watches_clients);
    if (fd < 0)
        return explain_no_filter(errno);
    int done = pass_listener(pair[1], fd) || read(pair[1], &byte, 1) != 1 ? fail(EIO, "the supervisor did not start")
               : byte                                                     ? explain_no_look(byte)
                                                                          : 0;
    close(fd);
    close(pair[1]);
    return done;
}

static void forget_settings(void) {
    static const char *const names[] = {"SSA_TLS", "SSA_TLS_NAME", "SSA_TLS_LISTEN", "SSA_EXPLAIN"};
    for (size_t at = 0; at < sizeof names / sizeof *names; at++)
        unsetenv(names[at]);
}

int main(int count, char **arguments) {
    struct stat errors = {0};
    const char *told = secure_getenv("SSA_RUN_DIR");
    if (count < 2 || !strcmp(arguments[1], "--help")) {
        printf("usage: ssa-supervise PROGRAM [ARGUMENT...]\nfor `ssa run --seccomp`: see `ssa run --help`\n");
        return count < 2 ? 2 : 0;
    }
    if (told && *told)
        snprintf(directory, sizeof directory, "%s", told);
    destinations_begin();
    watches_clients = destinations_have_clients() || destinations_have_listeners();
    bool quiet = fstat(STDERR_FILENO, &errors) || !secure_getenv("SSA_EXPLAIN");
    saying_begin(&errors, quiet);
    if (check_inherited() || watch_me())
        return complain(NOT_RUN);
    forget_settings();
    execvp(arguments[1], arguments + 1);
    int number = errno;
    fprintf(stderr, "ssa: %s: %s\n", arguments[1], strerrordesc_np(number));
    return number == ENOENT ? NOT_FOUND : NOT_RUN;
}
