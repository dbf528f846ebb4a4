/* any_binary: a static program, for `ssa run --seccomp`: `any_binary WAY HOST PORT [COUNT]`. Nothing of ssa is linked.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { IPPROTO_TLS = 205, AF_HOSTNAME = 43, REMOTE_HOSTNAME = 85, CERTIFICATE_CHAIN = 88, PRIVATE_KEY = 89 };
enum { PEER_IDENTITY = 93, TLS_WORDS = 100, VERSION_CONN = 113, UPGRADE = 114 };

static const char line[] = "hello\n";
static const char *host, *port;
static int count;
static char *self;

static int fails(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in server(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(port))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return to;
}

static int tls_socket(int flags) {
    int fd = socket(AF_INET, SOCK_STREAM | flags, IPPROTO_TLS);
    if (fd < 0)
        fails("socket");
    if (setsockopt(fd, IPPROTO_TLS, REMOTE_HOSTNAME, host, (socklen_t)strlen(host)))
        fails("setsockopt");
    return fd;
}

static int connected(int fd) {
    struct sockaddr_in to = server();
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fails("connect");
    return fd;
}

static void echo(int fd) {
    char data[64];
    if (write(fd, line, sizeof line - 1) < 0)
        fails("write");
    ssize_t got = read(fd, data, sizeof data);
    if (got < 0)
        fails("read");
    printf("%.*s", (int)got, data);
    fflush(stdout);
}

static void blocking(void) {
    int fd = connected(tls_socket(0));
    echo(fd);
    printf("%d %d\n", fd, close(fd));
}

static int error_of(int fd) {
    int error;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) ? fails("SO_ERROR") : error;
}

static void by_poll(void) {
    int fd = tls_socket(SOCK_NONBLOCK);
    struct sockaddr_in to = server();
    struct pollfd poll_ = {.fd = fd, .events = POLLOUT};
    if (!connect(fd, (struct sockaddr *)&to, sizeof to) || errno != EINPROGRESS)
        fails("connect");
    if (poll(&poll_, 1, 10000) != 1)
        fails("poll");
    errno = error_of(fd);
    if (errno)
        fails("connect");
    fcntl(fd, F_SETFL, 0);
    echo(fd);
    close(fd);
}

/* Before the handshake is done nothing can be written or read, and nothing tells of it. */
static void early(void) {
    char data[8];
    int fd = tls_socket(SOCK_NONBLOCK);
    struct sockaddr_in to = server();
    struct pollfd poll_ = {.fd = fd, .events = POLLOUT | POLLIN};
    int done = connect(fd, (struct sockaddr *)&to, sizeof to), number = errno;
    int ready = poll(&poll_, 1, 300), again = connect(fd, (struct sockaddr *)&to, sizeof to) ? errno : 0;
    int wrote = write(fd, line, 1) < 0 ? errno : 0, got = read(fd, data, sizeof data) < 0 ? errno : 0;
    printf("%d %d %d %d %d %d %d\n", done, number == EINPROGRESS, ready, again == EALREADY, wrote == EAGAIN,
           got == EAGAIN, error_of(fd) == EINPROGRESS);
}

static void by_epoll(void) { /* the set has it before it is connected */
    int fd = tls_socket(SOCK_NONBLOCK), set = epoll_create1(0);
    struct sockaddr_in to = server();
    struct epoll_event event = {.events = EPOLLOUT, .data.u64 = 77};
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    if (!connect(fd, (struct sockaddr *)&to, sizeof to) || errno != EINPROGRESS)
        fails("connect");
    if (epoll_wait(set, &event, 1, 10000) != 1 || event.data.u64 != 77)
        fails("epoll_wait");
    errno = error_of(fd);
    if (errno)
        fails("connect");
    event.events = EPOLLIN;
    if (epoll_ctl(set, EPOLL_CTL_MOD, fd, &event) || epoll_wait(set, &event, 1, 0))
        fails("epoll_ctl");
    fcntl(fd, F_SETFL, 0);
    echo(fd);
    if (epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL))
        fails("epoll_ctl");
    close(fd);
}

