/* netcat HOST PORT, netcat -l PORT: joins standard input and output to a connection. */

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <ssa.h>
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

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int fd = -1, error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
        exit(1);
    }
    for (struct addrinfo *at = found; at; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM, IPPROTO_TLS);
        if (fd < 0 || setsockopt(fd, IPPROTO_TLS, TLS_REMOTE_HOSTNAME, host, (socklen_t)strlen(host)))
            fail("socket");
        if (!connect(fd, at->ai_addr, at->ai_addrlen))
            break;
        if (!at->ai_next) {
            fprintf(stderr, "%s: %s\n", host, ssa_error());
            exit(1);
        }
        close(fd);
    }
    freeaddrinfo(found);
    return fd;
}

static int accept_on(const char *port) {
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
        bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1))
        fail(port);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        fail("accept");
    close(listener);
    return fd;
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
static bool move_out(int fd) {
    char data[16384];
    ssize_t size = read(STDIN_FILENO, data, sizeof data);
    if (size < 0)
        fail("read");
    write_all(fd, data, size);
    return size;
}

/* poll(2) may have said readable where there is nothing to read. */
static bool move_in(int fd) {
    char data[16384];
    ssize_t size = recv(fd, data, sizeof data, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return true;
    if (size < 0)
        fail("read");
    write_all(STDOUT_FILENO, data, size);
    return size;
}

static void join(int fd) {
    struct pollfd polled[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    for (;;) {
        if (poll(polled, 2, -1) < 0)
            fail("poll");
        if (polled[1].revents && !move_in(fd))
            return;
        if (polled[0].revents && !move_out(fd)) {
            shutdown(fd, SHUT_WR);
            polled[0].fd = -1;
        }
    }
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: netcat HOST PORT, netcat -l PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int fd = strcmp(arguments[1], "-l") ? connect_to(arguments[1], arguments[2]) : accept_on(arguments[2]);
    join(fd);
    close(fd);
    return 0;
}
