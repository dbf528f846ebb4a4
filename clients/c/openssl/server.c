/* server.c: the server's side of a handshake.
 *
 * A server may choose its certificate, and the application protocol, by what the client asks for. So the ClientHello is
 * read, the program's callbacks are called in OpenSSL's order, and what they have chosen goes to ssad, with the bytes
 * that were read.
 */

#include "coerced.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- what the callbacks may ask of the ClientHello --- */

struct chosen {
    unsigned char alpn[1 + LONGEST_NAME]; /* a length byte and the name; 0: none */
    int result; /* 1; 0: refused, with the words; -1: the program wants to be called again, `error` says for what */
    int error;
};

static _Thread_local const struct client_hello *shown __attribute__((tls_model("initial-exec"))); /* in callbacks */

static const struct client_hello *hello_of(const SSL *ssl) {
    return coerced_of(ssl)->looking ? shown : NULL;
}

static size_t give_part(struct part part, const unsigned char **out) {
    if (out)
        *out = part.data;
    return part.size;
}

#define SHOW(name, field)                                                                                              \
    EXPORT size_t name(SSL *ssl, const unsigned char **out) {                                                          \
        const struct client_hello *hello = hello_of(ssl);                                                              \
        return hello ? give_part(hello->field, out) : REAL(name)(ssl, out);                                            \
    }
SHOW(SSL_client_hello_get0_random, random)
SHOW(SSL_client_hello_get0_session_id, session)
SHOW(SSL_client_hello_get0_ciphers, ciphers)
SHOW(SSL_client_hello_get0_compression_methods, compressions)

EXPORT unsigned SSL_client_hello_get0_legacy_version(SSL *ssl) {
    const struct client_hello *hello = hello_of(ssl);
    return hello ? hello->version : REAL(SSL_client_hello_get0_legacy_version)(ssl);
}

EXPORT int SSL_client_hello_isv2(SSL *ssl) {
    return hello_of(ssl) ? 0 : REAL(SSL_client_hello_isv2)(ssl);
}

EXPORT int SSL_client_hello_get0_ext(SSL *ssl, unsigned type, const unsigned char **out, size_t *size) {
    const struct client_hello *hello = hello_of(ssl);
    if (!hello)
        return REAL(SSL_client_hello_get0_ext)(ssl, type, out, size);
    struct part value = hello_extension_untrusted(hello, type);
    if (!value.data)
        return 0;
    size_t length = give_part(value, out);
    if (size)
        *size = length;
    return 1;
}

EXPORT const char *SSL_get_servername(const SSL *ssl, int type) {
    struct coerced *coerced = coerced_of(ssl);
    bool ours = coerced->role == SERVER && (coerced->looking || coerced->stage == DONE);
    if (!ours || type != TLSEXT_NAMETYPE_host_name)
        return REAL(SSL_get_servername)(ssl, type);
    return *coerced->name ? coerced->name : NULL;
}

EXPORT int SSL_get_servername_type(const SSL *ssl) {
    return SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) ? TLSEXT_NAMETYPE_host_name : -1;
}

/* --- the setters, which have no getters --- */

EXPORT void SSL_CTX_set_client_hello_cb(SSL_CTX *context, SSL_client_hello_cb_fn callback, void *argument) {
    wishes_of(context)->hello_cb = callback;
    wishes_of(context)->hello_cb_argument = argument;
    REAL(SSL_CTX_set_client_hello_cb)(context, callback, argument);
}

EXPORT void SSL_CTX_set_cert_cb(SSL_CTX *context, int (*callback)(SSL *, void *), void *argument) {
    wishes_of(context)->cert_cb = callback;
    wishes_of(context)->cert_cb_argument = argument;
    REAL(SSL_CTX_set_cert_cb)(context, callback, argument);
}

EXPORT void SSL_set_cert_cb(SSL *ssl, int (*callback)(SSL *, void *), void *argument) {
    coerced_of(ssl)->cert_cb = callback;
    coerced_of(ssl)->cert_cb_argument = argument;
    REAL(SSL_set_cert_cb)(ssl, callback, argument);
}

