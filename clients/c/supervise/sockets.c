/* sockets.c: socket, close, shutdown, dup, getsockname, getpeername. */

#include "supervise.h"

#include "../destinations.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct held *entry_of_call(struct call *call, int *file) {
    *file = fetch(call, (int)call->arguments[0]);
    if (*file < 0) {
        if (errno == EBADF)
            let_go_on(call); /* the kernel says so */
        else
            answer_last(call, -1);
        return NULL;
    }
    struct held *held = entry_of(*file);
    if (held)
        return held;
    close_quietly(*file);
    let_go_on(call);
    return NULL;
}

static void let_go(struct held *held, int file) {
    close_quietly(file);
    entry_release(held);
}

bool is_tcp(int file) {
    int family = get_number(file, SOL_SOCKET, SO_DOMAIN, 0);
    return (family == AF_INET || family == AF_INET6) && get_number(file, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP;
}

/* --- socket(2) --- */

enum { KIND = 0xf };

static int check_kind(int family, int kind) {
    if (family == AF_HOSTNAME)
        return fail(EAFNOSUPPORT, "AF_HOSTNAME is of addresses: connect(2) takes one on any TLS socket");
    if (family != AF_INET && family != AF_INET6)
        return fail(EAFNOSUPPORT, "TLS runs over AF_INET and AF_INET6");
    if (kind == SOCK_DGRAM)
        return fail(EPROTONOSUPPORT, "DTLS is not for programs under `ssa run --seccomp`: libssa has it");
    return kind == SOCK_STREAM ? 0 : fail(EPROTONOSUPPORT, "TLS runs over SOCK_STREAM");
}

/* A socket of the supervisor's, which is the program's as soon as it is there. */
static void give_socket(struct call *call, int phase, int protocol) {
    int family = (int)call->arguments[0], type = (int)call->arguments[1];
    bool datagram = (type & KIND) == SOCK_DGRAM;
    int file = socket(family, type | SOCK_CLOEXEC, protocol);
    struct held *held = file < 0 ? NULL : entry_new(file, phase, family);
    if (!held) {
        int number = errno;
        if (file >= 0)
            close_quietly(file);
        answer(call, 0, number);
        return;
    }
    held->tls.transparent = phase == PLAIN;
    held->datagram = datagram;
    answer_descriptor(call, file, datagram ? first_number - WATCHED : first_number, datagram ? first_number : 0,
                      type & SOCK_CLOEXEC);
    entry_release(held);
}

static void refuse_socket(struct call *call) {
    say(call, "socket");
    answer_last(call, -1);
}

void on_socket(struct call *call) {
    int family = (int)call->arguments[0], kind = (int)call->arguments[1] & KIND, protocol = (int)call->arguments[2];
    int usual = kind == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
    bool own = !call_process(call) && has_own_network(call);
    if (protocol == IPPROTO_TLS && (!own || check_kind(family, kind)))
        refuse_socket(call);
    else if (protocol == IPPROTO_TLS)
        give_socket(call, FRESH, IPPROTO_TCP);
    else if ((protocol && protocol != usual) || (!own && kind == SOCK_DGRAM))
        let_go_on(call);
    else if (!own)
        refuse_socket(call);
    else
        give_socket(call, PLAIN, usual);
}

/* --- close(2), shutdown(2) --- */

/* A stream that was cut looks to plain reads as one that has ended: so it is said at last. */
static void look_at_end(struct call *call, struct held *held, struct exchange *exchange, int file) {
    static const char cut[] = "truncated";
    size_t size = 0;
    request_begin(&exchange->request, KIND_DESCRIBE);
    if (exchange_ask(exchange, file, NULL, 0))
        return;
    const char *ended = attribute(exchange->reply.data, exchange->reply.size, ATTRIBUTE_ENDED, &size);
    exchange_drop_descriptors(exchange);
    if (!ended || size != sizeof cut - 1 || memcmp(ended, cut, size))
        return;
    fail(ECONNABORTED, "the connection was cut: its end came without TLS's close_notify");
    say(call, held->tls.settings && *held->tls.settings->hostname ? held->tls.settings->hostname : "a connection");
}

/* ssad ends a relayed stream in order when its last holder closes it, once somebody has said that it is no crash. */
static void say_end(struct call *call, struct held *held, int file, bool last) {
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return;
    request_begin(&exchange->request, KIND_CLOSE);
    if (!exchange_ask(exchange, file, NULL, 0) && last)
        look_at_end(call, held, exchange, file);
    exchange_close(exchange);
}

static bool is_live(struct held *held) {
    return held->paired && atomic_load(&held->tls.phase) == LIVE;
}

static void close_live(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    settle_handshake(held, file);
    if (is_live(held))
        say_end(call, held, file, true);
    let_go(held, file);
    let_go_on(call);
}

void on_close(struct call *call) {
    int file;
    unsigned number = (unsigned)call->arguments[0];
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    bool ends = !finish_handshake(held) || is_live(held);
    let_go(held, file);
    if (number < call->process->hint)
        call->process->hint = number;
    if (ends)
        in_a_thread(call, close_live);
    else
        let_go_on(call);
}

static int shut_down(struct call *call, struct held *held, int file, int how) {
    int beside = atomic_load(&held->tls.beside);
    if (how != SHUT_RD && !atomic_exchange(&held->tls.write_ended, true)) {
        shutdown(file, SHUT_WR);
        if (atomic_load(&held->tls.phase) == LIVE)
            say_end(call, held, file, false);
    }
    if (how != SHUT_WR)
        shutdown(file, SHUT_RD);
    if (beside >= 0)
        shutdown(beside, how);
    return 0;
}

static void shut_down_live(struct call *call) {
    int file, how = (int)call->arguments[1];
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    int done = how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR ? fail_plainly(EINVAL)
               : settle_handshake(held, file)                       ? shut_down(call, held, file, how)
                                                                    : fail_plainly(ENOTCONN);
    int number = errno;
    let_go(held, file);
    answer(call, 0, done ? number : 0);
}

void on_shutdown(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    bool plain = !held->paired && atomic_load(&held->tls.phase) != LISTENING;
    let_go(held, file);
    if (plain)
        let_go_on(call);
    else
        in_a_thread(call, shut_down_live);
}

/* --- dup(2) and its like --- */

void on_dup(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    held->shared = true; /* before it goes on */
    let_go(held, file);
    let_go_on(call);
}

/* --- getsockname(2), getpeername(2) --- */

int answer_address(struct call *call, uint64_t at, uint64_t size_at, const struct sockaddr_storage *address,
                   socklen_t size) {
    int32_t room, all = (int32_t)size;
    if (memory_read(call, size_at, &room, sizeof room))
        return -1;
    if (room < 0)
        return fail_plainly(EINVAL);
    return memory_write(call, at, address, room < all ? (size_t)room : (size_t)all) ||
                   memory_write(call, size_at, &all, sizeof all)
               ? -1
               : 0;
}

static void answer_name(struct call *call, struct held *held) {
    int phase = atomic_load(&held->tls.phase);
    bool peer = call->number == SYS_getpeername;
    if (!held->paired && phase != LISTENING)
        let_go_on(call);
    else if (peer && phase != LIVE)
        answer(call, 0, ENOTCONN);
    else
        answer_last(call, answer_address(call, call->arguments[1], call->arguments[2],
                                         peer ? &held->peer : &held->local, peer ? held->peer_size : held->local_size));
}

static void answer_name_in_a_thread(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    settle_handshake(held, file);
    answer_name(call, held);
    let_go(held, file);
}

void on_name(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    if (finish_handshake(held))
        answer_name(call, held);
    else
        in_a_thread(call, answer_name_in_a_thread);
    let_go(held, file);
}
