/* filter.c: which system calls stop, and wait for the supervisor. A table, and the program for the kernel made of it.
 *
 * The kernel knows which calls a filter allows whatever their arguments are, and does not run it for those (seccomp's
 * bitmaps, since Linux 5.11). For the others a comparison a row is made.
 */

#include "supervise.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#define X32              0x40000000 /* __X32_SYSCALL_BIT */
#elif defined(__aarch64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "ssa-supervise knows the system calls of x86-64 and of AArch64"
#endif

enum { MSG_FASTOPEN_FLAG = 0x20000000, DUP_TO = 0, DUP_TO_CLOEXEC = 1030, MPTCP = 262, LARGEST = 512 };
enum form { ANY, EQUAL, MASKED, IN_RANGE, INET };
enum action { NOTIFY, DENY };
enum when { ALWAYS, CLIENTS }; /* CLIENTS: for programs that know no TLS */

struct condition {
    enum form form;
    int argument;
    uint32_t value, more; /* MASKED: mask and value; IN_RANGE: from, and up to */
};
struct row {
    int call;
    enum when when;
    enum action action;
    int error;
    struct condition conditions[3];
};

/* Numbers are ints for the kernel: what is negative is above the range. */
#define TLS_NUMBER                                                                                                     \
    { IN_RANGE, 0, 0, 0 }
#define UDP_NUMBER                                                                                                     \
    { IN_RANGE, 0, 1, 0 }
#define ON_TLS(call)                                                                                                   \
    {                                                                                                                  \
        call, ALWAYS, NOTIFY, 0, {                                                                                     \
            TLS_NUMBER                                                                                                 \
        }                                                                                                              \
    }
#define ON_UDP(call)                                                                                                   \
    {                                                                                                                  \
        call, CLIENTS, NOTIFY, 0, {                                                                                    \
            UDP_NUMBER                                                                                                 \
        }                                                                                                              \
    }
#define NO_FAST_OPEN(call, flags)                                                                                      \
    {                                                                                                                  \
        call, CLIENTS, DENY, EOPNOTSUPP, {                                                                             \
            { MASKED, flags, MSG_FASTOPEN_FLAG, MSG_FASTOPEN_FLAG }                                                    \
        }                                                                                                              \
    }

static const struct row rows[] = {
    {SYS_socket, ALWAYS, NOTIFY, 0, {{EQUAL, 2, IPPROTO_TLS, 0}}},
    {SYS_socket, CLIENTS, DENY, EPROTONOSUPPORT, {{EQUAL, 2, MPTCP, 0}}},
    {SYS_socket, CLIENTS, NOTIFY, 0, {{INET, 0, 0, 0}, {MASKED, 1, 0xf, SOCK_STREAM}}},
    {SYS_socket, CLIENTS, NOTIFY, 0, {{INET, 0, 0, 0}, {MASKED, 1, 0xf, SOCK_DGRAM}}},
    {SYS_setsockopt, ALWAYS, NOTIFY, 0, {{EQUAL, 1, IPPROTO_TLS, 0}}},
    {SYS_setsockopt, CLIENTS, DENY, EOPNOTSUPP, {{EQUAL, 1, IPPROTO_TCP, 0}, {EQUAL, 2, TCP_FASTOPEN_CONNECT, 0}}},
    ON_TLS(SYS_setsockopt),
    {SYS_getsockopt, ALWAYS, NOTIFY, 0, {{EQUAL, 1, IPPROTO_TLS, 0}}},
    ON_TLS(SYS_getsockopt),
    ON_TLS(SYS_connect),
    {SYS_connect, CLIENTS, NOTIFY, 0, {{ANY, 0, 0, 0}}},
    ON_TLS(SYS_close),
    ON_TLS(SYS_shutdown),
    ON_TLS(SYS_listen),
    ON_TLS(SYS_accept),
    ON_TLS(SYS_accept4),
    ON_TLS(SYS_getsockname),
    ON_TLS(SYS_getpeername),
    {SYS_epoll_ctl, ALWAYS, NOTIFY, 0, {{EQUAL, 1, EPOLL_CTL_ADD, 0}, {IN_RANGE, 2, 0, 0}}},
    ON_TLS(SYS_dup),
#ifdef SYS_dup2
    ON_TLS(SYS_dup2),
#endif
    ON_TLS(SYS_dup3),
    {SYS_fcntl, ALWAYS, NOTIFY, 0, {TLS_NUMBER, {EQUAL, 1, DUP_TO, 0}}},
    {SYS_fcntl, ALWAYS, NOTIFY, 0, {TLS_NUMBER, {EQUAL, 1, DUP_TO_CLOEXEC, 0}}},
    NO_FAST_OPEN(SYS_sendto, 3),
    ON_UDP(SYS_sendto),
    NO_FAST_OPEN(SYS_sendmsg, 2),
    ON_UDP(SYS_sendmsg),
    NO_FAST_OPEN(SYS_sendmmsg, 3),
    ON_UDP(SYS_sendmmsg),
    ON_UDP(SYS_write),
    ON_UDP(SYS_writev),
    ON_UDP(SYS_read),
    ON_UDP(SYS_readv),
    ON_UDP(SYS_recvfrom),
    ON_UDP(SYS_recvmsg),
    {SYS_io_uring_setup, CLIENTS, DENY, ENOSYS, {{ANY, 0, 0, 0}}},
};
enum { ROWS = sizeof rows / sizeof *rows };

