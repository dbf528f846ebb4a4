/* verify.c: the program's own verification of its peer, when ssad has verified it. It can only refuse.
 *
 * ssad has verified the chain, by the administrator's anchors and by the program's own, and the name. Left are another
 * name, another purpose, and CRLs.
 */

#include "coerced.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- with CRLs GnuTLS verifies the chain once more --- */

static unsigned parse_chain(struct coerced *coerced, gnutls_x509_crt_t **chain) {
    unsigned count = 0;
    *chain = calloc(coerced->peer_count + 1, sizeof **chain);
    if (!*chain)
        abort();
    for (; count < coerced->peer_count; count++) {
        if (REAL(gnutls_x509_crt_init)(&(*chain)[count]) < 0)
            break;
        if (REAL(gnutls_x509_crt_import)((*chain)[count], &coerced->peers[count], GNUTLS_X509_FMT_DER) < 0) {
            REAL(gnutls_x509_crt_deinit)((*chain)[count]);
            break;
        }
    }
    return count;
}

static unsigned status_by_lists(struct coerced *coerced, gnutls_certificate_credentials_t credentials,
                                gnutls_x509_trust_list_t list) {
    gnutls_x509_crt_t *chain;
    unsigned count = parse_chain(coerced, &chain), status = GNUTLS_CERT_INVALID;
    unsigned flags = REAL(gnutls_certificate_get_verify_flags)(credentials);
    read_system_trust(list);
    if (count && REAL(gnutls_x509_trust_list_verify_crt2)(list, chain, count, NULL, 0, flags, &status, NULL) < 0)
        status = GNUTLS_CERT_INVALID;
    for (unsigned at = 0; at < count; at++)
        REAL(gnutls_x509_crt_deinit)(chain[at]);
    free(chain);
    return status;
}

static unsigned status_of_chain(struct coerced *coerced) {
    gnutls_certificate_credentials_t credentials = certificate_credentials(coerced->session);
    gnutls_x509_trust_list_t list = NULL;
    if (credentials)
        REAL(gnutls_certificate_get_trust_list)(credentials, &list);
    return list && anchors_of(list)->revokes ? status_by_lists(coerced, credentials, list) : 0;
}

/* --- a name, and a purpose --- */

static unsigned status_of_part(gnutls_x509_crt_t peer, const gnutls_typed_vdata_st *part) {
    char text[256];
    const char *value = (const char *)part->data;
    if (!value)
        return 0;
    copy_text(text, sizeof text, value, part->size ? part->size : strlen(value));
    switch (part->type) {
    case GNUTLS_DT_DNS_HOSTNAME:
        return REAL(gnutls_x509_crt_check_hostname)(peer, text) ? 0 : GNUTLS_CERT_UNEXPECTED_OWNER;
    case GNUTLS_DT_RFC822NAME:
        return REAL(gnutls_x509_crt_check_email)(peer, text, 0) ? 0 : GNUTLS_CERT_UNEXPECTED_OWNER;
    case GNUTLS_DT_IP_ADDRESS:
        return REAL(gnutls_x509_crt_check_ip)(peer, part->data, part->size, 0) ? 0 : GNUTLS_CERT_UNEXPECTED_OWNER;
    case GNUTLS_DT_KEY_PURPOSE_OID:
        return REAL(gnutls_x509_crt_check_key_purpose)(peer, text, 0) ? 0 : GNUTLS_CERT_PURPOSE_MISMATCH;
    default:
        return GNUTLS_CERT_INVALID;
    }
}

static unsigned status_of_parts(struct coerced *coerced, const gnutls_typed_vdata_st *data, unsigned elements) {
    unsigned status = 0;
    gnutls_x509_crt_t peer = elements ? peer_certificate(coerced) : NULL;
    if (elements && !peer)
        return GNUTLS_CERT_INVALID;
    for (unsigned at = 0; at < elements; at++)
        status |= status_of_part(peer, &data[at]);
    if (peer)
        REAL(gnutls_x509_crt_deinit)(peer);
    return status;
}

int verify_peer(struct coerced *coerced, gnutls_typed_vdata_st *data, unsigned elements, unsigned *status) {
    if (atomic_load(&coerced->stage) != DONE || !coerced->peer_count)
        return GNUTLS_E_NO_CERTIFICATE_FOUND;
    *status = status_of_chain(coerced) | status_of_parts(coerced, data, elements);
    if (*status)
        *status |= GNUTLS_CERT_INVALID;
    coerced->verify_status = *status;
    return GNUTLS_E_SUCCESS;
}

/* --- what was asked for before the handshake --- */

static bool is_as_told(struct coerced *coerced) {
    gnutls_typed_vdata_st data[2];
    unsigned elements = 0, status = 0;
    if (*coerced->verified_name)
        data[elements++] = (gnutls_typed_vdata_st){GNUTLS_DT_DNS_HOSTNAME, (void *)coerced->verified_name, 0};
    if (*coerced->purpose)
        data[elements++] = (gnutls_typed_vdata_st){GNUTLS_DT_KEY_PURPOSE_OID, (void *)coerced->purpose, 0};
    return !verify_peer(coerced, data, elements, &status) && !status;
}

bool agrees(struct coerced *coerced) {
    gnutls_certificate_credentials_t credentials = certificate_credentials(coerced->session);
    gnutls_certificate_verify_function *verify =
        coerced->verify ? coerced->verify : credentials_of(credentials)->verify;
    if (coerced->role == SERVER && coerced->asks == GNUTLS_CERT_IGNORE)
        return true;
    bool refused = (coerced->verifies && !is_as_told(coerced)) || (verify && verify(coerced->session));
    if (refused)
        fail(EKEYREJECTED, "certificate is not acceptable: the program's own verification refuses it");
    return !refused;
}

/* --- what the program asks after the handshake --- */

EXPORT int gnutls_certificate_verify_peers(gnutls_session_t session, gnutls_typed_vdata_st *data, unsigned elements,
                                           unsigned *status) {
    return is_left(session) ? REAL(gnutls_certificate_verify_peers)(session, data, elements, status)
                            : verify_peer(coerced_of(session), data, elements, status);
}

EXPORT int gnutls_certificate_verify_peers2(gnutls_session_t session, unsigned *status) {
    return is_left(session) ? REAL(gnutls_certificate_verify_peers2)(session, status)
                            : verify_peer(coerced_of(session), NULL, 0, status);
}

EXPORT int gnutls_certificate_verify_peers3(gnutls_session_t session, const char *name, unsigned *status) {
    gnutls_typed_vdata_st data = {GNUTLS_DT_DNS_HOSTNAME, (void *)name, 0};
    return is_left(session) ? REAL(gnutls_certificate_verify_peers3)(session, name, status)
                            : verify_peer(coerced_of(session), &data, name ? 1 : 0, status);
}

EXPORT unsigned gnutls_session_get_verify_cert_status(gnutls_session_t session) {
    return is_left(session) ? REAL(gnutls_session_get_verify_cert_status)(session) : coerced_of(session)->verify_status;
}
