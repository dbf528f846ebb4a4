/* calls.h: what the test programs of GnuTLS's functions share: PROGRAM HOST PORT WHAT [ARGUMENT]. They print what they
 * get to know, a line each.
 */
#ifndef SSA_TESTS_CALLS_H
#define SSA_TESTS_CALLS_H

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

extern gnutls_certificate_credentials_t credentials;
extern const char *host, *port, *argument;

static inline int must(const char *what, int done) {
    if (done < 0) {
        printf("%s: %s\n", what, gnutls_strerror(done));
        exit(2);
    }
    return done;
}

static inline void say(const char *what, int done) {
    printf("%s: %s\n", what, done < 0 ? gnutls_strerror(done) : "done");
}

static inline int tcp(void) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
    if (getaddrinfo(host, port, &hints, &found))
        exit(3);
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen))
        exit(3);
    freeaddrinfo(found);
    return fd;
}

static inline gnutls_session_t plain_session(unsigned flags) {
    gnutls_session_t session;
    must("init", gnutls_init(&session, GNUTLS_CLIENT | flags));
    must("priorities", gnutls_set_default_priority(session));
    must("credentials", gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials));
    must("name", gnutls_server_name_set(session, GNUTLS_NAME_DNS, host, strlen(host)));
    return session;
}

static inline gnutls_session_t new_session(int fd) {
    gnutls_session_t session = plain_session(0);
    gnutls_transport_set_int(session, fd);
    return session;
}

static inline int shake(gnutls_session_t session) {
    int done;
    do
        done = gnutls_handshake(session);
    while (done < 0 && !gnutls_error_is_fatal(done));
    return done;
}

static inline gnutls_session_t connected(void) {
    gnutls_session_t session = new_session(tcp());
    must("handshake", shake(session));
    return session;
}

static inline void end(gnutls_session_t session) {
    int fd = gnutls_transport_get_int(session);
    gnutls_deinit(session);
    close(fd);
}

static inline ssize_t receive(gnutls_session_t session, void *data, size_t size) {
    ssize_t got;
    do
        got = gnutls_record_recv(session, data, size);
    while (got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED);
    return got;
}

static inline void echo(gnutls_session_t session, const char *text) {
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

struct call {
    const char *name;
    void (*run)(void);
};

static inline int run_call(const struct call *all, size_t count, char **words) {
    host = words[1], port = words[2], argument = words[4];
    signal(SIGPIPE, SIG_IGN);
    must("allocate", gnutls_certificate_allocate_credentials(&credentials));
    for (size_t at = 0; at < count; at++)
        if (!strcmp(all[at].name, words[3]))
            return all[at].run(), 0;
    return 64;
}

#endif
