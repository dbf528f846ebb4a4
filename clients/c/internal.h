/* internal.h: what the files of libssa share, and what a library on top of it can build on.
 *
 * Theory of operation. ssad makes the handshake on the application's own TCP socket, and from then on either the kernel
 * protects the records (kernel TLS) or ssad relays the stream: the descriptor is then one end of a socket pair, and the
 * TCP socket is kept at a number of its own (`beside`). libssa replaces those calls of libc that have to know of TLS.
 * Each looks its descriptor up in a table (descriptors.c); one that is not there goes on to libc at once.
 *
 * A connection is in a phase. Only in LIVE may a byte pass. While a connect(2) is under way, and as long as the socket
 * listens, the descriptor's number is the connection to ssad, whose readiness says what poll(2) has to say of it
 * (fdswap.c).
 *
 * Nothing here calls malloc(3): the calls that are async-signal-safe in POSIX are so here. What is to be changed as a
 * whole is changed with all signals blocked (`struct guard`).
 */
#ifndef SSA_INTERNAL_H
#define SSA_INTERNAL_H

#include "ssa.h"
#include "tables.h"
#include "transparent.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* --- next.c: libc's own functions, or those of the library that comes next --- */

#include "next.h"

/* --- locks.c --- */

/* A recursive lock that a signal handler may take: the word is the owner's thread id, so no moment has one without the
 * other. */
struct lock {
    _Atomic uint32_t word;
    uint32_t depth;
};
void lock_take(struct lock *lock);
bool lock_try(struct lock *lock);
void lock_release(struct lock *lock);
void lock_reset(struct lock *lock); /* in the child of a fork(2): whoever held it is not there */
void locks_after_fork(void);

/* All signals of this thread are blocked from guard_enter to guard_leave. */
struct guard {
    sigset_t before;
    struct lock *lock;
};
struct guard guard_enter(struct lock *lock);
void guard_leave(struct guard *guard); /* keeps errno */

/* --- errors.c --- */

/* Note why a call fails, for ssa_error(), set errno, and return -1. */
int fail(int number, const char *format, ...) __attribute__((format(printf, 2, 3)));
int fail_plainly(int number); /* with the system's words for it */
/* For a reason of ssad's: its name, its words, and the details of the case. */
int fail_for(const char *name, size_t size, int number, const char *text, const char *detail, size_t length);
enum { REASON_ROOM = 40 };
void set_words(const char *words);
const char *words(void);
void copy_text(char *to, size_t room, const char *text, size_t size); /* cut where it is too long, and one line */
const char *alert_name(int number);
int alert_number(const char *name);

/* A row of ssa/errors.py, or NULL. */
struct reason {
    const char *name;
    int number; /* errno */
    const char *text;
};
const struct reason *reason_named(const char *name, size_t size);

/* --- wire.c: the request language, docs/library.md --- */

struct request {
    size_t size;
    uint16_t count;
    bool too_long; /* an attribute had no room: such a request is not sent */
    unsigned char data[MAX_REQUEST];
};
enum { MOST_DESCRIPTORS = 2 }; /* that a reply carries: what is read and written, and its TCP socket */
struct reply {
    size_t size;
    int count;
    int descriptors[MOST_DESCRIPTORS];
    unsigned char data[MAX_REPLY];
};
void request_begin(struct request *request, int kind);
void request_bytes(struct request *request, int type, const void *value, size_t size);
void request_text(struct request *request, int type, const char *text);
void request_number(struct request *request, int type, uint32_t value);
void request_end(struct request *request); /* the header's count and length */
enum reading { READ_REPLY, READ_NOTHING, READ_OTHER_VERSION };
enum reading reply_read_untrusted(const unsigned char *data, size_t size);               /* a packet, with its header */
const void *attribute(const unsigned char *data, size_t size, int type, size_t *length); /* NULL: it lacks it */
uint32_t attribute_number(const unsigned char *data, size_t size, int type);             /* 0: it lacks it */

/* --- exchange.c: a request to ssad, and its reply --- */

/* One conversation: a connection to ssad, with room for the longest request and reply. */
struct exchange {
    int ssad;
    struct request request;
    struct reply reply;
};
enum { LOCAL = 5000, FOREVER = -1 }; /* milliseconds: for what ssad does at once, and waits for nobody */

