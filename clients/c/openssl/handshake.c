/* handshake.c: SSL_connect(3), SSL_accept(3), SSL_do_handshake(3), and what clients and servers have in common. */

#include "coerced.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- what the program wishes, as attributes of a request --- */

static const struct suite {
    unsigned number;
    const char *name;
    int version;
} suites[] = {
#define X(number, name, version) {number, name, version},
    SUITE_ROWS
#undef X
};
enum { SUITES = sizeof suites / sizeof *suites };

static bool has_suite(const STACK_OF(SSL_CIPHER) * ciphers, unsigned number) {
    int count = ciphers ? REAL(OPENSSL_sk_num)((const OPENSSL_STACK *)ciphers) : 0;
    for (int at = 0; at < count; at++)
        if (REAL(SSL_CIPHER_get_protocol_id)(REAL(OPENSSL_sk_value)((const OPENSSL_STACK *)ciphers, at)) == number)
            return true;
    return false;
}

/* The versions that the program's list of suites leaves: 1 for TLS 1.2, 2 for TLS 1.3. */
static int add_suites(SSL *ssl, struct request *request) {
    unsigned char disabled[SUITES * 64];
    size_t size = 0;
    int left = 0;
    const STACK_OF(SSL_CIPHER) *ciphers = REAL(SSL_get_ciphers)(ssl);
    for (size_t at = 0; at < SUITES; at++)
        if (has_suite(ciphers, suites[at].number))
            left |= suites[at].version == TLS1_3_VERSION ? 2 : 1;
    for (size_t at = 0; at < SUITES; at++) {
        bool matters = left & (suites[at].version == TLS1_3_VERSION ? 2 : 1);
        if (!matters || has_suite(ciphers, suites[at].number))
            continue;
        size_t length = strlen(suites[at].name);
        disabled[size] = (unsigned char)length;
        memcpy(disabled + size + 1, suites[at].name, length);
        size += 1 + length;
    }
    if (size)
        request_bytes(request, ATTRIBUTE_DISABLED, disabled, size);
    return left;
}

/* The lowest and the highest version that the program allows, by its limits, its options and its method. */
static void limits_of(SSL *ssl, long *low, long *high) {
    uint64_t options = REAL(SSL_get_options)(ssl);
    int fixed = REAL(SSL_version)(ssl); /* before a handshake: the method's, where it has one version only */
    *low = REAL(SSL_ctrl)(ssl, SSL_CTRL_GET_MIN_PROTO_VERSION, 0, NULL);
    *high = REAL(SSL_ctrl)(ssl, SSL_CTRL_GET_MAX_PROTO_VERSION, 0, NULL);
    if (!*high || *high > TLS1_3_VERSION)
        *high = TLS1_3_VERSION;
    if (fixed && fixed <= TLS1_2_VERSION)
        *high = fixed;
    if (options & SSL_OP_NO_TLSv1_3 && *high > TLS1_2_VERSION)
        *high = TLS1_2_VERSION;
    if (options & SSL_OP_NO_TLSv1_2 && *high == TLS1_2_VERSION)
        *high = TLS1_1_VERSION;
    if (options & SSL_OP_NO_TLSv1_2 && *low <= TLS1_2_VERSION)
        *low = TLS1_3_VERSION;
}

static void add_versions(SSL *ssl, struct request *request, int left) {
    long low, high;
    limits_of(ssl, &low, &high);
    if (!(left & 1) && low < TLS1_3_VERSION)
        low = TLS1_3_VERSION;
    if (!(left & 2) && high > TLS1_2_VERSION)
        high = TLS1_2_VERSION;
    if (low > TLS1_2_VERSION)
        request_number(request, ATTRIBUTE_VERSION_MIN, (uint32_t)low);
    if (high < TLS1_3_VERSION)
        request_number(request, ATTRIBUTE_VERSION_MAX, (uint32_t)high);
}

void add_wishes(SSL *ssl, struct request *request) {
    add_versions(ssl, request, add_suites(ssl, request));
    request_number(request, ATTRIBUTE_CONTROL, 1);
}

/* --- files that ride along --- */

/* What was written into a BIO as a file of memory, or -1. The BIO ends. */
static int file_of(BIO *bio) {
    char *text;
    long size = REAL(BIO_ctrl)(bio, BIO_CTRL_INFO, 0, &text), done = 0;
    int fd = (int)syscall(SYS_memfd_create, "ssa-coerced", 1U /* MFD_CLOEXEC */);
    for (long at = 0; fd >= 0 && at < size; at += done)
        if ((done = syscall(SYS_write, fd, text + at, size - at)) < 0) {
            close_quietly(fd);
            fd = -1;
        }
    if (size > 0)
        explicit_bzero(text, (size_t)size); /* it can be a private key */
    REAL(BIO_free)(bio);
    return fd;
}

