/* below.c: the socket below an SSL. A program may have a kind of BIO of its own (curl has), which does not tell its
 * descriptor: it is asked to read (../coercion/below.c).
 */

#include "coerced.h"

#include <string.h>

static int asked(BIO *bio, int how, void *data, int size, int *got) {
    probe_begin(how);
    *got = REAL(BIO_read)(bio, data, size);
    return probe_end();
}

/* True where the SSL writes to another descriptor than it reads from. */
static bool is_divided(SSL *ssl) {
    return REAL(SSL_get_rfd)(ssl) >= 0 && REAL(SSL_get_rfd)(ssl) != REAL(SSL_get_wfd)(ssl);
}

/* OpenSSL's own BIOs without a descriptor. curl's has the type of one of them, so their names count. */
static bool is_memory(BIO *bio) {
    static const char *const names[] = {"memory buffer", "secure memory buffer", "BIO pair"};
    const char *name = REAL(BIO_method_name)(bio);
    for (size_t at = 0; at < sizeof names / sizeof *names; at++)
        if (!strcmp(name, names[at]))
            return true;
    return false;
}

int socket_below(SSL *ssl, bool *own_kind) {
    BIO *bio = REAL(SSL_get_rbio)(ssl);
    int fd = REAL(SSL_get_rfd)(ssl), got;
    char byte;
    *own_kind = fd < 0;
    if (fd < 0 && bio && !is_memory(bio))
        fd = asked(bio, PRETEND, &byte, 1, &got);
    return is_divided(ssl) ? NO_SOCKET : checked_socket(fd);
}

int read_below(SSL *ssl, void *data, int size, int *fd) {
    BIO *bio = REAL(SSL_get_rbio)(ssl);
    int got = -1, found = REAL(SSL_get_rfd)(ssl);
    if (found >= 0 && (is_divided(ssl) || checked_socket(found) == NO_SOCKET))
        found = NO_SOCKET; /* nothing was read: OpenSSL could go on with it */
    else if (found >= 0)
        got = REAL(BIO_read)(bio, data, size);
    else if (bio && !is_memory(bio))
        found = asked(bio, NOTE, data, size, &got);
    *fd = checked_socket(found);
    return got;
}