/* Connect to ssad. NULL: errno and the words are set (ECONNREFUSED: none runs; ETIMEDOUT: it takes no request). */
struct exchange *exchange_open(int milliseconds);
struct exchange *exchange_of(int ssad);          /* of a connection that is there; NULL: ENOMEM */
void exchange_close(struct exchange *exchange);  /* keeps errno */
void exchange_forget(struct exchange *exchange); /* the connection lives on */
/* Send the request that was written, with a socket (-1: none) and files. 0 or -1. */
int exchange_tell(struct exchange *exchange, int sock, const int *files, int count);
/* Wait for the reply. 0: it was done. -1: errno and the words are set; a reply that says why it was not done has a
 * size. */
int exchange_hear(struct exchange *exchange, int flags);
int exchange_ask(struct exchange *exchange, int sock, const int *files, int count);
int exchange_check_descriptor(struct exchange *exchange, bool always); /* it has come; else -1: EIO */
void exchange_drop_descriptors(struct exchange *exchange);
bool exchange_says(const struct exchange *exchange, const char *reason); /* the reply's reason is this one */

/* --- settings.c: what a socket was told by its options --- */

enum { FORM_TEXT, FORM_NUMBER, FORM_FLAG, FORM_NAMES, FORM_FILES, FORM_VERSION };
enum { READ_NEVER, READ_ALWAYS, READ_CONNECTED };
struct option {
    int number;
    const char *name;
    int form;
    bool settable;
    int readable;
};
const struct option *option_numbered(int number);

enum { FILE_KINDS = 3, MOST_FILES = 16, MOST_NAMES = 64, LONGEST_NAME = 255 };
struct names {
    int count;
    uint32_t size;
    unsigned char data[MOST_NAMES * (1 + LONGEST_NAME)]; /* a length byte before each name (RFC 7301) */
};
struct settings { /* never changed once a connection has it */
    atomic_int holders;
    char hostname[256], server_name[256];
    bool has_number[TLS_UPGRADE + 1];
    uint32_t numbers[TLS_UPGRADE + 1]; /* by the option's number */
    int files[FILE_KINDS][MOST_FILES], file_counts[FILE_KINDS];
    struct names alpn, disabled;
};
struct settings *settings_changed(struct settings *before, const struct option *option, const void *value, size_t size);
struct settings *settings_with_hostname(struct settings *before, const char *hostname);
struct settings *settings_hold(struct settings *settings);
void settings_release(struct settings *settings); /* NULL is allowed */
enum { FOR_CLIENT, FOR_SERVER };
/* Write the options into a request; the files that ride along go to `files`. Their number. */
int settings_request(const struct settings *settings, struct request *request, int whom, int *files);
enum { ALL_FILES = FILE_KINDS * MOST_FILES };

/* --- descriptors.c: the table of descriptors --- */

enum phase { LIVE, FRESH, PLAIN, CONNECTING, SHAKING, LISTENING, FAILED, BROKEN, GATHERING };

