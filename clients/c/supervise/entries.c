/* entries.c: the open files that are TLS sockets, by SO_COOKIE, which the kernel gives no two sockets.
 *
 * Nothing of a live socket is held here. An epoll set that nobody waits for has the files: an entry of it stays exactly
 * as long as the open file does, in whatever process (epoll(7), question 6), and /proc tells which are there.
 */

#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BUCKETS = 4096, SWEEP_AFTER = 256 };
static struct held *buckets[BUCKETS];
static pthread_mutex_t entries_lock = PTHREAD_MUTEX_INITIALIZER;
static int witness = -1; /* the epoll set */
static uint64_t last_number;
static unsigned made, under_way;

static struct held **bucket_of(uint64_t cookie) {
    return &buckets[cookie % BUCKETS];
}

static int note_file(struct held *held, int file) {
    struct epoll_event event = {.events = 0, .data.u64 = held->number};
    if (witness < 0)
        witness = epoll_create1(EPOLL_CLOEXEC);
    return epoll_ctl(witness, EPOLL_CTL_ADD, file, &event) && errno != EEXIST ? fail_plainly(errno) : 0;
}

static void free_entry(struct held *held) {
    settings_release(held->tls.settings);
    settings_release(held->tls.settings_before);
    if (held->ssad >= 0)
        close_quietly(held->ssad);
    if (held->tls.beside >= 0)
        close_quietly(held->tls.beside);
    free(held);
}

void entry_release(struct held *held) {
    if (held && atomic_fetch_sub(&held->tls.users, 1) == 1)
        free_entry(held);
}

static void put_in(struct held *held, uint64_t cookie) {
    struct held **at = bucket_of(cookie);
    held->tls.cookie = cookie;
    held->next = *at;
    *at = held;
}

static void take_out(struct held *held) {
    struct held **at = bucket_of(held->tls.cookie);
    while (*at && *at != held)
        at = &(*at)->next;
    if (*at)
        *at = held->next;
}

struct held *entry_new(int file, int phase, int family) {
    struct held *held = calloc(1, sizeof *held);
    uint64_t cookie = cookie_of(file);
    if (!held || !cookie) {
        free(held);
        fail_plainly(held ? ENOTSOCK : ENOMEM);
        return NULL;
    }
    atomic_store(&held->tls.phase, phase);
    atomic_store(&held->tls.beside, -1);
    atomic_store(&held->tls.server, -1);
    atomic_store(&held->tls.users, 2); /* the table, and the caller */
    held->tls.family = family;
    held->tls.backlog = 128;
    held->ssad = -1;
    pthread_mutex_lock(&entries_lock);
    held->number = ++last_number;
    int done = note_file(held, file);
    if (!done)
        put_in(held, cookie);
    bool sweep = ++made % SWEEP_AFTER == 0;
    pthread_mutex_unlock(&entries_lock);
    if (sweep)
        entries_sweep();
    if (!done)
        return held;
    free_entry(held);
    return NULL;
}

struct held *entry_of(int file) {
    uint64_t cookie = cookie_of(file);
    if (!cookie)
        return NULL;
    pthread_mutex_lock(&entries_lock);
    struct held *held = *bucket_of(cookie);
    while (held && held->tls.cookie != cookie)
        held = held->next;
    if (held)
        atomic_fetch_add(&held->tls.users, 1);
    pthread_mutex_unlock(&entries_lock);
    return held;
}

int entry_move(struct held *held, int file) {
    uint64_t cookie = cookie_of(file);
    pthread_mutex_lock(&entries_lock);
    held->number = ++last_number; /* the file before may live on elsewhere, and says nothing any more */
    int done = cookie ? note_file(held, file) : fail_plainly(ENOTSOCK);
    if (!done) {
        take_out(held);
        put_in(held, cookie);
    }
    pthread_mutex_unlock(&entries_lock);
    return done;
}

/* --- files that nobody holds any more --- */

static int by_number(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return a < b ? -1 : a > b;
}

/* The entries' numbers in the epoll set, sorted. -1: it cannot be read. */
static long read_witness(uint64_t **numbers) {
    char path[64], line[256];
    long count = 0, room = 0;
    *numbers = NULL;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", witness);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        const char *data = strstr(line, "data:");
        if (!data || strncmp(line, "tfd:", 4))
            continue;
        if (count == room) {
            uint64_t *more = realloc(*numbers, (size_t)(room = room * 2 + 64) * sizeof **numbers);
            if (!more) {
                fclose(file);
                free(*numbers);
                return -1;
            }
            *numbers = more;
        }
        (*numbers)[count++] = strtoull(data + 5, NULL, 16);
    }
    if (!file)
        return -1;
    fclose(file);
    qsort(*numbers, (size_t)count, sizeof **numbers, by_number);
    return count;
}

void entries_sweep(void) {
    uint64_t *numbers;
    struct held *gone = NULL;
    unsigned still = 0;
    pthread_mutex_lock(&entries_lock);
    long count = witness < 0 ? -1 : read_witness(&numbers);
    for (int bucket = 0; count >= 0 && bucket < BUCKETS; bucket++)
        for (struct held **at = &buckets[bucket]; *at;) {
            struct held *held = *at;
            /* Somebody is at work on it: it may be on its way to the program. */
            if (atomic_load(&held->tls.users) > 1 ||
                bsearch(&held->number, numbers, (size_t)count, sizeof *numbers, by_number)) {
                still += atomic_load(&held->tls.phase) == CONNECTING;
                at = &held->next;
                continue;
            }
            *at = held->next;
            held->next = gone;
            gone = held;
        }
    if (count >= 0) {
        free(numbers);
        under_way = still;
    }
    pthread_mutex_unlock(&entries_lock);
    while (gone) {
        struct held *held = gone;
        gone = held->next;
        entry_release(held);
    }
}

bool entries_wait(void) {
    return under_way > 0;
}

void entry_is_under_way(void) {
    pthread_mutex_lock(&entries_lock);
    under_way++;
    pthread_mutex_unlock(&entries_lock);
}
