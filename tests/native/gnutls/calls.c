/* calls.c: a client of GnuTLS's, as programs are: what no program of Debian's does, or not so that it can be
 * seen.
 *
 * calls HOST PORT WHAT [ARGUMENT]. It prints what it gets to know, a line each.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/dtls.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static gnutls_certificate_credentials_t credentials;
static const char *host, *port, *argument;

static int must(const char *what, int done) {
    if (done < 0) {
        printf("%s: %s\n", what, gnutls_strerror(done));
        exit(2);
    }
    return done;
}

static void say(const char *what, int done) {
    printf("%s: %s\n", what, done < 0 ? gnutls_strerror(done) : "done");
}

static int tcp(void) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
    if (getaddrinfo(host, port, &hints, &found))
        exit(3);
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen))
        exit(3);
    freeaddrinfo(found);
    return fd;
}

static gnutls_session_t plain_session(unsigned flags) {
    gnutls_session_t session;
    must("init", gnutls_init(&session, GNUTLS_CLIENT | flags));
    must("priorities", gnutls_set_default_priority(session));
    must("credentials", gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials));
    must("name", gnutls_server_name_set(session, GNUTLS_NAME_DNS, host, strlen(host)));
    return session;
}

static gnutls_session_t new_session(int fd) {
    gnutls_session_t session = plain_session(0);
    gnutls_transport_set_int(session, fd);
    return session;
}

static int shake(gnutls_session_t session) {
    int done;
    do
        done = gnutls_handshake(session);
    while (done < 0 && !gnutls_error_is_fatal(done));
    return done;
}

static gnutls_session_t connected(void) {
    gnutls_session_t session = new_session(tcp());
    must("handshake", shake(session));
    return session;
}

static void end(gnutls_session_t session) {
    int fd = gnutls_transport_get_int(session);
    gnutls_deinit(session);
    close(fd);
}

static ssize_t receive(gnutls_session_t session, void *data, size_t size) {
    ssize_t got;
    do
        got = gnutls_record_recv(session, data, size);
    while (got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED);
    return got;
}

static void echo(gnutls_session_t session, const char *text) {
    char back[100];
    size_t size = strlen(text), at = 0;
    must("send", (int)gnutls_record_send(session, text, size));
    while (at < size) {
        ssize_t got = receive(session, back + at, size - at);
        if (got <= 0) {
            printf("echo: %s\n", got ? gnutls_strerror((int)got) : "the end");
            return;
        }
        at += (size_t)got;
    }
    printf("echo: %.*s\n", (int)at, back);
}

/* --- what is told of a handshake --- */

static void report(void) {
    gnutls_session_t session = connected();
    unsigned status = 77, count = 0;
    gnutls_datum_t datum;
    must("verify", gnutls_certificate_verify_peers3(session, host, &status));
    printf("status %u\n", status);
    must("verify", gnutls_certificate_verify_peers3(session, "other.test", &status));
    printf("of another name %s\n", status & GNUTLS_CERT_UNEXPECTED_OWNER ? "refused" : "taken");
    gnutls_typed_vdata_st purpose = {GNUTLS_DT_KEY_PURPOSE_OID, (void *)GNUTLS_KP_OCSP_SIGNING, 0};
    must("verify", gnutls_certificate_verify_peers(session, &purpose, 1, &status));
    printf("of another purpose %s\n", status & GNUTLS_CERT_PURPOSE_MISMATCH ? "refused" : "taken");
    const gnutls_datum_t *peers = gnutls_certificate_get_peers(session, &count);
    printf("peers %s %u\n", peers ? "are" : "none", count);
    char *description = gnutls_session_get_desc(session);
    printf("description %s\n", description);
    gnutls_free(description);
    printf("version %s\n", gnutls_protocol_get_name(gnutls_protocol_get_version(session)));
    printf("cipher %s %zu\n", gnutls_cipher_get_name(gnutls_cipher_get(session)),
           gnutls_cipher_get_key_size(gnutls_cipher_get(session)));
    printf("times %d\n",
           gnutls_certificate_activation_time_peers(session) < gnutls_certificate_expiration_time_peers(session));
    say("data", gnutls_session_get_data2(session, &datum));
    char key[16];
    say("keying material", gnutls_prf_rfc5705(session, 4, "test", 0, NULL, sizeof key, key));
    say("binding", gnutls_session_channel_binding(session, GNUTLS_CB_TLS_UNIQUE, &datum));
    say("rehandshake", gnutls_rehandshake(session));
    say("new keys", gnutls_session_key_update(session, 0));
    echo(session, "hello");
    printf("pending %zu\n", gnutls_record_check_pending(session));
    say("bye", gnutls_bye(session, GNUTLS_SHUT_WR));
    char byte;
    printf("after it %zd\n", receive(session, &byte, 1));
    end(session);
}

static void alpn(void) {
    gnutls_session_t session = new_session(tcp());
    gnutls_datum_t names[] = {{(unsigned char *)"nobody", 6}, {(unsigned char *)"http/1.1", 8}}, chosen = {0};
    must("alpn", gnutls_alpn_set_protocols(session, names, 2, 0));
    must("handshake", shake(session));
    must("chosen", gnutls_alpn_get_selected_protocol(session, &chosen));
    printf("chosen %.*s\n", (int)chosen.size, chosen.data);
    end(session);
}

