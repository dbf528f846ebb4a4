/* supervise.h: what the files of ssa-supervise share.
 *
 * Theory of operation. ssa-supervise has a seccomp filter installed (filter.c), becomes the program, and leaves a
 * process behind, the supervisor. A system call that concerns a TLS socket stops in the kernel, and the supervisor says
 * what becomes of it (seccomp_unotify(2)). Whatever else the program does costs the filter alone.
 *
 * A TLS socket has a number from `base` on, and so the filter knows it. What the number has on it goes with the phase:
 *
 *     FRESH, PLAIN         the TCP socket
 *     CONNECTING, LIVE     one end of the pair that ssad relays. Nobody traps reads and writes, so the records are
 * never the program's: and the descriptor comes before the handshake (`early`, docs/library.md), as nobody can put
 * another file on the number while the program polls it LISTENING            the connection to ssad on which what is
 * ready comes
 *
 * State is kept by open file (SO_COOKIE), not by number: a number can be another file's by the time that a call is
 * looked at, dup(2) and fork(2) are no concern then, and what is looked up is the file that was fetched from the
 * program (pidfd_getfd(2)), once. Memory is copied once, too. What the program does to a number meanwhile is its own.
 *
 * The main thread takes all calls. One that may wait, or asks ssad, is served by a thread of its own (threads.c).
 */
#ifndef SSA_SUPERVISE_H
#define SSA_SUPERVISE_H

#include "../internal.h"
#include "../names.h"

#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* --- filter.c --- */

enum { FIRST_TLS = 512, WATCHED = 128 };         /* numbers of TLS sockets; how many are below them for UDP */
int filter_install(unsigned base, bool clients); /* the listener, or -1 */

/* --- tasks.c: the program's processes --- */

struct process {
    atomic_int users;
    pid_t pid;
    int handle;            /* pidfd */
    _Atomic unsigned hint; /* the lowest number that may be free for a TLS socket */
    struct process *next;
};

struct call { /* a system call that waits for us */
    uint64_t id;
    pid_t thread;
    int number;
    uint64_t arguments[6];
    struct process *process; /* NULL: not looked up yet */
    bool answered;
};

extern int listener;          /* where calls come from */
extern unsigned first_number; /* of TLS sockets */
extern bool watches_clients;  /* a program that knows no TLS: its TCP and UDP sockets are ours to look at */

bool call_is_waiting(const struct call *call);
int call_process(struct call *call); /* 0, or -1: errno */
void process_release(struct process *process);
void process_ended(int handle);
void supervise_watch(int handle);     /* main.c: process_ended is called when it has */
int fetch(struct call *call, int fd); /* a descriptor for the open file that is on the program's number; -1: errno */
int memory_read(const struct call *call, uint64_t at, void *data, size_t size);
size_t memory_read_some(const struct call *call, uint64_t at, void *data, size_t size);
int memory_write(const struct call *call, uint64_t at, const void *data, size_t size);
bool has_own_rights(const struct call *call); /* those of the supervisor: user, group, capabilities */
bool has_own_network(const struct call *call);
int open_for(const struct call *call, const char *path); /* a file that the program names; -1: errno */
enum interruption { GO_ON_WAITING, INTERRUPTED, RESTARTED } call_interruption(const struct call *call);
bool closes_on_exec(const struct call *call, int fd);
int find_free_number(struct call *call, unsigned from, unsigned to);
/* Call `act` for each number of the calling process that has that open file. */
void each_same(const struct call *call, int file, void (*act)(const struct call *, int number, void *), void *argument);

/* --- answers.c --- */

void answer(struct call *call, int64_t value, int error); /* error: 0 or an errno */
void answer_last(struct call *call, int done);            /* 0; or -1: errno */
void answer_restart(struct call *call);
void let_go_on(struct call *call); /* the kernel does what was asked for */
int put_descriptor(struct call *call, int file, int number, bool cloexec);
/* The call's result is a new number of the program's for the file, which is closed here. Between `from` and `to` (0: no
 * end) if there is room. */