/* What a program of another architecture could make TCP connections with. By the numbers of i386, which is what a
 * 64-bit program reaches by int 0x80: socketcall, socket, connect, io_uring_setup. */
static const uint32_t foreign[] = {102, 359, 362, 425};

struct writer {
    struct sock_filter code[LARGEST];
    unsigned size, base;
    bool clients;
};

static void put(struct writer *to, uint16_t operation, uint32_t value, unsigned yes, unsigned no) {
    if (to->size < LARGEST)
        to->code[to->size] = (struct sock_filter){operation, (uint8_t)yes, (uint8_t)no, value};
    to->size++;
}

static void load(struct writer *to, size_t offset) {
    put(to, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void load_argument(struct writer *to, int number) { /* its lower half */
    load(to, offsetof(struct seccomp_data, args) + 8 * (size_t)number);
}

static void give_back(struct writer *to, uint32_t value) {
    put(to, BPF_RET | BPF_K, value, 0, 0);
}

enum { EQUALS = BPF_JMP | BPF_JEQ | BPF_K, AT_LEAST = BPF_JMP | BPF_JGE | BPF_K, GO = BPF_JMP | BPF_JA };

/* A condition: what fails jumps to a place that is not known yet, marked by a jump of 255. */
enum { FAILS = 255 };

static void put_condition(struct writer *to, const struct condition *condition) {
    unsigned from = condition->value ? to->base - WATCHED : to->base, end = condition->value ? to->base : 0x80000000;
    if (condition->form == ANY)
        return;
    load_argument(to, condition->argument);
    if (condition->form == EQUAL)
        put(to, EQUALS, condition->value, 0, FAILS);
    if (condition->form == INET) {
        put(to, EQUALS, AF_INET, 1, 0);
        put(to, EQUALS, AF_INET6, 0, FAILS);
    }
    if (condition->form == MASKED) {
        put(to, BPF_ALU | BPF_AND | BPF_K, condition->value, 0, 0);
        put(to, EQUALS, condition->more, 0, FAILS);
    }
    if (condition->form == IN_RANGE) {
        put(to, AT_LEAST, from, 0, FAILS);
        put(to, AT_LEAST, end, FAILS, 0);
    }
}

static void mend(struct writer *to, unsigned from) { /* what failed goes on here */
    for (unsigned at = from; at < to->size && at < LARGEST; at++) {
        struct sock_filter *step = &to->code[at];
        if (step->jf == FAILS)
            step->jf = (uint8_t)(to->size - at - 1);
        if (step->jt == FAILS)
            step->jt = (uint8_t)(to->size - at - 1);
    }
}

static void put_row(struct writer *to, const struct row *row) {
    unsigned from = to->size;
    for (int at = 0; at < 3; at++)
        if (row->conditions[at].form != ANY)
            put_condition(to, &row->conditions[at]);
    give_back(to, row->action == NOTIFY ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ERRNO | (uint32_t)row->error);
    mend(to, from);
}

/* All rows of a system call: behind them it is allowed. */
static void put_call(struct writer *to, int call) {
    unsigned from = to->size, used = 0;
    put(to, EQUALS, (uint32_t)call, 0, 0);
    for (int at = 0; at < ROWS; at++)
        if (rows[at].call == call && (rows[at].when == ALWAYS || to->clients))
            put_row(to, &rows[at]), used++;
    if (!used) {
        to->size = from;
        return;
    }
    give_back(to, SECCOMP_RET_ALLOW);
    to->code[from].jf = (uint8_t)(to->size - from - 1);
}

static bool is_first(int at) {
    for (int before = 0; before < at; before++)
        if (rows[before].call == rows[at].call)
            return false;
    return true;
}

static void put_architecture(struct writer *to) {
    load(to, offsetof(struct seccomp_data, arch));
    unsigned from = to->size;
    put(to, EQUALS, OUR_ARCHITECTURE, 0, 0); /* its jump is set below */
    load(to, offsetof(struct seccomp_data, nr));
    for (size_t at = 0; to->clients && at < sizeof foreign / sizeof *foreign; at++) {
        put(to, EQUALS, foreign[at], 0, 1);
        give_back(to, SECCOMP_RET_ERRNO | EACCES);
    }
    give_back(to, SECCOMP_RET_ALLOW);
    to->code[from].jt = (uint8_t)(to->size - from - 1);
    load(to, offsetof(struct seccomp_data, nr));
#ifdef X32
    put(to, AT_LEAST, X32, 0, 1);
    give_back(to, SECCOMP_RET_ERRNO | ENOSYS);
#endif
}

int filter_install(unsigned base, bool clients) {
    static struct writer to;
    to = (struct writer){.base = base, .clients = clients};
    put_architecture(&to);
    for (int at = 0; at < ROWS; at++)
        if (is_first(at))
            put_call(&to, rows[at].call);
    give_back(&to, SECCOMP_RET_ALLOW);
    if (to.size > LARGEST)
        return fail_plainly(E2BIG);
    struct sock_fprog program = {(unsigned short)to.size, to.code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return fail_plainly(errno);
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (fd < 0 && errno == EINVAL) /* before Linux 5.19 */
        fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return fd < 0 ? fail_plainly(errno) : (int)fd;
}
