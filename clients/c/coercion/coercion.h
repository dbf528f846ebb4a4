/* coercion.h: what libssa-openssl and libssa-gnutls share.
 *
 * Both have a program's own objects of its TLS library, which they read at the handshake. From them comes a request to
 * ssad, which makes the handshake on the socket below. Nothing here knows which library that is.
 */
#ifndef SSA_COERCION_H
#define SSA_COERCION_H

#include "../internal.h"

enum { OF_WORDS, OF_NAMES, OF_EPOLLS, OF_PROBES, OF_SESSIONS, LOCKS };
extern struct lock coerced_locks[LOCKS]; /* a fork(2) leaves them free in the child */

enum { CLIENT, SERVER };
enum { NO_SOCKET = -1 };

/* --- look_ups.c: the names that addresses were looked up by --- */

bool name_of_peer(int fd, char *name, size_t room); /* else its address. False: it has no peer */

/* --- epolls.c --- */

void carry_epolls(struct connection *connection, int fd); /* the sets that watch the number are the connection's */

/* --- below.c: the socket below a session --- */

enum { PRETEND = 1, NOTE };
/* A program may read by a function of its own, which does not tell its descriptor. Between probe_begin and probe_end it
 * is called, and whichever descriptor it calls recv(2) or read(2) on is the one. PRETEND: nothing is read, and it is
 * told that one byte came. */
void probe_begin(int how);
int probe_end(void);
int checked_socket(int fd); /* the descriptor; NO_SOCKET where it is neither a TCP socket nor ssa's */
bool has_tls(int fd);

/* --- request.c: what a program wishes, as parts of a request --- */

/* `has` says which cipher suites the program wants. The versions that are left: 1 for TLS 1.2, 2 for TLS 1.3. */
int add_suites(struct request *request, bool (*has)(unsigned number, const void *argument), const void *argument);
void add_versions(struct request *request, long low, long high, int left); /* as on the wire: 0x0303 */

enum { OWN_CREDENTIALS = 8, MOST_OWN_FILES = 1 + 2 * OWN_CREDENTIALS };
struct own_files { /* that ride along */
    int descriptors[MOST_OWN_FILES], count;
};
int add_file(struct own_files *files, const void *data, size_t size); /* 0, or -1: errno and the words */
void drop_files(struct own_files *files);
void add_credential_counts(struct request *request, int count);

/* --- ask.c: the handshake by ssad --- */

struct reply_copy {
    size_t size;
    unsigned char data[];
};
struct told {
    struct reply_copy *info;  /* what ssad has said of the handshake, */
    struct reply_copy *chain; /*   and the peer's certificates, where they came with it */
};
enum shaken { SHAKEN, SHAKING_ON, SHAKEN_OFF };
struct exchange *exchange_for(int fd); /* with ssad, for as long as the socket waits. NULL: errno */
/* Have the handshake made by the request that was written. The exchange and the files end. SHAKEN_OFF: errno and the
 * words say why. */
enum shaken shake_by(struct exchange *exchange, int fd, struct own_files *files, struct told *told);
enum shaken shake_on(int fd, struct told *told); /* look whether it is done */
void end_at_once(int fd);                        /* of a connection that the program's own verification refuses */
void told_drop(struct told *told);
const struct reply_copy *told_chain(struct told *told, int fd); /* ssad is asked where it did not come. NULL: none */
const void *told_bytes(const struct told *told, int type, size_t *size);
void told_text(const struct told *told, int type, char *text, size_t room);
unsigned told_suite(const struct told *told);   /* IANA's number, or 0 */
unsigned told_version(const struct told *told); /* 0x0303, 0x0304 */
bool told_resumed(const struct told *told);

/* Ask ssad whether its policy leaves this to the program's own library. False: errno and the words are set. */
bool may_leave(const char *what);

bool words_say(const char *text, const char *reason); /* it begins with the words of this row of ssa/errors.py */

/* --- real.c: the program's TLS library --- */

/* It is not linked. It is found where the program has it: a program without it loads nothing. A library that was loaded
 * with RTLD_LOCAL (Python's, PHP's modules) is not in RTLD_NEXT's order, so it is asked for by its name. */
typedef void (*function)(void);
struct library {
    const char *name; /* NULL ends a list of them */
    _Atomic(void *) handle;
};
function find_function(struct library *libraries, const char *name); /* NULL: they have none */

/* A macro for REAL(name): `found` is a function that never returns NULL. */
#define REAL_BY(found, name)                                                                                           \
    ({                                                                                                                 \
        static _Atomic(function) found_;                                                                               \
        function at_ = atomic_load_explicit(&found_, memory_order_relaxed);                                            \
        if (!at_)                                                                                                      \
            atomic_store_explicit(&found_, at_ = found(#name), memory_order_relaxed);                                  \
        (__typeof__(&name))at_;                                                                                        \
    })

#define EXPORT __attribute__((visibility("default")))

#endif
