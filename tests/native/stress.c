/* stress: what many threads, signals, processes and a careless program do to TLS sockets at once. For test_stress.py,
 * which runs it as it is and under sanitizers:
 *
 *     stress WHAT PORT       against a TLS server at 127.0.0.1 that sends back what it gets
 */

#include "ssa.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int port;

static void check(bool right, const char *what) {
    if (!right) {
        fprintf(stderr, "%s: %s (%s)\n", what, strerror(errno), ssa_error());
        exit(1);
    }
}

static struct sockaddr_in address(void) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((in_port_t)port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return server;
}

static int connected(void) {
    struct sockaddr_in server = address();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TLS);
    check(fd >= 0, "socket");
    while (connect(fd, (struct sockaddr *)&server, sizeof server))
        check(errno == EINTR || errno == EALREADY || errno == EISCONN, "connect");
    return fd;
}

static void write_all(int fd, const void *data, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t sent = write(fd, (const char *)data + at, size - at);
        check(sent >= 0 || errno == EINTR, "write");
        at += sent > 0 ? (size_t)sent : 0;
    }
}

static void read_all(int fd, void *data, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t got = read(fd, (char *)data + at, size - at);
        check(got > 0 || (got < 0 && errno == EINTR), "read");
        at += got > 0 ? (size_t)got : 0;
    }
}

static void echo(int fd, size_t size) {
    char sent[4096], got[4096];
    memset(sent, (int)size, size);
    write_all(fd, sent, size);
    read_all(fd, got, size);
    check(!memcmp(sent, got, size), "what came back");
}

/* --- threads, each with a socket of its own --- */

static void *own_socket(void *unused) {
    (void)unused;
    for (int round = 0; round < 4; round++) {
        int fd = connected(), twin = dup(fd);
        char identity[64];
        socklen_t size = sizeof identity;
        check(twin >= 0 && !getsockopt(twin, IPPROTO_TLS, TLS_PEER_IDENTITY, identity, &size), "getsockopt");
        check(!close(fd), "close");
        for (size_t length = 1; length < 4096; length *= 3)
            echo(twin, length);
        check(!close(twin), "close");
    }
    return NULL;
}

static void run_threads(int count, void *(*run)(void *)) {
    pthread_t threads[16];
    for (int at = 0; at < count; at++)
        pthread_create(&threads[at], NULL, run, NULL);
    for (int at = 0; at < count; at++)
        pthread_join(threads[at], NULL);
}

static void threads(void) {
    run_threads(6, own_socket);
}

/* --- threads that share one socket --- */

enum { WRITERS = 4, MESSAGES = 100, LENGTH = 500 };
static int common;

static void *one_writer(void *unused) {
    char data[LENGTH];
    (void)unused;
    memset(data, 'x', sizeof data);
    for (int at = 0; at < MESSAGES; at++) {
        write_all(common, data, sizeof data);
        if (at % 10 == 9)
            usleep(3000); /* so that answers come meanwhile */
    }
    return NULL;
}

static void *one_reader(void *unused) {
    char data[LENGTH];
    (void)unused;
    for (int at = 0; at < WRITERS * MESSAGES; at++)
        read_all(common, data, sizeof data);
    return NULL;
}

static void shared(void) {
    pthread_t reader;
    common = connected();
    pthread_create(&reader, NULL, one_reader, NULL);
    run_threads(WRITERS, one_writer);
    pthread_join(reader, NULL);
    check(!close(common), "close");
}

/* --- one thread closes what another one reads, and numbers are used again --- */

static void *careless_reader(void *fd) {
    char data[100];
    for (int at = 0; at < 20; at++)
        if (recv((int)(intptr_t)fd, data, sizeof data, MSG_DONTWAIT) < 0 && errno != EAGAIN)
            break;
    return NULL;
}

static void careless(void) {
    for (int round = 0; round < 20; round++) {
        pthread_t reader;
        int fd = connected();
        pthread_create(&reader, NULL, careless_reader, (void *)(intptr_t)fd);
        close(fd);
        int other = open("/dev/null", O_RDWR);
        pthread_join(reader, NULL);
        close(other);
    }
}

/* --- signals in the middle of everything, whose handler uses the same socket --- */

static _Atomic int handled, handler_sent;