EXPORT void SSL_CTX_set_alpn_select_cb(SSL_CTX *context, SSL_CTX_alpn_select_cb_func callback, void *argument) {
    wishes_of(context)->alpn_cb = callback;
    wishes_of(context)->alpn_cb_argument = argument;
    REAL(SSL_CTX_set_alpn_select_cb)(context, callback, argument);
}

EXPORT void SSL_CTX_set_cert_verify_callback(SSL_CTX *context, int (*callback)(X509_STORE_CTX *, void *),
                                             void *argument) {
    wishes_of(context)->verify_cb = callback;
    wishes_of(context)->verify_cb_argument = argument;
    REAL(SSL_CTX_set_cert_verify_callback)(context, callback, argument);
}

EXPORT long SSL_CTX_callback_ctrl(SSL_CTX *context, int command, void (*callback)(void)) {
    if (command == SSL_CTRL_SET_TLSEXT_SERVERNAME_CB)
        wishes_of(context)->name_cb = (int (*)(SSL *, int *, void *))callback;
    return REAL(SSL_CTX_callback_ctrl)(context, command, callback);
}

EXPORT long SSL_CTX_ctrl(SSL_CTX *context, int command, long number, void *pointer) {
    if (command == SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG)
        wishes_of(context)->name_cb_argument = pointer;
    return REAL(SSL_CTX_ctrl)(context, command, number, pointer);
}

/* --- the callbacks, in the order in which OpenSSL calls them --- */

static struct wishes *wishes_for(SSL *ssl) {
    return wishes_of(REAL(SSL_get_SSL_CTX)(ssl)); /* a callback may have given it another context */
}

static int refused_by(struct chosen *chosen, const char *which) {
    fail(EPROTO, "the program refuses the client: its callback %s said so", which);
    return chosen->result = 0;
}

static int ask_hello(SSL *ssl, struct chosen *chosen) {
    struct wishes *wishes = wishes_for(ssl);
    int alert = SSL_AD_INTERNAL_ERROR;
    if (!wishes->hello_cb)
        return 1;
    int said = wishes->hello_cb(ssl, &alert, wishes->hello_cb_argument);
    if (said == SSL_CLIENT_HELLO_RETRY) {
        chosen->error = SSL_ERROR_WANT_CLIENT_HELLO_CB;
        return chosen->result = -1;
    }
    return said == SSL_CLIENT_HELLO_SUCCESS ? 1 : refused_by(chosen, "of SSL_CTX_set_client_hello_cb");
}

static int ask_name(SSL *ssl, struct chosen *chosen) {
    struct wishes *wishes = wishes_for(ssl);
    int alert = SSL_AD_UNRECOGNIZED_NAME;
    if (!wishes->name_cb || wishes->name_cb(ssl, &alert, wishes->name_cb_argument) != SSL_TLSEXT_ERR_ALERT_FATAL)
        return 1;
    return refused_by(chosen, "of SSL_CTX_set_tlsext_servername_callback");
}

static int ask_certificate(SSL *ssl, struct chosen *chosen) {
    struct coerced *coerced = coerced_of(ssl);
    struct wishes *wishes = wishes_for(ssl);
    int (*callback)(SSL *, void *) = coerced->cert_cb ? coerced->cert_cb : wishes->cert_cb;
    if (!callback)
        return 1;
    int said = callback(ssl, coerced->cert_cb ? coerced->cert_cb_argument : wishes->cert_cb_argument);
    if (said < 0) {
        chosen->error = SSL_ERROR_WANT_X509_LOOKUP;
        return chosen->result = -1;
    }
    return said ? 1 : refused_by(chosen, "of SSL_CTX_set_cert_cb");
}

static int ask_protocol(SSL *ssl, struct chosen *chosen) {
    struct wishes *wishes = wishes_for(ssl);
    struct part offered = hello_alpn_untrusted(shown);
    if (!wishes->alpn_cb || !offered.size)
        return 1;
    const unsigned char *name = NULL;
    unsigned char size = 0;
    int said = wishes->alpn_cb(ssl, &name, &size, offered.data, (unsigned)offered.size, wishes->alpn_cb_argument);
    if (said == SSL_TLSEXT_ERR_OK && name) {
        chosen->alpn[0] = size;
        memcpy(chosen->alpn + 1, name, size);
    }
    return said != SSL_TLSEXT_ERR_ALERT_FATAL ? 1 : refused_by(chosen, "of SSL_CTX_set_alpn_select_cb");
}

