/* setters.c: the setters without getters. Each value is GnuTLS's too, for a session that is left to it. */

#include "coerced.h"

#include <gnutls/socket.h>
#include <string.h>

EXPORT int gnutls_server_name_set(gnutls_session_t session, gnutls_server_name_type_t type, const void *name,
                                  size_t size) {
    int done = REAL(gnutls_server_name_set)(session, type, name, size);
    if (done >= 0 && type == GNUTLS_NAME_DNS)
        copy_text(coerced_of(session)->name, sizeof coerced_of(session)->name, name, size);
    return done;
}

EXPORT int gnutls_alpn_set_protocols(gnutls_session_t session, const gnutls_datum_t *names, unsigned count,
                                     unsigned flags) {
    struct coerced *coerced = coerced_of(session);
    int done = REAL(gnutls_alpn_set_protocols)(session, names, count, flags);
    if (done < 0)
        return done;
    drop_buffer(&coerced->alpn);
    coerced->requires_alpn = flags & GNUTLS_ALPN_MANDATORY;
    for (unsigned at = 0; at < count; at++) {
        unsigned char size = (unsigned char)names[at].size;
        append(&coerced->alpn, &size, 1);
        append(&coerced->alpn, names[at].data, size);
    }
    return done;
}

/* --- priorities --- */

EXPORT int gnutls_priority_set(gnutls_session_t session, gnutls_priority_t cache) {
    int done = REAL(gnutls_priority_set)(session, cache);
    if (done >= 0 && cache)
        read_priorities(&coerced_of(session)->priorities, cache);
    return done;
}

static void read_string(gnutls_session_t session, const char *string, unsigned flags) {
    gnutls_priority_t cache;
    if (REAL(gnutls_priority_init2)(&cache, string, NULL, flags) < 0)
        return;
    read_priorities(&coerced_of(session)->priorities, cache);
    REAL(gnutls_priority_deinit)(cache);
}

EXPORT int gnutls_priority_set_direct(gnutls_session_t session, const char *string, const char **error) {
    int done = REAL(gnutls_priority_set_direct)(session, string, error);
    if (done >= 0)
        read_string(session, string, 0);
    return done;
}

EXPORT int gnutls_set_default_priority(gnutls_session_t session) {
    int done = REAL(gnutls_set_default_priority)(session);
    if (done >= 0)
        read_string(session, NULL, 0);
    return done;
}

EXPORT int gnutls_set_default_priority_append(gnutls_session_t session, const char *more, const char **error,
                                              unsigned flags) {
    int done = REAL(gnutls_set_default_priority_append)(session, more, error, flags);
    if (done >= 0)
        read_string(session, more, GNUTLS_PRIORITY_INIT_DEF_APPEND);
    return done;
}

/* --- whom to verify, and how --- */

EXPORT void gnutls_session_set_verify_cert(gnutls_session_t session, const char *name, unsigned flags) {
    struct coerced *coerced = coerced_of(session);
    coerced->verifies = true;
    copy_text(coerced->verified_name, sizeof coerced->verified_name, name ? name : "", name ? strlen(name) : 0);
    REAL(gnutls_session_set_verify_cert)(session, name, flags);
}

static size_t length_of(const gnutls_typed_vdata_st *part) {
    return part->size ? part->size : strlen((const char *)part->data);
}

EXPORT void gnutls_session_set_verify_cert2(gnutls_session_t session, gnutls_typed_vdata_st *data, unsigned elements,
                                            unsigned flags) {
    struct coerced *coerced = coerced_of(session);
    coerced->verifies = true;
    for (unsigned at = 0; at < elements; at++) {
        const char *text = (const char *)data[at].data;
        if (data[at].type == GNUTLS_DT_DNS_HOSTNAME)
            copy_text(coerced->verified_name, sizeof coerced->verified_name, text, length_of(&data[at]));
        else if (data[at].type == GNUTLS_DT_KEY_PURPOSE_OID)
            copy_text(coerced->purpose, sizeof coerced->purpose, text, length_of(&data[at]));
        else
            coerced->cannot = "a name of another kind than DNS to be verified by GnuTLS";
    }
    REAL(gnutls_session_set_verify_cert2)(session, data, elements, flags);
}

EXPORT void gnutls_session_set_verify_function(gnutls_session_t session, gnutls_certificate_verify_function *verify) {
    coerced_of(session)->verify = verify;
    REAL(gnutls_session_set_verify_function)(session, verify);
}

EXPORT void gnutls_certificate_set_verify_function(gnutls_certificate_credentials_t credentials,
                                                   gnutls_certificate_verify_function *verify) {
    credentials_of(credentials)->verify = verify;
    REAL(gnutls_certificate_set_verify_function)(credentials, verify);
}

/* --- what a server asks of its clients --- */

