/* tasks.c: the program's processes: their descriptors, their memory, their rights, and the signals that wait for them.
 *
 * The kernel tells the number of the thread that called (gettid(2)). The process that it belongs to is looked up once,
 * and kept as a pidfd: tgkill(2) with no signal says whether the thread is still that process's.
 */

#include "supervise.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int listener;
unsigned first_number;
bool watches_clients;

/* --- processes --- */

enum { ROOM = 256, FOUND = 1024 };
static struct process *processes;
static struct found {
    pid_t thread;
    struct process *process;
} found[FOUND]; /* by the thread's number */
static pthread_mutex_t processes_lock = PTHREAD_MUTEX_INITIALIZER;

bool call_is_waiting(const struct call *call) {
    uint64_t id = call->id;
    return !ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id);
}

void process_release(struct process *process) {
    if (!process || atomic_fetch_sub(&process->users, 1) != 1)
        return;
    close_quietly(process->handle);
    free(process);
}

/* A file of a thread's in /proc, as text. */
static size_t read_about(pid_t thread, const char *name, char *text, size_t room) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", thread, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, room - 1);
    if (fd >= 0)
        close_quietly(fd);
    text[size < 0 ? 0 : size] = 0;
    return size < 0 ? 0 : (size_t)size;
}

static const char *line_of(const char *text, const char *name) {
    size_t size = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncmp(line, name, size))
            return line + size;
    return "";
}

static struct process *make_process(pid_t pid) {
    int handle = (int)syscall(SYS_pidfd_open, pid, 0);
    struct process *process = handle < 0 ? NULL : calloc(1, sizeof *process);
    if (!process) {
        if (handle >= 0)
            close_quietly(handle);
        return NULL;
    }
    process->pid = pid;
    process->handle = handle;
    process->hint = first_number;
    atomic_store(&process->users, 1); /* the list */
    process->next = processes;
    processes = process;
    supervise_watch(handle);
    return process;
}

static bool is_there(const struct process *process) {
    return !syscall(SYS_pidfd_send_signal, process->handle, 0, NULL, 0);
}

static struct process *process_of(pid_t thread) {
    char text[4096];
    read_about(thread, "status", text, sizeof text);
    pid_t pid = atoi(line_of(text, "Tgid:"));
    if (pid <= 0)
        return NULL;
    for (struct process *process = processes; process; process = process->next)
        if (process->pid == pid && is_there(process))
            return process;
    return make_process(pid);
}

int call_process(struct call *call) {
    if (call->process)
        return 0;
    pthread_mutex_lock(&processes_lock);
    struct found *known = &found[(unsigned)call->thread % FOUND];
    struct process *process = known->thread == call->thread ? known->process : NULL;
    if (process && (syscall(SYS_tgkill, process->pid, call->thread, 0) || !is_there(process)))
        process = NULL;
    if (!process && (process = process_of(call->thread)))
        *known = (struct found){call->thread, process};
    if (process)
        atomic_fetch_add(&process->users, 1);
    pthread_mutex_unlock(&processes_lock);
    call->process = process;
    return process && call_is_waiting(call) ? 0 : fail_plainly(ESRCH);
}

/* Forget a process that has ended. */
void process_ended(int handle) {
    pthread_mutex_lock(&processes_lock);
    struct process **at = &processes;
    while (*at && (*at)->handle != handle)
        at = &(*at)->next;
    struct process *process = *at;
    if (process)
        *at = process->next;
    for (int row = 0; process && row < FOUND; row++)
        if (found[row].process == process)
            found[row] = (struct found){0, NULL};
    pthread_mutex_unlock(&processes_lock);
    process_release(process);
}

/* --- descriptors and memory --- */

int fetch(struct call *call, int fd) {
    if (call_process(call))
        return -1;
    int file = (int)syscall(SYS_pidfd_getfd, call->process->handle, fd, 0);
    if (file < 0 && errno == EPERM)
        return fail(EPERM, "ssa-supervise may not look into the process %d: it has other rights, or is protected",
                    call->process->pid);
    return file < 0 ? fail_plainly(errno) : file;
}

size_t memory_read_some(const struct call *call, uint64_t at, void *data, size_t size) {
    struct iovec ours = {data, size}, theirs = {(void *)(uintptr_t)at, size};
    ssize_t got = size ? process_vm_readv(call->thread, &ours, 1, &theirs, 1, 0) : 0;
    return got < 0 || !call_is_waiting(call) ? 0 : (size_t)got;
}

int memory_read(const struct call *call, uint64_t at, void *data, size_t size) {
    return memory_read_some(call, at, data, size) == size ? 0 : fail_plainly(EFAULT);
}

int memory_write(const struct call *call, uint64_t at, const void *data, size_t size) {
    struct iovec ours = {(void *)data, size}, theirs = {(void *)(uintptr_t)at, size};
    if (!call_is_waiting(call))
        return fail_plainly(ESRCH);
    return !size || process_vm_writev(call->thread, &ours, 1, &theirs, 1, 0) == (ssize_t)size ? 0
                                                                                              : fail_plainly(EFAULT);
}

bool closes_on_exec(const struct call *call, int fd) {
    char name[64], text[512];
    snprintf(name, sizeof name, "fdinfo/%d", fd);
    read_about(call->process->pid, name, text, sizeof text);
    return strtol(line_of(text, "flags:"), NULL, 8) & O_CLOEXEC;
}

enum occupant { NOBODY, OURS, OTHERS };
static enum occupant occupant_of(const struct call *call, unsigned number) {
    int file = (int)syscall(SYS_pidfd_getfd, call->process->handle, number, 0);
    if (file < 0)
        return errno == EBADF ? NOBODY : OTHERS;
    struct held *held = entry_of(file);
    close_quietly(file);
    entry_release(held);
    return held ? OURS : OTHERS;
}