enum { INFO_ROOM = 896, WORDS_ROOM = 512, MOST_SETS = 8, MOST_WAITING = 8 };
struct connection {      /* of one open file: dup(2)ed numbers share it */
    atomic_int users;    /* numbers in the table, and calls under way */
    atomic_int numbers;  /* numbers in the table */
    struct lock lock;    /* what has no _Atomic below */
    struct lock turn;    /* who sends: see keys.c */
    struct lock reading; /* who serves records that are no data */
    _Atomic int phase;
    _Atomic int beside; /* the TCP or UDP socket while the number is another file; -1: none */
    _Atomic bool relayed, rekeyable, read_ended, write_ended, answer_due;
    _Atomic int server;     /* 1: our role is the server's, 0: the client's, -1: not known */
    _Atomic int broken;     /* the errno that has ended the connection; 0: none */
    _Atomic int64_t budget; /* what may be sent before a look at the key, see keys.c; below 0: now */
    _Atomic int forks;      /* `fork_count` when it was made: an older one may be shared by processes */
    bool datagram;
    bool half;        /* a shutdown(2) of its writing leaves the FIN to close(2): see tls_end_half */
    bool transparent; /* of a program that knows no TLS: transparent.c */
    int family;
    _Atomic int failure;  /* errno of a connect that was under way, until SO_ERROR or connect(2) tells it; 0: none */
    _Atomic int looking;  /* the process of which a thread looks for another ssad for this listener; 0: none */
    atomic_bool on_timer; /* a listener's number is a timer, as no ssad serves it: listeners.c */
    int backlog;
    int connecting;  /* the process that has begun the connect that is under way */
    bool has_before; /* `settings_before` is what the settings were before this attempt to connect */
    uint64_t cookie; /* SO_COOKIE of the file on the number: it tells a number that is another file's by now */
    uint64_t beside_cookie;
    struct settings *settings, *settings_before; /* NULL: none was set; before the connect that is under way */
    struct {
        int epoll;
        uint32_t events;
        uint64_t data;
    } sets[MOST_SETS]; /* the epoll sets that watch the number */
    int set_count;
    bool find_sets;                           /* there may be others: /proc says which */
    int waiting[MOST_WAITING], waiting_count; /* numbers that are closed at the end of a turn */
    uint32_t skip;    /* bytes to come of a message in pieces that ssad could not take: control_records.c */
    uint32_t largest; /* bytes of a datagram */
    void *peers;      /* the clients of a socket that serves all of them: datagrams.c */
    size_t info_size;
    unsigned char info[INFO_ROOM]; /* the attributes of the reply to the handshake */
    char words[WORDS_ROOM];        /* TLS_ERROR */
    struct connection *next;       /* of the free ones */
};

enum { MOST_NUMBERS = 1 << 20, NUMBERS_A_PAGE = 1 << 10 };
typedef _Atomic(struct connection *) entry;
extern _Atomic(entry *) descriptor_pages[MOST_NUMBERS / NUMBERS_A_PAGE];
extern struct connection hidden; /* what the table has for a `beside`: no descriptor of the program's */

struct connection *connection_look(int fd); /* the entry alone: to compare */
struct connection *connection_get_slowly(entry *at);
void connection_put_last(struct connection *connection);

/* In a process of one thread only a signal handler can come in between: one instruction is enough, without a lock. */
static inline void count_user(struct connection *connection) {
#ifdef __x86_64__
    __asm__ volatile("incl %0" : "+m"(*(int *)&connection->users));
#else
    atomic_fetch_add(&connection->users, 1);
#endif
}
static inline bool uncount_user(struct connection *connection) { /* true: it was the last */
#ifdef __x86_64__
    bool last;
    __asm__ volatile("decl %0" : "+m"(*(int *)&connection->users), "=@ccz"(last));
    return last;
#else
    return atomic_fetch_sub(&connection->users, 1) == 1;
#endif
}

/* The connection of a descriptor, which stays valid until connection_put. NULL: it is none of ours. */
static inline struct connection *connection_get(int fd) {
    if ((unsigned)fd >= MOST_NUMBERS)
        return NULL;
    entry *page = atomic_load_explicit(&descriptor_pages[(unsigned)fd / NUMBERS_A_PAGE], memory_order_acquire);
    if (!page)
        return NULL;
    entry *at = &page[(unsigned)fd % NUMBERS_A_PAGE];
    struct connection *found = atomic_load_explicit(at, memory_order_acquire);
    if (!found || !__libc_single_threaded)
        return found ? connection_get_slowly(at) : NULL;
    count_user(found);
    return found;
}
static inline void connection_put(struct connection *connection) {
    if (__libc_single_threaded ? uncount_user(connection)
                               : atomic_fetch_sub_explicit(&connection->users, 1, memory_order_acq_rel) == 1)
        connection_put_last(connection);
}
struct connection *connection_new(int fd, int phase);        /* NULL: errno EMFILE, ENOMEM */
int connection_share(struct connection *connection, int fd); /* one more number has it. 0 or -1 */
bool connection_leave(int fd);  /* the number has it no more. True: no other number of this process has */
void connection_forget(int fd); /* what is on the number is another file by now */
int hide(int fd);               /* move a descriptor to a number that is out of the program's way; -1: EMFILE */
void drop_beside(struct connection *connection);
void unhide(int fd);      /* close it */
void move_hidden(int fd); /* the program wants the number */
int each_number(struct connection *connection, int (*act)(int fd, void *argument), void *argument);
int each_tls_number(int (*act)(int fd, void *argument), void *argument); /* of any connection, and hidden ones */
int next_hidden(unsigned from); /* the next descriptor of our own; -1: there is none */
void descriptors_after_fork(void);