enum { OWN_CREDENTIALS = 8, MOST_OWN_FILES = 1 + 2 * OWN_CREDENTIALS };

struct own_files {
    int descriptors[MOST_OWN_FILES], count;
};

static int add_file(struct own_files *files, BIO *bio) {
    int fd = file_of(bio);
    if (fd < 0)
        return fail_plainly(errno);
    files->descriptors[files->count++] = fd;
    return 0;
}

static BIO *new_memory(void) {
    return REAL(BIO_new)(REAL(BIO_s_mem)());
}

static int add_anchors(SSL *ssl, struct request *request, struct own_files *files) {
    BIO *bio = new_memory();
    int count = write_anchors(ssl, bio);
    if (count <= 0) {
        REAL(BIO_free)(bio);
        if (!count)
            request_number(request, ATTRIBUTE_TRUSTED, 0);
        return 0;
    }
    request_number(request, ATTRIBUTE_TRUSTED, 1);
    return add_file(files, bio);
}

static BIO *chain_of(SSL *ssl, X509 *own) {
    BIO *bio = new_memory();
    STACK_OF(X509) *chain = NULL;
    REAL(PEM_write_bio_X509)(bio, own);
    REAL(SSL_ctrl)(ssl, SSL_CTRL_GET_CHAIN_CERTS, 0, &chain);
    if (!chain)
        REAL(SSL_CTX_ctrl)(REAL(SSL_get_SSL_CTX)(ssl), SSL_CTRL_GET_EXTRA_CHAIN_CERTS, 0, &chain);
    int count = chain ? REAL(OPENSSL_sk_num)((OPENSSL_STACK *)chain) : 0;
    for (int at = 0; at < count; at++)
        REAL(PEM_write_bio_X509)(bio, REAL(OPENSSL_sk_value)((OPENSSL_STACK *)chain, at));
    return bio;
}

static BIO *key_of(EVP_PKEY *key) {
    BIO *bio = new_memory();
    if (key && REAL(PEM_write_bio_PrivateKey)(bio, key, NULL, NULL, 0, NULL, NULL))
        return bio;
    REAL(BIO_free)(bio);
    fail(EOPNOTSUPP,
         "the program's private key cannot be handed to ssad: it is in a device, or in a process of its own");
    return NULL;
}

/* All certificates that the SSL has: a server can have one for each kind of key. */
static int add_credentials(SSL *ssl, struct request *request, struct own_files *files) {
    BIO *keys[OWN_CREDENTIALS];
    int count = 0, done = 0;
    X509 *own = REAL(SSL_get_certificate)(ssl);
    bool server = REAL(SSL_is_server)(ssl) != 0;
    if (server && own)
        REAL(SSL_ctrl)(ssl, SSL_CTRL_SET_CURRENT_CERT, SSL_CERT_SET_FIRST, NULL);
    while (!done && own && count < OWN_CREDENTIALS) {
        own = REAL(SSL_get_certificate)(ssl);
        keys[count] = own ? key_of(REAL(SSL_get_privatekey)(ssl)) : NULL;
        done = !keys[count] || add_file(files, chain_of(ssl, own)) ? -1 : 0;
        count += keys[count] != NULL;
        if (!server || !REAL(SSL_ctrl)(ssl, SSL_CTRL_SET_CURRENT_CERT, SSL_CERT_SET_NEXT, NULL))
            break;
    }
    for (int at = 0; at < count; at++)
        if (add_file(files, keys[at]))
            done = -1;
    if (server && count)
        REAL(SSL_ctrl)(ssl, SSL_CTRL_SET_CURRENT_CERT, SSL_CERT_SET_FIRST, NULL);
    if (count) {
        request_number(request, ATTRIBUTE_CERTIFICATES, (uint32_t)count);
        request_number(request, ATTRIBUTE_KEYS, (uint32_t)count);
    }
    return done;
}

static int add_files(SSL *ssl, struct request *request, struct own_files *files, bool with_anchors) {
    files->count = 0;
    if (with_anchors && add_anchors(ssl, request, files))
        return -1;
    return add_credentials(ssl, request, files);
}

