/* fdswap.c: putting another open file on a descriptor's number, behind the back of whoever polls it.
 *
 * select(2) and poll(2) name the number at each call and notice nothing. An epoll set holds the open file, not the
 * number, and would lose it: so its entry is made again for the file that is there now. Which sets have the number is
 * noted when epoll_ctl(2) is called.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

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
        connection->many_sets = true;
    }
    guard_leave(&guard);
}

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

int swap(struct connection *connection, int fd, int other) {
    struct swapping swapping = {connection, other};
    set_waiting(other, does_wait(fd));
    struct guard guard = guard_enter(&connection->lock);
    int done =
        atomic_load(&connection->numbers) == 1 ? swap_one(fd, &swapping) : each_number(connection, swap_one, &swapping);
    guard_leave(&guard);
    if (!done)
        close_quietly(other);
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
    return done;
}
