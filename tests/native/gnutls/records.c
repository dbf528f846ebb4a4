/* records.c: records of GnuTLS's; time, signals, threads, processes and descriptors. */

#include "calls.h"

gnutls_certificate_credentials_t credentials;
const char *host, *port, *argument;

/* --- records --- */

static void corked(void) {
    gnutls_session_t session = connected();
    gnutls_record_cork(session);
    must("send", (int)gnutls_record_send(session, "one ", 4));
    must("send", (int)gnutls_record_send(session, "two ", 4));
    printf("corked %zu\n", gnutls_record_check_corked(session));
    printf("uncorked %d\n", gnutls_record_uncork(session, GNUTLS_RECORD_WAIT));
    echo(session, "three");
    end(session);
}

/* An echo by a socket that does not wait: `again` counts how often it was told to come again for writing. */
enum { MUCH = 8 << 20 };

static unsigned char pattern(size_t at) {
    return (unsigned char)(at * 7 + (at >> 8));
}

static bool fits(const unsigned char *data, size_t from, size_t size) {
    for (size_t at = 0; at < size; at++)
        if (data[at] != pattern(from + at))
            return false;
    return true;
}

static void nonblocking(void) {
    static unsigned char sending[MUCH], buffer[1 << 14];
    int fd = tcp(), again = 0;
    int little = 1 << 14;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    gnutls_session_t session = new_session(fd);
    int done, waited = 0;
    while ((done = gnutls_handshake(session)) == GNUTLS_E_AGAIN) {
        struct pollfd wanted = {.fd = fd, .events = gnutls_record_get_direction(session) ? POLLOUT : POLLIN};
        waited += poll(&wanted, 1, 5000);
    }
    must("handshake", done);
    printf("handshake waited %s\n", waited ? "in poll" : "nowhere");
    for (size_t at = 0; at < MUCH; at++)
        sending[at] = pattern(at);
    size_t sent = 0, came = 0;
    bool held = false;
    while (came < MUCH) {
        ssize_t put = sent < MUCH ? held ? gnutls_record_send(session, NULL, 0)
                                         : gnutls_record_send(session, sending + sent, MUCH - sent)
                                  : GNUTLS_E_AGAIN;
        if (put == GNUTLS_E_AGAIN && sent < MUCH) {
            again++;
            held = true;
        } else if (put > 0) {
            sent += (size_t)put;
            held = false;
        } else if (put < 0 && put != GNUTLS_E_AGAIN) {
            must("send", (int)put);
        }
        if (put > 0 && again < 3)
            continue; /* until nothing more goes out */
        ssize_t got = gnutls_record_recv(session, buffer, sizeof buffer);
        if (got == GNUTLS_E_AGAIN) {
            struct pollfd wanted = {.fd = fd, .events = (short)(POLLIN | (sent < MUCH ? POLLOUT : 0))};
            poll(&wanted, 1, 5000);
            continue;
        }
        must("receive", (int)got);
        if (!got || !fits(buffer, came, (size_t)got))
            break;
        came += (size_t)got;
    }
    printf("came %s, again %s\n", came == MUCH ? "whole" : "broken", again ? "too" : "never");
    end(session);
}

static void *send_all(void *session) {
    static unsigned char block[1 << 14];
    for (size_t at = 0; at < MUCH; at += sizeof block) {
        for (size_t one = 0; one < sizeof block; one++)
            block[one] = pattern(at + one);
        for (size_t done = 0; done < sizeof block;) {
            ssize_t put = gnutls_record_send(session, block + done, sizeof block - done);
            if (put == GNUTLS_E_AGAIN || put == GNUTLS_E_INTERRUPTED)
                continue;
            done += (size_t)must("send", (int)put);
        }
    }
    return NULL;
}

static void threads(void) {
    static unsigned char buffer[1 << 14];
    gnutls_session_t session = connected();
    pthread_t writer;
    pthread_create(&writer, NULL, send_all, session);
    size_t came = 0;
    while (came < MUCH) {
        ssize_t got = receive(session, buffer, sizeof buffer);
        if (got <= 0 || !fits(buffer, came, (size_t)got))
            break;
        came += (size_t)got;
    }
    pthread_join(writer, NULL);
    printf("came %s\n", came == MUCH ? "whole" : "broken");
    end(session);
}

