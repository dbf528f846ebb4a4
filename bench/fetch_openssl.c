/* fetch_openssl HOST PORT PATH SIZE ANCHORS: fetches a file of that many bytes by way of OpenSSL, which verifies the
 * server with the trust anchors of that file. Exit status 0: it came whole. */

#include "fetch.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int connected(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, port, &hints, &found))
        return -1;
    int fd = -1;
    for (struct addrinfo *one = found; one && fd < 0; one = one->ai_next) {
        fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (fd >= 0 && connect(fd, one->ai_addr, one->ai_addrlen)) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static SSL *handshake(const char *host, int fd, const char *anchors) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = NULL;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (SSL_CTX_load_verify_locations(context, anchors, NULL) == 1 && (ssl = SSL_new(context)) &&
        SSL_set_tlsext_host_name(ssl, host) && SSL_set1_host(ssl, host) && SSL_set_fd(ssl, fd) && SSL_connect(ssl) == 1)
        return ssl;
    ERR_print_errors_fp(stderr);
    exit(1);
}

int main(int count, char **arguments) {
    char begin[16] = "";
    long total = 0;
    int size, fd = count == 6 ? connected(arguments[1], arguments[2]) : -1;
    if (fd < 0)
        return 1;
    SSL *ssl = handshake(arguments[1], fd, arguments[5]);
    int length = (int)ask(arguments[1], arguments[3]);
    if (SSL_write(ssl, request, length) != length)
        return 1;
    while ((size = SSL_read(ssl, buffer, sizeof buffer)) > 0) {
        if (!total)
            memcpy(begin, buffer, (size_t)size < sizeof begin ? (size_t)size : sizeof begin - 1);
        total += size;
    }
    int in_order = SSL_get_error(ssl, size) == SSL_ERROR_ZERO_RETURN;
    SSL_shutdown(ssl);
    return close(fd) || !in_order || !whole(begin, total, atol(arguments[4]));
}
