/* process.c: what concerns the process as a whole: its start, fork(2), exec(2), and who else holds a socket. */

#include "internal.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

atomic_int fork_count;
static _Atomic pid_t owner; /* whose table it is */
static char directory[108] = "/run/ssa";

const char *run_directory(void) {
    return directory;
}

/* A child of vfork(2) shares its parent's memory: what it closes is still open in the parent. */
bool is_own_process(void) {
    return atomic_load(&owner) == getpid();
}

static void after_fork_in_parent(void) {
    atomic_fetch_add(&fork_count, 1);
}

static void after_fork_in_child(void) {
    atomic_store(&owner, getpid());
    atomic_fetch_add(&fork_count, 1);
    locks_after_fork();
    names_after_fork();
    descriptors_after_fork();
}

/* The environment is read at once: nginx, for one, takes its own away. One that a setuid program was given by somebody
 * else does not count. */
__attribute__((constructor(101))) static void begin(void) {
    const char *told = secure_getenv("SSA_RUN_DIR");
    if (told && *told)
        snprintf(directory, sizeof directory, "%s", told);
    atomic_store(&owner, getpid());
    next_look_up();
    transparent_begin();
    pthread_atfork(NULL, after_fork_in_parent, after_fork_in_child);
    adopt_inherited();
}

/* --- descriptors that come from elsewhere --- */

static bool has_kernel_tls(int fd) {
    char layer[16] = "";
    socklen_t size = sizeof layer;
    return !syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_ULP, layer, &size) && !strcmp(layer, "tls");
}

static struct connection *adopt_as(int fd, int phase) {
    struct connection *connection = connection_new(fd, phase);
    if (!connection)
        return NULL;
    connection->family = get_number(fd, SOL_SOCKET, SO_DOMAIN, AF_INET);
    connection->cookie = cookie_of(fd);
    atomic_store(&connection->forks, -1); /* others may have it */
    return connection;
}

/* ssad knows the descriptor: it is the end of a pair that it relays. */
static bool is_relayed(int fd) {
    if (get_number(fd, SOL_SOCKET, SO_DOMAIN, 0) != AF_UNIX || get_number(fd, SOL_SOCKET, SO_TYPE, 0) != SOCK_STREAM)
        return false;
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return false;
    request_begin(&exchange->request, KIND_DESCRIBE);
    bool is = !exchange_ask(exchange, fd, NULL, 0);
    exchange_close(exchange);
    return is;
}

struct connection *adopt(int fd) {
    struct connection *connection = connection_get(fd);
    if (connection)
        return connection;
    if (has_kernel_tls(fd)) {
        if ((connection = adopt_as(fd, LIVE)))
            atomic_store(&connection->rekeyable, true);
        return connection;
    }
    if (!is_relayed(fd) || !(connection = adopt_as(fd, LIVE)))
        return NULL;
    atomic_store(&connection->relayed, true);
    atomic_store(&connection->budget, ENDLESS);
    return connection;
}

enum { INHERITED = 16 }; /* the numbers that are looked at when a program starts */

/* A program may be started with a TLS socket for its standard input, as by inetd. The end of a relayed stream is a
 * pair's, whose other end is a process of root's or of the own user's, and not of this family. */
static bool may_be_relayed(int fd) {
    struct ucred peer = {0, 0, 0};
    socklen_t size = sizeof peer;
    struct sockaddr_storage name;
    socklen_t name_size = sizeof name;
    if (get_number(fd, SOL_SOCKET, SO_DOMAIN, 0) != AF_UNIX ||
        syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) ||
        syscall(SYS_getpeername, fd, &name, &name_size) || name_size > sizeof(sa_family_t))
        return false;
    return peer.pid != getpid() && peer.pid != getppid();
}

void adopt_inherited(void) {
    int before = errno;
    for (int fd = 0; fd < INHERITED; fd++)
        if (get_number(fd, SOL_SOCKET, SO_DOMAIN, 0) && (has_kernel_tls(fd) || may_be_relayed(fd))) {
            struct connection *connection = adopt(fd);
            if (connection)
                connection_put(connection);
        }
    errno = before;
}

/* --- who else holds a socket --- */

struct name { /* struct linux_dirent64 (getdents64(2)) */
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char kind;
    char name[];
};

/* Call `act` for each name in a directory until it returns true. opendir(3) would call malloc(3). */
bool any_name(const char *path, bool (*act)(const char *name, void *argument), void *argument) {
    _Alignas(struct name) char names[2048];
    bool found = false;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    for (long size; !found && (size = syscall(SYS_getdents64, fd, names, sizeof names)) > 0;)
        for (long at = 0; !found && at < size; at += ((struct name *)(names + at))->size)
            found = act(((struct name *)(names + at))->name, argument);
    close_quietly(fd);
    return found;
}

struct search {
    char link[48];     /* "socket:[INODE]" */
    char process[300]; /* "/proc/PID/fd" */
    bool is_own;
    int own;
};

static bool is_that_socket(const char *name, void *argument) {
    struct search *search = argument;
    char path[600], link[48];
    if (*name == '.' || (search->is_own && atoi(name) == search->own))
        return false;
    snprintf(path, sizeof path, "%s/%s", search->process, name);
    long size = syscall(SYS_readlinkat, AT_FDCWD, path, link, sizeof link);
    return size == (long)strlen(search->link) && !memcmp(link, search->link, (size_t)size);
}

static bool has_that_socket(const char *name, void *argument) {
    struct search *search = argument;
    if (*name < '0' || *name > '9')
        return false;
    search->is_own = atoi(name) == getpid();
    snprintf(search->process, sizeof search->process, "/proc/%s/fd", name);
    return any_name(search->process, is_that_socket, search);
}

/* As far as can be known without asking for each socket: only one that is older than a fork(2) may be shared. */
bool is_held_elsewhere(struct connection *connection, int fd) {
    struct search search = {.own = fd};
    struct stat status;
    if (atomic_load(&connection->forks) == atomic_load(&fork_count) || fstat(fd, &status))
        return false;
    int before = errno;
    snprintf(search.link, sizeof search.link, "socket:[%lu]", (unsigned long)status.st_ino);
    bool is = any_name("/proc", has_that_socket, &search);
    errno = before;
    return is;
}
