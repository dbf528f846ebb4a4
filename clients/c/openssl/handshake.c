/* handshake.c: SSL_connect(3), SSL_accept(3), SSL_do_handshake(3), and what clients and servers have in common. */

#include "coerced.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- what the program wishes, as attributes of a request --- */

static bool has_suite(unsigned number, const void *ciphers) {
    int count = ciphers ? REAL(OPENSSL_sk_num)(ciphers) : 0;
    for (int at = 0; at < count; at++)
        if (REAL(SSL_CIPHER_get_protocol_id)(REAL(OPENSSL_sk_value)(ciphers, at)) == number)
            return true;
    return false;
}

/* The lowest and the highest version that the program allows, by its limits, its options and its method. */
static void limits_of(SSL *ssl, long *low, long *high) {
    uint64_t options = REAL(SSL_get_options)(ssl);
    int fixed = REAL(SSL_version)(ssl); /* before a handshake: the method's, where it has one version only */
    *low = REAL(SSL_ctrl)(ssl, SSL_CTRL_GET_MIN_PROTO_VERSION, 0, NULL);
    *high = REAL(SSL_ctrl)(ssl, SSL_CTRL_GET_MAX_PROTO_VERSION, 0, NULL);
    if (!*high || *high > TLS1_3_VERSION)
        *high = TLS1_3_VERSION;
    if (fixed && fixed <= TLS1_2_VERSION)
        *high = fixed;
    if (options & SSL_OP_NO_TLSv1_3 && *high > TLS1_2_VERSION)
        *high = TLS1_2_VERSION;
    if (options & SSL_OP_NO_TLSv1_2 && *high == TLS1_2_VERSION)
        *high = TLS1_1_VERSION;
    if (options & SSL_OP_NO_TLSv1_2 && *low <= TLS1_2_VERSION)
        *low = TLS1_3_VERSION;
}

void add_wishes(SSL *ssl, struct request *request) {
    long low, high;
    limits_of(ssl, &low, &high);
    add_versions(request, low, high, add_suites(request, has_suite, REAL(SSL_get_ciphers)(ssl)));
    request_number(request, ATTRIBUTE_CONTROL, 1);
}

/* --- files that ride along --- */

/* What was written into a BIO is a file of memory from now on. The BIO ends. */
static int add_bio(struct own_files *files, BIO *bio) {
    char *text;
    long size = REAL(BIO_ctrl)(bio, BIO_CTRL_INFO, 0, &text);
    int done = add_file(files, text, size > 0 ? (size_t)size : 0);
    if (size > 0)
        explicit_bzero(text, (size_t)size); /* it can be a private key */
    REAL(BIO_free)(bio);
    return done;
}

static BIO *new_memory(void) {
    return REAL(BIO_new)(REAL(BIO_s_mem)());
}

static int add_anchors(SSL *ssl, struct request *request, struct own_files *files) {
    BIO *bio = new_memory();
    int count = write_anchors(ssl, bio);
    if (count <= 0) {
        REAL(BIO_free)(bio);
        if (!count)
            request_number(request, ATTRIBUTE_TRUSTED, 0);
        return 0;
    }
    request_number(request, ATTRIBUTE_TRUSTED, 1);
    return add_bio(files, bio);
}

static BIO *chain_of(SSL *ssl, X509 *own) {
    BIO *bio = new_memory();
    STACK_OF(X509) *chain = NULL;
    REAL(PEM_write_bio_X509)(bio, own);
    REAL(SSL_ctrl)(ssl, SSL_CTRL_GET_CHAIN_CERTS, 0, &chain);
    if (!chain)
        REAL(SSL_CTX_ctrl)(REAL(SSL_get_SSL_CTX)(ssl), SSL_CTRL_GET_EXTRA_CHAIN_CERTS, 0, &chain);
    int count = chain ? REAL(OPENSSL_sk_num)((OPENSSL_STACK *)chain) : 0;
    for (int at = 0; at < count; at++)
        REAL(PEM_write_bio_X509)(bio, REAL(OPENSSL_sk_value)((OPENSSL_STACK *)chain, at));
    return bio;
}

static BIO *key_of(EVP_PKEY *key) {
    BIO *bio = new_memory();
    if (key && REAL(PEM_write_bio_PrivateKey)(bio, key, NULL, NULL, 0, NULL, NULL))
        return bio;
    REAL(BIO_free)(bio);
    fail(EOPNOTSUPP,
         "the program's private key cannot be handed to ssad: it is in a device, or in a process of its own");
    return NULL;
}