static void by_hostname(void) {
    struct {
        sa_family_t family;
        in_port_t port;
        char name[255];
    } to = {.family = AF_HOSTNAME, .port = htons((in_port_t)atoi(port))};
    strcpy(to.name, host);
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
    if (connect(fd, (struct sockaddr *)&to, (socklen_t)(offsetof(__typeof__(to), name) + strlen(host) + 1)))
        fails("connect");
    echo(fd);
    close(fd);
}

static void refused(void) {
    char text[512] = "";
    socklen_t size = sizeof text - 1;
    struct sockaddr_in to = server();
    int fd = tls_socket(0);
    if (!connect(fd, (struct sockaddr *)&to, sizeof to))
        exit(3);
    int number = errno;
    getsockopt(fd, IPPROTO_TLS, TLS_WORDS, text, &size);
    printf("%s: %s\n", strerror(number), text);
    signal(SIGPIPE, SIG_IGN);
    if (write(fd, line, sizeof line - 1) >= 0)
        exit(4);
    close(fd);
}

static void options(void) {
    char version[16] = "", identity[64] = "";
    socklen_t size = sizeof version, long_size = sizeof identity, address_size;
    struct sockaddr_in peer = {.sin_port = 0}, own = {.sin_port = 0};
    int fd = tls_socket(0), one = 1, delay = 0, family = 0, protocol = 0;
    connected(fd);
    address_size = sizeof peer;
    getpeername(fd, (struct sockaddr *)&peer, &address_size);
    address_size = sizeof own;
    getsockname(fd, (struct sockaddr *)&own, &address_size);
    getsockopt(fd, IPPROTO_TLS, VERSION_CONN, version, &size);
    getsockopt(fd, IPPROTO_TLS, PEER_IDENTITY, identity, &long_size);
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
        fails("TCP_NODELAY");
    size = sizeof delay;
    getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &delay, &size);
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
    printf("%s %s %d %d %d %d %d\n", version, identity, ntohs(peer.sin_port) == atoi(port), own.sin_port != 0, delay,
           family, protocol);
    close(fd);
}

static void upgrade(void) {
    char data[64];
    int fd = socket(AF_INET, SOCK_STREAM, 0), role = 1;
    connected(fd);
    if (write(fd, "STARTTLS\n", 9) != 9 || read(fd, data, sizeof data) != 3)
        fails("STARTTLS");
    if (setsockopt(fd, IPPROTO_TLS, REMOTE_HOSTNAME, host, (socklen_t)strlen(host)) ||
        setsockopt(fd, IPPROTO_TLS, UPGRADE, &role, sizeof role))
        fails("TLS_UPGRADE");
    echo(fd);
    close(fd);
}

static void half(void) {
    char data[64];
    int fd = connected(tls_socket(0));
    if (write(fd, line, sizeof line - 1) < 0 || shutdown(fd, SHUT_WR))
        fails("shutdown");
    for (ssize_t got; (got = read(fd, data, sizeof data)) > 0;)
        printf("%.*s", (int)got, data);
    close(fd);
}

/* Nobody listened at first: the socket can try again. */
static void again(void) {
    struct sockaddr_in nobody = server();
    int fd = count ? socket(AF_INET, SOCK_STREAM, 0) : tls_socket(0);
    nobody.sin_port = htons(1);
    int done = connect(fd, (struct sockaddr *)&nobody, sizeof nobody);
    printf("%d %s\n", done, strerror(errno));
    fflush(stdout);
    echo(connected(fd));
    close(fd);
}

static void to_the_end(void) {
    char data[64];
    int fd = connected(tls_socket(0));
    if (write(fd, line, sizeof line - 1) < 0)
        fails("write");
    for (ssize_t got; (got = read(fd, data, sizeof data)) > 0;)
        printf("%.*s", (int)got, data);
    close(fd);
}

