/* leave.c: what cannot be mapped to ssa. ssad says whether it may be left to OpenSSL (the policy's `coercion`), logs
 * it, and counts it. Where nobody can be asked, it is refused.
 */

#include "coerced.h"

#include <errno.h>
#include <string.h>

bool leave(SSL *ssl, const char *what) {
    if (!may_leave(what)) {
        refuse(ssl, errno);
        return false;
    }
    X509_STORE *store = REAL(SSL_CTX_get_cert_store)(REAL(SSL_get_SSL_CTX)(ssl));
    if (store)
        read_system_store(store);
    forget_words();
    coerced_of(ssl)->stage = LEFT;
    return true;
}

/* --- BIO_f_ssl: libssl's own calls within itself, which a program's preload need not reach --- */

static const char bio_ssl[] = "TLS in a BIO of OpenSSL's (BIO_f_ssl)";
static _Thread_local bool allowed __attribute__((tls_model("initial-exec"))); /* it was asked already */

static int refuse_new(BIO *bio) {
    (void)bio;
    push_error(ERR_LIB_SSL, SSL_R_SSL_HANDSHAKE_FAILURE, words());
    return 0;
}

static const BIO_METHOD *refusing(void) {
    static _Atomic(BIO_METHOD *) method;
    if (!atomic_load(&method)) {
        BIO_METHOD *made = REAL(BIO_meth_new)(BIO_TYPE_SSL, "refused by ssa");
        REAL(BIO_meth_set_create)(made, refuse_new);
        atomic_store(&method, made);
    }
    return atomic_load(&method);
}

/* All of the SSL is OpenSSL's then: what it calls within itself can be what is replaced here. */
static long leaving_ctrl(BIO *bio, int command, long number, void *pointer) {
    if (command == BIO_C_SET_SSL && pointer)
        coerced_of(pointer)->stage = LEFT;
    return REAL(BIO_meth_get_ctrl)(REAL(BIO_f_ssl)())(bio, command, number, pointer);
}

static const BIO_METHOD *leaving(void) {
    static _Atomic(BIO_METHOD *) method;
    if (!atomic_load(&method)) {
        const BIO_METHOD *real = REAL(BIO_f_ssl)();
        BIO_METHOD *made = REAL(BIO_meth_new)(BIO_TYPE_SSL, "ssl, left to OpenSSL by ssa");
        REAL(BIO_meth_set_write_ex)(made, REAL(BIO_meth_get_write_ex)(real));
        REAL(BIO_meth_set_read_ex)(made, REAL(BIO_meth_get_read_ex)(real));
        REAL(BIO_meth_set_puts)(made, REAL(BIO_meth_get_puts)(real));
        REAL(BIO_meth_set_gets)(made, REAL(BIO_meth_get_gets)(real));
        REAL(BIO_meth_set_ctrl)(made, leaving_ctrl);
        REAL(BIO_meth_set_create)(made, REAL(BIO_meth_get_create)(real));
        REAL(BIO_meth_set_destroy)(made, REAL(BIO_meth_get_destroy)(real));
        REAL(BIO_meth_set_callback_ctrl)(made, REAL(BIO_meth_get_callback_ctrl)(real));
        atomic_store(&method, made);
    }
    return atomic_load(&method);
}

EXPORT const BIO_METHOD *BIO_f_ssl(void) {
    return allowed || may_leave(bio_ssl) ? leaving() : refusing();
}

static BIO *left(BIO *bio) {
    BIO *found = bio ? REAL(BIO_find_type)(bio, BIO_TYPE_SSL) : NULL;
    SSL *ssl = NULL;
    if (found && REAL(BIO_ctrl)(found, BIO_C_GET_SSL, 0, &ssl) > 0 && ssl)
        coerced_of(ssl)->stage = LEFT;
    allowed = false;
    return bio;
}

static bool begin_leaving(void) {
    allowed = may_leave(bio_ssl);
    if (!allowed)
        refuse_new(NULL);
    return allowed;
}

EXPORT BIO *BIO_new_ssl(SSL_CTX *context, int client) {
    return begin_leaving() ? left(REAL(BIO_new_ssl)(context, client)) : NULL;
}

EXPORT BIO *BIO_new_ssl_connect(SSL_CTX *context) {
    return begin_leaving() ? left(REAL(BIO_new_ssl_connect)(context)) : NULL;
}

EXPORT BIO *BIO_new_buffer_ssl_connect(SSL_CTX *context) {
    return begin_leaving() ? left(REAL(BIO_new_buffer_ssl_connect)(context)) : NULL;
}