static void on_alarm(int number) {
    int before = errno, value = 0;
    socklen_t size = sizeof value;
    (void)number;
    if (common >= 0 && handled % 4 == 0 && send(common, "s", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
        handler_sent++;
    if (common >= 0)
        getsockopt(common, SOL_SOCKET, SO_ERROR, &value, &size);
    handled++;
    errno = before;
}

static void signals_with(int flags) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = flags};
    struct itimerval every = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    common = -1;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (int round = 0; round < 3; round++) {
        int fd = connected();
        handler_sent = 0;
        common = fd;
        size_t bytes = 0;
        char data[1000];
        for (int at = 0; at < 20; at++) {
            write_all(fd, data, sizeof data);
            read_all(fd, data, sizeof data);
        }
        common = -1;
        for (bytes = (size_t)handler_sent; bytes; bytes--)
            read_all(fd, data, 1);
        check(!close(fd), "close");
    }
    setitimer(ITIMER_REAL, &never, NULL);
    check(handled > 5, "signals came");
}

static void signals(void) {
    signals_with(0);
    signals_with(SA_RESTART);
}

/* --- processes --- */

static void forks(void) {
    int fd = connected();
    echo(fd, 100);
    for (int child = 0; child < 3; child++) {
        pid_t pid = fork();
        if (!pid) { /* one goes on to speak, one closes, one just ends */
            if (child == 0)
                echo(fd, 200);
            if (child == 1)
                close(fd);
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        check(!status, "the child");
    }
    echo(fd, 300);
    pid_t pid = fork(); /* the parent closes, and the child goes on */
    if (!pid) {
        usleep(200000);
        echo(fd, 400);
        close(fd);
        _exit(0);
    }
    check(!close(fd), "close");
    int status;
    waitpid(pid, &status, 0);
    check(!status, "the child that goes on");
}

/* A child of vfork(2) has its parent's memory: what it closes stays open in the parent. */
static void vforks(void) {
    int fd = connected();
    pid_t pid = vfork();
    if (!pid) {
        close(fd);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    echo(fd, 100);
    check(!close(fd), "close");
}

/* A fork while a connect is under way: the child closes what it has of it, when ssad has answered, or just ends. */
static void fork_in_connect(bool closes_it) {
    struct sockaddr_in server = address();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TLS), error = 1, status;
    socklen_t size = sizeof error;
    check(connect(fd, (struct sockaddr *)&server, sizeof server) && errno == EINPROGRESS, "connect");
    pid_t pid = fork();
    if (!pid) {
        usleep(closes_it ? 200000 : 0);
        if (closes_it)
            close(fd);
        _exit(0);
    }
    if (closes_it)
        waitpid(pid, &status, 0);
    struct pollfd poll_one = {.fd = fd, .events = POLLOUT};
    check(poll(&poll_one, 1, 10000) == 1, "poll");
    check(!getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) && !error, "SO_ERROR");
    if (!closes_it)
        waitpid(pid, &status, 0);
    fcntl(fd, F_SETFL, 0);
    echo(fd, 100);
    check(!close(fd), "close");
}

static void forks_in_connect(void) {
    fork_in_connect(false);
    fork_in_connect(true);
}

