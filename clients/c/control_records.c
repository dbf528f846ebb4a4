/* control_records.c: what is done about the records that are no data, after the handshake.
 *
 *     record                          what is done                                       what the reader gets
 *     close_notify                    it stays in the socket, for every later read       the end of the stream
 *     an alert that is passed over    taken                                              what follows
 *     session tickets                 taken, and handed to ssad                          what follows
 *     HelloRequest, ClientHello       taken; a ClientHello is answered (TLS 1.2)         what follows
 *     KeyUpdate                       ssad takes it, and changes the keys                what follows
 *     a part of a message             ssad takes it, and joins it with the rest          what follows
 *     KeyUpdate, on a kernel that     it stays in the socket                             EPROTONOSUPPORT, each time
 *     cannot change keys
 *     what breaks the connection      it stays in the socket; the peer gets the alert    the failure, each time
 *                                     that it deserves, and the end of our stream
 *
 * RFC 8446 sections 4.6, 5, 5.1, 6; RFC 5246 sections 7.2.2 and 7.4.1.1. The table of what each record means is at the
 * top of ssa/ktls/post_handshake.py.
 */

#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TLS12 = 0x0303, TLS13 = 0x0304 };
enum { HELLO_REQUEST = 0, CLIENT_HELLO = 1, NEW_SESSION_TICKET = 4, KEY_UPDATE = 24 }; /* RFC 8446 section 4 */
enum { WARNING = 1, FATAL = 2 };
/* alerts: RFC 8446 section 6 */
enum {
    CLOSE_NOTIFY = 0,
    UNEXPECTED_MESSAGE = 10,
    HANDSHAKE_FAILURE = 40,
    ILLEGAL_PARAMETER = 47,
    DECODE_ERROR = 50,
    INTERNAL_ERROR = 80,
    USER_CANCELED = 90,
    NO_RENEGOTIATION = 100,
};
enum { MOST_WARNINGS = 4 }; /* alerts in a row that are passed over, as OpenSSL takes */
enum { HEADER = 4 };        /* bytes of a handshake message: its type and length */

/* --- the connection has failed
 * ----------------------------------------------------------------------------------------- */

int break_connection(struct connection *connection, int fd, int number, int alert, const char *text) {
    int nothing = 0;
    set_words(text);
    if (atomic_compare_exchange_strong(&connection->broken, &nothing, number)) {
        failed(connection);
        fail_connection(fd, alert, number == EMSGSIZE || number == EINVAL);
        atomic_store(&connection->write_ended, true);
        atomic_store(&connection->budget, -1);
        atomic_store(&connection->phase, BROKEN);
    }
    return fail(atomic_load(&connection->broken), "%s", connection->words);
}

static enum served violation(struct connection *connection, int fd, int alert, const char *what) {
    char text[WORDS_ROOM];
    snprintf(text, sizeof text, "the peer broke the TLS protocol: %s", what);
    break_connection(connection, fd, EPROTO, alert, text);
    return SERVE_FAILED;
}

/* What the kernel says, once, of a record that it cannot take. The first record of a connection that is plain text
 * instead looks to the kernel like one that is too long. */
static const struct {
    int number, alert;
    const char *text;
} unreadables[] = {
    {EBADMSG, 20, "a record was forged or damaged on its way: it does not decrypt"},
    {EMSGSIZE, 22, "a record is longer than TLS allows, or is none"},
    {EINVAL, DECODE_ERROR, "a record has the version of no TLS"},
};

bool is_unreadable(int number, int *alert, const char **text) {
    for (size_t at = 0; at < sizeof unreadables / sizeof *unreadables; at++)
        if (unreadables[at].number == number) {
            *alert = unreadables[at].alert;
            *text = unreadables[at].text;
            return true;
        }
    return false;
}

/* --- alerts
 * --------------------------------------------------------------------------------------------------------------- */

