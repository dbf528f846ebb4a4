/* epolls.c: which epoll sets watch a descriptor that is plain TCP yet.
 *
 * A server puts a connection into its epoll set when it accepts it, and makes the handshake later. Then another open
 * file can be on the descriptor's number, which the set has to watch in its place (../fdswap.c).
 */

#include "coercion.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

struct watch {
    int epoll; /* + 1; 0: there is none */
    uint32_t events;
    uint64_t data;
};
struct watches {
    struct watch sets[MOST_SETS];
};
static _Atomic(struct watches *) pages[MOST_NUMBERS / NUMBERS_A_PAGE];

static struct watches *watches_of(int fd, bool make) {
    if ((unsigned)fd >= MOST_NUMBERS)
        return NULL;
    _Atomic(struct watches *) *at = &pages[(unsigned)fd / NUMBERS_A_PAGE];
    struct watches *page = atomic_load(at);
    if (!page && make) {
        page = mmap(NULL, NUMBERS_A_PAGE * sizeof *page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            return NULL;
        atomic_store(at, page);
    }
    return page ? &page[(unsigned)fd % NUMBERS_A_PAGE] : NULL;
}

/* The set's own row, else a free one, else the first: of a set that is closed nobody tells. */
static struct watch *row_of(struct watches *watches, int epoll) {
    struct watch *found = &watches->sets[0];
    for (int at = MOST_SETS - 1; at >= 0; at--)
        if (!watches->sets[at].epoll)
            found = &watches->sets[at];
    for (int at = 0; at < MOST_SETS; at++)
        if (watches->sets[at].epoll == epoll + 1)
            found = &watches->sets[at];
    return found;
}

static void note(int epoll, int operation, int fd, uint32_t events, uint64_t data) {
    bool leaves = operation == EPOLL_CTL_DEL;
    lock_take(&coerced_locks[OF_EPOLLS]);
    struct watches *watches = watches_of(fd, !leaves);
    struct watch *row = watches ? row_of(watches, epoll) : NULL;
    if (row && leaves && row->epoll == epoll + 1)
        row->epoll = 0;
    else if (row && !leaves)
        *row = (struct watch){epoll + 1, events, data};
    lock_release(&coerced_locks[OF_EPOLLS]);
}

void carry_epolls(struct connection *connection, int fd) {
    struct watches *watches = watches_of(fd, false);
    for (int at = 0; watches && at < MOST_SETS; at++) {
        struct watch *row = &watches->sets[at];
        if (row->epoll)
            note_epoll(connection, row->epoll - 1, EPOLL_CTL_ADD, row->events, row->data);
        row->epoll = 0;
    }
}

__attribute__((constructor)) static void begin(void) {
    note_plain_epoll = note;
}