/* A program that is started with a TLS socket for its standard input: session tickets are before what it reads. */
static void execs(void) {
    char data[10] = "";
    int fd = connected(), ends[2], status;
    check(!pipe(ends), "pipe");
    write_all(fd, "hello", 5);
    pid_t pid = fork();
    if (!pid) {
        dup2(fd, 0);
        dup2(ends[1], 1);
        setenv("LD_PRELOAD", getenv("LIBSSA"), 1);
        execlp("head", "head", "-c", "5", NULL);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    check(!status && read(ends[0], data, sizeof data) == 5 && !strcmp(data, "hello"), "the program's output");
    echo(fd, 100);
    close(fd);
}

/* --- closing behind the library's back, and around it --- */

static void closes(void) {
    int fd = connected();
    for (int other = fd + 1; other < 1024; other++) /* what daemons do: our own descriptors are not theirs */
        close(other);
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    check(!getpeername(fd, (struct sockaddr *)&peer, &size) && peer.sin_port == htons((in_port_t)port), "getpeername");
    echo(fd, 100);
    closefrom(fd + 1);
    echo(fd, 100);
    int file = open("/dev/null", O_RDWR);
    check(dup2(file, 600) == 600 && dup2(file, 512) == 512, "dup2 onto a number of the library's");
    echo(fd, 100);
    check(!getpeername(fd, (struct sockaddr *)&peer, &size), "getpeername");
    check(write(512, "x", 1) == 1, "what is on that number now");
    closefrom(3); /* all is closed, in order */
    check(write(fd, "x", 1) < 0 && errno == EBADF, "EBADF");
    fd = connected();
    syscall(SYS_close, fd); /* behind its back */
    check(write(fd, "x", 1) < 0 && errno == EBADF, "EBADF");
    file = open("/dev/null", O_RDWR);
    check(file == fd && write(file, "x", 1) == 1 && read(file, &size, 1) == 0, "the file on its number");
    fd = connected();
    check(dup2(file, fd) == fd && write(fd, "x", 1) == 1, "dup2 over a TLS socket");
}

/* --- stdio --- */

static void streams(void) {
    char line[100];
    int fd = connected();
    FILE *stream = fdopen(fd, "r+");
    check(stream != NULL, "fdopen");
    setvbuf(stream, NULL, _IOLBF, 1000);
    fprintf(stream, "a line %d\n", 1);
    fflush(stream);
    check(fgets(line, sizeof line, stream) && !strcmp(line, "a line 1\n"), "fgets");
    check(!fclose(stream), "fclose");
    check(write(fd, "x", 1) < 0 && errno == EBADF, "EBADF");
}

/* --- no descriptors left, at each step --- */

static void exhausted(void) {
    struct sockaddr_in server = address();
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    for (rlim_t room = 4; room < 16; room++) {
        int fd = -1;
        limit.rlim_cur = room;
        setrlimit(RLIMIT_NOFILE, &limit);
        int flags = room % 2 ? SOCK_NONBLOCK : 0;
        fd = socket(AF_INET, SOCK_STREAM | flags, IPPROTO_TLS);
        check(fd >= 0 || errno == EMFILE, "socket");
        int done = fd < 0 ? -1 : connect(fd, (struct sockaddr *)&server, sizeof server), number = errno, error = 0;
        socklen_t size = sizeof error;
        struct pollfd poll_one = {.fd = fd, .events = POLLOUT};
        if (done && number == EINPROGRESS) {
            poll(&poll_one, 1, 10000);
            check(!getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), "SO_ERROR");
            check(!error || error == EMFILE, "SO_ERROR is 0 or EMFILE");
            done = error ? -1 : 0;
            fcntl(fd, F_SETFL, 0);
        } else {
            check(!done || number == EMFILE, "connect is done, or says EMFILE");
        }
        if (!done)
            echo(fd, 50);
        else if (fd >= 0) /* no plain text may leave */
            check(send(fd, "x", 1, MSG_NOSIGNAL) < 0, "a socket whose handshake failed takes nothing");
        if (fd >= 0)
            close(fd);
    }
    limit.rlim_cur = 1024;
    setrlimit(RLIMIT_NOFILE, &limit);
    int fd = connected();
    echo(fd, 100);
    close(fd);
}

/* --- the end of a program --- */

static void at_the_end(void) {
    if (common >= 0) {
        echo(common, 100);
        close(common);
    }
}

static void ends(void) {
    common = connected();
    atexit(at_the_end);
}

/* --- the rarer forms of reading and writing --- */

static void many_messages(int fd) {
    char got[2][4];
    struct iovec out[2] = {{"abc", 3}, {"def", 3}}, in[2] = {{got[0], 3}, {got[1], 3}};
    struct mmsghdr sent[2] = {{.msg_hdr = {.msg_iov = &out[0], .msg_iovlen = 1}},
                              {.msg_hdr = {.msg_iov = &out[1], .msg_iovlen = 1}}};
    struct mmsghdr read[2] = {{.msg_hdr = {.msg_iov = &in[0], .msg_iovlen = 1}},
                              {.msg_hdr = {.msg_iov = &in[1], .msg_iovlen = 1}}};
    check(sendmmsg(fd, sent, 2, 0) == 2 && sent[0].msg_len == 3 && sent[1].msg_len == 3, "sendmmsg");
    check(recvmmsg(fd, read, 2, MSG_WAITALL, NULL) == 2 && !memcmp(got[0], "abc", 3) && !memcmp(got[1], "def", 3),
          "recvmmsg");
}