static enum served take(struct connection *connection, int fd, const unsigned char *content, ssize_t size,
                        enum served then) {
    struct exchange *scratch = exchange_of(-1);
    int type;
    if (!scratch)
        return SERVE_FAILED;
    unsigned char *again = scratch->reply.data;
    bool same = record_read(fd, again, size ? (size_t)size : 1, MSG_DONTWAIT, &type) == size &&
                !memcmp(again, content, (size_t)size);
    exchange_forget(scratch);
    if (same)
        return then;
    break_connection(connection, fd, EIO, INTERNAL_ERROR,
                     "somebody else reads from this socket, and what came is lost");
    return SERVE_FAILED;
}

static enum served peer_failed(struct connection *connection, int fd, int number) {
    char text[WORDS_ROOM];
    snprintf(text, sizeof text, "the peer ended the connection with the alert %s", alert_name(number));
    break_connection(connection, fd, EPROTO, -1, text);
    return SERVE_FAILED;
}

static enum served serve_alert_untrusted(struct connection *connection, int fd, const unsigned char *alert,
                                         ssize_t size) {
    bool modern = tls_version(fd) == TLS13;
    if (size != 2)
        return violation(connection, fd, size ? DECODE_ERROR : UNEXPECTED_MESSAGE,
                         size ? "an alert of another length than 2" : "an empty record that is no data");
    if (alert[1] == USER_CANCELED && (modern || alert[0] == WARNING))
        return take(connection, fd, alert, size, PASSED);
    if (!modern && alert[0] != WARNING && alert[0] != FATAL)
        return violation(connection, fd, ILLEGAL_PARAMETER, "an alert of another level than warning and fatal");
    if (!modern && alert[0] == WARNING && alert[1] == NO_RENEGOTIATION)
        return violation(connection, fd, HANDSHAKE_FAILURE, "no_renegotiation, and nobody had asked for it");
    if (!modern && alert[0] == WARNING)
        return take(connection, fd, alert, size, PASSED);
    return peer_failed(connection, fd, alert[1]);
}

/* --- handshake messages
 * ------------------------------------------------------------------------------------------------------ */

/* Lengths, in bytes, as OpenSSL bounds them: a ticket of 64 KiB and as many extensions. `taker`: 1 servers, 0 clients,
 * -1 both. */
static const struct {
    int version, type, taker;
    uint32_t longest;
} messages[] = {
    {TLS13, NEW_SESSION_TICKET, 0, 131338},
    {TLS13, KEY_UPDATE, -1, 1},
    {TLS12, HELLO_REQUEST, 0, 0},
    {TLS12, CLIENT_HELLO, 1, 131396},
};

/* What a record of handshake messages has. */
struct contents {
    bool update, tickets, hello; /* a KeyUpdate at the end; NewSessionTickets; a ClientHello */
    bool piece;                  /* the last message goes on in the next record */
    uint32_t missing;            /* bytes of it */
    unsigned char begun[HEADER]; /* its header, as far as it has come */
    int begun_size;
    int alert; /* of what no stream has; -1: nothing */
    const char *why;
};

static void refuse(struct contents *contents, int alert, const char *why) {
    contents->alert = alert;
    contents->why = why;
}

static uint32_t length_untrusted(struct contents *contents, const unsigned char *header, size_t size, int version,
                                 int server) {
    uint32_t length = 0;
    for (size_t at = 0; at < sizeof messages / sizeof *messages; at++) {
        if (messages[at].version != version || messages[at].type != header[0] ||
            (server >= 0 && messages[at].taker == !server))
            continue;
        for (size_t byte = 1; byte < HEADER; byte++)
            length = length << 8 | (byte < size ? header[byte] : 0U);
        if (length > messages[at].longest)
            refuse(contents, messages[at].longest <= 1 ? DECODE_ERROR : ILLEGAL_PARAMETER,
                   "a handshake message that is too long");
        return length;
    }
    refuse(contents, UNEXPECTED_MESSAGE, "a handshake message that no stream has");
    return 0;
}

static void note_message(struct contents *contents, const unsigned char *message, uint32_t length) {
    contents->update = message[0] == KEY_UPDATE;
    contents->tickets |= message[0] == NEW_SESSION_TICKET;
    contents->hello |= message[0] == CLIENT_HELLO;
    if (message[0] == KEY_UPDATE && !length)
        refuse(contents, DECODE_ERROR, "a KeyUpdate without a word");
    else if (message[0] == KEY_UPDATE && message[HEADER] > 1)
        refuse(contents, ILLEGAL_PARAMETER, "a KeyUpdate that asks for what there is not");
}

