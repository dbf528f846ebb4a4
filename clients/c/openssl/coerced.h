/* coerced.h: what the files of libssa-openssl share.
 *
 * Theory of operation. The program's SSL_CTX and SSL are OpenSSL's own objects: whatever the program sets in them, asks
 * them or hangs on them is OpenSSL's code. Replaced are only the functions that touch the network, and those that tell
 * of a handshake. At the handshake the real SSL is read: the server's name, ALPN, versions, cipher suites, the own
 * certificate and key, the trust anchors. From them a request to ssad is made, which makes the handshake on the socket
 * below (libssa does the rest, see ../internal.h). What the program wishes is added to the administrator's policy.
 *
 * An SSL whose records do not go through a TCP socket cannot be mapped. It is refused, or left to OpenSSL where the
 * policy's `coercion` is `fallback`: ssad is asked each time, and logs it (leave.c).
 */
#ifndef SSA_OPENSSL_COERCED_H
#define SSA_OPENSSL_COERCED_H

#include "real.h"

/* --- state.c: what is kept with an SSL, an SSL_CTX, an X509_STORE (ex_data) --- */

enum stage {
    BEFORE,    /* nothing was done */
    HELD_BACK, /* the program was told once to come again, see client.c */
    UNDER_WAY, /* ssad makes the handshake */
    DONE,
    REFUSED,
    LEFT, /* to OpenSSL */
};

struct hello { /* a client's first bytes, as they were read */
    size_t size;
    unsigned char data[32768];
};
struct coerced { /* of an SSL */
    enum stage stage;
    int role, fd;
    int error;      /* what SSL_get_error says */
    int verdict;    /* X509_V_ERR_*, where the program's own verification has refused the peer */
    int shutdown;   /* SSL_SENT_SHUTDOWN and SSL_RECEIVED_SHUTDOWN */
    size_t written; /* of a write that the program has to repeat, as it was not taken whole */
    bool looking;   /* a server's callbacks run, and look at `hello` */
    char name[256]; /* that the client has asked for (SNI) */
    struct hello *hello;
    struct exchange *ready; /* with ssad, in HELD_BACK; NULL: none */
    struct told told;
    X509 *peer;
    STACK_OF(X509) * chain, *others; /* all of it, and the same without the first */
    int (*cert_cb)(SSL *, void *);   /* set on this SSL */
    void *cert_cb_argument;
};
struct names_list { /* ALPN: a length byte before each name */
    size_t size;
    unsigned char data[];
};
struct wishes { /* of an SSL_CTX, which has setters without getters */
    SSL_client_hello_cb_fn hello_cb;
    void *hello_cb_argument;
    int (*cert_cb)(SSL *, void *);
    void *cert_cb_argument;
    int (*name_cb)(SSL *, int *, void *);
    void *name_cb_argument;
    SSL_CTX_alpn_select_cb_func alpn_cb;
    void *alpn_cb_argument;
    int (*verify_cb)(X509_STORE_CTX *, void *);
    void *verify_cb_argument;
    struct names_list *alpn;
};
struct place { /* a file or a directory of trust anchors */
    struct place *next;
    bool is_directory;
    char path[];
};
struct anchors {           /* of an X509_STORE */
    bool system;           /* the system's own are among them: they narrow nothing */
    struct place *unread;  /* the system's, which are read when OpenSSL needs them */
    struct place *folders; /* the program's own directories */
};
struct coerced *coerced_of(const SSL *ssl);       /* it is made where there is none; never NULL */
struct wishes *wishes_of(const SSL_CTX *context); /* the same */
struct anchors *anchors_of(X509_STORE *store);    /* the same */
struct names_list *alpn_of(SSL *ssl);             /* NULL: none was set */
void coerced_reset(SSL *ssl);                     /* for another handshake */
struct coerced *done_with(const SSL *ssl);        /* NULL: there is no handshake of ssad's that is done */
bool is_left(const SSL *ssl);
int outcome(struct coerced *coerced, int error, int result); /* `result`, and SSL_get_error says `error` */

/* --- failure.c: OpenSSL's queue of errors, and why --- */

int refuse(SSL *ssl, int number);                   /* words() have the reason. -1 */
int refuse_with(SSL *ssl, int library, int reason); /* the same with an error of OpenSSL's */
void push_error(int library, int reason, const char *text);
void forget_words(void);

/* --- leave.c --- */

/* What ssa cannot do for this SSL. True: it is left to OpenSSL. False: it is refused, as refuse() does. */
bool leave(SSL *ssl, const char *what);

/* --- handshake.c, client.c, server.c --- */

int shake(SSL *ssl); /* as SSL_do_handshake(3) */
int begin_client(SSL *ssl, struct coerced *coerced);
int begin_server(SSL *ssl, struct coerced *coerced);
void add_wishes(SSL *ssl, struct request *request);
/* Have the handshake made by the request that was written, with the program's credentials and anchors. The exchange
 * ends. */
int hand_over(SSL *ssl, struct coerced *coerced, struct exchange *exchange, bool with_anchors);

/* --- below.c: the socket below an SSL --- */

int socket_below(SSL *ssl, bool *own_kind);              /* `own_kind`: it is below a BIO of the program's own making */
int read_below(SSL *ssl, void *data, int size, int *fd); /* as BIO_read(3); the socket, or NO_SOCKET */

/* --- trust.c --- */

int write_anchors(SSL *ssl, BIO *bio); /* the program's own, as PEM. -1: it has none */
void read_system_store(X509_STORE *store);
bool agrees(SSL *ssl, struct coerced *coerced); /* the program's own verification, where it has one */
bool demands_verification(const SSL *ssl);

/* --- report.c --- */

void learn_chain(const SSL *ssl, bool whole);

/* --- hello.c: a ClientHello. No input or output here. --- */

enum { HELLO_SHORT, HELLO_WHOLE, HELLO_IS_HTTP, HELLO_IS_NONE };
int hello_look_untrusted(const struct hello *hello);
struct part {
    const unsigned char *data;
    size_t size;
};
struct client_hello {
    unsigned version;
    struct part random, session, ciphers, compressions, extensions;
};
bool hello_parse_untrusted(const struct hello *hello, unsigned char *room, struct client_hello *parsed);
struct part hello_extension_untrusted(const struct client_hello *hello, unsigned type);
void hello_name_untrusted(const struct client_hello *hello, char *name, size_t room);
struct part hello_alpn_untrusted(const struct client_hello *hello);

#endif
