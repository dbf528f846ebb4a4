/* locks.c: locks that a signal handler may take, and sections that none interrupts. */

#include "internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAITERS UINT32_C(0x80000000)

static _Thread_local uint32_t thread_number __attribute__((tls_model("initial-exec")));

/* The kernel's number of this thread. The child of a vfork(2) shares its parent's, which waits meanwhile. */
static uint32_t this_thread(void) {
    if (!thread_number)
        thread_number = (uint32_t)syscall(SYS_gettid);
    return thread_number;
}

void locks_after_fork(void) {
    thread_number = 0;
}

static long futex(_Atomic uint32_t *word, int operation, uint32_t value) {
    return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Take the word where it is free. `mark` has the bit that says that others wait. */
static bool take_word(struct lock *lock, uint32_t mark) {
    uint32_t nobody = 0;
    return atomic_compare_exchange_strong_explicit(&lock->word, &nobody, this_thread() | mark, memory_order_acquire,
                                                   memory_order_relaxed);
}

bool lock_try(struct lock *lock) {
    if ((atomic_load_explicit(&lock->word, memory_order_relaxed) & ~WAITERS) == this_thread()) {
        lock->depth++;
        return true;
    }
    return take_word(lock, 0);
}

void lock_take(struct lock *lock) {
    if (lock_try(lock))
        return;
    int before = errno;
    while (!take_word(lock, WAITERS)) {
        uint32_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
        if (seen && ((seen & WAITERS) || atomic_compare_exchange_strong(&lock->word, &seen, seen | WAITERS)))
            futex(&lock->word, FUTEX_WAIT, seen | WAITERS);
    }
    errno = before;
}

/* `depth` is 0 at the moment when the word changes hands: a signal handler that comes just then counts from there. */
void lock_release(struct lock *lock) {
    if (lock->depth) {
        lock->depth--;
        return;
    }
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) & WAITERS) {
        int before = errno;
        futex(&lock->word, FUTEX_WAKE, 1);
        errno = before;
    }
}

void lock_reset(struct lock *lock) {
    atomic_store(&lock->word, 0);
    lock->depth = 0;
}

struct guard guard_enter(struct lock *lock) {
    struct guard guard = {.lock = lock};
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &guard.before);
    lock_take(lock);
    return guard;
}

void guard_leave(struct guard *guard) {
    int before = errno;
    lock_release(guard->lock);
    pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
    errno = before;
}
