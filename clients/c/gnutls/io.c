/* io.c: reading, writing and ending: gnutls_record_recv(3) and its kin. libssa does it, as for any TLS socket. */

#include "coerced.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>

static bool has_gone(int number) {
    return number == EPIPE || number == ECONNRESET || number == ETIMEDOUT || number == EBADF ||
           number == EHOSTUNREACH || number == ENETUNREACH;
}

/* What GnuTLS says of errno. `gone` is for a connection that has ended by the network's doing. */
static int not_done(int gone) {
    int number = errno;
    if (number == EAGAIN)
        return GNUTLS_E_AGAIN;
    if (number == EINTR)
        return GNUTLS_E_INTERRUPTED;
    if (number == ECONNABORTED)
        return say(GNUTLS_E_PREMATURE_TERMINATION, "", words());
    if (has_gone(number))
        return gone;
    return say(GNUTLS_E_INTERNAL_ERROR, "", words());
}

/* The connection of a session whose handshake is done. NULL: `error`. */
static struct connection *ready(struct coerced *coerced, int *error) {
    int stage = atomic_load(&coerced->stage);
    *error = stage == REFUSED ? coerced->error : GNUTLS_E_INVALID_SESSION;
    if (stage == UNDER_WAY)
        *error = GNUTLS_E_UNAVAILABLE_DURING_HANDSHAKE;
    if (stage != DONE)
        return NULL;
    struct connection *connection = connection_get(coerced->fd);
    if (connection && connection != &hidden)
        return connection;
    if (connection)
        connection_put(connection);
    errno = EBADF;
    *error = GNUTLS_E_PULL_ERROR;
    return NULL;
}

/* --- reading --- */

/* A socket that waits does so for data here, and so the read ends behind a record that is no data, such as a ticket.
 * GnuTLS does so too, for a program that waits in select(2) for its other descriptors. 0, or GnuTLS's error: the
 * program's own time is over, or a signal came. */
static int await_data(struct coerced *coerced) {
    int limit = timeout_of(coerced->fd, SO_RCVTIMEO);
    unsigned told = coerced->record_timeout;
    bool own = told && told != GNUTLS_INDEFINITE_TIMEOUT && (limit == FOREVER || (int)told < limit);
    struct pollfd wanted = {.fd = coerced->fd, .events = POLLIN};
    int found = poll(&wanted, 1, own ? (int)told : limit);
    if (found < 0 && errno == EINTR)
        return GNUTLS_E_INTERRUPTED;
    return found || !own ? 0 : GNUTLS_E_TIMEDOUT;
}

static ssize_t get(gnutls_session_t session, void *data, size_t size) {
    struct coerced *coerced = coerced_of(session);
    int error;
    if (coerced->read_end)
        return 0;
    struct connection *connection = ready(coerced, &error);
    if (!connection)
        return error;
    struct iovec part = {data, size};
    ssize_t count = does_wait(coerced->fd) ? await_data(coerced) : 0;
    if (!count) {
        count = stream_read(connection, coerced->fd, &part, 1, MSG_DONTWAIT);
        atomic_store(&coerced->direction, 0);
        coerced->read_end = !count && size;
        if (count < 0)
            count = not_done(GNUTLS_E_PULL_ERROR);
    }
    connection_put(connection);
    return count;
}

EXPORT ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t size) {
    return is_left(session) ? REAL(gnutls_record_recv)(session, data, size) : get(session, data, size);
}

EXPORT ssize_t gnutls_record_recv_seq(gnutls_session_t session, void *data, size_t size, unsigned char *sequence) {
    return is_left(session) ? REAL(gnutls_record_recv_seq)(session, data, size, sequence)
                            : say(GNUTLS_E_INVALID_REQUEST, "", "ssa tells no record's number");
}

EXPORT ssize_t gnutls_record_recv_packet(gnutls_session_t session, gnutls_packet_t *packet) {
    return is_left(session) ? REAL(gnutls_record_recv_packet)(session, packet)
                            : say(GNUTLS_E_INVALID_REQUEST, "", "ssa gives no records as packets");
}