/* All certificates that the SSL has: a server can have one for each kind of key. */
static int add_credentials(SSL *ssl, struct request *request, struct own_files *files) {
    BIO *keys[OWN_CREDENTIALS];
    int count = 0, done = 0;
    X509 *own = REAL(SSL_get_certificate)(ssl);
    bool server = REAL(SSL_is_server)(ssl) != 0;
    if (server && own)
        REAL(SSL_ctrl)(ssl, SSL_CTRL_SET_CURRENT_CERT, SSL_CERT_SET_FIRST, NULL);
    while (!done && own && count < OWN_CREDENTIALS) {
        own = REAL(SSL_get_certificate)(ssl);
        keys[count] = own ? key_of(REAL(SSL_get_privatekey)(ssl)) : NULL;
        done = !keys[count] || add_bio(files, chain_of(ssl, own)) ? -1 : 0;
        count += keys[count] != NULL;
        if (!server || !REAL(SSL_ctrl)(ssl, SSL_CTRL_SET_CURRENT_CERT, SSL_CERT_SET_NEXT, NULL))
            break;
    }
    for (int at = 0; at < count; at++)
        if (add_bio(files, keys[at]))
            done = -1;
    if (server && count)
        REAL(SSL_ctrl)(ssl, SSL_CTRL_SET_CURRENT_CERT, SSL_CERT_SET_FIRST, NULL);
    add_credential_counts(request, count);
    return done;
}

static int add_files(SSL *ssl, struct request *request, struct own_files *files, bool with_anchors) {
    files->count = 0;
    if (with_anchors && add_anchors(ssl, request, files))
        return -1;
    return add_credentials(ssl, request, files);
}

/* --- what becomes of it --- */

static int complete(SSL *ssl, struct coerced *coerced) {
    coerced->stage = DONE;
    free(coerced->hello);
    coerced->hello = NULL;
    REAL(SSL_set_verify_result)(ssl, X509_V_OK);
    if (agrees(ssl, coerced))
        return outcome(coerced, SSL_ERROR_NONE, 1);
    int number = errno;
    end_at_once(coerced->fd);
    errno = number;
    return refuse(ssl, number);
}

static int judge(SSL *ssl, struct coerced *coerced, enum shaken shaken) {
    if (shaken == SHAKEN)
        return complete(ssl, coerced);
    if (shaken == SHAKEN_OFF)
        return refuse(ssl, errno);
    coerced->stage = UNDER_WAY;
    return outcome(coerced, SSL_ERROR_WANT_READ, -1);
}

int hand_over(SSL *ssl, struct coerced *coerced, struct exchange *exchange, bool with_anchors) {
    struct own_files files;
    if (!add_files(ssl, &exchange->request, &files, with_anchors))
        return judge(ssl, coerced, shake_by(exchange, coerced->fd, &files, &coerced->told));
    int number = errno;
    exchange_close(exchange);
    drop_files(&files);
    return refuse(ssl, number);
}

int shake(SSL *ssl) {
    struct coerced *coerced = coerced_of(ssl);
    switch (coerced->stage) {
    case DONE:
        return outcome(coerced, SSL_ERROR_NONE, 1);
    case REFUSED:
        return outcome(coerced, SSL_ERROR_SSL, -1);
    case UNDER_WAY:
        return judge(ssl, coerced, shake_on(coerced->fd, &coerced->told)); /* ssad is at it */
    case LEFT:
        return REAL(SSL_do_handshake)(ssl);
    default:
        coerced->role = REAL(SSL_is_server)(ssl) ? SERVER : CLIENT;
        return (coerced->role == SERVER ? begin_server : begin_client)(ssl, coerced);
    }
}

EXPORT int SSL_do_handshake(SSL *ssl) {
    return shake(ssl);
}

EXPORT int SSL_connect(SSL *ssl) {
    if (coerced_of(ssl)->stage == BEFORE)
        REAL(SSL_set_connect_state)(ssl);
    return shake(ssl);
}

EXPORT int SSL_accept(SSL *ssl) {
    if (coerced_of(ssl)->stage == BEFORE)
        REAL(SSL_set_accept_state)(ssl);
    return shake(ssl);
}
