/* descriptors.c: which descriptors are TLS sockets.
 *
 * The table has two levels, as most programs have few descriptors: a page of it is made when a TLS socket is first on
 * one of its numbers. The memory of a connection is used again, but never given back: so a thread that has just read an
 * entry may count itself as a user of what is there, and then look whether the entry still says so.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

_Atomic(entry *) descriptor_pages[MOST_NUMBERS / NUMBERS_A_PAGE];
struct connection hidden = {.users = 1, .phase = FAILED};

static struct lock table_lock;
static struct connection *unused; /* connections that may be used again */
static struct slab {
    struct slab *next;
    struct connection connections[32];
} * slabs;

static void *memory_of(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

struct connection *connection_get_slowly(entry *at) {
    struct connection *found;
    while ((found = atomic_load_explicit(at, memory_order_acquire))) {
        int users = atomic_load_explicit(&found->users, memory_order_relaxed);
        if (users && atomic_compare_exchange_weak_explicit(&found->users, &users, users + 1, memory_order_acquire,
                                                           memory_order_relaxed)) {
            if (atomic_load_explicit(at, memory_order_acquire) == found)
                return found;
            connection_put(found);
        }
    }
    return NULL;
}

static entry *entry_of(int fd, bool make) {
    if ((unsigned)fd >= MOST_NUMBERS)
        return NULL;
    _Atomic(entry *) *at = &descriptor_pages[(unsigned)fd / NUMBERS_A_PAGE];
    entry *page = atomic_load(at);
    if (!page && make && (page = memory_of(NUMBERS_A_PAGE * sizeof *page)))
        atomic_store(at, page);
    return page ? &page[(unsigned)fd % NUMBERS_A_PAGE] : NULL;
}

struct connection *connection_look(int fd) {
    entry *at = entry_of(fd, false);
    return at ? atomic_load(at) : NULL;
}

static bool have_unused(void) {
    if (unused)
        return true;
    struct slab *slab = memory_of(sizeof *slab);
    if (!slab)
        return false;
    slab->next = slabs;
    slabs = slab;
    for (size_t at = 0; at < sizeof slab->connections / sizeof *slab->connections; at++) {
        slab->connections[at].next = unused;
        unused = &slab->connections[at];
    }
    return true;
}

/* Zero what was of another socket; `users` stays: a thread that has read an old entry may look at it just now. */
static struct connection *take_unused(void) {
    struct connection *connection = unused;
    unused = connection->next;
    size_t kept = offsetof(struct connection, numbers);
    memset((char *)connection + kept, 0, sizeof *connection - kept);
    atomic_store(&connection->beside, -1);
    atomic_store(&connection->server, -1);
    atomic_store(&connection->budget, -1);
    atomic_store(&connection->forks, atomic_load(&fork_count));
    connection->backlog = 128;
    connection->largest = 1 << 14;
    return connection;
}

struct connection *connection_new(int fd, int phase) {
    connection_forget(fd);
    struct guard guard = guard_enter(&table_lock);
    entry *at = entry_of(fd, true);
    struct connection *connection = at && have_unused() ? take_unused() : NULL;
    if (connection) {
        atomic_store(&connection->phase, phase);
        atomic_store(&connection->numbers, 1);
        atomic_store(&connection->users, 2); /* the table, and who has made it */
        atomic_store(at, connection);
    } else {
        fail((unsigned)fd >= MOST_NUMBERS ? EMFILE : ENOMEM, "there is no room for another TLS socket");
    }
    guard_leave(&guard);
    return connection;
}

int connection_share(struct connection *connection, int fd) {
    connection_forget(fd);
    struct guard guard = guard_enter(&table_lock);
    entry *at = entry_of(fd, true);
    if (at) {
        atomic_fetch_add(&connection->users, 1);
        atomic_fetch_add(&connection->numbers, 1);
        atomic_store(at, connection);
    }
    guard_leave(&guard);
    return at ? 0 : fail_plainly(EMFILE);
}

bool connection_leave(int fd) {
    bool last = false;
    struct guard guard = guard_enter(&table_lock);
    entry *at = entry_of(fd, false);
    struct connection *connection = at ? atomic_exchange(at, NULL) : NULL;
    if (connection && connection != &hidden)
        last = atomic_fetch_sub(&connection->numbers, 1) == 1;
    guard_leave(&guard);
    if (connection && connection != &hidden)
        connection_put(connection);
    return last;
}

/* The file on the number was closed in a way that this library does not see, and another one is there now. */
void connection_forget(int fd) {
    struct connection *connection = connection_get(fd);
    if (!connection)
        return;
    if (connection_leave(fd))
        drop_beside(connection);
    connection_put(connection);
}

/* Close the socket that was kept beside. Where the program has closed it unseen, its number is none of ours. */
void drop_beside(struct connection *connection) {
    int number = atomic_exchange(&connection->beside, -1);
    if (number >= 0 && cookie_of(number) == connection->beside_cookie)
        unhide(number);
    else if (number >= 0)
        connection_leave(number);
}

void connection_put_last(struct connection *connection) {
    settings_release(connection->settings);
    settings_release(connection->settings_before);
    datagram_release(connection);
    connection->settings = connection->settings_before = NULL;
    struct guard guard = guard_enter(&table_lock);
    connection->next = unused;
    unused = connection;
    guard_leave(&guard);
}

/* Descriptors of our own are above those that a program has: a program that closes all from 3 on may spare them. */
static int lowest_hidden(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return 3;
    return limit.rlim_cur >= 1024 ? 512 : (int)limit.rlim_cur / 2;
}

int hide(int fd) {
    int number = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, lowest_hidden());
    if (number < 0)
        number = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    if (number < 0)
        return fail_plainly(errno);
    connection_forget(number);
    struct guard guard = guard_enter(&table_lock);
    entry *at = entry_of(number, true);
    if (at)
        atomic_store(at, &hidden);
    guard_leave(&guard);
    if (!at) {
        close_quietly(number);
        return fail_plainly(EMFILE);
    }
    return number;
}