EXPORT ssize_t gnutls_record_recv_early_data(gnutls_session_t session, void *data, size_t size) {
    return is_left(session) ? REAL(gnutls_record_recv_early_data)(session, data, size)
                            : GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE;
}

/* Nothing is kept here: what was not read yet is in the socket, and poll(2) tells of it. */
EXPORT size_t gnutls_record_check_pending(gnutls_session_t session) {
    return is_left(session) ? REAL(gnutls_record_check_pending)(session) : 0;
}

EXPORT int gnutls_record_get_direction(gnutls_session_t session) {
    return is_left(session) ? REAL(gnutls_record_get_direction)(session) : atomic_load(&coerced_of(session)->direction);
}

/* --- writing --- */

static ssize_t write_some(struct coerced *coerced, const void *data, size_t size) {
    int error;
    struct connection *connection = ready(coerced, &error);
    if (!connection)
        return error;
    if (coerced->sent_end) {
        connection_put(connection);
        return GNUTLS_E_INVALID_SESSION;
    }
    struct iovec part = {(void *)data, size};
    ssize_t count = size ? stream_write(connection, coerced->fd, &part, 1, MSG_NOSIGNAL) : 0;
    if (count < 0)
        count = not_done(GNUTLS_E_PUSH_ERROR);
    connection_put(connection);
    atomic_store(&coerced->direction, count == GNUTLS_E_AGAIN || count == GNUTLS_E_INTERRUPTED);
    return count;
}

/* GnuTLS has taken data that a call said AGAIN of: the next call may bring it again, or nothing. One that brings
 * nothing sends what was taken. */
static ssize_t give(struct coerced *coerced, const void *data, size_t size) {
    enum { MOST = 1 << 14 }; /* a record: more than that GnuTLS does not take at once */
    struct buffer *pending = &coerced->pending;
    bool again = pending->size && !data;
    size = again ? pending->size : size < MOST ? size : (size_t)MOST;
    ssize_t count = write_some(coerced, again ? pending->data : data, size);
    if (count == GNUTLS_E_AGAIN || count == GNUTLS_E_INTERRUPTED) {
        if (!again) {
            drop_buffer(pending);
            append(pending, data, size);
        }
    } else if (again && count > 0 && (size_t)count < size) {
        take_off(pending, (size_t)count);
        return GNUTLS_E_AGAIN; /* the whole is told when the rest has gone */
    } else {
        drop_buffer(pending);
    }
    return count;
}

static ssize_t cork_or_give(struct coerced *coerced, const void *data, size_t size) {
    if (!coerced->corks)
        return give(coerced, data, size);
    append(&coerced->corked, data, size);
    return (ssize_t)size;
}

EXPORT ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t size) {
    return is_left(session) ? REAL(gnutls_record_send)(session, data, size)
                            : cork_or_give(coerced_of(session), data, size);
}

EXPORT ssize_t gnutls_record_send2(gnutls_session_t session, const void *data, size_t size, size_t pad,
                                   unsigned flags) {
    return is_left(session) ? REAL(gnutls_record_send2)(session, data, size, pad, flags)
                            : cork_or_give(coerced_of(session), data, size);
}

EXPORT ssize_t gnutls_record_send_range(gnutls_session_t session, const void *data, size_t size,
                                        const gnutls_range_st *range) {
    return is_left(session) ? REAL(gnutls_record_send_range)(session, data, size, range)
                            : say(GNUTLS_E_INVALID_REQUEST, "", "ssa does not hide the length of data");
}

EXPORT unsigned gnutls_record_can_use_length_hiding(gnutls_session_t session) {
    return is_left(session) ? REAL(gnutls_record_can_use_length_hiding)(session) : 0;
}

EXPORT ssize_t gnutls_record_send_early_data(gnutls_session_t session, const void *data, size_t size) {
    return is_left(session) ? REAL(gnutls_record_send_early_data)(session, data, size)
                            : say(GNUTLS_E_INVALID_REQUEST, "", "ssa sends no early data (RFC 8446 section 8)");
}

