/* calls.c: handshakes of GnuTLS's, what is told of them, and what is refused: what no program of Debian's shows. */

#include "calls.h"

#include <sys/uio.h>

gnutls_certificate_credentials_t credentials;
const char *host, *port, *argument;

/* --- what is told of a handshake --- */

static void report(void) {
    gnutls_session_t session = connected();
    unsigned status = 77, count = 0;
    gnutls_datum_t datum;
    must("verify", gnutls_certificate_verify_peers3(session, host, &status));
    printf("status %u\n", status);
    must("verify", gnutls_certificate_verify_peers3(session, "other.test", &status));
    printf("of another name %s\n", status & GNUTLS_CERT_UNEXPECTED_OWNER ? "refused" : "taken");
    gnutls_typed_vdata_st purpose = {GNUTLS_DT_KEY_PURPOSE_OID, (void *)GNUTLS_KP_OCSP_SIGNING, 0};
    must("verify", gnutls_certificate_verify_peers(session, &purpose, 1, &status));
    printf("of another purpose %s\n", status & GNUTLS_CERT_PURPOSE_MISMATCH ? "refused" : "taken");
    const gnutls_datum_t *peers = gnutls_certificate_get_peers(session, &count);
    printf("peers %s %u\n", peers ? "are" : "none", count);
    char *description = gnutls_session_get_desc(session);
    printf("description %s\n", description);
    gnutls_free(description);
    printf("version %s\n", gnutls_protocol_get_name(gnutls_protocol_get_version(session)));
    printf("cipher %s %zu\n", gnutls_cipher_get_name(gnutls_cipher_get(session)),
           gnutls_cipher_get_key_size(gnutls_cipher_get(session)));
    printf("times %d\n",
           gnutls_certificate_activation_time_peers(session) < gnutls_certificate_expiration_time_peers(session));
    say("data", gnutls_session_get_data2(session, &datum));
    char key[16];
    say("keying material", gnutls_prf_rfc5705(session, 4, "test", 0, NULL, sizeof key, key));
    say("binding", gnutls_session_channel_binding(session, GNUTLS_CB_TLS_UNIQUE, &datum));
    say("rehandshake", gnutls_rehandshake(session));
    say("new keys", gnutls_session_key_update(session, 0));
    echo(session, "hello");
    printf("pending %zu\n", gnutls_record_check_pending(session));
    say("bye", gnutls_bye(session, GNUTLS_SHUT_WR));
    char byte;
    printf("after it %zd\n", receive(session, &byte, 1));
    end(session);
}

static void alpn(void) {
    gnutls_session_t session = new_session(tcp());
    gnutls_datum_t names[] = {{(unsigned char *)"nobody", 6}, {(unsigned char *)"http/1.1", 8}}, chosen = {0};
    must("alpn", gnutls_alpn_set_protocols(session, names, 2, 0));
    must("handshake", shake(session));
    must("chosen", gnutls_alpn_get_selected_protocol(session, &chosen));
    printf("chosen %.*s\n", (int)chosen.size, chosen.data);
    end(session);
}

/* --- priorities --- */

static void priorities(void) {
    gnutls_session_t session = new_session(tcp());
    must("string", gnutls_priority_set_direct(session, argument, NULL));
    must("handshake", shake(session));
    printf("%s %s\n", gnutls_protocol_get_name(gnutls_protocol_get_version(session)),
           gnutls_cipher_get_name(gnutls_cipher_get(session)));
    end(session);
}

/* --- its own verification --- */

static int refuses(gnutls_session_t session) {
    unsigned status = 1, count = 0;
    gnutls_certificate_verify_peers2(session, &status);
    printf("asked with status %u, %s\n", status,
           gnutls_certificate_get_peers(session, &count) ? "a chain" : "no chain");
    return argument && !strcmp(argument, "refuse");
}

static void verify_function(void) {
    gnutls_certificate_set_verify_function(credentials, refuses);
    gnutls_session_t session = new_session(tcp());
    int done = shake(session);
    say("handshake", done);
    printf("again %s\n", gnutls_handshake(session) == done ? "the same" : "another");
    char byte = 0;
    if (done < 0)
        printf("a write %s\n", gnutls_record_send(session, &byte, 1) < 0 ? "refused" : "taken");
    end(session);
}