/* The messages that begin in a record. */
static struct contents contents_untrusted(const unsigned char *data, size_t size, int version, int server) {
    struct contents contents = {.alert = -1};
    if (!size)
        refuse(&contents, UNEXPECTED_MESSAGE, "an empty record that is no data");
    while (size && contents.alert < 0) {
        if (contents.update) {
            refuse(&contents, UNEXPECTED_MESSAGE, "something behind a KeyUpdate in its record (RFC 8446 section 5.1)");
            break;
        }
        uint32_t length = length_untrusted(&contents, data, size, version, server);
        if (contents.alert >= 0)
            break;
        if (size < HEADER + (size_t)length) {
            contents.piece = true;
            contents.begun_size = size < HEADER ? (int)size : HEADER;
            memcpy(contents.begun, data, (size_t)contents.begun_size);
            contents.missing = (uint32_t)(HEADER + length - size);
            break;
        }
        note_message(&contents, data, length);
        data += HEADER + length;
        size -= HEADER + length;
    }
    return contents;
}

static void hand_in_tickets(int fd, const unsigned char *content, size_t size) {
    struct exchange *exchange = exchange_open(0);
    if (!exchange)
        return;
    request_begin(&exchange->request, KIND_TICKET);
    request_bytes(&exchange->request, ATTRIBUTE_TICKET, content, size);
    exchange_tell(exchange, fd, NULL, 0);
    exchange_close(exchange);
}

/* Have ssad take the messages that are next, and follow the peer's KeyUpdate. `refused`: ssad is not there, or does not
 * know the socket. */
static enum served ask_ssad(struct connection *connection, int fd, bool *refused) {
    struct exchange *exchange = exchange_open(LOCAL);
    *refused = !exchange && errno == ECONNREFUSED;
    if (!exchange)
        return SERVE_FAILED;
    request_begin(&exchange->request, KIND_REKEY);
    request_number(&exchange->request, ATTRIBUTE_RECEIVING, 1);
    struct reply *reply = &exchange->reply;
    enum served served = SERVE_FAILED;
    if (!exchange_ask(exchange, fd, NULL, 0)) {
        bool answer = attribute_number(reply->data, reply->size, ATTRIBUTE_SENDING);
        bool more = attribute_number(reply->data, reply->size, ATTRIBUTE_UNFINISHED);
        served = more ? MORE : answer ? ANSWER : GO_ON;
    } else if (exchange_says(exchange, "PROTOCOL_VIOLATION")) {
        char name[64] = "";
        size_t length = 0;
        const char *told = attribute(reply->data, reply->size, ATTRIBUTE_ALERT, &length);
        copy_text(name, sizeof name, told ? told : "unexpected_message", told ? length : sizeof name);
        const char *detail = attribute(reply->data, reply->size, ATTRIBUTE_DETAIL, &length);
        char text[WORDS_ROOM / 2] = "";
        copy_text(text, sizeof text, detail ? detail : "", detail ? length : 0);
        violation(connection, fd, alert_number(name), text);
    } else {
        *refused = exchange_says(exchange, "UNKNOWN_SOCKET");
    }
    exchange_close(exchange);
    return served;
}

/* Serve a record without ssad. A message that goes on in the next record is passed over: only its end is remembered. */
static enum served serve_alone(struct connection *connection, int fd, const unsigned char *content, size_t size,
                               const struct contents *contents) {
    if (take(connection, fd, content, (ssize_t)size, GO_ON) != GO_ON)
        return SERVE_FAILED;
    if (content[0] == KEY_UPDATE)
        read_on(fd);
    if (contents->tickets)
        hand_in_tickets(fd, content, size - (contents->piece ? (size_t)contents->begun_size : 0));
    if (contents->hello)
        send_alert(fd, WARNING, NO_RENEGOTIATION, MSG_DONTWAIT);
    return contents->piece ? MORE : GO_ON;
}

