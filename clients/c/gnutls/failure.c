/* failure.c: a handshake that was refused, in GnuTLS's terms: a number, which gnutls_strerror(3) has words for.
 *
 * A program prints what gnutls_strerror makes of a number, and only of a number. So that it prints why ssa has refused,
 * the thread that had the error is told ssa's words for that number. A program may print from another thread: that is
 * told the words of the last refusal of all.
 */

#include "coerced.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAID_ROOM = WORDS_ROOM + 160, REMEMBERED = 32 };

struct saying {
    int error;
    char text[SAID_ROOM];
};
static struct saying sayings[REMEMBERED]; /* gnutls_strerror's texts live on, so they are used anew in turn only */
static unsigned said;
static _Atomic(const struct saying *) last;
static _Thread_local const struct saying *own __attribute__((tls_model("initial-exec")));

int say(int error, const char *first, const char *text) {
    struct guard guard = guard_enter(&coerced_locks[OF_WORDS]);
    struct saying *saying = &sayings[said++ % REMEMBERED];
    saying->error = error;
    snprintf(saying->text, sizeof saying->text, "%s%s", first, text);
    own = saying;
    atomic_store(&last, saying);
    guard_leave(&guard);
    return error;
}

EXPORT const char *gnutls_strerror(int error) {
    const struct saying *saying = own ? own : atomic_load(&last);
    return error < 0 && saying && saying->error == error ? saying->text : REAL(gnutls_strerror)(error);
}

/* --- which number --- */

static const struct {
    const char *reason; /* ssa/errors.py */
    unsigned status;
} statuses[] = {
    {"CERTIFICATE_EXPIRED", GNUTLS_CERT_EXPIRED},
    {"CERTIFICATE_NOT_YET_VALID", GNUTLS_CERT_NOT_ACTIVATED},
    {"SELF_SIGNED_CERTIFICATE", GNUTLS_CERT_SIGNER_NOT_FOUND},
    {"UNKNOWN_CA", GNUTLS_CERT_SIGNER_NOT_FOUND},
    {"HOSTNAME_MISMATCH", GNUTLS_CERT_UNEXPECTED_OWNER},
    {"WRONG_PURPOSE", GNUTLS_CERT_PURPOSE_MISMATCH},
    {"NOT_A_CA", GNUTLS_CERT_SIGNER_NOT_CA},
    {"NAME_CONSTRAINT", GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE},
    {"PATH_LENGTH", GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE},
    {"CHAIN_TOO_LONG", GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE},
    {"WEAK_KEY", GNUTLS_CERT_INSECURE_ALGORITHM},
    {"WEAK_SIGNATURE", GNUTLS_CERT_INSECURE_ALGORITHM},
    {"KEY_NOT_PINNED", GNUTLS_CERT_INVALID},
    {"BAD_SIGNATURE", GNUTLS_CERT_SIGNATURE_FAILURE},
    {"BAD_CERTIFICATE", GNUTLS_CERT_INVALID},
    {"TRUST_STORE", GNUTLS_CERT_SIGNER_NOT_FOUND},
};

static const struct {
    const char *reason;
    int error;
} errors[] = {
    {"UNSUPPORTED_VERSION", GNUTLS_E_UNSUPPORTED_VERSION_PACKET},
    {"NO_COMMON_CIPHER", GNUTLS_E_UNKNOWN_CIPHER_SUITE},
    {"NO_COMMON_PROTOCOL", GNUTLS_E_NO_APPLICATION_PROTOCOL},
    {"NO_CERTIFICATE", GNUTLS_E_NO_CERTIFICATE_FOUND},
    {"NOT_TLS", GNUTLS_E_UNEXPECTED_PACKET_LENGTH},
    {"HANDSHAKE_TIMEOUT", GNUTLS_E_TIMEDOUT},
    {"CONNECTION_CLOSED", GNUTLS_E_PREMATURE_TERMINATION},
    {"PEER_CLOSED", GNUTLS_E_PREMATURE_TERMINATION},
    {"CONNECTION_RESET", GNUTLS_E_PULL_ERROR},
    {"NETWORK", GNUTLS_E_PULL_ERROR},
};

unsigned status_of(int number, const char *text) {
    for (size_t at = 0; at < sizeof statuses / sizeof *statuses; at++)
        if (words_say(text, statuses[at].reason))
            return GNUTLS_CERT_INVALID | statuses[at].status;
    return number == EKEYREJECTED || number == EKEYEXPIRED ? GNUTLS_CERT_INVALID : 0;
}

static int error_of(const char *text) {
    for (size_t at = 0; at < sizeof errors / sizeof *errors; at++)
        if (words_say(text, errors[at].reason))
            return errors[at].error;
    return GNUTLS_E_INTERNAL_ERROR; /* whose own words are none */
}

/* --- refusals --- */

enum verifies verifies_peer(const struct coerced *coerced) {
    gnutls_certificate_credentials_t credentials = certificate_credentials(coerced->session);
    gnutls_x509_trust_list_t list = NULL;
    gnutls_x509_trust_list_iter_t at = NULL;
    gnutls_x509_crt_t one;
    if (coerced->verifies || coerced->role == SERVER)
        return VERIFIES;
    if (credentials)
        REAL(gnutls_certificate_get_trust_list)(credentials, &list);
    if (!list || anchors_of(list)->system || anchors_of(list)->in_device)
        return list ? PERHAPS : VERIFIES_NOT;
    if (REAL(gnutls_x509_trust_list_iter_get_ca)(list, &at, &one) < 0)
        return VERIFIES_NOT; /* by no anchors nobody can */
    REAL(gnutls_x509_crt_deinit)(one);
    REAL(gnutls_x509_trust_list_iter_deinit)(at);
    return PERHAPS;
}

static const struct {
    const char *first, *behind;
} besides[] = {
    [VERIFIES] = {"", ""},
    [VERIFIES_NOT] = {"verification cannot be turned off: ", ""},
    [PERHAPS] = {"", " (verification cannot be turned off)"},
};

/* The connection is refused. */
static int end_with(struct coerced *coerced, int error, const char *first, const char *text) {
    coerced->error = say(error, first, text);
    atomic_store(&coerced->stage, REFUSED);
    if (secure_getenv("SSA_EXPLAIN"))
        fprintf(stderr, "ssa: %s%s\n", first, text);
    return error;
}

int refuse_with(struct coerced *coerced, int error) {
    return end_with(coerced, error, "", words());
}

int refuse(struct coerced *coerced, int number) {
    char text[SAID_ROOM];
    unsigned status = status_of(number, words());
    if (!status)
        return refuse_with(coerced, error_of(words()));
    enum verifies verifies = verifies_peer(coerced);
    snprintf(text, sizeof text, "%s%s", words(), besides[verifies].behind);
    coerced->verify_status = status;
    return end_with(coerced, GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR, besides[verifies].first, text);
}

/* What ssa cannot do for this session. */
int leave(struct coerced *coerced, const char *what) {
    if (!may_leave(what))
        return refuse(coerced, errno);
    gnutls_certificate_credentials_t credentials = certificate_credentials(coerced->session);
    gnutls_x509_trust_list_t list = NULL;
    if (credentials)
        REAL(gnutls_certificate_get_trust_list)(credentials, &list);
    if (list)
        read_system_trust(list);
    own = NULL;
    atomic_store(&last, NULL);
    atomic_store(&coerced->stage, LEFT);
    return 0;
}
