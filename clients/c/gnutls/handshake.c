/* handshake.c: gnutls_handshake(3), for clients and servers. */

#include "coerced.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>

/* --- the socket below a session --- */

static int socket_below(struct coerced *coerced) {
    int reads, writes;
    char byte;
    gnutls_transport_ptr_t from, to;
    if (coerced->pull) {
        REAL(gnutls_transport_get_ptr2)(coerced->session, &from, &to);
        probe_begin(PRETEND);
        coerced->pull(from, &byte, 1);
        return checked_socket(probe_end());
    }
    REAL(gnutls_transport_get_int2)(coerced->session, &reads, &writes);
    return reads == writes ? checked_socket(reads) : NO_SOCKET;
}

/* --- the request --- */

/* The name that the program has the certificate verified for; else the one that it sends; else the one that it looked
 * up; else the address. */
static void find_name(const struct coerced *coerced, char *name, size_t room) {
    const char *told = *coerced->verified_name ? coerced->verified_name : coerced->name;
    *name = 0;
    if (*told)
        copy_text(name, room, told, strlen(told));
    else
        name_of_peer(coerced->fd, name, room);
}

static bool has_suite(unsigned number, const void *argument) {
    const struct priorities *priorities = argument;
    for (int at = 0; at < priorities->count; at++)
        if (priorities->suites[at] == number)
            return true;
    return false;
}

static void write_connect(struct coerced *coerced, struct request *request) {
    char name[sizeof coerced->name];
    static const uint32_t lenient[] = {[VERIFIES] = 0, [VERIFIES_NOT] = 1, [PERHAPS] = 2};
    uint32_t known = lenient[verifies_peer(coerced)];
    find_name(coerced, name, sizeof name);
    request_begin(request, KIND_CONNECT);
    request_text(request, ATTRIBUTE_HOSTNAME, name);
    if (known)
        request_number(request, ATTRIBUTE_LENIENT, known);
}

static void write_accept(struct coerced *coerced, struct request *request) {
    request_begin(request, KIND_ACCEPT);
    if (coerced->asks != GNUTLS_CERT_IGNORE)
        request_number(request, ATTRIBUTE_PEER_AUTH, coerced->asks == GNUTLS_CERT_REQUIRE ? 1 : 2);
}

static void write_request(struct coerced *coerced, struct request *request) {
    const struct priorities *priorities = &coerced->priorities;
    (coerced->role == SERVER ? write_accept : write_connect)(coerced, request);
    if (coerced->alpn.size)
        request_bytes(request, ATTRIBUTE_ALPN, coerced->alpn.data, coerced->alpn.size);
    request_number(request, ATTRIBUTE_WITH_CHAIN, 1); /* most programs look at it */
    request_number(request, ATTRIBUTE_CONTROL, 1);
    if (priorities->known)
        add_versions(request, priorities->low, priorities->high, add_suites(request, has_suite, priorities));
}

static int add_anchors(struct coerced *coerced, struct request *request, struct own_files *files) {
    struct buffer pem = {0};
    bool asks = coerced->role == CLIENT || coerced->asks != GNUTLS_CERT_IGNORE;
    int found = asks ? own_anchors(coerced->session, &pem) : 0;
    if (found > 0) {
        request_number(request, ATTRIBUTE_TRUSTED, 1);
        found = add_file(files, pem.data, pem.size);
    }
    drop_buffer(&pem);
    return found;
}

/* --- what becomes of it --- */

static bool has_protocol(const struct coerced *coerced) {
    size_t size = 0;
    return !coerced->requires_alpn || (told_bytes(&coerced->told, ATTRIBUTE_ALPN, &size) && size > 1);
}

static int complete(struct coerced *coerced) {
    learn_peers(coerced);
    atomic_store(&coerced->stage, DONE);
    if (!has_protocol(coerced)) {
        set_words("the peer has chosen no application protocol (ALPN), which the program demands");
        end_at_once(coerced->fd);
        return refuse_with(coerced, GNUTLS_E_NO_APPLICATION_PROTOCOL);
    }
    if (agrees(coerced))
        return GNUTLS_E_SUCCESS;
    end_at_once(coerced->fd);
    return refuse_with(coerced,
                       coerced->verifies ? GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR : GNUTLS_E_CERTIFICATE_ERROR);
}

