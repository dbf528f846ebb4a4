/* without_tls: clients that know no TLS, in the ways of C: `without_tls WAY HOST PORT` sends a line, and prints what
 * comes back until the end. It is not linked with libssa. */

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char line[] = "hello\n";
static const char *host, *port;

static int fails(const char *what) {
    perror(what);
    exit(1);
}

static struct addrinfo *look_up(void) {
    struct addrinfo *found, hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    if (getaddrinfo(host, port, &hints, &found))
        exit(2);
    return found;
}

static int connected(int fd) {
    struct addrinfo *found = look_up();
    if (connect(fd, found->ai_addr, found->ai_addrlen))
        fails("connect");
    freeaddrinfo(found);
    return fd;
}

static int stream(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? fails("socket") : fd;
}

static void echo(int fd) {
    char data[4096];
    if (write(fd, line, sizeof line - 1) < 0)
        fails("write");
    shutdown(fd, SHUT_WR);
    ssize_t got;
    while ((got = read(fd, data, sizeof data)) > 0)
        fwrite(data, 1, (size_t)got, stdout);
    if (got < 0)
        fails("read");
}

static void usual(void) {
    echo(connected(stream()));
}

/* Two numbers from before the connect: each of them is the TLS socket. */
static void doubled(void) {
    int fd = stream(), twin = dup(fd);
    connected(fd);
    close(fd);
    echo(twin);
}

static void by_stdio(void) {
    char data[64];
    int fd = connected(stream());
    FILE *file = fdopen(fd, "r+");
    if (!file || fileno(file) != fd || fputs(line, file) < 0 || fflush(file))
        fails("fputs");
    if (fgets(data, sizeof data, file))
        fputs(data, stdout);
    fclose(file);
}

/* connect(2) that does not wait, on a socket that the epoll set has already. */
static void by_epoll(void) {
    int fd = stream(), set = epoll_create1(0), number = -1;
    socklen_t size = sizeof number;
    struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
    struct addrinfo *found = look_up();
    fcntl(fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    if (!connect(fd, found->ai_addr, found->ai_addrlen) || errno != EINPROGRESS)
        fails("connect");
    if (epoll_wait(set, &event, 1, 10000) != 1 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size))
        fails("epoll_wait");
    errno = number;
    if (number)
        fails("connect");
    fcntl(fd, F_SETFL, 0);
    echo(fd);
}

/* It would connect, and send in plain text: so it is refused, and the program connects first. */
static void at_once(void) {
    struct addrinfo *found = look_up();
    int fd = stream();
    if (sendto(fd, line, sizeof line - 1, MSG_FASTOPEN, found->ai_addr, found->ai_addrlen) >= 0 || errno != EOPNOTSUPP)
        fails("sendto");
    echo(connected(fd));
}

static void in_a_child(void) {
    int fd = connected(stream()), status;
    if (!fork()) {
        echo(fd);
        exit(0);
    }
    close(fd);
    wait(&status);
}

static void *run(void *nothing) {
    usual();
    return nothing;
}

static void in_threads(void) {
    pthread_t threads[4];
    for (int at = 0; at < 4; at++)
        pthread_create(&threads[at], NULL, run, NULL);
    for (int at = 0; at < 4; at++)
        pthread_join(threads[at], NULL);
}

static void by_gethostbyname(void) {
    struct hostent *found = gethostbyname(host);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(port))};
    int fd = stream();
    memcpy(&to.sin_addr, found->h_addr_list[0], 4);
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fails("connect");
    echo(fd);
}

/* A name that an address led to says nothing of whom the user means. */
static void by_reverse(void) {
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static char name[256];
    if (getnameinfo((struct sockaddr *)&loopback, sizeof loopback, name, sizeof name, NULL, 0, 0))
        exit(2);
    host = name;
    usual();
}

/* Of several paths: it would go past TLS. */
static void by_mptcp(void) {
    if (socket(AF_INET, SOCK_STREAM, 262 /* IPPROTO_MPTCP */) >= 0)
        exit(2);
    usual();
}

static const struct {
    const char *name;
    void (*run)(void);
} ways[] = {
    {"usual", usual},        {"doubled", doubled},  {"stdio", by_stdio},     {"epoll", by_epoll},
    {"at_once", at_once},    {"child", in_a_child}, {"threads", in_threads}, {"gethostbyname", by_gethostbyname},
    {"reverse", by_reverse}, {"mptcp", by_mptcp},
};

int main(int count, char **arguments) {
    host = arguments[2];
    port = arguments[3];
    for (size_t at = 0; count == 4 && at < sizeof ways / sizeof *ways; at++)
        if (!strcmp(arguments[1], ways[at].name)) {
            ways[at].run();
            return 0;
        }
    return 2;
}