void unhide(int fd) {
    struct guard guard = guard_enter(&table_lock);
    entry *at = entry_of(fd, false);
    struct connection *there = &hidden;
    if (at && atomic_compare_exchange_strong(at, &there, NULL))
        close_quietly(fd);
    guard_leave(&guard);
}

/* Call `act` for each number that has a connection, until it returns something else than 0. NULL: of any. */
static int each_entry(struct connection *connection, int (*act)(int fd, void *argument), void *argument) {
    for (int page = 0; page < MOST_NUMBERS / NUMBERS_A_PAGE; page++) {
        entry *entries = atomic_load(&descriptor_pages[page]);
        for (int at = 0; entries && at < NUMBERS_A_PAGE; at++) {
            struct connection *there = atomic_load_explicit(&entries[at], memory_order_relaxed);
            int done = there && (!connection || there == connection) ? act(page * NUMBERS_A_PAGE + at, argument) : 0;
            if (done)
                return done;
        }
    }
    return 0;
}

int each_number(struct connection *connection, int (*act)(int fd, void *argument), void *argument) {
    return each_entry(connection, act, argument);
}

int each_tls_number(int (*act)(int fd, void *argument), void *argument) {
    return each_entry(NULL, act, argument);
}

static int is_at_least(int fd, void *argument) {
    return (unsigned)fd >= *(unsigned *)argument ? fd + 1 : 0;
}

int next_hidden(unsigned from) {
    return each_entry(&hidden, is_at_least, &from) - 1;
}

void descriptors_after_fork(void) {
    lock_reset(&table_lock);
    for (struct slab *slab = slabs; slab; slab = slab->next)
        for (size_t at = 0; at < sizeof slab->connections / sizeof *slab->connections; at++) {
            lock_reset(&slab->connections[at].lock);
            lock_reset(&slab->connections[at].turn);
            lock_reset(&slab->connections[at].reading);
        }
}

static void replace_in(struct settings *settings, int from, int to) {
    for (int kind = 0; settings && kind < FILE_KINDS; kind++)
        for (int at = 0; at < settings->file_counts[kind]; at++)
            if (settings->files[kind][at] == from)
                settings->files[kind][at] = to;
}

void move_hidden(int fd) {
    int to = hide(fd);
    if (to < 0)
        return;
    struct guard guard = guard_enter(&table_lock);
    for (struct slab *slab = slabs; slab; slab = slab->next)
        for (size_t at = 0; at < sizeof slab->connections / sizeof *slab->connections; at++) {
            struct connection *connection = &slab->connections[at];
            int there = fd;
            atomic_compare_exchange_strong(&connection->beside, &there, to);
            replace_in(connection->settings, fd, to);
        }
    guard_leave(&guard);
    unhide(fd);
}