EXPORT void gnutls_certificate_server_set_request(gnutls_session_t session, gnutls_certificate_request_t asks) {
    coerced_of(session)->asks = asks;
    REAL(gnutls_certificate_server_set_request)(session, asks);
}

EXPORT void gnutls_handshake_set_post_client_hello_function(gnutls_session_t session,
                                                            gnutls_handshake_simple_hook_func called) {
    if (called)
        coerced_of(session)->cannot = "a server that decides by the ClientHello, with GnuTLS";
    REAL(gnutls_handshake_set_post_client_hello_function)(session, called);
}

/* --- certificates that a function gives --- */

EXPORT void gnutls_certificate_set_retrieve_function(gnutls_certificate_credentials_t credentials,
                                                     gnutls_certificate_retrieve_function *retrieve) {
    credentials_of(credentials)->retrieve1 = retrieve;
    REAL(gnutls_certificate_set_retrieve_function)(credentials, retrieve);
}

EXPORT void gnutls_certificate_set_retrieve_function2(gnutls_certificate_credentials_t credentials,
                                                      gnutls_certificate_retrieve_function2 *retrieve) {
    credentials_of(credentials)->retrieve2 = retrieve;
    REAL(gnutls_certificate_set_retrieve_function2)(credentials, retrieve);
}

EXPORT void gnutls_certificate_set_retrieve_function3(gnutls_certificate_credentials_t credentials,
                                                      gnutls_certificate_retrieve_function3 *retrieve) {
    credentials_of(credentials)->retrieve3 = retrieve;
    REAL(gnutls_certificate_set_retrieve_function3)(credentials, retrieve);
}

/* --- the socket, and time --- */

EXPORT void gnutls_transport_set_pull_function(gnutls_session_t session, gnutls_pull_func pull) {
    coerced_of(session)->pull = pull;
    REAL(gnutls_transport_set_pull_function)(session, pull);
}

EXPORT void gnutls_transport_set_push_function(gnutls_session_t session, gnutls_push_func push) {
    coerced_of(session)->own_push = true;
    REAL(gnutls_transport_set_push_function)(session, push);
}

EXPORT void gnutls_transport_set_vec_push_function(gnutls_session_t session, gnutls_vec_push_func push) {
    coerced_of(session)->own_push = true;
    REAL(gnutls_transport_set_vec_push_function)(session, push);
}

EXPORT void gnutls_transport_set_fastopen(gnutls_session_t session, int fd, struct sockaddr *address, socklen_t size,
                                          unsigned flags) {
    coerced_of(session)->cannot = "TCP Fast Open by GnuTLS";
    REAL(gnutls_transport_set_fastopen)(session, fd, address, size, flags);
}

EXPORT void gnutls_handshake_set_timeout(gnutls_session_t session, unsigned milliseconds) {
    enum { USUAL = 40000 };
    coerced_of(session)->handshake_timeout =
        milliseconds == GNUTLS_DEFAULT_HANDSHAKE_TIMEOUT ? (unsigned)USUAL : milliseconds;
    REAL(gnutls_handshake_set_timeout)(session, milliseconds);
}

EXPORT void gnutls_record_set_timeout(gnutls_session_t session, unsigned milliseconds) {
    coerced_of(session)->record_timeout = milliseconds;
    REAL(gnutls_record_set_timeout)(session, milliseconds);
}

/* --- what is done to the handshake itself, and cannot be in ssad --- */

EXPORT void gnutls_handshake_set_read_function(gnutls_session_t session, gnutls_handshake_read_func called) {
    coerced_of(session)->cannot = "a handshake without records (QUIC)";
    REAL(gnutls_handshake_set_read_function)(session, called);
}

EXPORT void gnutls_handshake_set_secret_function(gnutls_session_t session, gnutls_handshake_secret_func called) {
    coerced_of(session)->cannot = "a handshake whose secrets the program wants (QUIC)";
    REAL(gnutls_handshake_set_secret_function)(session, called);
}

EXPORT void gnutls_handshake_set_hook_function(gnutls_session_t session, unsigned type, int when,
                                               gnutls_handshake_hook_func called) {
    coerced_of(session)->cannot = "a handshake whose messages the program wants to see";
    REAL(gnutls_handshake_set_hook_function)(session, type, when, called);
}

EXPORT int gnutls_session_ext_register(gnutls_session_t session, const char *name, int id,
                                       gnutls_ext_parse_type_t parse, gnutls_ext_recv_func receive,
                                       gnutls_ext_send_func send, gnutls_ext_deinit_data_func end,
                                       gnutls_ext_pack_func pack, gnutls_ext_unpack_func unpack, unsigned flags) {
    coerced_of(session)->cannot = "TLS extensions of the program's own";
    return REAL(gnutls_session_ext_register)(session, name, id, parse, receive, send, end, pack, unpack, flags);
}