/* The next record of a message that ssad did not take: what is left of it is passed over. */
static enum served skip_piece(struct connection *connection, int fd, const unsigned char *content, ssize_t size) {
    size_t part = (size_t)size < connection->skip ? (size_t)size : connection->skip;
    if (part < (size_t)size)
        return violation(connection, fd, UNEXPECTED_MESSAGE, "a message in pieces, and something behind it");
    if (take(connection, fd, content, size, GO_ON) != GO_ON)
        return SERVE_FAILED;
    if (content[0] == KEY_UPDATE)
        read_on(fd);
    connection->skip -= (uint32_t)part;
    return connection->skip ? MORE : GO_ON;
}

static enum served serve_handshake_untrusted(struct connection *connection, int fd, const unsigned char *content,
                                             ssize_t size) {
    int version = tls_version(fd);
    if (connection->skip)
        return skip_piece(connection, fd, content, size);
    struct contents contents = contents_untrusted(content, (size_t)size, version, atomic_load(&connection->server));
    if (contents.alert < 0 && !contents.update && !contents.piece)
        return serve_alone(connection, fd, content, (size_t)size, &contents);
    bool refused;
    enum served served = ask_ssad(connection, fd, &refused);
    if (served != SERVE_FAILED || !refused || contents.update)
        return served;
    if (contents.alert >= 0)
        return violation(connection, fd, contents.alert, contents.why);
    if (contents.begun_size < HEADER || contents.begun[0] == KEY_UPDATE)
        return SERVE_FAILED;
    connection->skip = contents.missing;
    return serve_alone(connection, fd, content, (size_t)size, &contents);
}

/* --- the next record
 * ------------------------------------------------------------------------------------------------------------ */

static enum served serve_record_untrusted(struct connection *connection, int fd, unsigned char *content,
                                          bool unfinished) {
    int type;
    ssize_t size = record_look(fd, content, LONGEST_RECORD, &type);
    bool refused;
    if (size < 0)
        return errno == EAGAIN ? (unfinished ? MORE : GO_ON) : SERVE_FAILED;
    if (type == RECORD_DATA)
        return unfinished && size ? ask_ssad(connection, fd, &refused) : GO_ON;
    if (type == RECORD_ALERT && size == 2 && content[1] == CLOSE_NOTIFY)
        return END;
    if (type == RECORD_HANDSHAKE)
        return serve_handshake_untrusted(connection, fd, content, size);
    if (type == RECORD_ALERT)
        return serve_alert_untrusted(connection, fd, content, size);
    return violation(connection, fd, UNEXPECTED_MESSAGE, "a record of a type that no stream has");
}

enum served serve_control_untrusted(struct connection *connection, int fd, bool unfinished) {
    struct exchange *scratch = exchange_of(-1); /* stacks can be small */
    if (!scratch)
        return SERVE_FAILED;
    lock_take(&connection->reading);
    enum served served = serve_record_untrusted(connection, fd, scratch->reply.data, unfinished);
    lock_release(&connection->reading);
    exchange_forget(scratch);
    if (served == ANSWER) {
        atomic_store(&connection->answer_due, true);
        atomic_store(&connection->budget, -1);
    }
    return served;
}

/* Serve a KeyUpdate that waits behind what was read: where a read had room to spare, the kernel has looked on, and may
 * have found one. It waits to be read, and poll(2) says that there is nothing, whatever follows: a program that polls
 * first would never read again. An error is left to the next read; poll(2) has to say so. */
enum served look_behind_untrusted(struct connection *connection, int fd) {
    unsigned char content[64];
    int type;
    if (syscall(SYS_recvfrom, fd, content, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) >= 0 || errno != EIO)
        return GO_ON;
    if (record_look(fd, content, sizeof content, &type) < 1 || type != RECORD_HANDSHAKE || content[0] != KEY_UPDATE)
        return GO_ON; /* others do not hide */
    enum served served = serve_control_untrusted(connection, fd, false);
    if (served == SERVE_FAILED)
        syscall(SYS_shutdown, fd, SHUT_RD);
    return served;
}
