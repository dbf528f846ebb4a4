/* post_handshake.c: the table of docs/library.md, "Reading": RFC 8446 sections 4.6, 5, 5.1 and 6, RFC 5246
 * sections 7.2.2 and 7.4.1.1.
 */

#include "post_handshake.h"

#include "internal.h"

static struct verdict fails(int alert, const char *why) {
    return (struct verdict){.meaning = MEANS_FAIL, .alert = alert, .why = why};
}

static struct verdict means(enum meaning meaning) {
    return (struct verdict){.meaning = meaning, .alert = NO_ALERT};
}

/* --- alerts --- */

static struct verdict alert_untrusted(bool modern, const unsigned char *alert, size_t size) {
    if (size != 2)
        return size ? fails(DECODE_ERROR, "an alert of another length than 2")
                    : fails(UNEXPECTED_MESSAGE, "an empty record that is no data");
    bool warning = alert[0] == WARNING;
    if (alert[1] == CLOSE_NOTIFY)
        return means(MEANS_END);
    if (alert[1] == USER_CANCELED && (modern || warning))
        return means(MEANS_PASS_OVER);
    if (!modern && !warning && alert[0] != FATAL)
        return fails(ILLEGAL_PARAMETER, "an alert of another level than warning and fatal");
    if (!modern && warning && alert[1] == NO_RENEGOTIATION)
        return fails(HANDSHAKE_FAILURE, "no_renegotiation, and nobody had asked for it");
    if (!modern && warning)
        return means(MEANS_PASS_OVER);
    struct verdict verdict = fails(NO_ALERT, NULL);
    verdict.peer_alert = alert[1];
    return verdict;
}

/* --- handshake messages --- */

enum { HEADER = 4 }; /* bytes of a handshake message: its type and length */

/* Lengths in bytes, as OpenSSL bounds them: a ticket of 64 KiB and as many extensions. `taker`: 1: servers, 0: clients,
 * -1: both. */
static const struct message {
    int version, type, taker;
    uint32_t longest;
    enum meaning meaning;
} messages[] = {
    {TLS13, NEW_SESSION_TICKET, 0, 131338, MEANS_TICKET},
    {TLS13, KEY_UPDATE, -1, 1, MEANS_ASK},
    {TLS12, HELLO_REQUEST, 0, 0, MEANS_PASS_OVER},
    {TLS12, CLIENT_HELLO, 1, 131396, MEANS_NO_RENEGOTIATION},
};

static const struct message *message_of(int version, int server, int type) {
    for (size_t at = 0; at < sizeof messages / sizeof *messages; at++)
        if (messages[at].version == version && messages[at].type == type &&
            (server < 0 || messages[at].taker < 0 || messages[at].taker == server))
            return &messages[at];
    return NULL;
}

/* The length that a header says, as far as it has come: the least that it can be. */
static uint32_t least_length(const unsigned char *header, size_t size) {
    uint32_t length = 0;
    for (size_t at = 1; at < HEADER; at++)
        length = length << 8 | (at < size ? header[at] : 0U);
    return length;
}

static struct verdict too_long(const struct message *message) {
    return fails(message->longest <= 1 ? DECODE_ERROR : ILLEGAL_PARAMETER, "a handshake message that is too long");
}

static struct verdict update_untrusted(const unsigned char *body, uint32_t length) {
    if (!length)
        return fails(DECODE_ERROR, "a KeyUpdate without a word");
    return *body > 1 ? fails(ILLEGAL_PARAMETER, "a KeyUpdate that asks for what there is not") : means(MEANS_ASK);
}

static struct verdict messages_untrusted(int version, int server, const unsigned char *data, size_t size) {
    struct verdict verdict = fails(UNEXPECTED_MESSAGE, "an empty record that is no data");
    size_t at = 0;
    while (at < size) {
        const struct message *message = message_of(version, server, data[at]);
        if (verdict.update)
            return fails(UNEXPECTED_MESSAGE, "something behind a KeyUpdate in its record (RFC 8446 section 5.1)");
        if (!message)
            return fails(UNEXPECTED_MESSAGE, "a handshake message that no stream has");
        uint32_t length = least_length(data + at, size - at);
        if (length > message->longest)
            return too_long(message);
        if (size - at < HEADER + (size_t)length) {
            verdict = means(MEANS_ASK);
            verdict.first = data[at];
            verdict.missing = size - at < HEADER ? 0 : (uint32_t)(HEADER + length - (size - at));
            verdict.whole = at;
            return verdict;
        }
        verdict = data[at] == KEY_UPDATE ? update_untrusted(data + at + HEADER, length) : means(message->meaning);
        if (verdict.meaning == MEANS_FAIL)
            return verdict;
        verdict.update = data[at] == KEY_UPDATE;
        at += HEADER + length;
    }
    verdict.whole = at;
    return verdict;
}

struct verdict verdict_untrusted(int version, int server, int type, const unsigned char *content, size_t size) {
    if (type == RECORD_ALERT)
        return alert_untrusted(version == TLS13, content, size);
    if (type == RECORD_HANDSHAKE)
        return messages_untrusted(version, server, content, size);
    return fails(UNEXPECTED_MESSAGE, "a record of a type that no stream has");
}
