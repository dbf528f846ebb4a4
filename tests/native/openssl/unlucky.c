/* unlucky WHAT HOST PORT: a program that links OpenSSL and knows nothing of ssa, and its bad luck. For
 * test_openssl_unlucky.py. The peer sends back what it reads. Exit status 0: all went as a program may expect.
 */

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
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

static const char *host, *port;
static SSL_CTX *context;
static SSL *kept;

static void check(bool true_, const char *what) {
    if (true_)
        return;
    fprintf(stderr, "unlucky: %s (%s)\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(1);
}

static int connected_tcp(void) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    check(!getaddrinfo(host, port, &hints, &found), "getaddrinfo");
    int fd = socket(AF_INET, SOCK_STREAM, 0), done = -1;
    while (fd >= 0 && (done = connect(fd, found->ai_addr, found->ai_addrlen)) && errno == EINTR)
        continue;
    freeaddrinfo(found);
    if (done && errno != EISCONN) {
        close(fd);
        return -1;
    }
    return fd;
}

static SSL *over(int fd) {
    SSL *ssl = SSL_new(context);
    check(ssl && SSL_set_fd(ssl, fd) && SSL_set_tlsext_host_name(ssl, host) && SSL_set1_host(ssl, host), "SSL_new");
    return ssl;
}

/* Whether a call is to be made again, as programs do after a signal. */
static bool again(SSL *ssl, int done) {
    int error = SSL_get_error(ssl, done);
    return done <= 0 && (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ||
                         (error == SSL_ERROR_SYSCALL && errno == EINTR));
}

static SSL *connected(void) {
    SSL *ssl = over(connected_tcp());
    int done;
    while (again(ssl, done = SSL_connect(ssl)))
        continue;
    check(done == 1, "SSL_connect");
    return ssl;
}

static void echo(SSL *ssl, int size) {
    char out[1 << 15], in[1 << 15];
    int done;
    for (int at = 0; at < size; at++)
        out[at] = (char)rand();
    for (int sent = 0; sent < size; sent += done) {
        while (again(ssl, done = SSL_write(ssl, out + sent, size - sent)))
            continue;
        check(done > 0, "SSL_write");
    }
    for (int got = 0; got < size; got += done) {
        while (again(ssl, done = SSL_read(ssl, in + got, size - got)))
            continue;
        check(done > 0, "SSL_read");
    }
    check(!memcmp(out, in, (size_t)size), "what comes back is what was sent");
}

static void ended(SSL *ssl) {
    int fd = SSL_get_fd(ssl), done;
    char byte;
    check(SSL_shutdown(ssl) >= 0, "SSL_shutdown");
    while (again(ssl, done = SSL_read(ssl, &byte, 1)))
        continue;
    check(SSL_get_error(ssl, done) == SSL_ERROR_ZERO_RETURN, "the peer's close_notify");
    SSL_free(ssl);
    check(!close(fd), "close");
}

/* --- no descriptors left, at each step --- */

static void exhausted(void) {
    struct rlimit limit, few;
    getrlimit(RLIMIT_NOFILE, &limit);
    ended(connected()); /* what is opened once is open */
    int made = 0, refused = 0;
    for (rlim_t room = 4; room < 14; room++) {
        int tcp = connected_tcp();
        SSL *ssl = over(tcp);
        few = limit;
        few.rlim_cur = room;
        setrlimit(RLIMIT_NOFILE, &few);
        if (SSL_connect(ssl) == 1) {
            echo(ssl, 100);
            made++;
        } else {
            check(SSL_write(ssl, "x", 1) <= 0, "a handshake that failed takes nothing");
            refused++;
        }
        setrlimit(RLIMIT_NOFILE, &limit);
        SSL_free(ssl);
        close(tcp);
        check(ERR_peek_error() || made, "a failure has words");
        ERR_clear_error();
    }
    check(made && refused, "some have room and some have not");
    SSL *ssl = connected();
    echo(ssl, 100);
    check(SSL_get_fd(ssl) == 3, "no descriptor is lost");
    ended(ssl);
}

/* --- signals, whose handler has descriptors of its own --- */

static volatile sig_atomic_t handled;

