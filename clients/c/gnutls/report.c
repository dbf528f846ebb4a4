/* report.c: the functions that tell of a handshake. */

#include "coerced.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the peer's certificates --- */

static void split_untrusted(struct coerced *coerced, const struct reply_copy *chain) {
    enum { MOST = 64 };
    gnutls_datum_t *peers = calloc(MOST, sizeof *peers);
    unsigned count = 0;
    size_t size;
    if (!peers)
        abort();
    for (size_t at = 0; count < MOST && (size = der_length_untrusted(chain->data + at, chain->size - at)); at += size)
        peers[count++] = (gnutls_datum_t){(unsigned char *)chain->data + at, (unsigned)size};
    coerced->peers = peers;
    coerced->peer_count = count;
}

void learn_peers(struct coerced *coerced) {
    const struct reply_copy *chain = told_chain(&coerced->told, coerced->fd);
    if (chain)
        split_untrusted(coerced, chain);
}

gnutls_x509_crt_t peer_certificate(const struct coerced *coerced) {
    gnutls_x509_crt_t peer;
    if (!coerced->peer_count || REAL(gnutls_x509_crt_init)(&peer) < 0)
        return NULL;
    if (REAL(gnutls_x509_crt_import)(peer, &coerced->peers[0], GNUTLS_X509_FMT_DER) >= 0)
        return peer;
    REAL(gnutls_x509_crt_deinit)(peer);
    return NULL;
}

EXPORT const gnutls_datum_t *gnutls_certificate_get_peers(gnutls_session_t session, unsigned *count) {
    if (is_left(session))
        return REAL(gnutls_certificate_get_peers)(session, count);
    const struct coerced *coerced = coerced_of(session);
    if (count)
        *count = coerced->peer_count;
    return coerced->peer_count ? coerced->peers : NULL;
}

static time_t peer_time(gnutls_session_t session, time_t (*ask)(gnutls_x509_crt_t)) {
    gnutls_x509_crt_t peer = peer_certificate(coerced_of(session));
    time_t when = peer ? ask(peer) : (time_t)-1;
    if (peer)
        REAL(gnutls_x509_crt_deinit)(peer);
    return when;
}

EXPORT time_t gnutls_certificate_expiration_time_peers(gnutls_session_t session) {
    return is_left(session) ? REAL(gnutls_certificate_expiration_time_peers)(session)
                            : peer_time(session, REAL(gnutls_x509_crt_get_expiration_time));
}

EXPORT time_t gnutls_certificate_activation_time_peers(gnutls_session_t session) {
    return is_left(session) ? REAL(gnutls_certificate_activation_time_peers)(session)
                            : peer_time(session, REAL(gnutls_x509_crt_get_activation_time));
}

/* --- what was agreed on --- */

struct agreed {
    gnutls_protocol_t version;
    gnutls_kx_algorithm_t exchange;
    gnutls_cipher_algorithm_t cipher;
    gnutls_mac_algorithm_t mac;
    const char *suite;
};

/* TLS 1.3's suites do not say it, and ssa's groups are those of elliptic curves, or ffdhe where the server insists. */
static gnutls_kx_algorithm_t kx_of(const struct coerced *coerced) {
    gnutls_x509_crt_t peer = peer_certificate(coerced);
    int kind = peer ? REAL(gnutls_x509_crt_get_pk_algorithm)(peer, NULL) : GNUTLS_PK_UNKNOWN;
    if (peer)
        REAL(gnutls_x509_crt_deinit)(peer);
    return kind == GNUTLS_PK_RSA || kind == GNUTLS_PK_RSA_PSS ? GNUTLS_KX_ECDHE_RSA : GNUTLS_KX_ECDHE_ECDSA;
}

static struct agreed agreed_by(const struct coerced *coerced) {
    struct agreed agreed = {.version = GNUTLS_VERSION_UNKNOWN};
    unsigned number = told_suite(&coerced->told);
    unsigned char id[2];
    agreed.version = told_version(&coerced->told) == 0x0304 ? GNUTLS_TLS1_3 : GNUTLS_TLS1_2;
    const char *name;
    for (size_t at = 0;
         (name = REAL(gnutls_cipher_suite_info)(at, id, &agreed.exchange, &agreed.cipher, &agreed.mac, NULL)); at++)
        if (((unsigned)id[0] << 8 | id[1]) == number) {
            agreed.suite = name;
            break;
        }
    if (agreed.version == GNUTLS_TLS1_3)
        agreed.exchange = kx_of(coerced);
    return agreed;
}

