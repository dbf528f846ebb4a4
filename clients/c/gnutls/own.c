/* own.c: the program's own certificates and keys, which ride along with the request. */

#include "coerced.h"

#include <errno.h>
#include <string.h>

struct own { /* as PEM */
    struct buffer chain, key;
};

static void drop_own(struct own *own) {
    drop_buffer(&own->chain);
    drop_buffer(&own->key);
}

static bool append_certificate(struct buffer *chain, gnutls_x509_crt_t one) {
    gnutls_datum_t text;
    int done = REAL(gnutls_x509_crt_export2)(one, GNUTLS_X509_FMT_PEM, &text);
    return append_datum(chain, done, &text);
}

static int cannot_export(void) {
    return fail(EOPNOTSUPP,
                "the program's private key cannot be handed to ssad: it is in a device, or in a process of its own");
}

/* --- that were set --- */

/* 1: it is there; 0: none was set; -1: errno and the words. */
static int read_set(gnutls_certificate_credentials_t credentials, unsigned index, struct own *own) {
    gnutls_x509_crt_t *list = NULL;
    gnutls_x509_privkey_t key;
    unsigned count = 0;
    int found = REAL(gnutls_certificate_get_x509_crt)(credentials, index, &list, &count);
    if (found == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
        return 0;
    if (found < 0)
        return fail(EOPNOTSUPP, "the program's certificate cannot be handed to ssad: it is no X.509 certificate");
    for (unsigned at = 0; at < count; at++) {
        append_certificate(&own->chain, list[at]);
        REAL(gnutls_x509_crt_deinit)(list[at]);
    }
    gnutls_datum_t memory = {.data = (unsigned char *)list};
    gnutls_release(&memory);
    if (REAL(gnutls_certificate_get_x509_key)(credentials, index, &key) < 0)
        return cannot_export();
    bool done = append_key(&own->key, key);
    REAL(gnutls_x509_privkey_deinit)(key);
    return done ? 1 : cannot_export();
}

/* --- that a function gives: it is asked before it is known whether the server wants one --- */

static const gnutls_pk_algorithm_t kinds[] = {GNUTLS_PK_RSA, GNUTLS_PK_ECDSA, GNUTLS_PK_EDDSA_ED25519,
                                              GNUTLS_PK_RSA_PSS, GNUTLS_PK_EDDSA_ED448};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void append_der(struct buffer *chain, const gnutls_datum_t *der) {
    gnutls_datum_t text;
    append_datum(chain, REAL(gnutls_pem_base64_encode2)("CERTIFICATE", der, &text), &text);
}

static int take_private(struct own *own, gnutls_privkey_t private) {
    gnutls_x509_privkey_t key;
    if (!private || REAL(gnutls_privkey_export_x509)(private, &key) < 0)
        return cannot_export();
    bool done = append_key(&own->key, key);
    REAL(gnutls_x509_privkey_deinit)(key);
    return done ? 1 : cannot_export();
}

static int ask_second(struct coerced *coerced, gnutls_certificate_retrieve_function2 *retrieve, struct own *own) {
    gnutls_pcert_st *list = NULL;
    gnutls_privkey_t key = NULL;
    unsigned count = 0;
    if (retrieve(coerced->session, NULL, 0, kinds, KINDS, &list, &count, &key) < 0)
        return fail(EPROTO, "the program's function for a certificate has failed");
    for (unsigned at = 0; at < count; at++)
        append_der(&own->chain, &list[at].cert);
    return count ? take_private(own, key) : 0;
}

static void drop_first(gnutls_retr2_st *given) {
    for (unsigned at = 0; given->deinit_all && at < given->ncerts; at++)
        REAL(gnutls_x509_crt_deinit)(given->cert.x509[at]);
    if (given->deinit_all && given->ncerts) {
        gnutls_datum_t memory = {.data = (unsigned char *)given->cert.x509};
        gnutls_release(&memory);
        REAL(gnutls_x509_privkey_deinit)(given->key.x509);
    }
}

static int ask_first(struct coerced *coerced, gnutls_certificate_retrieve_function *retrieve, struct own *own) {
    gnutls_retr2_st given = {.cert_type = GNUTLS_CRT_X509, .key_type = GNUTLS_PRIVKEY_X509};
    if (retrieve(coerced->session, NULL, 0, kinds, KINDS, &given) < 0)
        return fail(EPROTO, "the program's function for a certificate has failed");
    if (!given.ncerts)
        return 0;
    if (given.cert_type != GNUTLS_CRT_X509 || given.key_type != GNUTLS_PRIVKEY_X509)
        return cannot_export();
    for (unsigned at = 0; at < given.ncerts; at++)
        append_certificate(&own->chain, given.cert.x509[at]);
    int done = append_key(&own->key, given.key.x509) ? 1 : cannot_export();
    drop_first(&given);
    return done;
}

/* A client's: the first one that was set, or what a function gives. */
static int find_clients(struct coerced *coerced, struct own *own) {
    gnutls_certificate_credentials_t credentials = certificate_credentials(coerced->session);
    struct credentials *given = credentials_of(credentials);
    int found = read_set(credentials, 0, own);
    if (!found && given->retrieve2)
        return ask_second(coerced, given->retrieve2, own);
    if (!found && given->retrieve1)
        return ask_first(coerced, given->retrieve1, own);
    if (!found && given->retrieve3)
        return fail(EOPNOTSUPP,
                    "the program's certificate comes by gnutls_certificate_set_retrieve_function3, which ssa has not");
    return found;
}

/* A server can have one for each kind of key. */
static int find_servers(struct coerced *coerced, struct own *own) {
    gnutls_certificate_credentials_t credentials = certificate_credentials(coerced->session);
    int count = 0, found = 1;
    while (count < OWN_CREDENTIALS && (found = read_set(credentials, (unsigned)count, &own[count])) > 0)
        count++;
    return found < 0 ? -1 : count;
}

/* The certificates first, and then the keys. */
static int add_pems(struct own *own, int count, struct own_files *files) {
    int done = 0;
    for (int at = 0; !done && at < count; at++)
        done = add_file(files, own[at].chain.data, own[at].chain.size);
    for (int at = 0; !done && at < count; at++)
        done = add_file(files, own[at].key.data, own[at].key.size);
    return done;
}

int add_own_certificates(struct coerced *coerced, struct request *request, struct own_files *files) {
    struct own own[OWN_CREDENTIALS] = {0};
    int count = (coerced->role == SERVER ? find_servers : find_clients)(coerced, own);
    int done = count < 0 ? -1 : add_pems(own, count, files), number = errno;
    if (count > 0)
        add_credential_counts(request, count);
    for (int at = 0; at < OWN_CREDENTIALS; at++)
        drop_own(&own[at]);
    errno = number;
    return done;
}
