/* event-server PORT BYTES: answers each request of many clients with a page of so many bytes, by epoll(7). */

#include <errno.h>
#include <netinet/in.h>
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
    size_t size, sent;     /* of the request that is read, and of the page that is written */
    bool writing;          /* the page, and not reading */
    char request[REQUEST]; /* and what comes behind it */
};

static char *page;
static size_t page_size;
static int events;

static void fail(const char *what) {
    perror(what);
    exit(1);
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
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, client);
    }
    if (errno == EMFILE || errno == ENFILE)
        perror("accept");
}

static void drop(struct client *client) {
    close(client->fd);
    free(client);
}

/* False where the client is gone; else it is waited for. */
static bool read_request(struct client *client) {
    ssize_t size = read(client->fd, client->request + client->size, REQUEST - 1 - client->size);
    if (size < 0 && errno == EAGAIN)
        return true;
    if (size <= 0)
        return false;
    client->size += (size_t)size;
    return client->size < REQUEST - 1 || memmem(client->request, client->size, "\r\n\r\n", 4);
}

static bool write_page(struct client *client) {
    ssize_t size = write(client->fd, page + client->sent, page_size - client->sent);
    if (size < 0)
        return errno == EAGAIN;
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
    client->sent = 0;
}

static void handle(struct client *client) {
    bool was_writing = client->writing;
    if (!(client->writing ? write_page(client) : read_request(client))) {
        drop(client);
        return;
    }
    if (client->writing && client->sent == page_size)
        client->writing = false;
    begin_page(client);
    if (was_writing != client->writing)
        watch(EPOLL_CTL_MOD, client->fd, client->writing ? EPOLLOUT : EPOLLIN, client);
}

int main(int count, char **arguments) {
    struct epoll_event ready[MOST_EVENTS];
    if (count != 3) {
        fprintf(stderr, "usage: event-server PORT BYTES\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
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
