/* handshakes.c: a handshake that ssad makes: how it begins, what the program has meanwhile, and how it ends. */

#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { SLICE = 50 }; /* milliseconds between looks at the caller's signals */

static const char *const phases[] = {
    [LIVE] = "it is connected",
    [FRESH] = "it is not connected",
    [PLAIN] = "it is in plain text",
    [CONNECTING] = "its handshake is under way",
    [SHAKING] = "a call is at it",
    [LISTENING] = "it listens",
    [FAILED] = "its handshake has failed",
};

int unfit(struct connection *connection, int number, const char *what) {
    return fail(number, "%s: %s", what, phases[atomic_load(&connection->phase)]);
}

int failed(struct connection *connection) {
    struct guard guard = guard_enter(&connection->lock);
    copy_text(connection->words, sizeof connection->words, words(), WORDS_ROOM);
    guard_leave(&guard);
    return -1;
}

bool finish(struct connection *connection, int fd) {
    (void)fd;
    return finish_handshake((struct held *)connection); /* its first member */
}

/* --- the end of a handshake --- */

static void note_failure(struct held *held) {
    int number = errno;
    failed(&held->tls);
    atomic_store(&held->tls.failure, number);
    atomic_store(&held->tls.phase, FAILED);
    if (held->tls.beside >= 0 && tcp_state(held->tls.beside) != TCP_CLOSE)
        shutdown(held->tls.beside, SHUT_RDWR); /* an ssad that died did not */
}

static void note_success(struct held *held, const struct reply *reply) {
    int tcp = atomic_exchange(&held->tls.beside, -1);
    held->peer_size = sizeof held->peer;
    if (getpeername(tcp, (struct sockaddr *)&held->peer, &held->peer_size))
        held->peer_size = 0;
    held->local_size = sizeof held->local;
    if (getsockname(tcp, (struct sockaddr *)&held->local, &held->local_size))
        held->local_size = 0;
    close_quietly(tcp);
    note_info(&held->tls, reply);
    atomic_store(&held->tls.relayed, true);
    atomic_store(&held->tls.phase, LIVE);
}

/* TCP's own failures are the program's to say. */
static void speak_as_tcp(const struct exchange *exchange) {
    static const char *const reasons[] = {"CONNECTION_REFUSED", "CONNECT_TIMEOUT", "UNREACHABLE"};
    for (size_t at = 0; at < sizeof reasons / sizeof *reasons; at++)
        if (exchange->reply.size && exchange_says(exchange, reasons[at]))
            fail_plainly(errno);
}

static bool finish_now(struct held *held) {
    struct exchange *exchange = exchange_of(held->ssad);
    if (!exchange)
        return false;
    int done = exchange_hear(exchange, MSG_DONTWAIT);
    if (done && !exchange->reply.size && (errno == EAGAIN || errno == EINTR)) {
        exchange_forget(exchange);
        return false;
    }
    if (done) {
        speak_as_tcp(exchange);
        note_failure(held);
    } else {
        note_success(held, &exchange->reply);
    }
    held->ssad = -1;
    exchange_close(exchange);
    return true;
}

bool finish_handshake(struct held *held) {
    int before = errno;
    if (atomic_load(&held->tls.phase) != CONNECTING)
        return true;
    struct guard guard = guard_enter(&held->tls.lock);
    bool done = atomic_load(&held->tls.phase) != CONNECTING || finish_now(held);
    guard_leave(&guard);
    errno = before;
    return done;
}

/* The descriptor says that a handshake is over a moment before ssad's reply does: that moment is waited for. */
bool settle_handshake(struct held *held, int file) {
    for (int64_t end = now() + LOCAL; !finish_handshake(held) && wait_for(file, POLLOUT | POLLIN, 0) && now() < end;)
        if (held->ssad >= 0)
            wait_for(held->ssad, POLLIN, 1);
    return finish_handshake(held);
}

/* --- waiting --- */

bool is_interrupted(struct call *call) {
    if (!call_is_waiting(call)) {
        call->answered = true;
        return true;
    }
    enum interruption interruption = call_interruption(call);
    if (interruption == RESTARTED)
        answer_restart(call);
    else if (interruption == INTERRUPTED)
        answer(call, 0, EINTR);
    return call->answered;
}

static int copy_of_ssad(struct held *held) {
    struct guard guard = guard_enter(&held->tls.lock);
    int fd = held->ssad < 0 ? -1 : fcntl(held->ssad, F_DUPFD_CLOEXEC, 3);
    guard_leave(&guard);
    return fd;
}

static int tell_failure(struct held *held) {
    int failure = atomic_exchange(&held->tls.failure, 0);
    if (!failure)
        return 0;
    set_words(held->tls.words);
    errno = failure;
    return -1;
}

