/* failure.c: a handshake that was refused, in OpenSSL's terms: its queue of errors, SSL_get_error(3), and
 * SSL_get_verify_result(3).
 *
 * A program prints what ERR_error_string(3) or X509_verify_cert_error_string(3) makes of a number. So that it prints
 * why ssa has refused, the text of that number is set anew each time.
 */

#include "coerced.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ERR_error_string(3) leaves a text out that is too long for the program's buffer: 256 bytes as a rule, with a prefix.
 */
enum { SAID_ROOM = WORDS_ROOM + 160, SHORT_ROOM = 200, WHY = 1 };

static char said[SAID_ROOM];           /* of the last refusal: the program's error */
static char said_in_short[SHORT_ROOM]; /* the same for OpenSSL's queue of errors */
static _Atomic int said_verdict;       /* its X509_V_ERR_* */
static int own_library;                /* its number in OpenSSL's queue of errors */
static const char usual[] = "certificate verify failed";

static const struct {
    const char *reason; /* ssa/errors.py */
    int verdict;
} verdicts[] = {
    {"CERTIFICATE_EXPIRED", X509_V_ERR_CERT_HAS_EXPIRED},
    {"CERTIFICATE_NOT_YET_VALID", X509_V_ERR_CERT_NOT_YET_VALID},
    {"SELF_SIGNED_CERTIFICATE", X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT},
    {"UNKNOWN_CA", X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY},
    {"HOSTNAME_MISMATCH", X509_V_ERR_HOSTNAME_MISMATCH},
    {"WRONG_PURPOSE", X509_V_ERR_INVALID_PURPOSE},
    {"NOT_A_CA", X509_V_ERR_INVALID_CA},
    {"NAME_CONSTRAINT", X509_V_ERR_PERMITTED_VIOLATION},
    {"PATH_LENGTH", X509_V_ERR_PATH_LENGTH_EXCEEDED},
    {"CHAIN_TOO_LONG", X509_V_ERR_CERT_CHAIN_TOO_LONG},
    {"WEAK_KEY", X509_V_ERR_EE_KEY_TOO_SMALL},
    {"WEAK_SIGNATURE", X509_V_ERR_CA_MD_TOO_WEAK},
    {"KEY_NOT_PINNED", X509_V_ERR_CERT_REJECTED},
    {"BAD_SIGNATURE", X509_V_ERR_CERT_SIGNATURE_FAILURE},
    {"BAD_CERTIFICATE", X509_V_ERR_CERT_REJECTED},
    {"TRUST_STORE", X509_V_ERR_UNSPECIFIED},
};

/* What is wrong with the peer's certificate, by the words: they begin with those of the reason. */
static int verdict_of(const char *text) {
    for (size_t at = 0; at < sizeof verdicts / sizeof *verdicts; at++)
        if (words_say(text, verdicts[at].reason))
            return verdicts[at].verdict;
    return X509_V_OK;
}

/* OpenSSL keeps the row, so each number has one of its own. */
enum { OF_LIBRARY, OF_REASON, OF_VERIFICATION, TEXTS };

static void set_text(int which, int library, int reason, const char *text) {
    static ERR_STRING_DATA rows[TEXTS][2]; /* the second one ends the list */
    rows[which][0].error = ERR_PACK(library, 0, reason);
    rows[which][0].string = text;
    REAL(ERR_load_strings)(library, rows[which]);
}

static void say(int verdict, const char *first, const char *text) {
    struct guard guard = guard_enter(&coerced_locks[OF_WORDS]);
    if (!own_library) {
        REAL(OPENSSL_init_ssl)(OPENSSL_INIT_LOAD_SSL_STRINGS | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL);
        own_library = REAL(ERR_get_next_error_library)();
        set_text(OF_LIBRARY, own_library, 0, "ssa");
    }
    snprintf(said, sizeof said, "%s%s", first, text);
    copy_text(said_in_short, sizeof said_in_short, said, sizeof said);
    atomic_store(&said_verdict, verdict);
    set_text(OF_REASON, own_library, WHY, said_in_short);
    set_text(OF_VERIFICATION, ERR_LIB_SSL, SSL_R_CERTIFICATE_VERIFY_FAILED, said_in_short);
    guard_leave(&guard);
    if (secure_getenv("SSA_EXPLAIN"))
        fprintf(stderr, "ssa: %s%s\n", first, text);
}

/* An error that is none of ssa's is to have OpenSSL's own text. */
void forget_words(void) {
    struct guard guard = guard_enter(&coerced_locks[OF_WORDS]);
    if (own_library)
        set_text(OF_VERIFICATION, ERR_LIB_SSL, SSL_R_CERTIFICATE_VERIFY_FAILED, usual);
    atomic_store(&said_verdict, X509_V_OK);
    guard_leave(&guard);
}

void push_error(int library, int reason, const char *text) {
    REAL(ERR_new)();
    REAL(ERR_set_debug)("libssa-openssl", 0, "ssa");
    REAL(ERR_set_error)(library, reason, "%s", text);
}

static int end_with(SSL *ssl, int library, int reason) {
    struct coerced *coerced = coerced_of(ssl);
    int number = errno;
    coerced->stage = REFUSED;
    push_error(library, reason, words());
    errno = number;
    return outcome(coerced, SSL_ERROR_SSL, -1);
}

int refuse(SSL *ssl, int number) {
    int own = coerced_of(ssl)->verdict, verdict = own ? own : verdict_of(words());
    bool lenient = verdict != X509_V_OK && coerced_of(ssl)->role == CLIENT && !demands_verification(ssl);
    say(verdict, lenient ? "verification cannot be turned off: " : "", words());
    REAL(SSL_set_verify_result)(ssl, verdict);
    errno = number;
    return verdict == X509_V_OK ? end_with(ssl, own_library, WHY)
                                : end_with(ssl, ERR_LIB_SSL, SSL_R_CERTIFICATE_VERIFY_FAILED);
}

int refuse_with(SSL *ssl, int library, int reason) {
    return end_with(ssl, library, reason);
}

EXPORT const char *X509_verify_cert_error_string(long number) {
    int ours = atomic_load(&said_verdict);
    return ours != X509_V_OK && number == ours ? said : REAL(X509_verify_cert_error_string)(number);
}