/* --- sockets.c: small questions to the kernel --- */

int get_number(int fd, int level, int name, int fallback);
uint64_t cookie_of(int fd); /* SO_COOKIE; 0: it has none */
bool does_wait(int fd);     /* it has no O_NONBLOCK */
void set_waiting(int fd, bool waits);
bool will_close_on_exec(int fd);
int wait_for(int fd, int events, int milliseconds); /* poll(2), begun again after a signal; the events, 0, or -1 */
int64_t now(void);                                  /* milliseconds of a clock that only goes on */
int timeout_of(int fd, int name); /* SO_RCVTIMEO or SO_SNDTIMEO in milliseconds; FOREVER where there is none */
bool is_ours(struct connection *connection, int fd); /* the number is still that open file */
void close_quietly(int fd);                          /* keeps errno */

/* --- fdswap.c: another open file on a descriptor's number --- */

int swap(struct connection *connection, int fd, int other);       /* puts `other` there and closes it. 0 or -1 */
int put_beside(struct connection *connection, int fd, int other); /* the same; what was there goes to `beside` */
int take_back(struct connection *connection, int fd);             /* `beside` is on the number again */
void note_cookie(struct connection *connection, int fd);          /* which open file is on the number */
void note_epoll(struct connection *connection, int epoll, int operation, uint32_t events, uint64_t data);
/* Called for a descriptor that is none of ours, where a library on top of this one wants to know. */
extern void (*note_plain_epoll)(int epoll, int operation, int fd, uint32_t events, uint64_t data);

/* --- connection.c: connect, upgrade --- */

int tls_socket(int family, int type);
int tls_connect(struct connection *connection, int fd, const struct sockaddr *address, socklen_t size);
int tls_upgrade(struct connection *connection, int fd, int role);
bool finish(struct connection *connection, int fd); /* take note of a handshake that is done by now. True: it is */
int check_live(struct connection *connection, int fd, int flags); /* 0: bytes may pass. -1: errno */
int unfit(struct connection *connection, int number, const char *what);
int fail_again(struct connection *connection, int number); /* -1, with the words that TLS_ERROR has */
int failed(struct connection *connection);                 /* note errno and the words as TLS_ERROR; -1 */
int go_live(struct connection *connection, int fd, struct reply *reply);
/* Have the handshake made on a connected socket in PLAIN, by the request that was written. 0, or -1: EINPROGRESS and
 * EINTR where it goes on by itself. The exchange ends. */
int tls_shake(struct connection *connection, int fd, struct exchange *exchange, const int *files, int count);

/* --- replies.c --- */

void note_info(struct connection *connection, const struct reply *reply);
/* Called with the peer's certificates of a reply that has them, where a library on top of this one wants them. */
extern void (*note_chain)(const void *chain, size_t size);

/* --- listeners.c --- */

int tls_listen(struct connection *connection, int fd, int backlog);
int tls_accept(struct connection *connection, int fd, struct sockaddr *address, socklen_t *size, int flags);
int serve_on(struct connection *connection, int fd);

/* --- options.c --- */

int set_option(struct connection *connection, int fd, int name, const void *value, socklen_t size);
int get_option(struct connection *connection, int fd, int name, void *value, socklen_t *size);
size_t der_length_untrusted(const unsigned char *data, size_t size); /* of the certificate there; 0: there is none */

/* --- records.c: the records of kernel TLS that are no data --- */