static void many(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int *all = calloc((size_t)count, sizeof *all);
    for (int at = 0; at < count; at++)
        all[at] = connected(tls_socket(0));
    echo(all[0]);
    echo(all[count - 1]);
    for (int at = 0; at < count; at++)
        close(all[at]);
}

static void no_number_left(void) {
    struct rlimit limit = {514, 514};
    setrlimit(RLIMIT_NOFILE, &limit);
    tls_socket(0);
    tls_socket(0);
    int third = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
    printf("%d %s\n", third, strerror(errno));
}

/* --- bad luck --- */

static atomic_bool over;

static void *change_address(void *argument) {
    struct sockaddr_in *to = argument;
    while (!over)
        to->sin_addr.s_addr ^= htonl(3); /* 127.0.0.1 and 127.0.0.2 */
    return NULL;
}

/* Whoever is connected to is the one that the certificate was verified for: of 127.0.0.1, or of nobody. */
static void changing(void) {
    pthread_t thread;
    struct sockaddr_in to = server(), peer;
    socklen_t size = sizeof peer;
    pthread_create(&thread, NULL, change_address, &to);
    for (int at = 0; at < 50; at++) {
        int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
        if (!connect(fd, (struct sockaddr *)&to, sizeof to) &&
            (getpeername(fd, (struct sockaddr *)&peer, &size) || peer.sin_addr.s_addr != htonl(INADDR_LOOPBACK)))
            exit(3);
        close(fd);
    }
    over = true;
    pthread_join(thread, NULL);
    puts("done");
}

static void *replace(void *nothing) {
    (void)nothing;
    int pipes[2];
    if (pipe(pipes))
        exit(2);
    while (!over) {
        dup2(pipes[1], 512);
        usleep(300);
        close(512);
        syscall(SYS_close_range, 512, 520, 0);
    }
    return NULL;
}

/* What another thread does with the number is its own; nothing hangs, and no other number is touched. */
static void replacing(void) {
    pthread_t thread;
    int kept = connected(tls_socket(0)), high = fcntl(kept, F_DUPFD, 600);
    pthread_create(&thread, NULL, replace, NULL);
    for (int at = 0; at < 50; at++) {
        struct sockaddr_in to = server();
        int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
        connect(fd, (struct sockaddr *)&to, sizeof to);
        close(fd);
    }
    over = true;
    pthread_join(thread, NULL);
    echo(high);
}

static void foreign(void) {
#ifdef __x86_64__
    long number = 359, x32; /* socket(AF_INET, SOCK_STREAM, 0) of i386 */
    __asm__ volatile("int $0x80" : "+a"(number) : "b"(2L), "c"(1L), "d"((long)count) : "memory");
    x32 = syscall(0x40000000 + SYS_socket, AF_INET, SOCK_STREAM, count) < 0 ? -errno : 0;
    printf("%ld %ld\n", number < 0 ? number : 0, x32);
#endif
}

static void closes(void) {
    int far = close(100000) ? errno : 0, negative = close(-1) ? errno : 0;
    printf("%d %d %d\n", far == EBADF, negative == EBADF, dup2(1, 700) == 700 && !close(700));
}

static void note(int number) {
    (void)number;
}

static void interrupted(void) {
    struct sigaction action = {.sa_handler = note};
    struct timespec begin, end;
    struct sockaddr_in to = server();
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
    sigaction(SIGALRM, &action, NULL);
    setsockopt(fd, IPPROTO_TLS, REMOTE_HOSTNAME, host, (socklen_t)strlen(host));
    clock_gettime(CLOCK_MONOTONIC, &begin);
    alarm(1);
    int done = connect(fd, (struct sockaddr *)&to, sizeof to);
    int number = errno;
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%d %s %d\n", done, strerror(number), (int)(end.tv_sec - begin.tv_sec) < 3);
}

static void own_filter(void) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_listen, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, steps};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        fails("seccomp");
    int fd = tls_socket(0);
    int done = listen(fd, 1);
    printf("%d %s\n", done, strerror(errno));
    blocking();
}