EXPORT ssize_t gnutls_record_send_file(gnutls_session_t session, int file, off_t *offset, size_t size) {
    struct coerced *coerced = coerced_of(session);
    int error;
    if (is_left(session))
        return REAL(gnutls_record_send_file)(session, file, offset, size);
    struct connection *connection = ready(coerced, &error);
    if (!connection)
        return error;
    ssize_t sent = stream_sendfile(connection, coerced->fd, file, offset, size);
    connection_put(connection);
    return sent < 0 ? not_done(GNUTLS_E_PUSH_ERROR) : sent;
}

EXPORT void gnutls_record_cork(gnutls_session_t session) {
    if (is_left(session))
        REAL(gnutls_record_cork)(session);
    else
        coerced_of(session)->corks = true;
}

EXPORT size_t gnutls_record_check_corked(gnutls_session_t session) {
    return is_left(session) ? REAL(gnutls_record_check_corked)(session) : coerced_of(session)->corked.size;
}

/* The bytes that were sent. What is left after an error stays, and the next call sends it. */
static int uncork(struct coerced *coerced, bool waits) {
    size_t all = 0;
    while (coerced->corked.size) {
        ssize_t count = write_some(coerced, coerced->corked.data, coerced->corked.size);
        if (count == GNUTLS_E_AGAIN && waits) {
            wait_for(coerced->fd, POLLOUT, FOREVER);
            continue;
        }
        if (count == GNUTLS_E_INTERRUPTED && waits)
            continue;
        if (count < 0)
            return (int)count;
        take_off(&coerced->corked, (size_t)count);
        all += (size_t)count;
    }
    coerced->corks = false;
    return all < INT_MAX ? (int)all : INT_MAX;
}

EXPORT int gnutls_record_uncork(gnutls_session_t session, unsigned flags) {
    return is_left(session) ? REAL(gnutls_record_uncork)(session, flags)
                            : uncork(coerced_of(session), flags & GNUTLS_RECORD_WAIT);
}

EXPORT size_t gnutls_record_discard_queued(gnutls_session_t session) {
    struct coerced *coerced = coerced_of(session);
    if (is_left(session))
        return REAL(gnutls_record_discard_queued)(session);
    size_t size = coerced->pending.size;
    drop_buffer(&coerced->pending);
    return size;
}

/* --- alerts, and the end --- */

EXPORT int gnutls_alert_send(gnutls_session_t session, gnutls_alert_level_t level, gnutls_alert_description_t alert) {
    if (is_left(session))
        return REAL(gnutls_alert_send)(session, level, alert);
    if (level == GNUTLS_AL_FATAL && done_with(session))
        end_at_once(coerced_of(session)->fd);
    return GNUTLS_E_SUCCESS; /* ssad sends those of a handshake, and libssa those that follow */
}

EXPORT int gnutls_alert_send_appropriate(gnutls_session_t session, int error) {
    return is_left(session) ? REAL(gnutls_alert_send_appropriate)(session, error) : GNUTLS_E_SUCCESS;
}

/* Read on to the peer's close_notify; what comes before it is thrown away. */
static int await_end(gnutls_session_t session) {
    char waste[4096];
    ssize_t count;
    bool waits = does_wait(coerced_of(session)->fd);
    while ((count = get(session, waste, sizeof waste)) > 0 || (waits && count == GNUTLS_E_AGAIN))
        continue;
    return (int)count;
}

static int say_bye(struct coerced *coerced) {
    int error;
    struct connection *connection = ready(coerced, &error);
    if (!connection)
        return atomic_load(&coerced->stage) == DONE ? GNUTLS_E_PUSH_ERROR : error;
    while (coerced->corked.size && uncork(coerced, does_wait(coerced->fd)) == GNUTLS_E_AGAIN) {
        connection_put(connection);
        return GNUTLS_E_AGAIN;
    }
    tls_end_half(connection, coerced->fd);
    connection_put(connection);
    coerced->sent_end = true;
    return GNUTLS_E_SUCCESS;
}

EXPORT int gnutls_bye(gnutls_session_t session, gnutls_close_request_t how) {
    struct coerced *coerced = coerced_of(session);
    if (is_left(session))
        return REAL(gnutls_bye)(session, how);
    int done = coerced->sent_end ? GNUTLS_E_SUCCESS : say_bye(coerced);
    return !done && how == GNUTLS_SHUT_RDWR ? await_end(session) : done;
}
