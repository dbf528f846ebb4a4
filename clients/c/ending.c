/* ending.c: shutdown(2) and close(2) end the stream in TLS's way before TCP's. */

#include "internal.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static int shut_down_beside(struct connection *connection, int fd, int how) {
    int beside = atomic_load(&connection->beside);
    int done = (int)syscall(SYS_shutdown, beside >= 0 ? beside : fd, how);
    if (atomic_load(&connection->phase) == LISTENING && how != SHUT_WR) {
        atomic_store(&connection->read_ended, true);
        syscall(SYS_shutdown, fd, SHUT_RDWR); /* wakes who waits in accept(2) */
    }
    return done ? fail_plainly(errno) : 0;
}

/* As SSL_shutdown(3) does it. A peer can take a FIN for the end of all, though reading goes on. */
void tls_end_half(struct connection *connection, int fd) {
    if (atomic_load(&connection->phase) != LIVE || atomic_exchange(&connection->write_ended, true))
        return;
    atomic_store(&connection->budget, -1);
    if (atomic_load(&connection->relayed))
        relay_end_half(fd);
    else if (send_alert(fd, 1 /* warning */, 0 /* close_notify */, MSG_DONTWAIT))
        say_goodbye(fd);
}

int tls_shutdown(struct connection *connection, int fd, int how) {
    finish(connection, fd);
    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
        return fail_plainly(EINVAL);
    int phase = atomic_load(&connection->phase);
    if (connection->datagram && (phase == LIVE || phase == LISTENING || phase == GATHERING)) {
        atomic_store(how == SHUT_RD ? &connection->read_ended : &connection->write_ended, true);
        return (int)syscall(SYS_shutdown, fd, how);
    }
    if (phase != LIVE)
        return shut_down_beside(connection, fd, how);
    if (how == SHUT_WR && connection->half) {
        tls_end_half(connection, fd);
    } else if (how != SHUT_RD && !atomic_exchange(&connection->write_ended, true)) {
        atomic_store(&connection->budget, -1);
        if (atomic_load(&connection->relayed))
            relay_end_writing(fd);
        else
            say_goodbye(fd);
    }
    if (how != SHUT_WR) {
        atomic_store(&connection->read_ended, true);
        syscall(SYS_shutdown, fd, SHUT_RD);
    }
    return 0;
}

static bool aborts(struct connection *connection, int fd) {
    int beside = atomic_load(&connection->beside);
    return does_abort(beside >= 0 ? beside : fd);
}

/* Tell the peer that the stream ends, as its last holder closes it. Of an abort the kernel tells by itself. */
static void end_stream(struct connection *connection, int fd) {
    bool relayed = atomic_load(&connection->relayed), ended = atomic_load(&connection->write_ended);
    if (aborts(connection, fd)) {
        if (relayed || ended) /* ssad may be at it still */
            relay_abort(fd);
    } else if (!relayed) {
        end_in_order(fd, !ended && !atomic_load(&connection->broken));
    } else if (!ended) {
        relay_end_writing(fd);
    }
}

static bool leave(struct connection *connection, int fd) {
    struct guard guard = guard_enter(&connection->lock);
    bool last = connection_leave(fd);
    guard_leave(&guard);
    return last;
}

/* The last number of this process: unless another process holds the socket too, the stream ends. */
static void end_of_last(struct connection *connection, int fd) {
    int phase = atomic_load(&connection->phase);
    if ((phase == LIVE || phase == BROKEN) && !connection->datagram && !is_held_elsewhere(connection, fd))
        end_stream(connection, fd);
    drop_beside(connection);
}

/* A connect that is under way, and that another process goes on with: what ssad has answered is left to that one. */
static bool is_anothers_connect(struct connection *connection, int fd) {
    return atomic_load(&connection->phase) == CONNECTING &&
           (connection->connecting != getpid() || is_held_elsewhere(connection, fd));
}

int tls_close(int fd) {
    struct connection *connection = connection_get(fd);
    if (connection == &hidden) {
        connection_put(connection);
        return fail_plainly(EBADF);
    }
    if (!connection || !is_own_process()) {
        if (connection)
            connection_put(connection);
        return NEXT(close)(fd);
    }
    bool stale = !is_ours(connection, fd);
    if (!stale && !is_anothers_connect(connection, fd))
        finish(connection, fd); /* a handshake that is done deserves a proper end */
    bool last = leave(connection, fd);
    if (last && stale)
        atomic_store(&connection->phase, FAILED);
    if (last)
        end_of_last(connection, fd);
    bool later = !last && close_in_turn(connection, fd);
    connection_put(connection);
    return later ? 0 : NEXT(close)(fd);
}
