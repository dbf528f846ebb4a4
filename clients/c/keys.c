/* keys.c: how long a key serves, and who sends.
 *
 * Between our KeyUpdate and our next key no record may go out (RFC 8446 section 4.6.3), and the kernel does not see to
 * that. So on a socket whose key can change senders take turns: threads by a lock, and processes that come of a fork(2)
 * by a lock of the kernel's on the socket's inode (fcntl(2)). With any descriptor of the inode that a process closes,
 * that lock is gone: so one of several numbers is closed between two turns. `budget` counts down to the moment when it
 * has to be looked at whether a KeyUpdate is due.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* --- turns --- */

static bool is_shared_by_processes(struct connection *connection) {
    return atomic_load_explicit(&connection->forks, memory_order_relaxed) != atomic_load(&fork_count);
}

static void lock_inode(int fd, short kind) {
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET};
    int before = errno;
    while (syscall(SYS_fcntl, fd, F_SETLKW, &lock) && (errno == EINTR || errno == EDEADLK)) {
        struct timespec rest = {0,
                                10000000}; /* two threads of each of two processes look like a deadlock, and are none */
        if (errno == EDEADLK)
            nanosleep(&rest, NULL);
    }
    errno = before;
}

struct turn turn_begin(struct connection *connection, int fd) {
    struct turn turn = {.threads = false};
    if (!atomic_load_explicit(&connection->rekeyable, memory_order_relaxed))
        return turn;
    turn.processes = is_shared_by_processes(connection);
    turn.threads = turn.processes || !__libc_single_threaded;
    if (turn.threads) {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &turn.cancel_state);
        lock_take(&connection->turn);
    }
    turn.processes = turn.processes && !connection->turn.depth;
    if (turn.processes)
        lock_inode(fd, F_WRLCK);
    return turn;
}

static void close_waiting(struct connection *connection) {
    struct guard guard = guard_enter(&connection->lock);
    while (connection->waiting_count)
        close_quietly(connection->waiting[--connection->waiting_count]);
    guard_leave(&guard);
}

void turn_end(struct connection *connection, int fd, struct turn turn) {
    if (turn.processes)
        lock_inode(fd, F_UNLCK);
    if (!turn.threads)
        return;
    if (turn.processes)
        close_waiting(connection);
    lock_release(&connection->turn);
    pthread_setcancelstate(turn.cancel_state, NULL);
}

static bool is_free(struct connection *connection) {
    if (!lock_try(&connection->turn))
        return false;
    bool outermost = !connection->turn.depth;
    lock_release(&connection->turn);
    return outermost;
}

bool close_in_turn(struct connection *connection, int fd) {
    if (!is_shared_by_processes(connection) || !atomic_load(&connection->rekeyable) || is_free(connection))
        return false;
    struct guard guard = guard_enter(&connection->lock);
    bool waits = connection->waiting_count < MOST_WAITING;
    if (waits)
        connection->waiting[connection->waiting_count++] = fd;
    guard_leave(&guard);
    if (waits && is_free(connection))
        close_waiting(connection); /* that turn has just ended */
    return waits;
}

/* --- what is due --- */

int end_writing_error(int flags) {
    if (!(flags & MSG_NOSIGNAL))
        pthread_kill(pthread_self(), SIGPIPE);
    return fail(EPIPE, "the stream has been ended: nothing can be sent any more");
}

static bool has_writing_ended(int fd) {
    switch (tcp_state(fd)) {
    case TCP_FIN_WAIT1:
    case TCP_FIN_WAIT2:
    case TCP_TIME_WAIT:
    case TCP_LAST_ACK:
    case TCP_CLOSING:
        return true;
    default:
        return false;
    }
}

enum asked { CHANGED, NO_ROOM, NOT_CHANGED };

/* Have ssad send a KeyUpdate and change the key for writing. */
static enum asked ask_for_change(int fd) {
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return NOT_CHANGED;
    request_begin(&exchange->request, KIND_REKEY);
    request_number(&exchange->request, ATTRIBUTE_SENDING, 1);
    enum asked asked = CHANGED;
    if (exchange_ask(exchange, fd, NULL, 0))
        asked = exchange_says(exchange, "WOULD_BLOCK") ? NO_ROOM : NOT_CHANGED;
    exchange_close(exchange);
    return asked;
}

/* The key cannot change. Some records more may be sent under it, if the peer demands nothing else. */
static int serve_on_old_key(struct connection *connection, int64_t left, bool answer) {
    if (answer) {
        atomic_store(&connection->answer_due, true);
        return failed(connection);
    }
    if (left <= 0) {
        fail(EKEYEXPIRED,
             "the key has protected as many records as it may (RFC 8446 section 5.5), and cannot be changed");
        return failed(connection);
    }
    atomic_store(&connection->budget, left / 2);
    return 0;
}

static int change_now(struct connection *connection, int fd, bool waits, int64_t left, bool answer) {
    enum asked asked;
    while ((asked = ask_for_change(fd)) == NO_ROOM) {
        if (!waits) {
            atomic_store(&connection->answer_due, answer);
            return fail(EAGAIN, "there is no room for the KeyUpdate that is due");
        }
        wait_for(fd, POLLOUT, timeout_of(fd, SO_SNDTIMEO));
    }
    if (asked == NOT_CHANGED)
        return errno == EPIPE ? -1 : serve_on_old_key(connection, left, answer);
    left = records_left(fd) / 2;
    atomic_store(&connection->budget, left < STRIDE ? left : STRIDE);
    return 0;
}

/* Send a KeyUpdate if one is due: the peer waits for an answer, or the key has served for long enough. A request of the
 * peer's that nobody has read yet is looked for too: a program that only sends would never find it. */
int change_keys(struct connection *connection, int fd, bool waits) {
    struct guard guard = guard_enter(&connection->turn);
    int done = 0;
    int64_t left = records_left(fd);
    bool rekeyable = atomic_load(&connection->rekeyable);
    if (left < 0 && (errno == EBADF || errno == ENOTSOCK)) {
        done = -1; /* the number is none of this socket's any more */
    } else if (left < 0 || has_writing_ended(fd)) {
        done = fail(EPIPE, "the stream has been ended: nothing can be sent any more");
    } else {
        if (rekeyable && tls_version(fd) == 0x0304)
            look_behind_untrusted(connection, fd);
        bool answer = atomic_exchange(&connection->answer_due, false);
        if (answer || left <= 2 * STRIDE)
            done = change_now(connection, fd, waits, left, answer);
        else
            atomic_store(&connection->budget, STRIDE);
    }
    guard_leave(&guard);
    return done;
}
