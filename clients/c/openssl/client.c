/* client.c: the client's side of a handshake. */

#include "coerced.h"

#include <errno.h>
#include <string.h>

/* --- whom the program wants to reach --- */

static bool name_set(SSL *ssl, char *name, size_t room) {
    const char *told = REAL(X509_VERIFY_PARAM_get0_host)(REAL(SSL_get0_param)(ssl), 0);
    if (told)
        copy_text(name, room, told, strlen(told));
    return *name;
}

static bool address_set(SSL *ssl, char *name, size_t room) {
    REAL(ERR_set_mark)(); /* that there is none is an error to OpenSSL */
    char *told = REAL(X509_VERIFY_PARAM_get1_ip_asc)(REAL(SSL_get0_param)(ssl));
    REAL(ERR_pop_to_mark)();
    if (told)
        copy_text(name, room, told, strlen(told));
    if (told)
        REAL(CRYPTO_free)(told, __FILE__, __LINE__);
    return *name;
}

static bool name_of_hello(SSL *ssl, char *name, size_t room) {
    const char *told = REAL(SSL_get_servername)(ssl, TLSEXT_NAMETYPE_host_name);
    if (told)
        copy_text(name, room, told, strlen(told));
    return *name;
}

/* The name that the program has its certificate checked for; else the one that it sends; else the one that it looked
 * up; else the address. */
static void find_name(SSL *ssl, int fd, char *name, size_t room) {
    *name = 0;
    if (!name_set(ssl, name, room) && !address_set(ssl, name, room) && !name_of_hello(ssl, name, room))
        name_of_peer(fd, name, room);
}

/* --- the handshake --- */

static int ask(SSL *ssl, struct coerced *coerced) {
    char name[256];
    struct names_list *alpn = alpn_of(ssl);
    struct exchange *exchange = coerced->ready ? coerced->ready : exchange_for(coerced->fd);
    coerced->ready = NULL;
    if (!exchange)
        return refuse(ssl, errno);
    find_name(ssl, coerced->fd, name, sizeof name);
    request_begin(&exchange->request, KIND_CONNECT);
    request_text(&exchange->request, ATTRIBUTE_HOSTNAME, name);
    if (alpn && alpn->size)
        request_bytes(&exchange->request, ATTRIBUTE_ALPN, alpn->data, alpn->size);
    if (!demands_verification(ssl))
        request_number(&exchange->request, ATTRIBUTE_LENIENT, 1);
    request_number(&exchange->request, ATTRIBUTE_WITH_CHAIN, 1); /* most programs look at it */
    add_wishes(ssl, &exchange->request);
    return hand_over(ssl, coerced, exchange, true);
}

/* curl reads its trust anchors when its first SSL_connect has begun the handshake: so that call, on a socket that does
 * not wait and is below a BIO of the program's own, does nothing but say "again". ssad takes the connection meanwhile.
 */
int begin_client(SSL *ssl, struct coerced *coerced) {
    bool own_kind, first = coerced->stage == BEFORE;
    if (REAL(SSL_is_dtls)(ssl))
        return leave(ssl, "DTLS by OpenSSL") ? REAL(SSL_do_handshake)(ssl) : -1;
    coerced->fd = socket_below(ssl, &own_kind);
    if (coerced->fd == NO_SOCKET)
        return leave(ssl, "a client's TLS that is not on a TCP socket (BIO)") ? REAL(SSL_do_handshake)(ssl) : -1;
    if (has_tls(coerced->fd))
        return leave(ssl, "a client's TLS within another TLS connection") ? REAL(SSL_do_handshake)(ssl) : -1;
    if (own_kind && first && !does_wait(coerced->fd)) {
        coerced->stage = HELD_BACK;
        coerced->ready = exchange_open(LOCAL); /* if it fails, it will again */
        return outcome(coerced, SSL_ERROR_WANT_WRITE, -1);
    }
    return ask(ssl, coerced);
}
