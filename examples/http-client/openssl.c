/* http-client HOST PORT PATH: prints what a web server has there. */

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int fd = -1, error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
        return -1;
    }
    for (struct addrinfo *at = found; at && fd < 0; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM, 0);
        if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen)) {
            perror(host);
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static void print_tls_error(const char *what) {
    unsigned long error = ERR_get_error();
    const char *words = error ? ERR_reason_error_string(error) : NULL;
    fprintf(stderr, "%s: %s\n", what, words ? words : error ? "TLS failed" : "the stream was cut");
    ERR_clear_error();
}

static SSL_CTX *client_context(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
        !SSL_CTX_set_default_verify_paths(context)) {
        print_tls_error("OpenSSL");
        exit(1);
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    return context;
}

/* The server has to prove that it is `host`, which may be an address. */
static SSL *start_tls(SSL_CTX *context, int fd, const char *host) {
    SSL *ssl = SSL_new(context);
    if (!ssl || !SSL_set_fd(ssl, fd)) {
        print_tls_error(host);
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    bool is_address = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
    ERR_clear_error();
    bool is_named = is_address || (SSL_set1_host(ssl, host) && SSL_set_tlsext_host_name(ssl, host));
    if (!is_named || SSL_connect(ssl) != 1) {
        long verdict = SSL_get_verify_result(ssl);
        if (verdict != X509_V_OK)
            fprintf(stderr, "%s: %s\n", host, X509_verify_cert_error_string(verdict));
        else
            print_tls_error(host);
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

static bool send_all(SSL *ssl, const char *data, size_t size) {
    while (size) {
        int sent = SSL_write(ssl, data, (int)size);
        if (sent <= 0) {
            print_tls_error("write");
            return false;
        }
        data += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool print_reply(SSL *ssl) {
    char data[16384];
    int size;
    while ((size = SSL_read(ssl, data, sizeof data)) > 0)
        fwrite(data, 1, (size_t)size, stdout);
    if (SSL_get_error(ssl, size) != SSL_ERROR_ZERO_RETURN) {
        print_tls_error("read");
        return false;
    }
    return !fflush(stdout);
}

int main(int count, char **arguments) {
    char request[2048];
    if (count != 4) {
        fprintf(stderr, "usage: http-client HOST PORT PATH\n");
        return 2;
    }
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", arguments[3], arguments[1]);
    if (size >= (int)sizeof request) {
        fprintf(stderr, "%s: too long\n", arguments[3]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX *context = client_context();
    int fd = connect_to(arguments[1], arguments[2]);
    if (fd < 0)
        return 1;
    SSL *ssl = start_tls(context, fd, arguments[1]);
    bool done = ssl && send_all(ssl, request, (size_t)size) && print_reply(ssl);
    if (done)
        SSL_shutdown(ssl);
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
    return done ? 0 : 1;
}
