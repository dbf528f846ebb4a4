/* http-server PORT DIRECTORY: serves the files of a directory, each client in a process of its own. */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
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

static bool send_all(int client, const char *data, size_t size) {
    while (size) {
        ssize_t sent = write(client, data, size);
        if (sent <= 0)
            return false;
        data += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool read_request(int client, char *request, size_t room) {
    size_t size = 0;
    while (size < room - 1) {
        ssize_t got = read(client, request + size, room - 1 - size);
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

static void send_file(int client, int file) {
    char data[16384];
    struct stat status;
    fstat(file, &status);
    int size =
        snprintf(data, sizeof data, "HTTP/1.0 200 OK\r\nContent-Length: %lld\r\n\r\n", (long long)status.st_size);
    ssize_t got = size;
    while (got > 0 && send_all(client, data, (size_t)got))
        got = read(file, data, sizeof data);
}

static void serve(int client, int directory) {
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
    if (count != 3) {
        fprintf(stderr, "usage: http-server PORT DIRECTORY\n");
        return 2;
    }
    int directory = open(arguments[2], O_RDONLY | O_DIRECTORY);
    if (directory < 0) {
        perror(arguments[2]);
        return 1;
    }
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
            serve(client, directory);
            close(client);
            _exit(0);
        }
        close(client);
    }
}