enum { RECORD_ALERT = 21, RECORD_HANDSHAKE = 22, RECORD_DATA = 23, LONGEST_RECORD = 1 << 14 };
ssize_t record_read(int fd, void *data, size_t size, int flags, int *type);
ssize_t record_look(int fd, void *data, size_t size, int *type); /* it stays; of data the first byte only */
int tls_version(int fd);                                         /* 0x0304; -1: errno */
int send_alert(int fd, int level, int number, int flags);
int say_close_notify(int fd, int patience); /* and the FIN. 0 or -1 */
void say_goodbye(int fd);                   /* the same; where there is no room for it, ssad does it */
void end_in_order(int fd, bool says_goodbye);
void fail_connection(int fd, int alert, bool unreadable); /* alert -1: none */
bool does_abort(int fd);                                  /* SO_LINGER with 0 seconds */
int tcp_state(int fd);
bool was_connected(int fd);
int64_t records_left(int fd); /* under the key; -1: errno */
void read_on(int fd);

/* --- control_records.c: what is done about them --- */

enum served { GO_ON, PASSED, END, ANSWER, MORE, SERVE_FAILED };
enum served serve_control_untrusted(struct connection *connection, int fd, bool unfinished);
enum served look_behind_untrusted(struct connection *connection, int fd);
int break_connection(struct connection *connection, int fd, int number, int alert, const char *words); /* -1 */
bool is_unreadable(int number, int *alert, const char **words);

/* --- keys.c: how long a key serves, and who sends --- */

enum { STRIDE = 1 << 10, PART = 1 << 20 };
#define ENDLESS (INT64_C(1) << 62)
struct turn {
    bool threads, processes;
    int cancel_state; /* a thread that holds the lock is not cancelled in the middle (pthread_cancel(3)) */
};
struct turn turn_begin(struct connection *connection, int fd);
void turn_end(struct connection *connection, int fd, struct turn turn); /* keeps errno */
int change_keys(struct connection *connection, int fd, bool waits);     /* 0 or -1 */
bool close_in_turn(struct connection *connection, int fd); /* true: another thread sends, and closes it behind that */
int end_writing_error(int flags);                          /* EPIPE, with SIGPIPE; -1 */

/* --- stream.c: reading and writing --- */

ssize_t stream_read(struct connection *connection, int fd, const struct iovec *parts, int count, int flags);
ssize_t stream_read_on(struct connection *connection, int fd, const struct iovec *parts, int count, int flags,
                       ssize_t got);
ssize_t stream_written(struct connection *connection, int fd, const struct iovec *parts, int count, ssize_t sent);
ssize_t stream_write(struct connection *connection, int fd, const struct iovec *parts, int count, int flags);
ssize_t stream_splice(struct connection *connection, int in, off_t *offset, int fd, size_t size, unsigned flags);
ssize_t stream_sendfile(struct connection *connection, int fd, int in, off_t *offset, size_t count);

/* --- relay.c --- */

int relay_check_end(struct connection *connection, int fd); /* 0: in order. -1: errno */
int relay_write_failure(struct connection *connection, int fd);
void relay_end_writing(int fd);
void relay_end_half(int fd); /* the FIN comes when the descriptor is closed */
void relay_abort(int fd);

/* --- datagrams.c: DTLS --- */

void datagram_disconnect(int fd);
int datagram_prepare_listener(int fd);
ssize_t datagram_read(struct connection *connection, int fd, struct msghdr *message, int flags);
ssize_t datagram_write(struct connection *connection, int fd, const struct msghdr *message, int flags);
int datagram_address(struct connection *connection, int type, struct sockaddr *address, socklen_t *size);
void datagram_release(struct connection *connection);

/* --- ending.c --- */

int tls_shutdown(struct connection *connection, int fd, int how);
void tls_end_half(struct connection *connection, int fd); /* close_notify alone: the FIN comes with close(2) */
int tls_close(int fd);

/* --- process.c --- */

extern atomic_int fork_count;
bool is_own_process(void); /* false in the child of a vfork(2), whose memory is the parent's */
bool is_held_elsewhere(struct connection *connection, int fd); /* another process has the socket too */
const char *run_directory(void);
/* Call `act` for each name in a directory until it returns true. */
bool any_name(const char *path, bool (*act)(const char *name, void *argument), void *argument);
void adopt_inherited(void);
struct connection *adopt(int fd); /* a TLS descriptor that came from elsewhere; NULL: it is none */

#endif
