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
 * What each record means is post_handshake.c's. What stays in the socket keeps every other reader from what is behind
 * it, in whatever process.
 */

#include "internal.h"
#include "post_handshake.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- the connection has failed --- */

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
    return fail_again(connection, atomic_load(&connection->broken));
}

static enum served violation(struct connection *connection, int fd, int alert, const char *what) {
    char text[WORDS_ROOM];
    snprintf(text, sizeof text, "the peer broke the TLS protocol: %s", what);
    break_connection(connection, fd, EPROTO, alert, text);
    return SERVE_FAILED;
}

static enum served break_by(struct connection *connection, int fd, const struct verdict *verdict) {
    char text[WORDS_ROOM];
    if (verdict->why)
        return violation(connection, fd, verdict->alert, verdict->why);
    snprintf(text, sizeof text, "the peer ended the connection with the alert %s", alert_name(verdict->peer_alert));
    break_connection(connection, fd, EPROTO, NO_ALERT, text);
    return SERVE_FAILED;
}

/* What the kernel says, once, of a record that it cannot take. The first record of a connection that is plain text
 * instead looks to the kernel like one that is too long. */
static const struct {
    int number, alert;
    const char *text;
} unreadables[] = {
    {EBADMSG, BAD_RECORD_MAC, "a record was forged or damaged on its way: it does not decrypt"},
    {EMSGSIZE, RECORD_OVERFLOW, "a record is longer than TLS allows, or is none"},
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

/* --- a record that this process takes --- */

struct looked {
    int type;
    const unsigned char *content;
    size_t size;
};

static enum served take(struct connection *connection, int fd, const struct looked *looked) {
    struct exchange *scratch = exchange_of(-1);
    int type;
    if (!scratch)
        return SERVE_FAILED;
    unsigned char *again = scratch->reply.data;
    ssize_t got = record_read(fd, again, looked->size ? looked->size : 1, MSG_DONTWAIT, &type);
    bool same = got == (ssize_t)looked->size && !memcmp(again, looked->content, looked->size);
    exchange_forget(scratch);
    if (same)
        return looked->type == RECORD_ALERT ? PASSED : GO_ON;
    break_connection(connection, fd, EIO, INTERNAL_ERROR,
                     "somebody else reads from this socket, and what came is lost");
    return SERVE_FAILED;
}

/* A handshake record that begins with the byte of a KeyUpdate and is none: the kernel waits for a key. */
static enum served take_handshake(struct connection *connection, int fd, const struct looked *looked) {
    enum served served = take(connection, fd, looked);
    if (served == GO_ON && looked->content[0] == KEY_UPDATE)
        read_on(fd);
    return served;
}

static void hand_in_tickets(int fd, const unsigned char *messages, size_t size) {
    struct exchange *exchange = size ? exchange_open(0) : NULL;
    if (!exchange)
        return;
    request_begin(&exchange->request, KIND_TICKET);
    request_bytes(&exchange->request, ATTRIBUTE_TICKET, messages, size);
    exchange_tell(exchange, fd, NULL, 0);
    exchange_close(exchange);
}

/* The next record of a message that ssad could not take: what is left of it is passed over. */
static enum served skip_piece(struct connection *connection, int fd, const struct looked *looked) {
    if (looked->size > connection->skip)
        return violation(connection, fd, UNEXPECTED_MESSAGE, "a message in pieces, and something behind it");
    enum served served = take_handshake(connection, fd, looked);
    if (served == GO_ON)
        connection->skip -= (uint32_t)looked->size;
    return served == GO_ON && connection->skip ? MORE : served;
}

/* A message that goes on in the next record, without an ssad that joins the pieces. A ticket is lost then, and no
 * worse. */
static enum served begin_to_skip(struct connection *connection, int fd, const struct looked *looked,
                                 const struct verdict *verdict) {
    if (!verdict->missing)
        return SERVE_FAILED;
    enum served served = take_handshake(connection, fd, looked);
    if (served != GO_ON)
        return served;
    connection->skip = verdict->missing;
    return MORE;
}

/* --- a record that ssad takes --- */

static void break_as_told(struct connection *connection, int fd, const struct reply *reply) {
    char name[64], detail[WORDS_ROOM / 2];
    size_t length = 0;
    const char *told = attribute(reply->data, reply->size, ATTRIBUTE_ALERT, &length);
    copy_text(name, sizeof name, told ? told : "unexpected_message", told ? length : sizeof name);
    told = attribute(reply->data, reply->size, ATTRIBUTE_DETAIL, &length);
    copy_text(detail, sizeof detail, told ? told : "", told ? length : 0);
    violation(connection, fd, alert_number(name), detail);
}

/* Have ssad take the messages that are next, and follow the peer's KeyUpdate. `refused`: it is not there, or does not
 * know the socket. */
static enum served ask_ssad(struct connection *connection, int fd, bool *refused) {
    struct exchange *exchange = exchange_open(LOCAL);
    *refused = !exchange && errno == ECONNREFUSED;
    if (!exchange)
        return SERVE_FAILED;
    request_begin(&exchange->request, KIND_REKEY);
    request_number(&exchange->request, ATTRIBUTE_RECEIVING, 1);
    const struct reply *reply = &exchange->reply;
    enum served served = SERVE_FAILED;
    if (!exchange_ask(exchange, fd, NULL, 0)) {
        bool answer = attribute_number(reply->data, reply->size, ATTRIBUTE_SENDING);
        bool more = attribute_number(reply->data, reply->size, ATTRIBUTE_UNFINISHED);
        served = more ? MORE : answer ? ANSWER : GO_ON;
    } else if (exchange_says(exchange, "PROTOCOL_VIOLATION")) {
        break_as_told(connection, fd, reply);
    } else {
        *refused = exchange_says(exchange, "UNKNOWN_SOCKET");
    }
    exchange_close(exchange);
    return served;
}

/* A handshake record may be the rest of a message whose beginning another process has met: only ssad knows. */
static enum served ask_first(struct connection *connection, int fd, const struct looked *looked,
                             const struct verdict *verdict) {
    bool refused;
    enum served served = ask_ssad(connection, fd, &refused);
    if (served != SERVE_FAILED || !refused || verdict->update)
        return served;
    if (verdict->meaning == MEANS_FAIL)
        return break_by(connection, fd, verdict);
    return begin_to_skip(connection, fd, looked, verdict);
}

/* --- the next record --- */

static enum served serve_looked_untrusted(struct connection *connection, int fd, const struct looked *looked) {
    if (looked->type == RECORD_HANDSHAKE && connection->skip)
        return skip_piece(connection, fd, looked);
    struct verdict verdict = verdict_untrusted(tls_version(fd), atomic_load(&connection->server), looked->type,
                                               looked->content, looked->size);
    if (verdict.meaning == MEANS_END)
        return END;
    if (verdict.meaning == MEANS_ASK || (verdict.meaning == MEANS_FAIL && looked->type == RECORD_HANDSHAKE))
        return ask_first(connection, fd, looked, &verdict);
    if (verdict.meaning == MEANS_FAIL)
        return break_by(connection, fd, &verdict);
    enum served served = take(connection, fd, looked);
    if (served == GO_ON && verdict.meaning == MEANS_TICKET)
        hand_in_tickets(fd, looked->content, looked->size);
    if (served == GO_ON && verdict.meaning == MEANS_NO_RENEGOTIATION)
        send_alert(fd, WARNING, NO_RENEGOTIATION, MSG_DONTWAIT);
    return served;
}

static enum served serve_record_untrusted(struct connection *connection, int fd, unsigned char *content,
                                          bool unfinished) {
    struct looked looked = {.content = content};
    ssize_t size = record_look(fd, content, LONGEST_RECORD, &looked.type);
    bool refused;
    if (size < 0)
        return errno == EAGAIN ? (unfinished ? MORE : GO_ON) : SERVE_FAILED;
    if (looked.type == RECORD_DATA)
        return unfinished && size ? ask_ssad(connection, fd, &refused) : GO_ON;
    looked.size = (size_t)size;
    return serve_looked_untrusted(connection, fd, &looked);
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
