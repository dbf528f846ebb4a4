/* state.c: what is kept beside GnuTLS's objects: by their address, until they end. */

#include "coerced.h"

#include <stdlib.h>
#include <string.h>

enum { OF_A_SESSION, OF_CREDENTIALS, OF_A_TRUST_LIST };

struct held {
    struct held *next;
    const void *object;
    int kind;
    union {
        struct coerced session;
        struct credentials credentials;
        struct anchors anchors;
    };
};

enum { BUCKETS = 256 };
static struct held *buckets[BUCKETS];

static struct held **bucket_of(const void *object) {
    return &buckets[((uintptr_t)object >> 4 ^ (uintptr_t)object >> 12) % BUCKETS];
}

static struct held *made(const void *object, int kind) {
    struct held *held = calloc(1, sizeof *held);
    if (!held)
        abort(); /* as little as this: the program has no memory left */
    held->object = object;
    held->kind = kind;
    if (kind == OF_A_SESSION) {
        held->session.session = (gnutls_session_t)object;
        held->session.fd = NO_SOCKET;
    }
    return held;
}

static struct held *held_with(const void *object, int kind) {
    struct held **bucket = bucket_of(object), *held;
    lock_take(&coerced_locks[OF_SESSIONS]);
    for (held = *bucket; held && (held->object != object || held->kind != kind);)
        held = held->next;
    if (!held) {
        held = made(object, kind);
        held->next = *bucket;
        *bucket = held;
    }
    lock_release(&coerced_locks[OF_SESSIONS]);
    return held;
}

static void drop(struct held *held) {
    if (held->kind == OF_A_SESSION) {
        told_drop(&held->session.told);
        drop_buffer(&held->session.alpn);
        drop_buffer(&held->session.pending);
        drop_buffer(&held->session.corked);
        free(held->session.peers);
    }
    while (held->kind == OF_A_TRUST_LIST && held->anchors.unread) {
        struct place *place = held->anchors.unread;
        held->anchors.unread = place->next;
        free(place);
    }
    free(held);
}

void forget_object(const void *object) {
    struct held *found = NULL;
    lock_take(&coerced_locks[OF_SESSIONS]);
    for (struct held **at = bucket_of(object); *at;) {
        struct held *held = *at;
        if (held->object != object) {
            at = &held->next;
            continue;
        }
        *at = held->next;
        held->next = found;
        found = held;
    }
    lock_release(&coerced_locks[OF_SESSIONS]);
    while (found) {
        struct held *next = found->next;
        drop(found);
        found = next;
    }
}

struct coerced *coerced_of(gnutls_session_t session) {
    return &held_with(session, OF_A_SESSION)->session;
}

struct credentials *credentials_of(gnutls_certificate_credentials_t credentials) {
    return &held_with(credentials, OF_CREDENTIALS)->credentials;
}

struct anchors *anchors_of(gnutls_x509_trust_list_t list) {
    return &held_with(list, OF_A_TRUST_LIST)->anchors;
}

struct coerced *done_with(gnutls_session_t session) {
    struct coerced *coerced = coerced_of(session);
    return atomic_load(&coerced->stage) == DONE ? coerced : NULL;
}

bool is_left(gnutls_session_t session) {
    return atomic_load(&coerced_of(session)->stage) == LEFT;
}

gnutls_certificate_credentials_t certificate_credentials(gnutls_session_t session) {
    void *found = NULL;
    return REAL(gnutls_credentials_get)(session, GNUTLS_CRD_CERTIFICATE, &found) < 0 ? NULL : found;
}

/* --- buffers --- */

void append(struct buffer *buffer, const void *data, size_t size) {
    if (buffer->size + size > buffer->room) {
        size_t room = 2 * (buffer->size + size);
        unsigned char *grown = realloc(buffer->data, room);
        if (!grown)
            abort();
        buffer->data = grown;
        buffer->room = room;
    }
    if (size)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

void take_off(struct buffer *buffer, size_t size) {
    buffer->size -= size;
    memmove(buffer->data, buffer->data + size, buffer->size);
}

void drop_buffer(struct buffer *buffer) {
    if (buffer->data)
        explicit_bzero(buffer->data, buffer->size); /* it can be a private key */
    free(buffer->data);
    *buffer = (struct buffer){0};
}

/* --- the begin and the end of an object --- */

EXPORT int gnutls_init(gnutls_session_t *session, unsigned flags) {
    int done = REAL(gnutls_init)(session, flags);
    if (done < 0)
        return done;
    forget_object(*session);
    struct coerced *coerced = coerced_of(*session);
    coerced->role = flags & GNUTLS_SERVER ? SERVER : CLIENT;
    if (flags & GNUTLS_DATAGRAM)
        coerced->cannot = "DTLS by GnuTLS";
    return done;
}

EXPORT void gnutls_deinit(gnutls_session_t session) {
    forget_object(session);
    REAL(gnutls_deinit)(session);
}

EXPORT int gnutls_certificate_allocate_credentials(gnutls_certificate_credentials_t *credentials) {
    int done = REAL(gnutls_certificate_allocate_credentials)(credentials);
    if (done >= 0)
        forget_object(*credentials);
    return done;
}

EXPORT void gnutls_certificate_free_credentials(gnutls_certificate_credentials_t credentials) {
    forget_object(credentials);
    REAL(gnutls_certificate_free_credentials)(credentials);
}

EXPORT int gnutls_x509_trust_list_init(gnutls_x509_trust_list_t *list, unsigned size) {
    int done = REAL(gnutls_x509_trust_list_init)(list, size);
    if (done >= 0)
        forget_object(*list);
    return done;
}

EXPORT void gnutls_x509_trust_list_deinit(gnutls_x509_trust_list_t list, unsigned all) {
    forget_object(list);
    REAL(gnutls_x509_trust_list_deinit)(list, all);
}