static void verify_name(void) {
    gnutls_session_t session = new_session(tcp());
    gnutls_session_set_verify_cert(session, argument, 0);
    say("handshake", shake(session));
    unsigned status = gnutls_session_get_verify_cert_status(session);
    printf("%s\n", !status ? "verified" : status & GNUTLS_CERT_UNEXPECTED_OWNER ? "another owner" : "not verified");
    end(session);
}

static void anchors(void) {
    must("file", gnutls_certificate_set_x509_trust_file(credentials, argument, GNUTLS_X509_FMT_PEM));
    say("handshake", shake(new_session(tcp())));
}

static void revocation(void) {
    gnutls_certificate_set_x509_system_trust(credentials);
    must("list", gnutls_certificate_set_x509_crl_file(credentials, argument, GNUTLS_X509_FMT_PEM));
    gnutls_session_t session = connected();
    unsigned status;
    must("verify", gnutls_certificate_verify_peers2(session, &status));
    printf("%s\n", status & GNUTLS_CERT_REVOKED ? "revoked" : status ? "invalid" : "in order");
    end(session);
}

/* --- what cannot be mapped --- */

static ssize_t no_pull(gnutls_transport_ptr_t pointer, void *data, size_t size) {
    return read((int)(intptr_t)pointer, data, size);
}

static void through_a_pipe(void) {
    int ends[2];
    gnutls_session_t session = plain_session(0);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        exit(3);
    close(ends[1]);
    gnutls_transport_set_ptr(session, (gnutls_transport_ptr_t)(intptr_t)ends[0]);
    gnutls_transport_set_pull_function(session, no_pull);
    say("handshake", shake(session));
}

static ssize_t own_push(gnutls_transport_ptr_t pointer, const giovec_t *parts, int count) {
    return writev((int)(intptr_t)pointer, (const struct iovec *)parts, count);
}

static void through_a_push_function(void) {
    gnutls_session_t session = new_session(tcp());
    gnutls_transport_set_vec_push_function(session, own_push);
    say("handshake", shake(session));
}

static void datagrams(void) {
    gnutls_session_t session = plain_session(GNUTLS_DATAGRAM | GNUTLS_NONBLOCK);
    gnutls_transport_set_int(session, socket(AF_INET, SOCK_DGRAM, 0));
    say("handshake", gnutls_handshake(session));
}

static void anonymous(void) {
    gnutls_session_t session;
    gnutls_anon_client_credentials_t nobody;
    must("init", gnutls_init(&session, GNUTLS_CLIENT));
    must("string", gnutls_priority_set_direct(session, "NORMAL:-VERS-TLS1.3:+ANON-ECDH", NULL));
    must("nobody", gnutls_anon_allocate_client_credentials(&nobody));
    must("credentials", gnutls_credentials_set(session, GNUTLS_CRD_ANON, nobody));
    gnutls_transport_set_int(session, tcp());
    gnutls_handshake_set_timeout(session, 2000);
    say("handshake", gnutls_handshake(session));
}

static int looks(gnutls_session_t session) {
    (void)session;
    return 0;
}

static void server(void) {
    gnutls_session_t session;
    must("init", gnutls_init(&session, GNUTLS_SERVER));
    must("priorities", gnutls_set_default_priority(session));
    must("credentials", gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials));
    gnutls_transport_set_int(session, tcp());
    gnutls_handshake_set_post_client_hello_function(session, looks);
    gnutls_handshake_set_timeout(session, 500);
    say("handshake", gnutls_handshake(session));
}

static const struct call all[] = {
    {"report", report},           {"alpn", alpn},
    {"priorities", priorities},   {"verify-function", verify_function},
    {"verify-name", verify_name}, {"anchors", anchors},
    {"revocation", revocation},   {"pipe", through_a_pipe},
    {"datagrams", datagrams},     {"anonymous", anonymous},
    {"server", server},           {"push", through_a_push_function},
};

int main(int count, char **words) {
    return count < 4 ? 64 : run_call(all, sizeof all / sizeof *all, words);
}