static void *one_of_many(void *unused) {
    (void)unused;
    gnutls_session_t session = connected();
    unsigned status = 1, count = 0;
    must("verify", gnutls_certificate_verify_peers3(session, host, &status));
    if (status || !gnutls_certificate_get_peers(session, &count))
        exit(4);
    must("send", (int)gnutls_record_send(session, "hello", 5));
    char back[5];
    if (receive(session, back, 5) <= 0)
        exit(4);
    end(session);
    return NULL;
}

static void many(void) {
    enum { MANY = 20 };
    pthread_t all[MANY];
    for (int at = 0; at < MANY; at++)
        pthread_create(&all[at], NULL, one_of_many, NULL);
    for (int at = 0; at < MANY; at++)
        pthread_join(all[at], NULL);
    printf("all are done\n");
}

/* --- time, signals, processes, descriptors --- */

static int64_t milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void in_time(const char *what, int64_t begun) {
    int64_t took = milliseconds() - begun;
    printf("%s %s\n", what, took >= 250 && took < 3000 ? "in time" : "at another time");
}

static void handshake_timeout(void) {
    gnutls_session_t session = new_session(tcp());
    gnutls_handshake_set_timeout(session, 300);
    int64_t begun = milliseconds();
    int done = gnutls_handshake(session);
    printf("%s\n", done == GNUTLS_E_TIMEDOUT ? "timed out" : gnutls_strerror(done));
    in_time("it ended", begun);
    end(session);
}

static void record_timeout(void) {
    gnutls_session_t session = connected();
    gnutls_record_set_timeout(session, 300);
    int64_t begun = milliseconds();
    char byte;
    ssize_t got = receive(session, &byte, 1);
    printf("%s\n", got == GNUTLS_E_TIMEDOUT ? "timed out" : "not timed out");
    in_time("it ended", begun);
    echo(session, "still there");
    end(session);
}

static void nothing(int number) {
    (void)number;
}

static void with_signal(void) {
    gnutls_session_t session = connected();
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval soon = {.it_value = {0, 300000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    char byte;
    int64_t begun = milliseconds();
    ssize_t got = gnutls_record_recv(session, &byte, 1);
    while (got == GNUTLS_E_AGAIN)
        got = gnutls_record_recv(session, &byte, 1);
    printf("%s\n", got == GNUTLS_E_INTERRUPTED ? "interrupted" : gnutls_strerror((int)got));
    in_time("it came", begun);
    echo(session, "still there");
    end(session);
}

static void with_fork(void) {
    int fd = tcp();
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    gnutls_session_t session = new_session(fd);
    int done = gnutls_handshake(session);
    if (!fork())
        _exit(0);
    wait(NULL);
    while (done == GNUTLS_E_AGAIN)
        done = gnutls_handshake(session);
    must("handshake", done);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    fflush(stdout);
    if (!fork()) {
        echo(session, "the child");
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    echo(session, "the parent");
    end(session);
}

static void few_descriptors(void) {
    int fd = tcp();
    struct rlimit before, few;
    getrlimit(RLIMIT_NOFILE, &before);
    few = (struct rlimit){(rlim_t)fd + 1, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    say("handshake", shake(new_session(fd)));
    setrlimit(RLIMIT_NOFILE, &before);
    gnutls_session_t session = connected();
    echo(session, "later");
    end(session);
}

static void until_the_end(void) {
    gnutls_session_t session = connected();
    char data[4096];
    ssize_t got;
    must("send", (int)gnutls_record_send(session, argument, strlen(argument)));
    while ((got = receive(session, data, sizeof data)) > 0)
        continue;
    printf("%s\n", got ? gnutls_strerror((int)got) : "the end");
    printf("%s\n", got == GNUTLS_E_PREMATURE_TERMINATION ? "cut" : got ? "failed" : "in order");
    end(session);
}

static const struct call all[] = {
    {"corked", corked},
    {"nonblocking", nonblocking},
    {"threads", threads},
    {"many", many},
    {"handshake-timeout", handshake_timeout},
    {"record-timeout", record_timeout},
    {"signal", with_signal},
    {"fork", with_fork},
    {"few-descriptors", few_descriptors},
    {"until-the-end", until_the_end},
};

int main(int count, char **words) {
    return count < 4 ? 64 : run_call(all, sizeof all / sizeof *all, words);
}
