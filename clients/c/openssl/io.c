/* io.c: reading, writing and ending: SSL_read(3) and its kin. libssa does it, as for any TLS socket. */

#include "coerced.h"

#include <errno.h>
#include <poll.h>

/* A call that did not succeed: what SSL_get_error(3) says. `again` is what to wait for where errno says so. */
static int not_done(struct coerced *coerced, int again) {
    int number = errno;
    switch (number) {
    case EAGAIN:
    case EINTR:
        return outcome(coerced, again, -1);
    case EPIPE:
    case ECONNRESET:
    case ETIMEDOUT:
    case EBADF:
        return outcome(coerced, SSL_ERROR_SYSCALL, -1);
    case ECONNABORTED:
        push_error(ERR_LIB_SSL, SSL_R_UNEXPECTED_EOF_WHILE_READING, words());
        break;
    default:
        push_error(ERR_LIB_SSL, SSL_R_TLSV1_ALERT_INTERNAL_ERROR, words());
    }
    errno = number;
    return outcome(coerced, SSL_ERROR_SSL, -1);
}

/* The connection of an SSL whose handshake is done, which is made first where it was not. NULL: `result`. */
static struct connection *ready(SSL *ssl, struct coerced *coerced, int *result) {
    *result = coerced->stage == DONE ? 1 : shake(ssl);
    if (*result <= 0 || coerced->stage != DONE)
        return NULL;
    struct connection *connection = connection_get(coerced->fd);
    if (connection && connection != &hidden)
        return connection;
    if (connection)
        connection_put(connection);
    fail(EBADF, "the socket is closed");
    *result = not_done(coerced, 0);
    return NULL;
}

/* Without SSL_MODE_AUTO_RETRY a read on a socket that waits ends behind a record that is no data, such as a ticket, for
 * a program that waits in select(2) for its other descriptors too. */
static int flags_for(SSL *ssl, int fd, int flags) {
    if (REAL(SSL_ctrl)(ssl, SSL_CTRL_MODE, 0, NULL) & SSL_MODE_AUTO_RETRY || !does_wait(fd))
        return flags;
    wait_for(fd, POLLIN, timeout_of(fd, SO_RCVTIMEO));
    return flags | MSG_DONTWAIT;
}

/* 1 and `got`, or what SSL_read says. */
static int get(SSL *ssl, void *data, size_t size, int flags, size_t *got) {
    struct coerced *coerced = coerced_of(ssl);
    int result;
    if (coerced->shutdown & SSL_RECEIVED_SHUTDOWN)
        return outcome(coerced, SSL_ERROR_ZERO_RETURN, 0);
    struct connection *connection = ready(ssl, coerced, &result);
    if (!connection)
        return result;
    struct iovec part = {data, size};
    ssize_t count = stream_read(connection, coerced->fd, &part, 1, flags_for(ssl, coerced->fd, flags));
    if (count > 0) {
        *got = (size_t)count;
        result = outcome(coerced, SSL_ERROR_NONE, 1);
    } else if (!count && size) {
        coerced->shutdown |= SSL_RECEIVED_SHUTDOWN;
        result = outcome(coerced, SSL_ERROR_ZERO_RETURN, 0);
    } else {
        result = count ? not_done(coerced, SSL_ERROR_WANT_READ) : outcome(coerced, SSL_ERROR_NONE, 0);
    }
    int number = errno;
    connection_put(connection);
    errno = number;
    return result;
}

/* Write as OpenSSL does: without SSL_MODE_ENABLE_PARTIAL_WRITE a call has written all, or is to be repeated. */
static int give(SSL *ssl, const void *data, size_t size, size_t *gave) {
    struct coerced *coerced = coerced_of(ssl);
    int result;
    if (coerced->shutdown & SSL_SENT_SHUTDOWN) {
        push_error(ERR_LIB_SSL, SSL_R_PROTOCOL_IS_SHUTDOWN, "after SSL_shutdown");
        return outcome(coerced, SSL_ERROR_SSL, -1);
    }
    struct connection *connection = ready(ssl, coerced, &result);
    if (!connection)
        return result;
    bool in_parts = REAL(SSL_ctrl)(ssl, SSL_CTRL_MODE, 0, NULL) & SSL_MODE_ENABLE_PARTIAL_WRITE;
    size_t done = coerced->written < size ? coerced->written : 0;
    ssize_t count = 0;
    while (done < size && count >= 0) {
        struct iovec part = {(char *)data + done, size - done};
        count = stream_write(connection, coerced->fd, &part, 1, MSG_NOSIGNAL);
        done += count > 0 ? (size_t)count : 0;
    }
    bool enough = done == size || (done && in_parts);
    coerced->written = enough ? 0 : done;
    *gave = done;
    result = enough ? outcome(coerced, size ? SSL_ERROR_NONE : SSL_ERROR_SYSCALL, 1) /* as OpenSSL says of no bytes */
                    : not_done(coerced, SSL_ERROR_WANT_WRITE);
    int number = errno;
    connection_put(connection);
    errno = number;
    return result;
}

static int as_count(int result, size_t count) {
    return result > 0 ? (int)count : result;
}

EXPORT int SSL_read(SSL *ssl, void *data, int size) {
    size_t count = 0;
    int result = is_left(ssl) || size < 0 ? 0 : get(ssl, data, (size_t)size, 0, &count);
    return is_left(ssl) || size < 0 ? REAL(SSL_read)(ssl, data, size) : as_count(result, count);
}