/* The value where ssad has made the handshake, what GnuTLS says where that has, and else `otherwise`. */
#define AGREED(name, type, field, otherwise)                                                                           \
    EXPORT type name(gnutls_session_t session) {                                                                       \
        if (is_left(session))                                                                                          \
            return REAL(name)(session);                                                                                \
        return done_with(session) ? agreed_by(coerced_of(session)).field : (otherwise);                                \
    }
AGREED(gnutls_protocol_get_version, gnutls_protocol_t, version, GNUTLS_VERSION_UNKNOWN)
AGREED(gnutls_kx_get, gnutls_kx_algorithm_t, exchange, GNUTLS_KX_UNKNOWN)
AGREED(gnutls_cipher_get, gnutls_cipher_algorithm_t, cipher, GNUTLS_CIPHER_NULL)
AGREED(gnutls_mac_get, gnutls_mac_algorithm_t, mac, GNUTLS_MAC_NULL)
AGREED(gnutls_ciphersuite_get, const char *, suite, NULL)

/* The same with a constant. */
#define CONSTANT(name, type, value)                                                                                    \
    EXPORT type name(gnutls_session_t session) {                                                                       \
        return is_left(session) ? REAL(name)(session) : (value);                                                       \
    }
CONSTANT(gnutls_auth_get_type, gnutls_credentials_type_t, GNUTLS_CRD_CERTIFICATE)
CONSTANT(gnutls_auth_client_get_type, gnutls_credentials_type_t, GNUTLS_CRD_CERTIFICATE)
CONSTANT(gnutls_auth_server_get_type, gnutls_credentials_type_t, GNUTLS_CRD_CERTIFICATE)
CONSTANT(gnutls_certificate_type_get, gnutls_certificate_type_t, GNUTLS_CRT_X509)
CONSTANT(gnutls_group_get, gnutls_group_t, GNUTLS_GROUP_INVALID) /* ssad does not tell it */
CONSTANT(gnutls_ecc_curve_get, gnutls_ecc_curve_t, GNUTLS_ECC_CURVE_INVALID)
CONSTANT(gnutls_sign_algorithm_get, int, GNUTLS_SIGN_UNKNOWN)
CONSTANT(gnutls_sign_algorithm_get_client, int, GNUTLS_SIGN_UNKNOWN)
CONSTANT(gnutls_safe_renegotiation_status, unsigned, 1)
CONSTANT(gnutls_session_ext_master_secret_status, unsigned, 1)
CONSTANT(gnutls_session_etm_status, unsigned, 0) /* of CBC, which ssa has not */
CONSTANT(gnutls_session_get_flags, unsigned, GNUTLS_SFLAGS_SAFE_RENEGOTIATION | GNUTLS_SFLAGS_EXT_MASTER_SECRET)
CONSTANT(gnutls_session_resumption_requested, int, 0)
CONSTANT(gnutls_certificate_client_get_request_status, unsigned, 0)
CONSTANT(gnutls_certificate_get_ours, const gnutls_datum_t *, NULL)
CONSTANT(gnutls_alert_get, gnutls_alert_description_t, GNUTLS_A_CLOSE_NOTIFY)
CONSTANT(gnutls_dh_get_prime_bits, int, GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
CONSTANT(gnutls_dh_get_secret_bits, int, GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
CONSTANT(gnutls_dh_get_peers_public_bits, int, GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)

EXPORT gnutls_certificate_type_t gnutls_certificate_type_get2(gnutls_session_t session, gnutls_ctype_target_t target) {
    return is_left(session) ? REAL(gnutls_certificate_type_get2)(session, target) : GNUTLS_CRT_X509;
}

/* The name that a server's client has asked for. */
EXPORT int gnutls_server_name_get(gnutls_session_t session, void *data, size_t *size, unsigned *type, unsigned index) {
    char name[256];
    if (!done_with(session) || coerced_of(session)->role == CLIENT)
        return REAL(gnutls_server_name_get)(session, data, size, type, index);
    told_text(&coerced_of(session)->told, ATTRIBUTE_SERVER_NAME, name, sizeof name);
    size_t length = strlen(name);
    if (!length || index)
        return GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE;
    bool fits = *size > length;
    *size = length + !fits;
    if (!fits)
        return GNUTLS_E_SHORT_MEMORY_BUFFER;
    memcpy(data, name, length + 1);
    *type = GNUTLS_NAME_DNS;
    return GNUTLS_E_SUCCESS;
}

EXPORT int gnutls_session_is_resumed(gnutls_session_t session) {
    if (is_left(session))
        return REAL(gnutls_session_is_resumed)(session);
    return done_with(session) && told_resumed(&coerced_of(session)->told);
}

EXPORT int gnutls_alpn_get_selected_protocol(gnutls_session_t session, gnutls_datum_t *name) {
    size_t size = 0;
    if (is_left(session))
        return REAL(gnutls_alpn_get_selected_protocol)(session, name);
    const struct coerced *coerced = done_with(session);
    const unsigned char *list = coerced ? told_bytes(&coerced->told, ATTRIBUTE_ALPN, &size) : NULL;
    if (!list || size < 2)
        return GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE;
    *name = (gnutls_datum_t){(unsigned char *)list + 1, list[0]};
    return GNUTLS_E_SUCCESS;
}

/* As in "(TLS1.3)-(ECDHE-ECDSA)-(AES-256-GCM)". */
EXPORT char *gnutls_session_get_desc(gnutls_session_t session) {
    enum { ROOM = 160 };
    if (is_left(session))
        return REAL(gnutls_session_get_desc)(session);
    if (!done_with(session))
        return NULL;
    struct agreed agreed = agreed_by(coerced_of(session));
    char *text = gnutls_memory(ROOM);
    snprintf(text, ROOM, "(%s)-(%s)-(%s)", REAL(gnutls_protocol_get_name)(agreed.version),
             REAL(gnutls_kx_get_name)(agreed.exchange), REAL(gnutls_cipher_get_name)(agreed.cipher));
    return text;
}

/* --- sessions, which are ssad's: what a program stores of one says nothing --- */

static const char token[] = "a TLS session of ssad's";

EXPORT int gnutls_session_get_data(gnutls_session_t session, void *data, size_t *size) {
    if (is_left(session))
        return REAL(gnutls_session_get_data)(session, data, size);
    bool fits = data && *size >= sizeof token;
    *size = sizeof token;
    if (fits)
        memcpy(data, token, sizeof token);
    return fits ? GNUTLS_E_SUCCESS : GNUTLS_E_SHORT_MEMORY_BUFFER;
}

EXPORT int gnutls_session_get_data2(gnutls_session_t session, gnutls_datum_t *data) {
    if (is_left(session))
        return REAL(gnutls_session_get_data2)(session, data);
    *data = (gnutls_datum_t){gnutls_memory(sizeof token), sizeof token};
    memcpy(data->data, token, sizeof token);
    return GNUTLS_E_SUCCESS;
}

EXPORT int gnutls_session_set_data(gnutls_session_t session, const void *data, size_t size) {
    bool ours = size == sizeof token && data && !memcmp(data, token, size);
    return ours ? GNUTLS_E_SUCCESS : REAL(gnutls_session_set_data)(session, data, size);
}

EXPORT int gnutls_session_get_id(gnutls_session_t session, void *data, size_t *size) {
    if (is_left(session))
        return REAL(gnutls_session_get_id)(session, data, size);
    *size = 0;
    return GNUTLS_E_SUCCESS;
}

EXPORT int gnutls_session_get_id2(gnutls_session_t session, gnutls_datum_t *data) {
    if (is_left(session))
        return REAL(gnutls_session_get_id2)(session, data);
    *data = (gnutls_datum_t){0};
    return GNUTLS_E_SUCCESS;
}

/* --- what ssa does not do for a program, and says so --- */

static const char exports_nothing[] = "ssa exports no keying material (RFC 8446 section 7.5)";

EXPORT int gnutls_prf(gnutls_session_t session, size_t label_size, const char *label, int server_first,
                      size_t extra_size, const char *extra, size_t size, char *out) {
    return is_left(session) ? REAL(gnutls_prf)(session, label_size, label, server_first, extra_size, extra, size, out)
                            : say(GNUTLS_E_INVALID_REQUEST, "", exports_nothing);
}

EXPORT int gnutls_prf_rfc5705(gnutls_session_t session, size_t label_size, const char *label, size_t context_size,
                              const char *context, size_t size, char *out) {
    return is_left(session) ? REAL(gnutls_prf_rfc5705)(session, label_size, label, context_size, context, size, out)
                            : say(GNUTLS_E_INVALID_REQUEST, "", exports_nothing);
}

EXPORT int gnutls_prf_raw(gnutls_session_t session, size_t label_size, const char *label, size_t seed_size,
                          const char *seed, size_t size, char *out) {
    return is_left(session) ? REAL(gnutls_prf_raw)(session, label_size, label, seed_size, seed, size, out)
                            : say(GNUTLS_E_INVALID_REQUEST, "", exports_nothing);
}

EXPORT int gnutls_session_channel_binding(gnutls_session_t session, gnutls_channel_binding_t kind,
                                          gnutls_datum_t *binding) {
    return is_left(session) ? REAL(gnutls_session_channel_binding)(session, kind, binding)
                            : say(GNUTLS_E_CHANNEL_BINDING_NOT_AVAILABLE, "", "ssa has no channel bindings (RFC 5929)");
}

EXPORT void gnutls_session_get_random(gnutls_session_t session, gnutls_datum_t *client, gnutls_datum_t *server) {
    if (is_left(session)) {
        REAL(gnutls_session_get_random)(session, client, server);
        return;
    }
    for (int at = 0; at < 2; at++)
        if (at ? server : client)
            *(at ? server : client) = (gnutls_datum_t){0};
}

EXPORT void gnutls_session_get_master_secret(gnutls_session_t session, gnutls_datum_t *secret) {
    if (is_left(session))
        REAL(gnutls_session_get_master_secret)(session, secret);
    else if (secret)
        *secret = (gnutls_datum_t){0};
}

EXPORT int gnutls_ocsp_status_request_get2(gnutls_session_t session, unsigned index, gnutls_datum_t *response) {
    return is_left(session)
               ? REAL(gnutls_ocsp_status_request_get2)(session, index, response)
               : say(GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE, "", "ssa has no OCSP stapling (RFC 6066 section 8)");
}

EXPORT int gnutls_ocsp_status_request_get(gnutls_session_t session, gnutls_datum_t *response) {
    return gnutls_ocsp_status_request_get2(session, 0, response);
}

EXPORT unsigned gnutls_ocsp_status_request_is_checked(gnutls_session_t session, unsigned flags) {
    return is_left(session) ? REAL(gnutls_ocsp_status_request_is_checked)(session, flags) : 0;
}

EXPORT int gnutls_rehandshake(gnutls_session_t session) {
    return is_left(session) ? REAL(gnutls_rehandshake)(session)
                            : say(GNUTLS_E_UNSAFE_RENEGOTIATION_DENIED, "", "ssa does not renegotiate");
}

EXPORT int gnutls_reauth(gnutls_session_t session, unsigned flags) {
    return is_left(session)
               ? REAL(gnutls_reauth)(session, flags)
               : say(GNUTLS_E_INVALID_REQUEST, "", "ssa asks for certificates, and gives them, in the handshake only");
}

EXPORT int gnutls_session_key_update(gnutls_session_t session, unsigned flags) {
    return is_left(session) ? REAL(gnutls_session_key_update)(session, flags) : 0; /* ssa changes keys in time */
}

EXPORT unsigned gnutls_heartbeat_allowed(gnutls_session_t session, unsigned type) {
    return is_left(session) ? REAL(gnutls_heartbeat_allowed)(session, type) : 0;
}

EXPORT int gnutls_heartbeat_ping(gnutls_session_t session, size_t size, unsigned tries, unsigned flags) {
    return is_left(session) ? REAL(gnutls_heartbeat_ping)(session, size, tries, flags)
                            : say(GNUTLS_E_INVALID_REQUEST, "", "ssa has no heartbeats (RFC 6520)");
}

EXPORT int gnutls_heartbeat_pong(gnutls_session_t session, unsigned flags) {
    return is_left(session) ? REAL(gnutls_heartbeat_pong)(session, flags)
                            : say(GNUTLS_E_INVALID_REQUEST, "", "ssa has no heartbeats (RFC 6520)");
}