static void at_no_offset(int fd) {
    char got[6];
    struct iovec out[2] = {{"gh", 2}, {"ijkl", 4}}, in = {got, 6};
    check(pwritev2(fd, out, 2, -1, 0) == 6 && preadv2(fd, &in, 1, -1, 0) == 6 && !memcmp(got, "ghijkl", 6), "-1");
    check(pwritev2(fd, out, 2, 0, 0) < 0 && errno == ESPIPE && preadv2(fd, &in, 1, 0, 0) < 0 && errno == ESPIPE,
          "a socket has no offsets");
}

static void by_splice(int fd) {
    char got[8];
    int ends[2];
    check(!pipe(ends) && write(ends[1], "mnopqrst", 8) == 8, "pipe");
    check(splice(ends[0], NULL, fd, NULL, 8, 0) == 8, "splice into the stream");
    for (size_t moved = 0; moved < 8;) {
        ssize_t size = splice(fd, NULL, ends[1], NULL, 8 - moved, 0);
        check(size > 0, "splice out of the stream");
        moved += (size_t)size;
    }
    check(read(ends[0], got, 8) == 8 && !memcmp(got, "mnopqrst", 8), "what was moved");
    close(ends[0]);
    close(ends[1]);
}

static void forms(void) {
    char got[4];
    int fd = connected();
    many_messages(fd);
    at_no_offset(fd);
    by_splice(fd);
    check(sendto(fd, "uvwx", 4, 0, NULL, 0) == 4 && recvfrom(fd, got, 4, MSG_WAITALL, NULL, NULL) == 4, "recvfrom");
    check(sendto(fd, "y", 1, MSG_MORE, NULL, 0) == 1 && write(fd, "z", 1) == 1, "MSG_MORE");
    read_all(fd, got, 2);
    check(!memcmp(got, "yz", 2), "what MSG_MORE kept");
    check(!shutdown(fd, SHUT_WR) && read(fd, got, 4) == 0, "the end");
    check(write(fd, "x", 1) < 0 && errno == EPIPE && shutdown(fd, 9) < 0 && errno == EINVAL, "behind the end");
    check(!close(fd), "close");
}

/* --- one call --- */

static void simple(void) {
    char service[16], data[10];
    struct ssa_options options = {.timeout = 10000, .server_hostname = "localhost"};
    snprintf(service, sizeof service, "%d", port);
    int fd = ssa_connect_tls("localhost", service, &options);
    check(fd >= 0, "ssa_connect_tls");
    check(ssa_send(fd, "hello", 5) == 5 && ssa_recv(fd, data, sizeof data) == 5 && !memcmp(data, "hello", 5), "hello");
    check(!ssa_close(fd), "ssa_close");
    check(ssa_send(fd, "hello", 5) == -1, "a closed descriptor");
    check(ssa_connect_tls("127.0.0.1", service, &(struct ssa_options){.server_hostname = "wrong.example"}) == -1,
          "another name");
    check(errno == EKEYREJECTED && strstr(ssa_error(), "wrong.example"), "ssa_error");
    check(ssa_connect_tls("127.0.0.1", "1", NULL) == -1 && errno == ECONNREFUSED, "nobody listens");
    check(ssa_connect_tls("", "1", NULL) == -1 && errno == EINVAL, "no host");
    check(ssa_recv(0, data, 1) == -1, "what is no TLS socket");
}

static void options(void) {
    char service[16], text[20000];
    struct ssa_options given = {.server_hostname = "localhost",
                                .alpn = "h2,http/1.1",
                                .trusted = getenv("CA"),
                                .certificate = getenv("CERT"),
                                .private_key = getenv("KEY"),
                                .source_address = "127.0.0.1"};
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    snprintf(service, sizeof service, "%d", port);
    int fd = ssa_connect_tls("127.0.0.1", service, &given);
    check(fd >= 0, "ssa_connect_tls");
    check(!getsockname(fd, (struct sockaddr *)&name, &size) && name.sin_addr.s_addr == htonl(INADDR_LOOPBACK), "from");
    size = sizeof text;
    check(!getsockopt(fd, IPPROTO_TLS, TLS_PEER_CERTIFICATE_CHAIN, text, &size), "the chain");
    check(size > 500 && !strncmp(text, "-----BEGIN CERTIFICATE-----\nMII", 31), "PEM");
    check(!memcmp(text + size - 26, "-----END CERTIFICATE-----\n", 26), "PEM's end");
    size = 100;
    check(getsockopt(fd, IPPROTO_TLS, TLS_PEER_CERTIFICATE_CHAIN, text, &size) && errno == ENOBUFS, "ENOBUFS");
    size = sizeof text;
    check(getsockopt(fd, IPPROTO_TLS, TLS_PRIVATE_KEY, text, &size) && errno == ENOPROTOOPT, "a key is never read");
    check(!ssa_close(fd), "close");
    given.trusted = "/no/such/file";
    check(ssa_connect_tls("127.0.0.1", service, &given) < 0 && errno == ENOENT, "a file that is not there");
    given.trusted = NULL;
    given.private_key = NULL;
    check(ssa_connect_tls("127.0.0.1", service, &given) < 0 && errno == ENOKEY, "a certificate without its key");
}