static void on_alarm(int number) {
    int before = errno, ends[2];
    char byte = (char)number;
    if (!pipe(ends)) {
        int copy = dup(ends[1]);
        if (write(copy, &byte, 1) == 1 && read(ends[0], &byte, 1) == 1)
            handled++;
        close(copy);
        close(ends[0]);
        close(ends[1]);
    }
    errno = before;
}

static void with_signals(int flags) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = flags};
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int round = 0; round < 5; round++) {
        SSL *ssl = connected();
        for (int at = 0; at < 20; at++)
            echo(ssl, 30000);
        ended(ssl);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    check(handled > 5, "signals came");
}

static void signals(void) {
    with_signals(0);
}

static void restarting(void) {
    with_signals(SA_RESTART);
}

/* --- processes --- */

static void forks(void) {
    SSL *ssl = over(connected_tcp());
    fcntl(SSL_get_fd(ssl), F_SETFL, O_NONBLOCK);
    int done = SSL_connect(ssl), status;
    check(done < 0 && again(ssl, done), "under way");
    pid_t child = fork();
    if (!child) { /* it lets go of everything, when the handshake is done */
        usleep(200000);
        SSL_free(ssl);
        closefrom(3);
        _exit(0);
    }
    waitpid(child, &status, 0);
    check(!status, "the child");
    while (again(ssl, done = SSL_connect(ssl)))
        usleep(1000);
    check(done == 1, "SSL_connect");
    fcntl(SSL_get_fd(ssl), F_SETFL, 0);
    child = fork();
    if (!child) { /* one that goes on to speak */
        echo(ssl, 100);
        _exit(0);
    }
    waitpid(child, &status, 0);
    check(!status, "the child that speaks");
    echo(ssl, 100);
    ended(ssl);
}

/* --- the end of a program --- */

static void at_the_end(void) {
    echo(kept, 100);
    ended(kept);
}

static void ends(void) {
    atexit(at_the_end);
    kept = connected();
}

/* --- what its callbacks say counts, and only to refuse --- */

static int says_no(int ok, X509_STORE_CTX *store) {
    (void)ok;
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

static int says_yes(int ok, X509_STORE_CTX *store) {
    (void)ok;
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

static int whole(X509_STORE_CTX *store, void *answer) {
    check(X509_STORE_CTX_get0_cert(store) && sk_X509_num(X509_STORE_CTX_get0_untrusted(store)) > 0, "the chain");
    check(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()) != NULL, "the connection");
    return says_yes(0, store) && *(int *)answer ? 1 : says_no(0, store);
}

/* Prints the error, or what came back. */
static void tell(void) {
    int tcp = connected_tcp();
    SSL *ssl = over(tcp);
    if (SSL_connect(ssl) == 1) {
        echo(ssl, 100);
        printf("connected\n");
    } else {
        check(SSL_write(ssl, "x", 1) <= 0, "a handshake that failed takes nothing");
        printf("refused %ld\n", SSL_get_verify_result(ssl));
    }
}

static void callback_refuses(void) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, says_no);
    tell();
}

static void callback_accepts(void) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, says_yes);
    tell();
}

static void whole_refuses(void) {
    static int answer = 0;
    SSL_CTX_set_cert_verify_callback(context, whole, &answer);
    tell();
}

static void whole_accepts(void) {
    static int answer = 1;
    SSL_CTX_set_cert_verify_callback(context, whole, &answer);
    tell();
}

static void crl(void) {
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
    check(SSL_CTX_load_verify_locations(context, getenv("CA"), NULL), "CA");
    check(X509_load_crl_file(lookup, getenv("CRL"), X509_FILETYPE_PEM) == 1, "CRL");
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    tell();
}

static const struct {
    const char *name;
    void (*run)(void);
} all[] = {
    {"exhausted", exhausted},
    {"signals", signals},
    {"restarting", restarting},
    {"forks", forks},
    {"ends", ends},
    {"tell", tell},
    {"callback_refuses", callback_refuses},
    {"callback_accepts", callback_accepts},
    {"whole_refuses", whole_refuses},
    {"whole_accepts", whole_accepts},
    {"crl", crl},
};

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    host = count == 4 ? arguments[2] : "";
    port = count == 4 ? arguments[3] : "";
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_default_verify_paths(context);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    for (size_t at = 0; count == 4 && at < sizeof all / sizeof *all; at++)
        if (!strcmp(all[at].name, arguments[1])) {
            all[at].run();
            return 0;
        }
    return 2;
}
