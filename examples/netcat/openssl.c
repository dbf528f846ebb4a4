/* netcat HOST PORT, netcat -l PORT CERTIFICATE KEY: joins standard input and output to a connection. */

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void print_tls_error(const char *what) {
    unsigned long error = ERR_get_error();
    const char *words = error ? ERR_reason_error_string(error) : NULL;
    fprintf(stderr, "%s: %s\n", what, words ? words : error ? "TLS failed" : "the stream was cut");
    ERR_clear_error();
}

static void fail_tls(const char *what) {
    print_tls_error(what);
    exit(1);
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

static SSL_CTX *server_context(const char *certificate, const char *key) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
        SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(context) != 1) {
        print_tls_error(certificate);
        exit(1);
    }
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

static SSL *accept_tls(SSL_CTX *context, int fd) {
    SSL *ssl = SSL_new(context);
    if (!ssl || !SSL_set_fd(ssl, fd) || SSL_accept(ssl) != 1)
        fail_tls("accept");
    return ssl;
}

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int fd = -1, error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
        exit(1);
    }
    for (struct addrinfo *at = found; at; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM, 0);
        if (fd < 0)
            fail("socket");
        if (!connect(fd, at->ai_addr, at->ai_addrlen))
            break;
        if (!at->ai_next)
            fail(host);
        close(fd);
    }
    freeaddrinfo(found);
    return fd;
}

static int accept_on(const char *port) {
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
        bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1))
        fail(port);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        fail("accept");
    close(listener);
    return fd;
}

/* Wait for what a call of OpenSSL's waits for; the socket does not wait. */
static void wait_for(SSL *ssl, int result, const char *what) {
    int error = SSL_get_error(ssl, result);
    struct pollfd polled = {.fd = SSL_get_fd(ssl), .events = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        fail_tls(what);
    if (poll(&polled, 1, -1) < 0)
        fail("poll");
}

static void write_tls(SSL *ssl, const char *data, int size) {
    int result;
    while (size && (result = SSL_write(ssl, data, size)) <= 0)
        wait_for(ssl, result, "write");
}

static void write_all(int fd, const char *data, ssize_t size) {
    while (size) {
        ssize_t written = write(fd, data, (size_t)size);
        if (written < 0)
            fail("write");
        data += written;
        size -= written;
    }
}

/* Move what there is. False at the end of the input. */
static bool move_out(SSL *ssl) {
    char data[16384];
    ssize_t size = read(STDIN_FILENO, data, sizeof data);
    if (size < 0)
        fail("read");
    write_tls(ssl, data, (int)size);
    return size;
}

static bool move_in(SSL *ssl) {
    char data[16384];
    int size;
    while ((size = SSL_read(ssl, data, sizeof data)) > 0)
        write_all(STDOUT_FILENO, data, size);
    switch (SSL_get_error(ssl, size)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return true;
    case SSL_ERROR_ZERO_RETURN:
        return false;
    default:
        fail_tls("read");
        return false;
    }
}

static void join(SSL *ssl, int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (!move_in(ssl)) /* what came behind the handshake: poll does not know of it */
        return;
    struct pollfd polled[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    for (;;) {
        if (poll(polled, 2, -1) < 0)
            fail("poll");
        if (polled[1].revents && !move_in(ssl))
            return;
        if (polled[0].revents && !move_out(ssl)) {
            int result;
            while ((result = SSL_shutdown(ssl)) < 0)
                wait_for(ssl, result, "shutdown");
            polled[0].fd = -1;
        }
    }
}

int main(int count, char **arguments) {
    bool is_server = count > 1 && !strcmp(arguments[1], "-l");
    if (count != (is_server ? 5 : 3)) {
        fprintf(stderr, "usage: netcat HOST PORT, netcat -l PORT CERTIFICATE KEY\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX *context = is_server ? server_context(arguments[3], arguments[4]) : client_context();
    int fd = is_server ? accept_on(arguments[2]) : connect_to(arguments[1], arguments[2]);
    SSL *ssl = is_server ? accept_tls(context, fd) : start_tls(context, fd, arguments[1]);
    if (!ssl)
        return 1;
    join(ssl, fd);
    SSL_shutdown(ssl);
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
    return 0;
}
