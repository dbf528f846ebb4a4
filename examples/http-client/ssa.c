/* http-client HOST PORT PATH: prints what a web server has there. */

#include <netdb.h>
#include <signal.h>
#include <ssa.h>
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
        fd = socket(at->ai_family, SOCK_STREAM, IPPROTO_TLS);
        if (fd >= 0 && (setsockopt(fd, IPPROTO_TLS, TLS_REMOTE_HOSTNAME, host, (socklen_t)strlen(host)) ||
                        connect(fd, at->ai_addr, at->ai_addrlen))) {
            fprintf(stderr, "%s: %s\n", host, ssa_error());
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static bool send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = write(fd, data, size);
        if (sent < 0) {
            perror("write");
            return false;
        }
        data += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool print_reply(int fd) {
    char data[16384];
    ssize_t size;
    while ((size = read(fd, data, sizeof data)) > 0)
        fwrite(data, 1, (size_t)size, stdout);
    if (size < 0)
        perror("read");
    return !size && !fflush(stdout);
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
    int fd = connect_to(arguments[1], arguments[2]);
    if (fd < 0)
        return 1;
    bool done = send_all(fd, request, (size_t)size) && print_reply(fd);
    close(fd);
    return done ? 0 : 1;
}