static void in_children(void) {
    int status;
    for (int at = 0; at < 3; at++) {
        pid_t child = at == 1 ? vfork() : fork();
        if (!child) {
            if (at == 2)
                blocking(), exit(0);
            execl(self, self, "blocking", host, port, NULL);
            _exit(1);
        }
        waitpid(child, &status, 0);
        if (status)
            exit(5);
    }
}

static void killed(void) { /* the one that kills the supervisor says so on standard input */
    int fd = connected(tls_socket(0)), fresh = tls_socket(0);
    struct sockaddr_in to = server();
    puts("ready");
    fflush(stdout);
    getchar();
    int none = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS) < 0 ? errno : 0;
    int late = connect(fresh, (struct sockaddr *)&to, sizeof to) ? errno : 0;
    printf("%s, %s, ", strerror(none), strerror(late));
    echo(fd);
}

static void on_demand(void) { /* whoever starts or stops ssad says so on standard input */
    for (int byte; (byte = getchar()) != EOF;) {
        struct sockaddr_in to = server();
        int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
        int done = setsockopt(fd, IPPROTO_TLS, REMOTE_HOSTNAME, host, (socklen_t)strlen(host));
        int number = done ? errno : 0;
        if (!done && connect(fd, (struct sockaddr *)&to, sizeof to))
            number = errno;
        printf("%s\n", number ? strerror(number) : "connected");
        fflush(stdout);
        close(fd);
    }
}

/* --- servers --- */

static int listening(void) {
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
    struct sockaddr_in at = server();
    socklen_t size = sizeof at;
    at.sin_port = 0;
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 16))
        fails("listen");
    getsockname(fd, (struct sockaddr *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

static void serve_one(int client) {
    char data[64];
    for (ssize_t got; (got = read(client, data, sizeof data)) > 0;)
        if (write(client, data, (size_t)got) < 0)
            break;
    close(client);
}

static void serves(void) {
    int fd = listening();
    for (int at = 0; at < count; at++) {
        struct sockaddr_in peer = {.sin_port = 0};
        socklen_t size = sizeof peer;
        int client = accept4(fd, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
        if (client < 512 || !peer.sin_port)
            fails("accept");
        serve_one(client);
    }
}

static void serves_in_children(void) {
    int fd = listening();
    for (int at = 0; at < count; at++)
        if (!fork()) {
            serve_one(accept(fd, NULL, NULL));
            exit(0);
        }
    while (wait(NULL) > 0)
        continue;
}

static void serves_by_poll(void) {
    int fd = listening();
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (int at = 0; at < count;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int client = accept(fd, NULL, NULL);
        if (client < 0 && errno == ENOBUFS)
            usleep(50000); /* as event loops do */
        else if (client < 0 && (errno != EAGAIN || poll(&ready, 1, 10000) != 1))
            fails("accept");
        if (client >= 0)
            serve_one(client), at++;
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} ways[] = {
    {"blocking", blocking},
    {"poll", by_poll},
    {"early", early},
    {"epoll", by_epoll},
    {"hostname", by_hostname},
    {"refused", refused},
    {"options", options},
    {"upgrade", upgrade},
    {"half", half},
    {"again", again},
    {"to_the_end", to_the_end},
    {"many", many},
    {"no_number_left", no_number_left},
    {"changing", changing},
    {"replacing", replacing},
    {"foreign", foreign},
    {"closes", closes},
    {"interrupted", interrupted},
    {"own_filter", own_filter},
    {"children", in_children},
    {"killed", killed},
    {"on_demand", on_demand},
    {"serves", serves},
    {"serves_in_children", serves_in_children},
    {"serves_by_poll", serves_by_poll},
};

int main(int arguments, char **words) {
    self = words[0];
    host = arguments > 2 ? words[2] : "";
    port = arguments > 3 ? words[3] : "0";
    count = arguments > 4 ? atoi(words[4]) : 0;
    for (size_t at = 0; arguments > 1 && at < sizeof ways / sizeof *ways; at++)
        if (!strcmp(words[1], ways[at].name)) {
            ways[at].run();
            return 0;
        }
    return 2;
}