/* --- a server in C: signals, and no numbers left, in accept(2) --- */

static void nothing(int number) {
    (void)number;
}

static int listening(void) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof any;
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
    check(!setsockopt(fd, IPPROTO_TLS, TLS_CERTIFICATE_CHAIN, getenv("CERT"), (socklen_t)strlen(getenv("CERT"))),
          "CERT");
    check(!setsockopt(fd, IPPROTO_TLS, TLS_PRIVATE_KEY, getenv("KEY"), (socklen_t)strlen(getenv("KEY"))), "KEY");
    check(!bind(fd, (struct sockaddr *)&any, size) && !listen(fd, 8), "listen");
    check(!getsockname(fd, (struct sockaddr *)&any, &size), "getsockname");
    port = ntohs(any.sin_port);
    return fd;
}

static pid_t client(bool is_lost) {
    pid_t pid = fork();
    if (!pid) {
        if (is_lost)
            close(2);
        int fd = connected();
        write_all(fd, "hello", 5);
        char data[5];
        read_all(fd, data, 5);
        close(fd);
        _exit(0);
    }
    return pid;
}

static void serve_one(int fd, pid_t pid) {
    char data[5];
    int status;
    read_all(fd, data, 5);
    write_all(fd, data, 5);
    check(read(fd, data, 5) == 0, "the client's end");
    close(fd);
    waitpid(pid, &status, 0);
    check(!status, "the client");
}

static void accepts(void) {
    struct sigaction action = {.sa_handler = nothing};
    struct itimerval often = {{0, 50000}, {0, 50000}}, never = {{0, 0}, {0, 0}};
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    int listener = listening();
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    check(accept(listener, NULL, NULL) < 0 && errno == EINTR, "EINTR");
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    pid_t pid = client(false);
    int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
    check(fd >= 0 && peer.sin_family == AF_INET && size == sizeof peer, "accept4");
    check(fcntl(fd, F_GETFD) == FD_CLOEXEC && !(fcntl(fd, F_GETFL) & O_NONBLOCK), "flags");
    setitimer(ITIMER_REAL, &never, NULL);
    serve_one(fd, pid);
    struct rlimit limit, few;
    getrlimit(RLIMIT_NOFILE, &limit);
    few = limit;
    few.rlim_cur = 4;
    pid = client(true);
    struct pollfd poll_one = {.fd = listener, .events = POLLIN};
    check(poll(&poll_one, 1, 10000) == 1, "poll");
    setrlimit(RLIMIT_NOFILE, &few);
    while (dup(0) >= 0)
        continue;
    check(accept(listener, NULL, NULL) < 0 && errno == EMFILE, "EMFILE");
    setrlimit(RLIMIT_NOFILE, &limit);
    waitpid(pid, NULL, 0); /* that one is lost */
    pid = client(false);
    fd = accept(listener, NULL, NULL);
    check(fd >= 0, "accept");
    serve_one(fd, pid);
    check(!close(listener), "close");
}

static const struct {
    const char *name;
    void (*run)(void);
} all[] = {
    {"threads", threads}, {"shared", shared}, {"careless", careless},
    {"signals", signals}, {"forks", forks},   {"vforks", vforks},
    {"execs", execs},     {"closes", closes}, {"forks_in_connect", forks_in_connect},
    {"streams", streams}, {"simple", simple}, {"exhausted", exhausted},
    {"ends", ends},       {"forms", forms},   {"options", options},
    {"accepts", accepts},
};

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    alarm(0);
    port = atoi(arguments[2]);
    common = -1;
    for (size_t at = 0; count == 3 && at < sizeof all / sizeof *all; at++)
        if (!strcmp(all[at].name, arguments[1])) {
            all[at].run();
            return 0;
        }
    return 2;
}
