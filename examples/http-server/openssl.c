/* http-server PORT DIRECTORY CERTIFICATE KEY: serves the files of a directory, each client in a process of its own. */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATIENCE = 30 }; /* seconds that a client has */

static int listen_on(const char *port) {
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 128)) {
        perror(port);
        exit(1);
    }
    return fd;
}

static void print_tls_error(const char *what) {
    unsigned long error = ERR_get_error();
    const char *words = error ? ERR_reason_error_string(error) : NULL;
    fprintf(stderr, "%s: %s\n", what, words ? words : error ? "TLS failed" : "the stream was cut");
    ERR_clear_error();
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

static bool send_all(SSL *client, const char *data, size_t size) {
    while (size) {
        int sent = SSL_write(client, data, (int)size);
        if (sent <= 0)
            return false;
        data += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool read_request(SSL *client, char *request, size_t room) {
    size_t size = 0;
    while (size < room - 1) {
        int got = SSL_read(client, request + size, (int)(room - 1 - size));
        if (got <= 0)
            return false;
        size += (size_t)got;
        request[size] = 0;
        if (strstr(request, "\r\n\r\n"))
            return true;
    }
    return false;
}

/* The file that is asked for, below the directory, and regular; -1 if there is none. */
static int open_file(char *request, int directory) {
    struct stat status;
    char *path = strncmp(request, "GET /", 5) ? NULL : request + 5, *end = path ? strchr(path, ' ') : NULL;
    if (!end)
        return -1;
    *end = 0;
    if (strstr(path, "..") || *path == '/')
        return -1;
    int file = openat(directory, *path ? path : "index.html", O_RDONLY | O_NONBLOCK);
    if (file >= 0 && (fstat(file, &status) || !S_ISREG(status.st_mode))) {
        close(file);
        return -1;
    }
    return file;
}

static void send_file(SSL *client, int file) {
    char data[16384];
    struct stat status;
    fstat(file, &status);
    int size =
        snprintf(data, sizeof data, "HTTP/1.0 200 OK\r\nContent-Length: %lld\r\n\r\n", (long long)status.st_size);
    ssize_t got = size;
    while (got > 0 && send_all(client, data, (size_t)got))
        got = read(file, data, sizeof data);
}

static void serve(SSL *client, int directory) {
    static const char missing[] = "HTTP/1.0 404 Not Found\r\nContent-Length: 10\r\n\r\nNot found\n";
    char request[8192];
    if (!read_request(client, request, sizeof request))
        return;
    int file = open_file(request, directory);
    if (file < 0)
        send_all(client, missing, sizeof missing - 1);
    else
        send_file(client, file);
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: http-server PORT DIRECTORY CERTIFICATE KEY\n");
        return 2;
    }
    int directory = open(arguments[2], O_RDONLY | O_DIRECTORY);
    if (directory < 0) {
        perror(arguments[2]);
        return 1;
    }
    SSL_CTX *context = server_context(arguments[3], arguments[4]);
    int listener = listen_on(arguments[1]);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) {
            perror("accept");
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                sleep(1);
            continue;
        }
        if (!fork()) {
            close(listener);
            alarm(PATIENCE);
            SSL *ssl = SSL_new(context);
            if (!ssl || !SSL_set_fd(ssl, client) || SSL_accept(ssl) != 1) {
                print_tls_error("a client");
                _exit(1);
            }
            serve(ssl, directory);
            SSL_shutdown(ssl);
            SSL_free(ssl);
            close(client);
            _exit(0);
        }
        close(client);
    }
}
