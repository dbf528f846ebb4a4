/* relay.c: what the two ends of a relayed stream have to tell each other besides its bytes.
 *
 * The descriptor is one end of a pair, ssad has the other and the TCP socket. An end of file is all that such an end
 * can say, of a stream that ended in order as of one that was cut, and of an ssad that died. So the library asks which
 * it was
 * (`Describe`), and says itself what a close(2) cannot: that it is one, and not a crash (`Close`).
 */

#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENDED_ROOM = 64 };

/* How a stream of the peer's has ended: "close_notify", "truncated", or the name of an alert or an error. Empty: nobody
 * says. */
static void ask_how_it_ended(int fd, char *ended) {
    *ended = 0;
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return;
    request_begin(&exchange->request, KIND_DESCRIBE);
    if (!exchange_ask(exchange, fd, NULL, 0)) {
        size_t length = 0;
        const char *told = attribute(exchange->reply.data, exchange->reply.size, ATTRIBUTE_ENDED, &length);
        copy_text(ended, ENDED_ROOM, told ? told : "truncated", told ? length : ENDED_ROOM);
    }
    exchange_close(exchange);
}

static const struct {
    const char *name;
    int number;
    const char *text;
} failures[] = {
    {"EBADMSG", EBADMSG, "a record was forged or damaged on its way: it does not decrypt"},
    {"ECONNABORTED", ECONNABORTED, "the connection was ended by the administrator"},
    {"EKEYEXPIRED", EKEYEXPIRED, "the key has protected as many records as it may (RFC 8446 section 5.5)"},
    {"ECONNRESET", ECONNRESET, "Connection reset by peer"},
    {"EPIPE", EPIPE, "Broken pipe"},
    {"ETIMEDOUT", ETIMEDOUT, "Connection timed out"},
    {"EHOSTUNREACH", EHOSTUNREACH, "No route to host"},
    {"ENETUNREACH", ENETUNREACH, "Network is unreachable"},
    {"EMSGSIZE", EMSGSIZE, "a record is longer than TLS allows, or is none"},
    {"EPROTO", EPROTO, "the peer broke the TLS protocol"},
};

static int failure_named(const char *ended) {
    if (!*ended)
        return fail(ECONNABORTED, "the ssad that relayed the connection has gone: %s", words());
    if (!strcmp(ended, "truncated"))
        return fail(ECONNABORTED, "the connection was cut: its end came without TLS's close_notify");
    if (alert_number(ended) >= 0 || !strncmp(ended, "alert_", 6))
        return fail(EPROTO, "the peer ended the connection with the alert %s", ended);
    for (size_t at = 0; at < sizeof failures / sizeof *failures; at++)
        if (!strcmp(failures[at].name, ended))
            return fail(failures[at].number, "%s", failures[at].text);
    return fail(EIO, "the connection has failed: %s", ended);
}

/* Remember how ssad says that the connection has ended, unless one direction has only. */
static int note_failure(struct connection *connection) {
    int number = errno;
    failed(connection);
    if (number != EPIPE && number != ECONNABORTED) {
        atomic_store(&connection->broken, number);
        atomic_store(&connection->write_ended, true);
        atomic_store(&connection->budget, -1);
        atomic_store(&connection->phase, BROKEN);
    }
    errno = number;
    return -1;
}

int relay_check_end(struct connection *connection, int fd) {
    char ended[ENDED_ROOM];
    ask_how_it_ended(fd, ended);
    if (!strcmp(ended, "close_notify"))
        return 0;
    failure_named(ended);
    return note_failure(connection);
}

int relay_write_failure(struct connection *connection, int fd) {
    char ended[ENDED_ROOM];
    ask_how_it_ended(fd, ended);
    if (!strcmp(ended, "close_notify") || !strcmp(ended, "truncated"))
        fail_plainly(EPIPE);
    else
        failure_named(ended);
    return note_failure(connection);
}

static void say_close(int fd, int attribute) {
    int before = errno;
    struct exchange *exchange = exchange_open(LOCAL);
    if (exchange) {
        request_begin(&exchange->request, KIND_CLOSE);
        if (attribute)
            request_number(&exchange->request, attribute, 1);
        exchange_ask(exchange, fd, NULL, 0);
        exchange_close(exchange);
    }
    errno = before;
}

/* Have ssad send close_notify behind the last byte. Without an ssad there is no peer either. */
void relay_end_writing(int fd) {
    syscall(SYS_shutdown, fd, SHUT_WR);
    say_close(fd, 0);
}

void relay_end_half(int fd) {
    say_close(fd, ATTRIBUTE_HALF);
    syscall(SYS_shutdown, fd, SHUT_WR);
}

/* The descriptor is about to be closed, and the connection shall be reset by that. */
void relay_abort(int fd) {
    say_close(fd, ATTRIBUTE_ABORT);
}