void answer_descriptor(struct call *call, int file, unsigned from, unsigned to, bool cloexec);

/* --- entries.c: open files that are TLS sockets, or may become some --- */

enum { ASKED = 16 };
struct held {
    struct connection tls; /* its phase, settings and words; `beside` as in `internal.h` */
    int ssad;              /* while CONNECTING: where the reply comes; -1 */
    bool shared;           /* it was dup(2)ed before it was connected */
    atomic_bool rests;     /* a listener that no ssad serves: its number has one end of a pair, see serving.c */
    bool paired;           /* what the program has is one end of a pair that is, or was, relayed */
    bool datagram;         /* UDP, whose answers of the DNS are read along */
    struct sockaddr_storage local, peer;
    socklen_t local_size, peer_size;
    struct asked {
        uint16_t id;
        char name[NAME_ROOM];
    } asked[ASKED]; /* of the DNS */
    unsigned asked_count;
    uint64_t number; /* of this entry */
    struct held *next;
};
struct held *entry_new(int file, int phase, int family); /* NULL: errno */
struct held *entry_of(int file);                         /* NULL: none; else until entry_release */
void entry_release(struct held *held);                   /* NULL is allowed */
int entry_move(struct held *held, int file);             /* the state goes on with another open file */
void entries_sweep(void);                                /* forget those whose file nobody holds */
void entry_is_under_way(void);
bool entries_wait(void); /* there are some whose handshake is under way */

/* --- sockets --- */

void on_socket(struct call *call);
void on_connect(struct call *call);
void on_close(struct call *call);
void on_shutdown(struct call *call);
void on_listen(struct call *call);
void on_accept(struct call *call);
void on_get_option(struct call *call);
void on_set_option(struct call *call);
void on_name(struct call *call); /* getsockname, getpeername */
void on_dup(struct call *call);
void on_epoll(struct call *call);
/* Sets that watch the number go on watching it, with `file` on it. */
void epolls_follow(struct call *call, struct held *held, int before, int file, int number);
void on_datagram_out(struct call *call);
void on_datagram_in(struct call *call);

struct held *entry_of_call(struct call *call, int *file); /* of its first argument. NULL: it was answered */
bool is_interrupted(struct call *call);                   /* the caller has a signal, or is dead: and it was answered */
int answer_address(struct call *call, uint64_t at, uint64_t size_at, const struct sockaddr_storage *address,
                   socklen_t size);
bool finish_handshake(struct held *held);           /* take note of one that is done by now. True: it is */
bool settle_handshake(struct held *held, int file); /* the same, once poll(2) may have told the program; it may wait */
/* Have ssad make the handshake on a TCP socket, and put what it relays in the place of `file`. The exchange ends. 0 or
 * -1.
 */
struct wish {
    int kind;
    const char *hostname;
    bool upgrade;
};
int shake_early(struct call *call, struct held *held, int file, int tcp, struct exchange *exchange,
                const struct wish *wish);
/* Wait for that. 0; -1: errno; 1: the call was answered. */
int wait_for_handshake(struct call *call, struct held *held, int patience);
int replace_on_numbers(struct call *call, struct held *held, int before, int file);
int ask_for_tcp(int file); /* the TCP socket of a relayed stream; -1 */
bool is_tcp(int file);

/* --- hosts.c, dns.c --- */

void hosts_remember(const struct call *call, const struct endpoint *to);
void dns_question_untrusted(struct held *held, const unsigned char *data, size_t size);
void dns_answer_untrusted(struct held *held, const unsigned char *data, size_t size);

/* --- saying.c --- */

struct stat;
void saying_begin(const struct stat *errors, bool quiet);
void say(const struct call *call, const char *about);

/* --- threads.c --- */

void in_a_thread(struct call *call, void (*serve)(struct call *call));

#endif