EXPORT int SSL_peek(SSL *ssl, void *data, int size) {
    size_t count = 0;
    int result = is_left(ssl) || size < 0 ? 0 : get(ssl, data, (size_t)size, MSG_PEEK, &count);
    return is_left(ssl) || size < 0 ? REAL(SSL_peek)(ssl, data, size) : as_count(result, count);
}

EXPORT int SSL_write(SSL *ssl, const void *data, int size) {
    size_t count = 0;
    int result = is_left(ssl) || size < 0 ? 0 : give(ssl, data, (size_t)size, &count);
    return is_left(ssl) || size < 0 ? REAL(SSL_write)(ssl, data, size) : as_count(result, count);
}

EXPORT int SSL_read_ex(SSL *ssl, void *data, size_t size, size_t *count) {
    int result = is_left(ssl) ? 0 : get(ssl, data, size, 0, count);
    return is_left(ssl) ? REAL(SSL_read_ex)(ssl, data, size, count) : result > 0;
}

EXPORT int SSL_peek_ex(SSL *ssl, void *data, size_t size, size_t *count) {
    int result = is_left(ssl) ? 0 : get(ssl, data, size, MSG_PEEK, count);
    return is_left(ssl) ? REAL(SSL_peek_ex)(ssl, data, size, count) : result > 0;
}

EXPORT int SSL_write_ex(SSL *ssl, const void *data, size_t size, size_t *count) {
    int result = is_left(ssl) ? 0 : give(ssl, data, size, count);
    return is_left(ssl) ? REAL(SSL_write_ex)(ssl, data, size, count) : result > 0;
}

EXPORT ossl_ssize_t SSL_sendfile(SSL *ssl, int file, off_t offset, size_t size, int flags) {
    struct coerced *coerced = coerced_of(ssl);
    int result;
    if (is_left(ssl))
        return REAL(SSL_sendfile)(ssl, file, offset, size, flags);
    struct connection *connection = ready(ssl, coerced, &result);
    if (!connection)
        return is_left(ssl) ? REAL(SSL_sendfile)(ssl, file, offset, size, flags) : result;
    ssize_t sent = stream_sendfile(connection, coerced->fd, file, &offset, size);
    connection_put(connection);
    return sent < 0 ? not_done(coerced, SSL_ERROR_WANT_WRITE) : outcome(coerced, SSL_ERROR_NONE, (int)sent);
}

/* Nothing is kept here: what was not read yet is in the socket, and poll(2) tells of it. */
EXPORT int SSL_pending(const SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_pending)(ssl) : 0;
}

EXPORT int SSL_has_pending(const SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_has_pending)(ssl) : 0;
}

EXPORT int SSL_get_error(const SSL *ssl, int result) {
    if (is_left(ssl))
        return REAL(SSL_get_error)(ssl, result);
    return result > 0 ? SSL_ERROR_NONE : coerced_of(ssl)->error;
}

EXPORT int SSL_want(const SSL *ssl) {
    if (is_left(ssl))
        return REAL(SSL_want)(ssl);
    int error = coerced_of(ssl)->error;
    return error == SSL_ERROR_WANT_READ ? SSL_READING : error == SSL_ERROR_WANT_WRITE ? SSL_WRITING : SSL_NOTHING;
}

/* --- the end --- */

/* Read on to the peer's close_notify; what comes before it is thrown away. */
static int await_end(SSL *ssl, struct coerced *coerced) {
    char waste[4096];
    size_t count;
    int result;
    while ((result = get(ssl, waste, sizeof waste, 0, &count)) > 0)
        continue;
    return coerced->shutdown & SSL_RECEIVED_SHUTDOWN ? outcome(coerced, SSL_ERROR_NONE, 1) : result;
}

EXPORT int SSL_shutdown(SSL *ssl) {
    struct coerced *coerced = coerced_of(ssl);
    if (is_left(ssl))
        return REAL(SSL_shutdown)(ssl);
    if (REAL(SSL_get_quiet_shutdown)(ssl)) {
        coerced->shutdown = SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN;
        return 1;
    }
    if (coerced->stage != DONE) {
        push_error(ERR_LIB_SSL, SSL_R_SHUTDOWN_WHILE_IN_INIT, "there is no connection");
        return outcome(coerced, SSL_ERROR_SSL, -1);
    }
    if (coerced->shutdown & SSL_SENT_SHUTDOWN)
        return await_end(ssl, coerced);
    coerced->shutdown |= SSL_SENT_SHUTDOWN;
    struct connection *connection = connection_get(coerced->fd);
    if (connection && connection != &hidden)
        tls_end_half(connection, coerced->fd);
    if (connection)
        connection_put(connection);
    return outcome(coerced, SSL_ERROR_NONE, coerced->shutdown & SSL_RECEIVED_SHUTDOWN ? 1 : 0);
}

EXPORT int SSL_get_shutdown(const SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_get_shutdown)(ssl) : coerced_of(ssl)->shutdown;
}

EXPORT void SSL_set_shutdown(SSL *ssl, int mode) {
    coerced_of(ssl)->shutdown = mode;
    REAL(SSL_set_shutdown)(ssl, mode);
}
