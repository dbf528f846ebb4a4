/* coerced.h: what the files of libssa-gnutls share.
 *
 * Theory of operation. The program's sessions and credentials are GnuTLS's own objects. Replaced are the functions that
 * touch the network, those that tell of a handshake, and setters without getters, whose values are kept here beside the
 * object (state.c). At the handshake a request to ssad is made of them, as in ../openssl.
 *
 * A GnuTLS program verifies its peer in one of two ways. It gives GnuTLS a function or a name before the handshake, or
 * it asks after the handshake (gnutls_certificate_verify_peers2). Whether it will ask cannot be known. ssad verifies in
 * any case, and a peer that it refuses fails in gnutls_handshake.
 *
 * A session whose records do not go through a TCP socket cannot be mapped. It is refused, or left to GnuTLS where the
 * policy's `coercion` is `fallback`: ssad is asked each time, and logs it.
 */
#ifndef SSA_GNUTLS_COERCED_H
#define SSA_GNUTLS_COERCED_H

#include "real.h"

/* --- state.c: what is kept beside GnuTLS's objects --- */

enum stage {
    BEFORE,    /* nothing was done */
    UNDER_WAY, /* ssad makes the handshake */
    DONE,
    REFUSED,
    LEFT, /* to GnuTLS */
};
enum verifies { PERHAPS, VERIFIES, VERIFIES_NOT }; /* as far as the program has said */

struct priorities { /* of a priority string */
    bool known;
    int count;
    unsigned suites[256]; /* IANA's numbers */
    long low, high;       /* versions, as on the wire; 0: none that ssa has */
};
struct buffer {
    size_t size, room;
    unsigned char *data;
};
struct coerced { /* of a session */
    gnutls_session_t session;
    _Atomic int stage;
    int role, fd;
    gnutls_certificate_request_t asks; /* a server's clients, for a certificate */
    const char *cannot;                /* why it cannot be mapped; NULL: as far as known it can */
    int error;                         /* what a REFUSED one says */
    char name[256], verified_name[256], purpose[128];
    bool verifies; /* the program has said so before the handshake */
    gnutls_certificate_verify_function *verify;
    unsigned verify_status; /* of the verification that was asked for before the handshake */
    struct buffer alpn;     /* a length byte before each name */
    struct priorities priorities;
    gnutls_pull_func pull;
    bool own_push, requires_alpn;
    unsigned handshake_timeout, record_timeout; /* milliseconds; 0: none */
    int64_t deadline;
    _Atomic int direction; /* 1: a write was not done */
    bool read_end, sent_end;
    struct buffer pending; /* of a write that was not done: GnuTLS keeps it too */
    bool corks;
    struct buffer corked;
    struct told told;
    gnutls_datum_t *peers; /* the chain in parts */
    unsigned peer_count;
};
struct credentials { /* of certificate credentials: what has no getter */
    gnutls_certificate_verify_function *verify;
    gnutls_certificate_retrieve_function *retrieve1;
    gnutls_certificate_retrieve_function2 *retrieve2;
    gnutls_certificate_retrieve_function3 *retrieve3;
};
struct place { /* a file or a directory of trust anchors */
    struct place *next;
    bool is_directory;
    gnutls_x509_crt_fmt_t format;
    char path[];
};
struct anchors {          /* of a trust list */
    bool system;          /* the system's own are among them: they narrow nothing */
    bool revokes;         /* it has CRLs */
    bool in_device;       /* some cannot be read */
    struct place *unread; /* the system's, which are read when GnuTLS needs them */
};
struct coerced *coerced_of(gnutls_session_t session); /* it is made where there is none; never NULL */
struct credentials *credentials_of(gnutls_certificate_credentials_t credentials); /* the same */
struct anchors *anchors_of(gnutls_x509_trust_list_t list);                        /* the same */
void forget_object(const void *object);
struct coerced *done_with(gnutls_session_t session); /* NULL: there is no handshake of ssad's that is done */
bool is_left(gnutls_session_t session);
gnutls_certificate_credentials_t certificate_credentials(gnutls_session_t session); /* NULL: it has none */
void append(struct buffer *buffer, const void *data, size_t size);
void take_off(struct buffer *buffer, size_t size); /* from its begin */
void drop_buffer(struct buffer *buffer);

/* --- failure.c: errors, and why --- */

int refuse(struct coerced *coerced, int number);         /* words() have the reason; GnuTLS's number */
int refuse_with(struct coerced *coerced, int error);     /* the same, with a number of GnuTLS's */
int say(int error, const char *first, const char *text); /* gnutls_strerror(3) tells it from now on; the number */
unsigned status_of(int number, const char *text);        /* GNUTLS_CERT_*; 0: it is not for the certificate */
int leave(struct coerced *coerced, const char *what);    /* 0: it is left to GnuTLS. Else as refuse() */
enum verifies verifies_peer(const struct coerced *coerced);

/* --- handshake.c, priorities.c, own.c --- */

int shake(struct coerced *coerced);
void read_priorities(struct priorities *priorities, gnutls_priority_t cache);
int add_own_certificates(struct coerced *coerced, struct request *request, struct own_files *files);

/* --- key.c --- */

bool append_key(struct buffer *pem, gnutls_x509_privkey_t key); /* false: it cannot be written down */
bool append_datum(struct buffer *buffer, int done,
                  gnutls_datum_t *datum); /* of GnuTLS's, which ends, where it is done */

/* --- system.c: which anchors are the system's --- */

extern const char bundle[];
bool is_system(const char *path);
bool is_in_device(const char *path); /* it is no file */
bool is_bundle(const gnutls_datum_t *data);
bool are_bundle(gnutls_x509_crt_t *list, int count);

/* --- trust.c, verify.c --- */

/* The program's own anchors, as PEM. 1: it has some; 0: it has none, or the system's; -1: errno and the words */
int own_anchors(gnutls_session_t session, struct buffer *pem);
void read_system_trust(gnutls_x509_trust_list_t list);
bool agrees(
    struct coerced *coerced); /* what the program has asked for before the handshake. False: the words say why */
int verify_peer(struct coerced *coerced, gnutls_typed_vdata_st *data, unsigned elements, unsigned *status);

/* --- report.c --- */

void learn_peers(struct coerced *coerced);                         /* when the handshake is done */
gnutls_x509_crt_t peer_certificate(const struct coerced *coerced); /* NULL: there is none. It is the caller's */

#endif
