/* state.c: what is kept with OpenSSL's objects, as their ex_data: it ends when they end. */

#include "coerced.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static int of_ssl, of_context, of_store, of_ssl_alpn;

static void drop_place(struct place *place) {
    while (place) {
        struct place *next = place->next;
        free(place);
        place = next;
    }
}

static void drop_coerced(struct coerced *coerced) {
    if (coerced->peer)
        REAL(X509_free)(coerced->peer);
    if (coerced->others)
        REAL(OPENSSL_sk_free)((OPENSSL_STACK *)coerced->others); /* the certificates are those of `chain` */
    if (coerced->chain)
        REAL(OPENSSL_sk_pop_free)((OPENSSL_STACK *)coerced->chain, (OPENSSL_sk_freefunc)REAL(X509_free));
    if (coerced->ready)
        exchange_close(coerced->ready);
    free(coerced->hello);
    told_drop(&coerced->told);
}

static void free_coerced(void *parent, void *held, CRYPTO_EX_DATA *data, int index, long number, void *argument) {
    (void)parent, (void)data, (void)index, (void)number, (void)argument;
    if (held)
        drop_coerced(held);
    free(held);
}

static void free_wishes(void *parent, void *held, CRYPTO_EX_DATA *data, int index, long number, void *argument) {
    (void)parent, (void)data, (void)index, (void)number, (void)argument;
    struct wishes *wishes = held;
    if (wishes)
        free(wishes->alpn);
    free(wishes);
}

static void free_anchors(void *parent, void *held, CRYPTO_EX_DATA *data, int index, long number, void *argument) {
    (void)parent, (void)data, (void)index, (void)number, (void)argument;
    struct anchors *anchors = held;
    if (anchors) {
        drop_place(anchors->unread);
        drop_place(anchors->folders);
    }
    free(anchors);
}

static void free_plainly(void *parent, void *held, CRYPTO_EX_DATA *data, int index, long number, void *argument) {
    (void)parent, (void)data, (void)index, (void)number, (void)argument;
    free(held);
}

/* The copy that SSL_dup(3) makes begins anew: without this it would have the same pointer. */
static int dup_nothing(CRYPTO_EX_DATA *to, const CRYPTO_EX_DATA *from, void **held, int index, long number,
                       void *argument) {
    (void)to, (void)from, (void)index, (void)number, (void)argument;
    *held = NULL;
    return 1;
}

static void make_indices(void) {
    of_ssl = REAL(CRYPTO_get_ex_new_index)(CRYPTO_EX_INDEX_SSL, 0, NULL, NULL, dup_nothing, free_coerced);
    of_ssl_alpn = REAL(CRYPTO_get_ex_new_index)(CRYPTO_EX_INDEX_SSL, 0, NULL, NULL, dup_nothing, free_plainly);
    of_context = REAL(CRYPTO_get_ex_new_index)(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, NULL, dup_nothing, free_wishes);
    of_store = REAL(CRYPTO_get_ex_new_index)(CRYPTO_EX_INDEX_X509_STORE, 0, NULL, NULL, dup_nothing, free_anchors);
}

static void prepare(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_indices);
}

static void *zeroed(size_t size) {
    void *memory = calloc(1, size);
    if (!memory)
        abort(); /* as little as this: the program has no memory left */
    return memory;
}

struct coerced *coerced_of(const SSL *ssl) {
    prepare();
    struct coerced *coerced = REAL(SSL_get_ex_data)(ssl, of_ssl);
    if (!coerced) {
        coerced = zeroed(sizeof *coerced);
        coerced->fd = NO_SOCKET;
        REAL(SSL_set_ex_data)((SSL *)ssl, of_ssl, coerced);
    }
    return coerced;
}

struct wishes *wishes_of(const SSL_CTX *context) {
    prepare();
    struct wishes *wishes = REAL(SSL_CTX_get_ex_data)(context, of_context);
    if (!wishes) {
        wishes = zeroed(sizeof *wishes);
        REAL(SSL_CTX_set_ex_data)((SSL_CTX *)context, of_context, wishes);
    }
    return wishes;
}

struct anchors *anchors_of(X509_STORE *store) {
    prepare();
    struct anchors *anchors = REAL(X509_STORE_get_ex_data)(store, of_store);
    if (!anchors) {
        anchors = zeroed(sizeof *anchors);
        REAL(X509_STORE_set_ex_data)(store, of_store, anchors);
    }
    return anchors;
}

static struct names_list *copy_names(const unsigned char *names, unsigned size) {
    struct names_list *list = zeroed(sizeof *list + size);
    list->size = size;
    if (size)
        memcpy(list->data, names, size);
    return list;
}

EXPORT int SSL_CTX_set_alpn_protos(SSL_CTX *context, const unsigned char *names, unsigned size) {
    int done = REAL(SSL_CTX_set_alpn_protos)(context, names, size);
    if (!done) {
        free(wishes_of(context)->alpn);
        wishes_of(context)->alpn = copy_names(names, size);
    }
    return done;
}

EXPORT int SSL_set_alpn_protos(SSL *ssl, const unsigned char *names, unsigned size) {
    int done = REAL(SSL_set_alpn_protos)(ssl, names, size);
    prepare();
    if (!done) {
        free(REAL(SSL_get_ex_data)(ssl, of_ssl_alpn));
        REAL(SSL_set_ex_data)(ssl, of_ssl_alpn, copy_names(names, size));
    }
    return done;
}

struct names_list *alpn_of(SSL *ssl) {
    prepare();
    struct names_list *own = REAL(SSL_get_ex_data)(ssl, of_ssl_alpn);
    return own ? own : wishes_of(REAL(SSL_get_SSL_CTX)(ssl))->alpn;
}

void coerced_reset(SSL *ssl) {
    struct coerced *coerced = coerced_of(ssl);
    drop_coerced(coerced);
    memset(coerced, 0, sizeof *coerced);
    coerced->fd = NO_SOCKET;
}

/* libssl itself calls this when it begins a handshake: what is left to it stays so. */
EXPORT int SSL_clear(SSL *ssl) {
    if (!is_left(ssl))
        coerced_reset(ssl);
    return REAL(SSL_clear)(ssl);
}

struct coerced *done_with(const SSL *ssl) {
    struct coerced *coerced = coerced_of(ssl);
    return coerced->stage == DONE ? coerced : NULL;
}

bool is_left(const SSL *ssl) {
    return coerced_of(ssl)->stage == LEFT;
}

int outcome(struct coerced *coerced, int error, int result) {
    coerced->error = error;
    return result;
}