static int too_late(struct coerced *coerced) {
    set_words("the handshake took longer than the program allows (gnutls_handshake_set_timeout)");
    end_at_once(coerced->fd);
    return refuse_with(coerced, GNUTLS_E_TIMEDOUT);
}

static int under_way(struct coerced *coerced) {
    enum { EARLY = 20 }; /* milliseconds by which a wait may have ended before its time */
    atomic_store(&coerced->stage, UNDER_WAY);
    atomic_store(&coerced->direction, 0);
    if (coerced->deadline && now() + EARLY >= coerced->deadline)
        return too_late(coerced);
    return errno == EINTR ? GNUTLS_E_INTERRUPTED : GNUTLS_E_AGAIN;
}

static int judge(struct coerced *coerced, enum shaken shaken) {
    return shaken == SHAKEN ? complete(coerced) : shaken == SHAKING_ON ? under_way(coerced) : refuse(coerced, errno);
}

/* A socket that waits does so as long as the program allows. */
static struct exchange *patient_exchange(struct coerced *coerced) {
    if (!coerced->handshake_timeout)
        return exchange_for(coerced->fd);
    coerced->deadline = now() + coerced->handshake_timeout;
    return exchange_open(does_wait(coerced->fd) ? (int)coerced->handshake_timeout : LOCAL);
}

static int ask(struct coerced *coerced) {
    struct own_files files = {.count = 0};
    struct exchange *exchange = patient_exchange(coerced);
    if (!exchange)
        return refuse(coerced, errno);
    write_request(coerced, &exchange->request);
    if (add_anchors(coerced, &exchange->request, &files) >= 0 &&
        !add_own_certificates(coerced, &exchange->request, &files))
        return judge(coerced, shake_by(exchange, coerced->fd, &files, &coerced->told));
    int number = errno;
    exchange_close(exchange);
    drop_files(&files);
    return refuse(coerced, number);
}

static bool chooses_by_function(struct coerced *coerced) {
    const struct credentials *given = credentials_of(certificate_credentials(coerced->session));
    return given->retrieve1 || given->retrieve2 || given->retrieve3;
}

/* Why the session cannot be mapped, or NULL. */
static const char *obstacle(struct coerced *coerced) {
    if (coerced->cannot)
        return coerced->cannot;
    if (!certificate_credentials(coerced->session))
        return "a handshake without certificates (anonymous, PSK, SRP)";
    if (coerced->priorities.known && !coerced->priorities.low)
        return "a priority string without any version of TLS";
    if (coerced->role == SERVER && chooses_by_function(coerced))
        return "a server whose certificate a function of GnuTLS's chooses";
    if (coerced->own_push && !coerced->pull)
        return "GnuTLS that sends by a function of the program's, as for TCP Fast Open";
    coerced->fd = socket_below(coerced);
    if (coerced->fd == NO_SOCKET)
        return "GnuTLS that is not on a TCP socket";
    return has_tls(coerced->fd) ? "GnuTLS within another TLS connection" : NULL;
}

static int begin(struct coerced *coerced) {
    const char *why = obstacle(coerced);
    if (!why)
        return ask(coerced);
    int done = leave(coerced, why);
    return done ? done : REAL(gnutls_handshake)(coerced->session);
}

/* ssad is at it: look whether it is done. A socket that waits does so until then, or until the program's deadline. */
static int follow(struct coerced *coerced) {
    int64_t left = coerced->deadline - now();
    if (coerced->deadline && does_wait(coerced->fd) && !wait_for(coerced->fd, POLLIN, left > 0 ? (int)left : 0))
        return too_late(coerced);
    return judge(coerced, shake_on(coerced->fd, &coerced->told));
}

static int shake_again(struct coerced *coerced) {
    if (told_version(&coerced->told) == 0x0304)
        return GNUTLS_E_SUCCESS;
    return say(GNUTLS_E_UNSAFE_RENEGOTIATION_DENIED, "", "ssa does not renegotiate");
}

int shake(struct coerced *coerced) {
    switch (atomic_load(&coerced->stage)) {
    case DONE:
        return shake_again(coerced);
    case REFUSED:
        return coerced->error;
    case UNDER_WAY:
        return follow(coerced);
    case LEFT:
        return REAL(gnutls_handshake)(coerced->session);
    default:
        return begin(coerced);
    }
}

EXPORT int gnutls_handshake(gnutls_session_t session) {
    return shake(coerced_of(session));
}
