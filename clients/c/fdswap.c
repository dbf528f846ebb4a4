/* fdswap.c: putting another open file on a descriptor's number, behind the back of whoever polls it.
 *
 * select(2) and poll(2) name the number at each call and notice nothing. An epoll set holds the open file, not the
 * number, and would lose it: so its entry is made again for the file that is there now. Which sets have the number is
 * noted when epoll_ctl(2) is called.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

void (*note_plain_epoll)(int epoll, int operation, int fd, uint32_t events, uint64_t data);

void note_epoll(struct connection *connection, int epoll, int operation, uint32_t events, uint64_t data) {
    struct guard guard = guard_enter(&connection->lock);
    int at = 0;
    while (at < connection->set_count && connection->sets[at].epoll != epoll)
        at++;
    if (operation == EPOLL_CTL_DEL) {
        if (at < connection->set_count)
            connection->sets[at] = connection->sets[--connection->set_count];
    } else if (at < MOST_SETS) {
        connection->sets[at].epoll = epoll;
        connection->sets[at].events = events;
        connection->sets[at].data = data;
        if (at == connection->set_count)
            connection->set_count++;
    } else {
        connection->find_sets = true;
    }
    guard_leave(&guard);
}

/* --- sets that were there before the socket was known --- */

struct search {
    struct connection *connection;
    int fd;
};

static void add_set(struct connection *connection, int epoll, uint32_t events, uint64_t data) {
    for (int at = 0; at < connection->set_count; at++)
        if (connection->sets[at].epoll == epoll)
            return;
    if (connection->set_count == MOST_SETS)
        return;
    connection->sets[connection->set_count].epoll = epoll;
    connection->sets[connection->set_count].events = events;
    connection->sets[connection->set_count++].data = data;
}

/* What the set says of the number: "tfd: N events: HEX data: HEX ..." (Documentation/filesystems/proc.rst, fdinfo). */
static void read_set(struct search *search, int epoll) {
    char path[64], text[4096], *line = text, *rest;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", epoll);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    long size = fd < 0 ? -1 : syscall(SYS_read, fd, text, sizeof text - 1);
    if (fd >= 0)
        close_quietly(fd);
    text[size < 0 ? 0 : size] = 0;
    for (; (line = strtok_r(line, "\n", &rest)); line = NULL) {
        int number;
        unsigned events;
        unsigned long long data;
        if (sscanf(line, "tfd: %d events: %x data: %llx", &number, &events, &data) == 3 && number == search->fd)
            add_set(search->connection, epoll, events, data);
    }
}

static bool look_at_set(const char *name, void *argument) {
    char path[64], link[32] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%.10s", name);
    if (*name != '.' && syscall(SYS_readlinkat, AT_FDCWD, path, link, sizeof link - 1) > 0 &&
        !strcmp(link, "anon_inode:[eventpoll]"))
        read_set(argument, atoi(name));
    return false;
}

static void find_sets(struct connection *connection, int fd) {
    struct search search = {connection, fd};
    if (connection->find_sets)
        any_name("/proc/self/fd", look_at_set, &search);
    connection->find_sets = false;
}

/* --- the swap --- */

static long control(int epoll, int operation, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return syscall(SYS_epoll_ctl, epoll, operation, fd, &event);
}

/* An entry that the set does not have any more (the set was closed, its number is another's) is forgotten. */
static void leave_sets(struct connection *connection, int fd) {
    for (int at = 0; at < connection->set_count;)
        if (control(connection->sets[at].epoll, EPOLL_CTL_DEL, fd, 0, 0))
            connection->sets[at] = connection->sets[--connection->set_count];
        else
            at++;
}

/* The set may have an entry for that file on that number already, from a time before the number was another file's. */
static void join_sets(struct connection *connection, int fd) {
    for (int at = 0; at < connection->set_count; at++)
        if (control(connection->sets[at].epoll, EPOLL_CTL_ADD, fd, connection->sets[at].events,
                    connection->sets[at].data) &&
            errno == EEXIST)
            control(connection->sets[at].epoll, EPOLL_CTL_MOD, fd, connection->sets[at].events,
                    connection->sets[at].data);
}

struct swapping {
    struct connection *connection;
    int other;
};

static int swap_one(int fd, void *argument) {
    struct swapping *swapping = argument;
    if (connection_look(fd) != swapping->connection)
        return fail(EBADF, "the descriptor was closed meanwhile");
    find_sets(swapping->connection, fd);
    leave_sets(swapping->connection, fd);
    long done;
    do
        done = syscall(SYS_dup3, swapping->other, fd, will_close_on_exec(fd) ? O_CLOEXEC : 0);
    while (done < 0 && (errno == EINTR || errno == EBUSY));
    if (done < 0)
        fail_plainly(errno);
    join_sets(swapping->connection, fd);
    return done < 0 ? -1 : 0;
}

void note_cookie(struct connection *connection, int fd) {
    struct guard guard = guard_enter(&connection->lock);
    connection->cookie = cookie_of(fd);
    guard_leave(&guard);
}

int swap(struct connection *connection, int fd, int other) {
    struct swapping swapping = {connection, other};
    set_waiting(other, does_wait(fd));
    struct guard guard = guard_enter(&connection->lock);
    int done =
        atomic_load(&connection->numbers) == 1 ? swap_one(fd, &swapping) : each_number(connection, swap_one, &swapping);
    guard_leave(&guard);
    if (!done) {
        close_quietly(other);
        note_cookie(connection, fd);
    }
    return done;
}

int put_beside(struct connection *connection, int fd, int other) {
    int number = hide(fd);
    if (number < 0)
        return -1;
    if (swap(connection, fd, other)) {
        unhide(number);
        return -1;
    }
    connection->beside_cookie = cookie_of(number);
    atomic_store(&connection->beside, number);
    return 0;
}

int take_back(struct connection *connection, int fd) {
    int number = atomic_load(&connection->beside);
    set_waiting(number, does_wait(fd));
    struct swapping swapping = {connection, number};
    struct guard guard = guard_enter(&connection->lock);
    int done =
        atomic_load(&connection->numbers) == 1 ? swap_one(fd, &swapping) : each_number(connection, swap_one, &swapping);
    guard_leave(&guard);
    atomic_store(&connection->beside, -1);
    unhide(number);
    note_cookie(connection, fd);
    return done;
}
