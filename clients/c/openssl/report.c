/* report.c: the functions that tell of a handshake. */

#include "coerced.h"

/* --- the peer's certificates: asked for when somebody wants them --- */

static void parse_chain(struct coerced *coerced, const unsigned char *data, size_t size, bool whole) {
    const unsigned char *end = data + size, *first = data;
    if (!coerced->peer)
        coerced->peer = REAL(d2i_X509)(NULL, &first, (long)size);
    if (!whole)
        return;
    coerced->chain = (STACK_OF(X509) *)REAL(OPENSSL_sk_new_null)();
    for (X509 *one; data < end && (one = REAL(d2i_X509)(NULL, &data, (long)(end - data)));)
        REAL(OPENSSL_sk_push)((OPENSSL_STACK *)coerced->chain, one);
}

void learn_chain(const SSL *ssl, bool whole) {
    struct coerced *coerced = done_with(ssl);
    if (!coerced || (whole ? coerced->chain != NULL : coerced->peer != NULL))
        return;
    const struct reply_copy *chain = told_chain(&coerced->told, coerced->fd);
    if (chain)
        parse_chain(coerced, chain->data, chain->size, whole);
}

EXPORT X509 *SSL_get0_peer_certificate(const SSL *ssl) {
    if (is_left(ssl))
        return REAL(SSL_get0_peer_certificate)(ssl);
    learn_chain(ssl, false);
    return coerced_of(ssl)->peer;
}

EXPORT X509 *SSL_get1_peer_certificate(const SSL *ssl) {
    if (is_left(ssl))
        return REAL(SSL_get1_peer_certificate)(ssl);
    X509 *peer = SSL_get0_peer_certificate(ssl);
    if (peer)
        REAL(X509_up_ref)(peer);
    return peer;
}

/* Of a client's chain OpenSSL leaves the first one out. */
static STACK_OF(X509) * others_of(struct coerced *coerced) {
    if (!coerced->others && coerced->chain) {
        coerced->others = (STACK_OF(X509) *)REAL(OPENSSL_sk_dup)((OPENSSL_STACK *)coerced->chain);
        REAL(OPENSSL_sk_shift)((OPENSSL_STACK *)coerced->others);
    }
    return coerced->others;
}

EXPORT STACK_OF(X509) * SSL_get_peer_cert_chain(const SSL *ssl) {
    if (is_left(ssl))
        return REAL(SSL_get_peer_cert_chain)(ssl);
    learn_chain(ssl, true);
    struct coerced *coerced = coerced_of(ssl);
    return coerced->role == SERVER ? others_of(coerced) : coerced->chain;
}

EXPORT STACK_OF(X509) * SSL_get0_verified_chain(const SSL *ssl) {
    if (is_left(ssl))
        return REAL(SSL_get0_verified_chain)(ssl);
    learn_chain(ssl, true);
    return coerced_of(ssl)->chain;
}

/* --- what was agreed on --- */

EXPORT const SSL_CIPHER *SSL_get_current_cipher(const SSL *ssl) {
    if (is_left(ssl))
        return REAL(SSL_get_current_cipher)(ssl);
    struct coerced *coerced = done_with(ssl);
    unsigned number = coerced ? told_suite(&coerced->told) : 0;
    unsigned char wire[2] = {(unsigned char)(number >> 8), (unsigned char)number};
    return number ? REAL(SSL_CIPHER_find)((SSL *)ssl, wire) : NULL;
}

EXPORT const SSL_CIPHER *SSL_get_pending_cipher(const SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_get_pending_cipher)(ssl) : SSL_get_current_cipher(ssl);
}

static bool is_13(const struct coerced *coerced) {
    return told_version(&coerced->told) == TLS1_3_VERSION;
}

EXPORT const char *SSL_get_version(const SSL *ssl) {
    struct coerced *coerced = done_with(ssl);
    return !coerced ? REAL(SSL_get_version)(ssl) : is_13(coerced) ? "TLSv1.3" : "TLSv1.2";
}

EXPORT int SSL_version(const SSL *ssl) {
    struct coerced *coerced = done_with(ssl);
    return !coerced ? REAL(SSL_version)(ssl) : is_13(coerced) ? TLS1_3_VERSION : TLS1_2_VERSION;
}

EXPORT int SSL_session_reused(const SSL *ssl) {
    struct coerced *coerced = done_with(ssl);
    if (!coerced)
        return REAL(SSL_session_reused)(ssl);
    return told_resumed(&coerced->told);
}

EXPORT void SSL_get0_alpn_selected(const SSL *ssl, const unsigned char **name, unsigned *size) {
    struct coerced *coerced = done_with(ssl);
    size_t length = 0;
    if (is_left(ssl)) {
        REAL(SSL_get0_alpn_selected)(ssl, name, size);
        return;
    }
    const unsigned char *list = coerced ? told_bytes(&coerced->told, ATTRIBUTE_ALPN, &length) : NULL;
    *name = list && length > 1 ? list + 1 : NULL;
    *size = *name ? list[0] : 0;
}

/* --- the state --- */

EXPORT int SSL_is_init_finished(const SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_is_init_finished)(ssl) : done_with(ssl) != NULL;
}

EXPORT int SSL_in_init(const SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_in_init)(ssl) : !done_with(ssl);
}

EXPORT int SSL_in_before(const SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_in_before)(ssl) : coerced_of(ssl)->stage == BEFORE;
}

EXPORT OSSL_HANDSHAKE_STATE SSL_get_state(const SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_get_state)(ssl) : done_with(ssl) ? TLS_ST_OK : TLS_ST_BEFORE;
}

/* --- what ssa does not do for a program, and says so --- */

static int cannot(const char *what) {
    push_error(ERR_LIB_SSL, ERR_R_DISABLED, what);
    return 0;
}

EXPORT int SSL_export_keying_material(SSL *ssl, unsigned char *out, size_t out_size, const char *label,
                                      size_t label_size, const unsigned char *context, size_t context_size, int use) {
    return is_left(ssl)
               ? REAL(SSL_export_keying_material)(ssl, out, out_size, label, label_size, context, context_size, use)
               : cannot("ssa exports no keying material (RFC 8446 section 7.5)");
}

EXPORT int SSL_key_update(SSL *ssl, int kind) {
    return is_left(ssl) ? REAL(SSL_key_update)(ssl, kind) : 1; /* ssa changes keys when it is time */
}

EXPORT int SSL_renegotiate(SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_renegotiate)(ssl) : cannot("ssa does not renegotiate");
}

EXPORT int SSL_renegotiate_abbreviated(SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_renegotiate_abbreviated)(ssl) : cannot("ssa does not renegotiate");
}

EXPORT int SSL_verify_client_post_handshake(SSL *ssl) {
    return is_left(ssl) ? REAL(SSL_verify_client_post_handshake)(ssl)
                        : cannot("ssa asks clients for certificates in the handshake only");
}