static void drop_files(struct own_files *files) {
    while (files->count)
        close_quietly(files->descriptors[--files->count]);
}

/* --- what becomes of it --- */

static void keep_told(struct coerced *coerced, struct connection *connection) {
    struct guard guard = guard_enter(&connection->lock);
    coerced->told = malloc(sizeof *coerced->told + connection->info_size);
    if (coerced->told) {
        coerced->told->size = connection->info_size;
        memcpy(coerced->told->data, connection->info, connection->info_size);
    }
    guard_leave(&guard);
}

static int complete(SSL *ssl, struct coerced *coerced, struct connection *connection) {
    keep_told(coerced, connection);
    coerced->stage = DONE;
    free(coerced->hello);
    coerced->hello = NULL;
    REAL(SSL_set_verify_result)(ssl, X509_V_OK);
    if (agrees(ssl, coerced))
        return outcome(coerced, SSL_ERROR_NONE, 1);
    int number = errno;
    tls_shutdown(connection, coerced->fd, SHUT_RDWR);
    errno = number;
    return refuse(ssl, number);
}

static int judge(SSL *ssl, struct coerced *coerced, struct connection *connection, int done) {
    int number = errno;
    if (!done)
        return complete(ssl, coerced, connection);
    if (atomic_load(&connection->phase) == CONNECTING) { /* it goes on by itself, also after a signal */
        coerced->stage = UNDER_WAY;
        return outcome(coerced, SSL_ERROR_WANT_READ, -1);
    }
    return refuse(ssl, number);
}

struct exchange *exchange_for(int fd) {
    return exchange_open(does_wait(fd) ? timeout_of(fd, SO_SNDTIMEO) : LOCAL);
}

int hand_over(SSL *ssl, struct coerced *coerced, struct exchange *exchange, bool with_anchors) {
    struct own_files files;
    bool added = !add_files(ssl, &exchange->request, &files, with_anchors);
    struct connection *connection = added ? connection_below(coerced->fd) : NULL;
    if (!connection) {
        int number = errno;
        exchange_close(exchange);
        drop_files(&files);
        return refuse(ssl, number);
    }
    carry_epolls(connection, coerced->fd);
    connection->half = true;
    hear_chain(coerced);
    int done = tls_shake(connection, coerced->fd, exchange, files.descriptors, files.count), number = errno;
    hear_chain(NULL);
    drop_files(&files);
    errno = number;
    int result = judge(ssl, coerced, connection, done);
    number = errno;
    connection_put(connection);
    errno = number;
    return result;
}

/* ssad is at it: look whether it is done. */
static int follow(SSL *ssl, struct coerced *coerced) {
    struct connection *connection = connection_get(coerced->fd);
    if (!connection || connection == &hidden) {
        fail(EBADF, "the socket was closed in the middle of the handshake");
        return refuse(ssl, EBADF);
    }
    hear_chain(coerced);
    int done = check_live(connection, coerced->fd, 0);
    hear_chain(NULL);
    if (done && atomic_load(&connection->phase) == FAILED) {
        struct guard guard = guard_enter(&connection->lock);
        fail(connection->failure ? connection->failure : EPROTO, "%s", connection->words);
        guard_leave(&guard);
    }
    int result = judge(ssl, coerced, connection, done), number = errno;
    connection_put(connection);
    errno = number;
    return result;
}

int shake(SSL *ssl) {
    struct coerced *coerced = coerced_of(ssl);
    switch (coerced->stage) {
    case DONE:
        return outcome(coerced, SSL_ERROR_NONE, 1);
    case REFUSED:
        return outcome(coerced, SSL_ERROR_SSL, -1);
    case UNDER_WAY:
        return follow(ssl, coerced);
    case LEFT:
        return REAL(SSL_do_handshake)(ssl);
    default:
        coerced->role = REAL(SSL_is_server)(ssl) ? SERVER : CLIENT;
        return (coerced->role == SERVER ? begin_server : begin_client)(ssl, coerced);
    }
}

EXPORT int SSL_do_handshake(SSL *ssl) {
    return shake(ssl);
}

EXPORT int SSL_connect(SSL *ssl) {
    if (coerced_of(ssl)->stage == BEFORE)
        REAL(SSL_set_connect_state)(ssl);
    return shake(ssl);
}

EXPORT int SSL_accept(SSL *ssl) {
    if (coerced_of(ssl)->stage == BEFORE)
        REAL(SSL_set_accept_state)(ssl);
    return shake(ssl);
}