static void choose(SSL *ssl, struct coerced *coerced, struct chosen *chosen) {
    struct client_hello hello;
    static const struct client_hello nothing;
    unsigned char *room = malloc(sizeof coerced->hello->data);
    bool whole = room && hello_parse_untrusted(coerced->hello, room, &hello);
    shown = whole ? &hello : &nothing; /* ssad will say what is wrong with it */
    hello_name_untrusted(shown, coerced->name, sizeof coerced->name);
    coerced->looking = true;
    *chosen = (struct chosen){.result = 1};
    if (ask_hello(ssl, chosen) > 0 && ask_name(ssl, chosen) > 0 && ask_certificate(ssl, chosen) > 0)
        ask_protocol(ssl, chosen);
    coerced->looking = false;
    shown = NULL;
    free(room);
}

/* --- the handshake --- */

static int answer(SSL *ssl, struct coerced *coerced, const struct chosen *chosen) {
    int mode = REAL(SSL_get_verify_mode)(ssl);
    struct exchange *exchange = exchange_for(coerced->fd);
    if (!exchange)
        return refuse(ssl, errno);
    request_begin(&exchange->request, KIND_ACCEPT);
    request_bytes(&exchange->request, ATTRIBUTE_AHEAD, coerced->hello->data, coerced->hello->size);
    if (chosen->alpn[0])
        request_bytes(&exchange->request, ATTRIBUTE_ALPN, chosen->alpn, 1U + chosen->alpn[0]);
    bool asks = mode & SSL_VERIFY_PEER;
    if (asks)
        request_number(&exchange->request, ATTRIBUTE_PEER_AUTH, mode & SSL_VERIFY_FAIL_IF_NO_PEER_CERT ? 1 : 2);
    add_wishes(ssl, &exchange->request);
    return hand_over(ssl, coerced, exchange, asks);
}

static int cannot_read(SSL *ssl, struct coerced *coerced, int got) {
    if (got < 0 && REAL(BIO_test_flags)(REAL(SSL_get_rbio)(ssl), BIO_FLAGS_SHOULD_RETRY))
        return outcome(coerced, SSL_ERROR_WANT_READ, -1);
    if (got < 0 && errno)
        return outcome(coerced, SSL_ERROR_SYSCALL, -1);
    set_words("the client closed the connection before the handshake");
    return refuse_with(ssl, ERR_LIB_SSL, SSL_R_UNEXPECTED_EOF_WHILE_READING);
}

/* Read the ClientHello. 1: it is there. */
static int gather(SSL *ssl, struct coerced *coerced) {
    int look;
    if (!coerced->hello && !(coerced->hello = calloc(1, sizeof *coerced->hello)))
        return refuse(ssl, fail_plainly(ENOMEM));
    while ((look = hello_look_untrusted(coerced->hello)) == HELLO_SHORT) {
        struct hello *hello = coerced->hello;
        errno = 0;
        int got = read_below(ssl, hello->data + hello->size, (int)(sizeof hello->data - hello->size), &coerced->fd);
        if (coerced->fd == NO_SOCKET)
            return leave(ssl, "a server's TLS that is not on a TCP socket (BIO)") ? REAL(SSL_do_handshake)(ssl) : -1;
        if (got <= 0)
            return cannot_read(ssl, coerced, got);
        hello->size += (size_t)got;
    }
    if (look == HELLO_IS_HTTP) {
        set_words("the client speaks HTTP without TLS");
        return refuse_with(ssl, ERR_LIB_SSL, SSL_R_HTTP_REQUEST);
    }
    return 1;
}

int begin_server(SSL *ssl, struct coerced *coerced) {
    struct chosen chosen;
    if (REAL(SSL_is_dtls)(ssl))
        return leave(ssl, "DTLS by OpenSSL") ? REAL(SSL_do_handshake)(ssl) : -1;
    int done = gather(ssl, coerced);
    if (done <= 0 || coerced->stage == LEFT)
        return done;
    choose(ssl, coerced, &chosen);
    if (!chosen.result)
        return refuse(ssl, EPROTO);
    if (chosen.result < 0)
        return outcome(coerced, chosen.error, -1);
    return answer(ssl, coerced, &chosen);
}