static unsigned most_numbers(const struct call *call) {
    struct rlimit limit;
    if (prlimit(call->process->pid, RLIMIT_NOFILE, NULL, &limit) || limit.rlim_cur > 1U << 30)
        return 1U << 30;
    return (unsigned)limit.rlim_cur;
}

/* A number without a file. Somebody else's file among ours means that the program has as many: its next one would come
 * just where we look, so the look goes on far above. */
int find_free_number(struct call *call, unsigned from, unsigned to) {
    bool of_tls = from == first_number, jumped = false;
    if (call_process(call))
        return -1;
    unsigned limit = most_numbers(call), end = to && to < limit ? to : limit;
    for (unsigned number = of_tls ? call->process->hint : from; number < end; number++) {
        enum occupant occupant = occupant_of(call, number);
        if (occupant == NOBODY) {
            if (of_tls)
                call->process->hint = number;
            return (int)number;
        }
        if (of_tls && occupant == OTHERS && !jumped) {
            number += (end - number) / 2;
            jumped = true;
        }
    }
    return fail_plainly(EMFILE);
}

void each_same(const struct call *call, int file, void (*act)(const struct call *, int number, void *),
               void *argument) {
    char path[64], link[64];
    struct stat status;
    if (fstat(file, &status))
        return;
    snprintf(path, sizeof path, "/proc/%d/fd", call->process->pid);
    DIR *directory = opendir(path);
    snprintf(path, sizeof path, "socket:[%lu]", (unsigned long)status.st_ino);
    for (struct dirent *name; directory && (name = readdir(directory));) {
        ssize_t size = readlinkat(dirfd(directory), name->d_name, link, sizeof link - 1);
        link[size < 0 ? 0 : size] = 0;
        if (!strcmp(link, path))
            act(call, atoi(name->d_name), argument);
    }
    if (directory)
        closedir(directory);
}

/* --- rights --- */

static bool is_same_link(pid_t thread, const char *name) {
    char path[64], ours[64] = "", theirs[64] = "";
    snprintf(path, sizeof path, "/proc/%d/%s", thread, name);
    if (readlink(path, theirs, sizeof theirs - 1) < 0)
        return false;
    snprintf(path, sizeof path, "/proc/self/%s", name);
    return readlink(path, ours, sizeof ours - 1) > 0 && !strcmp(ours, theirs);
}

static bool is_same_line(const char *ours, const char *theirs, const char *name) {
    const char *one = line_of(ours, name), *other = line_of(theirs, name);
    size_t size = strcspn(one, "\n");
    return size && size == strcspn(other, "\n") && !memcmp(one, other, size);
}

bool has_own_network(const struct call *call) {
    if (is_same_link(call->thread, "ns/net"))
        return true;
    fail(EPERM, "the program is in another network namespace than ssa-supervise");
    return false;
}

bool has_own_rights(const struct call *call) {
    static const char *const lines[] = {"Uid:", "Gid:", "CapEff:"};
    char ours[4096], theirs[4096];
    read_about(getpid(), "status", ours, sizeof ours);
    read_about(call->thread, "status", theirs, sizeof theirs);
    for (size_t at = 0; at < sizeof lines / sizeof *lines; at++)
        if (!is_same_line(ours, theirs, lines[at])) {
            fail(EPERM, "the program has changed its user, group or capabilities, and ssa-supervise acts for those "
                        "that it was started with");
            return false;
        }
    return has_own_network(call);
}

/* A path is the program's: from its directory on, and in its root. Where that is another root than ours, nothing is
 * opened, as a link could lead out of it. */
int open_for(const struct call *call, const char *path) {
    char directory[64];
    struct stat ours, theirs;
    snprintf(directory, sizeof directory, "/proc/%d/root/", call->thread);
    if (!is_same_link(call->thread, "ns/mnt") || stat("/", &ours) || stat(directory, &theirs) ||
        ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev)
        return fail(EPERM, "%s: the program has another root or other mounts than ssa-supervise: give the PEM text",
                    path);
    snprintf(directory, sizeof directory, "/proc/%d/cwd", call->thread);
    int from = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int file = from < 0 ? -1 : openat(from, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        fail(errno, "%s: %s", path, strerrordesc_np(errno));
    if (from >= 0)
        close_quietly(from);
    return file;
}

/* --- signals --- */

static uint64_t signals(const char *text, const char *name) {
    return strtoull(line_of(text, name), NULL, 16);
}

#define BIT(number) (UINT64_C(1) << ((number)-1))

/* The kernel holds back all but deadly signals while a call waits for us: so those that wait are looked for. Where the
 * signal is this thread's for sure, the kernel decides whether the call begins again (signal(7), SA_RESTART). */
enum interruption call_interruption(const struct call *call) {
    static const uint64_t stops = BIT(SIGTSTP) | BIT(SIGSTOP) | BIT(SIGTTIN) | BIT(SIGTTOU);
    char text[4096];
    if (!read_about(call->thread, "status", text, sizeof text))
        return GO_ON_WAITING;
    uint64_t own = signals(text, "SigPnd:"), all = own | signals(text, "ShdPnd:");
    uint64_t counts = (signals(text, "SigCgt:") | (stops & ~signals(text, "SigIgn:"))) & ~signals(text, "SigBlk:");
    if (!(all & counts))
        return GO_ON_WAITING;
    return own & counts || atoi(line_of(text, "Threads:")) == 1 ? RESTARTED : INTERRUPTED;
}
