/* event-server PORT BYTES CERTIFICATE KEY: answers each request of many clients with a page of so many bytes, by
 * epoll(7). */

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_EVENTS = 64, REQUEST = 4096 };

struct client {
    int fd;
    SSL *ssl;
    bool shaking, broken;  /* the handshake is not done; there is no more to say to the client */
    uint32_t waits;        /* for what */
    size_t size, sent;     /* of the request that is read, and of the page that is written */
    bool writing;          /* the page, and not reading */
    char request[REQUEST]; /* and what comes behind it */
};

static char *page;
static size_t page_size;
static int events;
static SSL_CTX *context;

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

static void make_context(const char *certificate, const char *key) {
    context = SSL_CTX_new(TLS_server_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
        SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(context) != 1) {
        print_tls_error(certificate);
        exit(1);
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static void make_page(size_t body) {
    page = malloc(body + 100);
    if (!page)
        fail("malloc");
    int head = sprintf(page, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", body);
    memset(page + head, 'x', body);
    page_size = (size_t)head + body;
}

static int listen_on(const char *port) {
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024))
        fail(port);
    return fd;
}

static void watch(int operation, int fd, uint32_t which, void *client) {
    struct epoll_event event = {.events = which, .data.ptr = client};
    if (epoll_ctl(events, operation, fd, &event))
        fail("epoll_ctl");
}

static void accept_clients(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        if (!client)
            fail("calloc");
        client->fd = fd;
        client->shaking = true;
        client->waits = EPOLLIN;
        client->ssl = SSL_new(context);
        if (!client->ssl || !SSL_set_fd(client->ssl, fd)) {
            print_tls_error("a client");
            SSL_free(client->ssl);
            close(fd);
            free(client);
            continue;
        }
        SSL_set_accept_state(client->ssl);
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, client);
    }
    if (errno == EMFILE || errno == ENFILE)
        perror("accept");
}

static void drop(struct client *client) {
    if (!client->shaking && !client->broken)
        SSL_shutdown(client->ssl);
    SSL_free(client->ssl);
    ERR_clear_error();
    close(client->fd);
    free(client);
}

/* What a call of OpenSSL's that has not succeeded waits for. False where the client is gone. */
static bool wait_for(struct client *client, int result) {
    switch (SSL_get_error(client->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        client->waits = EPOLLIN;
        return true;
    case SSL_ERROR_WANT_WRITE:
        client->waits = EPOLLOUT;
        return true;
    case SSL_ERROR_ZERO_RETURN:
        return false;
    default:
        if (client->shaking)
            print_tls_error("a client");
        client->broken = true;
        return false;
    }
}

static bool shake(struct client *client) {
    int result = SSL_do_handshake(client->ssl);
    if (result != 1)
        return wait_for(client, result);
    client->shaking = false;
    client->waits = EPOLLIN;
    return true;
}

/* False where the client is gone; else it is waited for. */
static bool read_request(struct client *client) {
    int size = SSL_read(client->ssl, client->request + client->size, (int)(REQUEST - 1 - client->size));
    if (size <= 0)
        return wait_for(client, size);
    client->size += (size_t)size;
    return client->size < REQUEST - 1 || memmem(client->request, client->size, "\r\n\r\n", 4);
}

static bool write_page(struct client *client) {
    size_t left = page_size - client->sent;
    int size = SSL_write(client->ssl, page + client->sent, left < INT_MAX ? (int)left : INT_MAX);
    if (size <= 0)
        return wait_for(client, size);
    client->waits = EPOLLOUT;
    client->sent += (size_t)size;
    return true;
}

/* Take a request out of what was read, if there is a whole one. */
static void begin_page(struct client *client) {
    char *end = memmem(client->request, client->size, "\r\n\r\n", 4);
    if (!end || client->writing)
        return;
    client->size -= (size_t)(end + 4 - client->request);
    memmove(client->request, end + 4, client->size);
    client->writing = true;
    client->waits = EPOLLOUT;
    client->sent = 0;
}

static bool step(struct client *client) {
    if (client->shaking)
        return shake(client);
    if (!(client->writing ? write_page(client) : read_request(client)))
        return false;
    if (client->writing && client->sent == page_size) {
        client->writing = false;
        client->waits = EPOLLIN;
    }
    begin_page(client);
    return true;
}

static void handle(struct client *client) {
    uint32_t before = client->waits;
    do {
        ERR_clear_error();
        if (!step(client)) {
            drop(client);
            return;
        }
    } while (!client->shaking && !client->writing && SSL_pending(client->ssl)); /* epoll does not know of it */
    if (before != client->waits)
        watch(EPOLL_CTL_MOD, client->fd, client->waits, client);
}

int main(int count, char **arguments) {
    struct epoll_event ready[MOST_EVENTS];
    if (count != 5) {
        fprintf(stderr, "usage: event-server PORT BYTES CERTIFICATE KEY\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    make_context(arguments[3], arguments[4]);
    make_page((size_t)atol(arguments[2]));
    events = epoll_create1(0);
    int listener = listen_on(arguments[1]);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int number = epoll_wait(events, ready, MOST_EVENTS, -1);
        for (int at = 0; at < number; at++)
            if (ready[at].data.ptr)
                handle(ready[at].data.ptr);
            else
                accept_clients(listener);
    }
}