/* --- priorities --- */

static void priorities(void) {
    gnutls_session_t session = new_session(tcp());
    must("string", gnutls_priority_set_direct(session, argument, NULL));
    must("handshake", shake(session));
    printf("%s %s\n", gnutls_protocol_get_name(gnutls_protocol_get_version(session)),
           gnutls_cipher_get_name(gnutls_cipher_get(session)));
    end(session);
}

/* --- its own verification --- */

static int refuses(gnutls_session_t session) {
    unsigned status = 1, count = 0;
    gnutls_certificate_verify_peers2(session, &status);
    printf("asked with status %u, %s\n", status,
           gnutls_certificate_get_peers(session, &count) ? "a chain" : "no chain");
    return argument && !strcmp(argument, "refuse");
}

static void verify_function(void) {
    gnutls_certificate_set_verify_function(credentials, refuses);
    gnutls_session_t session = new_session(tcp());
    int done = shake(session);
    say("handshake", done);
    printf("again %s\n", gnutls_handshake(session) == done ? "the same" : "another");
    char byte = 0;
    if (done < 0)
        printf("a write %s\n", gnutls_record_send(session, &byte, 1) < 0 ? "refused" : "taken");
    end(session);
}

static void verify_name(void) {
    gnutls_session_t session = new_session(tcp());
    gnutls_session_set_verify_cert(session, argument, 0);
    say("handshake", shake(session));
    unsigned status = gnutls_session_get_verify_cert_status(session);
    printf("%s\n", !status ? "verified" : status & GNUTLS_CERT_UNEXPECTED_OWNER ? "another owner" : "not verified");
    end(session);
}

static void anchors(void) {
    must("file", gnutls_certificate_set_x509_trust_file(credentials, argument, GNUTLS_X509_FMT_PEM));
    say("handshake", shake(new_session(tcp())));
}

static void revocation(void) {
    gnutls_certificate_set_x509_system_trust(credentials);
    must("list", gnutls_certificate_set_x509_crl_file(credentials, argument, GNUTLS_X509_FMT_PEM));
    gnutls_session_t session = connected();
    unsigned status;
    must("verify", gnutls_certificate_verify_peers2(session, &status));
    printf("%s\n", status & GNUTLS_CERT_REVOKED ? "revoked" : status ? "invalid" : "in order");
    end(session);
}

/* --- what cannot be mapped --- */

static ssize_t no_pull(gnutls_transport_ptr_t pointer, void *data, size_t size) {
    return read((int)(intptr_t)pointer, data, size);
}

static void through_a_pipe(void) {
    int ends[2];
    gnutls_session_t session = plain_session(0);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        exit(3);
    close(ends[1]);
    gnutls_transport_set_ptr(session, (gnutls_transport_ptr_t)(intptr_t)ends[0]);
    gnutls_transport_set_pull_function(session, no_pull);
    say("handshake", shake(session));
}

static void datagrams(void) {
    gnutls_session_t session = plain_session(GNUTLS_DATAGRAM | GNUTLS_NONBLOCK);
    gnutls_transport_set_int(session, socket(AF_INET, SOCK_DGRAM, 0));
    say("handshake", gnutls_handshake(session));
}

static void anonymous(void) {
    gnutls_session_t session;
    gnutls_anon_client_credentials_t nobody;
    must("init", gnutls_init(&session, GNUTLS_CLIENT));
    must("string", gnutls_priority_set_direct(session, "NORMAL:-VERS-TLS1.3:+ANON-ECDH", NULL));
    must("nobody", gnutls_anon_allocate_client_credentials(&nobody));
    must("credentials", gnutls_credentials_set(session, GNUTLS_CRD_ANON, nobody));
    gnutls_transport_set_int(session, tcp());
    gnutls_handshake_set_timeout(session, 2000);
    say("handshake", gnutls_handshake(session));
}

static void server(void) {
    gnutls_session_t session;
    must("init", gnutls_init(&session, GNUTLS_SERVER));
    must("priorities", gnutls_set_default_priority(session));
    must("credentials", gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials));
    gnutls_transport_set_int(session, tcp());
    gnutls_handshake_set_timeout(session, 500);
    say("handshake", gnutls_handshake(session));
}

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

static const struct {
    const char *name;
    void (*run)(void);
} all[] = {
    {"report", report},
    {"alpn", alpn},
    {"priorities", priorities},
    {"verify-function", verify_function},
    {"verify-name", verify_name},
    {"anchors", anchors},
    {"revocation", revocation},
    {"pipe", through_a_pipe},
    {"datagrams", datagrams},
    {"anonymous", anonymous},
    {"server", server},
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
    if (count < 4)
        return 64;
    host = words[1], port = words[2], argument = words[4];
    signal(SIGPIPE, SIG_IGN);
    must("allocate", gnutls_certificate_allocate_credentials(&credentials));
    for (size_t at = 0; at < sizeof all / sizeof *all; at++)
        if (!strcmp(all[at].name, words[3]))
            return all[at].run(), 0;
    return 64;
}