int wait_for_handshake(struct call *call, struct held *held, int patience) {
    int64_t end = patience == FOREVER ? INT64_MAX : now() + patience;
    int ssad = copy_of_ssad(held), done = 0;
    while (!done && !finish_handshake(held)) {
        wait_for(ssad, POLLIN, SLICE);
        if (finish_handshake(held))
            break;
        if (is_interrupted(call))
            done = 1;
        else if (now() > end)
            done = fail(EINPROGRESS, "the connection and its handshake are under way");
    }
    if (ssad >= 0)
        close_quietly(ssad);
    return done ? done : tell_failure(held);
}

/* --- the handshake --- */

static void carry_over(int from, int to, int name) {
    struct timeval interval = {0, 0};
    socklen_t size = sizeof interval;
    if (!getsockopt(from, SOL_SOCKET, name, &interval, &size) && (interval.tv_sec || interval.tv_usec))
        setsockopt(to, SOL_SOCKET, name, &interval, size);
}

struct replacement {
    struct call *call;
    struct held *held;
    int before, file, done;
};

static void replace_one(const struct call *call, int number, void *argument) {
    struct replacement *replacement = argument;
    if (put_descriptor(replacement->call, replacement->file, number, closes_on_exec(call, number)) < 0)
        replacement->done = -1;
    else
        epolls_follow(replacement->call, replacement->held, replacement->before, replacement->file, number);
}

/* Put another file on the call's number, as long as it has the file from before; and on each other number of it. */
int replace_on_numbers(struct call *call, struct held *held, int before, int file) {
    struct replacement replacement = {call, held, before, file, 0};
    int number = (int)call->arguments[0], there = fetch(call, number);
    bool same = there >= 0 && cookie_of(there) == cookie_of(before);
    if (there >= 0)
        close_quietly(there);
    if (!same)
        return fail(EBADF, "the descriptor was closed meanwhile");
    if (held->shared || number < (int)first_number)
        each_same(call, before, replace_one, &replacement);
    else
        replace_one(call, number, &replacement);
    return replacement.done;
}

static int write_request(struct held *held, struct exchange *exchange, const struct wish *wish, int *files) {
    bool client = wish->kind == KIND_CONNECT;
    request_begin(&exchange->request, wish->kind);
    if (client)
        request_text(&exchange->request, ATTRIBUTE_HOSTNAME, wish->hostname);
    request_number(&exchange->request, ATTRIBUTE_RELAY, 1);
    request_number(&exchange->request, ATTRIBUTE_EARLY, 1);
    if (wish->upgrade)
        request_number(&exchange->request, ATTRIBUTE_UPGRADE, 1);
    return settings_request(held->tls.settings, &exchange->request, client ? FOR_CLIENT : FOR_SERVER, files);
}

/* The first reply brings what the program reads and writes. */
static int take_pair(struct exchange *exchange) {
    if (exchange_check_descriptor(exchange, true))
        return -1;
    return exchange->reply.descriptors[--exchange->reply.count];
}

static int go_on_with(struct call *call, struct held *held, int file, struct exchange *exchange, int tcp, int pair) {
    struct timeval none = {0, 0};
    int beside = held->tls.beside >= 0 ? held->tls.beside : fcntl(tcp, F_DUPFD_CLOEXEC, 3);
    if (beside < 0)
        return fail_plainly(errno);
    atomic_store(&held->tls.beside, beside);
    held->paired = true;
    set_waiting(pair, does_wait(file));
    carry_over(file, pair, SO_RCVTIMEO);
    carry_over(file, pair, SO_SNDTIMEO);
    setsockopt(exchange->ssad, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    held->local_size = sizeof held->local;
    if (getsockname(beside, (struct sockaddr *)&held->local, &held->local_size))
        held->local_size = 0;
    return entry_move(held, pair) || replace_on_numbers(call, held, file, pair) ? -1 : 0;
}

int shake_early(struct call *call, struct held *held, int file, int tcp, struct exchange *exchange,
                const struct wish *wish) {
    int files[ALL_FILES];
    struct guard guard = guard_enter(&held->tls.lock);
    int count = write_request(held, exchange, wish, files);
    guard_leave(&guard);
    int pair = exchange_ask(exchange, tcp, files, count) ? -1 : take_pair(exchange);
    int done = pair < 0 ? -1 : go_on_with(call, held, file, exchange, tcp, pair), number = errno;
    if (pair >= 0)
        close_quietly(pair);
    if (done) {
        exchange_close(exchange);
        errno = number;
        return -1;
    }
    held->ssad = exchange->ssad;
    exchange_forget(exchange);
    atomic_store(&held->tls.phase, CONNECTING);
    entry_is_under_way();
    return 0;
}
