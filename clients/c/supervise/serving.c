/* serving.c: listen and accept. ssad makes the handshakes; what accept(2) gives is ready. */

#include "supervise.h"

#include "../destinations.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SLICE = 50, NEXT_LOOK = 200 }; /* milliseconds */

/* Have a listening socket served: the connection on which what is ready comes; -1: errno. */
static int serve(struct held *held, int tcp) {
    int files[ALL_FILES];
    struct timeval none = {0, 0};
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return -1;
    request_begin(&exchange->request, KIND_LISTEN);
    request_number(&exchange->request, ATTRIBUTE_BACKLOG, (uint32_t)held->tls.backlog);
    request_number(&exchange->request, ATTRIBUTE_RELAY, 1);
    struct guard guard = guard_enter(&held->tls.lock);
    int count = settings_request(held->tls.settings, &exchange->request, FOR_SERVER, files);
    guard_leave(&guard);
    if (exchange_ask(exchange, tcp, files, count)) {
        exchange_close(exchange);
        return -1;
    }
    int ssad = exchange->ssad;
    setsockopt(ssad, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    exchange_forget(exchange);
    return ssad;
}

/* Options of a listener that is being served are for the next one: the program is told so. */
int serve_on(struct connection *connection, int fd) {
    (void)connection, (void)fd;
    return fail(EOPNOTSUPP, "under `ssa run --seccomp` a listener's options are set before listen(2)");
}

/* --- listen(2) --- */

static int begin_to_serve(struct call *call, struct held *held, int file, int backlog) {
    int tcp = fcntl(file, F_DUPFD_CLOEXEC, 3);
    if (tcp < 0)
        return fail_plainly(errno);
    bool waits = does_wait(file); /* ssad has the same open file, and makes it one that does not */
    held->tls.backlog = backlog > 0 ? backlog : 0;
    int done = listen(tcp, backlog) ? fail_plainly(errno) : 0;
    int ssad = done ? -1 : serve(held, tcp);
    if (ssad >= 0) {
        set_waiting(ssad, waits);
        held->local_size = sizeof held->local;
        if (getsockname(tcp, (struct sockaddr *)&held->local, &held->local_size))
            held->local_size = 0;
        done = entry_move(held, ssad) || replace_on_numbers(call, held, file, ssad) ? -1 : 0;
    }
    if (done || ssad < 0) {
        int number = errno;
        shutdown(tcp, SHUT_RDWR); /* it listens no longer */
        close_quietly(tcp);
        if (ssad >= 0)
            close_quietly(ssad);
        errno = number;
        return failed(&held->tls);
    }
    close_quietly(ssad);
    atomic_store(&held->tls.beside, tcp);
    atomic_store(&held->tls.phase, LISTENING);
    return 0;
}

static enum destination destination_of_file(int file) {
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    struct endpoint at;
    bool known =
        !getsockname(file, (struct sockaddr *)&name, &size) && endpoint_of((struct sockaddr *)&name, size, &at);
    return destination_of_listener(known ? &at : NULL);
}

static void listen_in_a_thread(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    int done = has_own_rights(call) ? begin_to_serve(call, held, file, (int)call->arguments[1]) : -1;
    int number = errno;
    if (done)
        say(call, "listening");
    answer(call, 0, !done ? 0 : held->tls.transparent ? known_error(number) : number);
    close_quietly(file);
    entry_release(held);
}

void on_listen(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    int phase = atomic_load(&held->tls.phase);
    enum destination destination = phase == FRESH                                           ? BY_TLS
                                   : held->tls.transparent && destinations_have_listeners() ? destination_of_file(file)
                                                                                            : PLAINLY;
    if (phase == LISTENING)
        answer_last(call, listen(held->tls.beside, (int)call->arguments[1]));
    else if (destination == REFUSED)
        say(call, "listening"), answer(call, 0, EACCES);
    else if (destination == BY_TLS && (phase == FRESH || phase == PLAIN))
        in_a_thread(call, listen_in_a_thread);
    else
        let_go_on(call);
    close_quietly(file);
    entry_release(held);
}

/* --- accept(2) --- */

static void note_addresses(struct held *made, int tcp) {
    made->peer_size = made->local_size = sizeof made->peer;
    if (getpeername(tcp, (struct sockaddr *)&made->peer, &made->peer_size))
        made->peer_size = 0;
    if (getsockname(tcp, (struct sockaddr *)&made->local, &made->local_size))
        made->local_size = 0;
}

/* What came with a reply: the descriptor to read and write, and its TCP socket. */
static int give_connection(struct call *call, struct held *from, struct reply *reply) {
    int flags = call->number == SYS_accept4 ? (int)call->arguments[3] : 0;
    int file = fcntl(reply->descriptors[0], F_DUPFD_CLOEXEC, 3);
    struct held *made = file < 0 ? NULL : entry_new(file, LIVE, from->tls.family);
    if (!made) {
        if (file >= 0)
            close_quietly(file);
        return -1;
    }
    note_addresses(made, reply->descriptors[1]);
    note_info(&made->tls, reply);
    made->paired = true;
    made->tls.transparent = from->tls.transparent;
    atomic_store(&made->tls.server, true);
    atomic_store(&made->tls.relayed, true);
    set_waiting(file, !(flags & SOCK_NONBLOCK));
    int done = call->arguments[1]
                   ? answer_address(call, call->arguments[1], call->arguments[2], &made->peer, made->peer_size)
                   : 0;
    if (done)
        close_quietly(file);
    else
        answer_descriptor(call, file, first_number, 0, flags & SOCK_CLOEXEC);
    entry_release(made);
    return done;
}

/* Put another file on the listener's number, which is `*file` then. */
static int listen_on(struct call *call, struct held *held, int *file, int other) {
    set_waiting(other, does_wait(*file));
    if (entry_move(held, other) || replace_on_numbers(call, held, *file, other)) {
        close_quietly(other);
        return -1;
    }
    close_quietly(*file);
    *file = other;
    return 0;
}

/* ssad has gone: its successor goes on with what waits in TCP's queue. */
static int serve_again(struct call *call, struct held *held, int *file) {
    int ssad = serve(held, held->tls.beside);
    if (ssad < 0 || listen_on(call, held, file, ssad))
        return -1;
    atomic_store(&held->rests, false);
    return 0;
}

/* --- a program that knows no TLS, and polls its listener, while there is no ssad --- */

/* Nothing is readable until there is another ssad: a thread looks for it, and has the other end. It ends when the
 * program has its listener back, or is gone. */
static void *look_for_ssad(void *argument) {
    static const struct timespec interval = {0, NEXT_LOOK * 1000000};
    int bell = (int)(intptr_t)argument;
    while (!(wait_for(bell, 0, 0) & POLLHUP)) {
        struct exchange *exchange = exchange_open(0);
        if (exchange) {
            exchange_close(exchange);
            if (write(bell, "", 1) != 1)
                break;
        }
        nanosleep(&interval, NULL);
    }
    close_quietly(bell);
    return NULL;
}

static int start_looking(int bell) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, look_for_ssad, (void *)(intptr_t)bell))
        return fail_plainly(EAGAIN);
    pthread_detach(thread);
    return 0;
}

/* There was an ssad for a moment. */
static int rest_on(int file) {
    char byte;
    while (recv(file, &byte, 1, MSG_DONTWAIT) == 1)
        continue;
    return 0;
}

static int rest(struct call *call, struct held *held, int *file) {
    int pair[2];
    if (atomic_load(&held->rests))
        return rest_on(*file);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        return fail_plainly(errno);
    atomic_store(&held->rests, true);
    if (!listen_on(call, held, file, pair[0]) && !start_looking(pair[1]))
        return 0;
    atomic_store(&held->rests, false);
    close_quietly(pair[1]);
    return -1;
}

/* 1: nothing is there yet. */
static int take_one(struct call *call, struct held *held, int file) {
    if (atomic_load(&held->rests))
        return fail(EIO, "nobody serves this listener for now");
    struct exchange *exchange = exchange_of(file);
    if (!exchange)
        return -1;
    int done = exchange_hear(exchange, MSG_DONTWAIT);
    if (done && !exchange->reply.size && (errno == EAGAIN || errno == EINTR))
        done = 1;
    else if (!done && exchange->reply.count == MOST_DESCRIPTORS)
        done = give_connection(call, held, &exchange->reply);
    else if (!done)
        done = 1;
    exchange_forget(exchange);
    return done;
}

static int accept_or_wait(struct call *call, struct held *held, int *file) {
    bool waits = does_wait(*file);
    int64_t next_look = 0;
    if (find_free_number(call, first_number, 0) < 0) /* before a client is taken that has no room */
        return -1;
    for (;;) {
        int done = take_one(call, held, *file), number = errno;
        if (done == 0 || call->answered)
            return 0;
        if (atomic_load(&held->tls.write_ended))
            return fail(EINVAL, "the socket does not listen any more");
        if (done < 0 && number != EIO && number != ECONNRESET)
            return errno = number, -1;
        if (done < 0 && now() >= next_look) {
            if (!serve_again(call, held, file))
                continue;
            next_look = now() + NEXT_LOOK;
        }
        if (!waits)
            return done < 0 && (!held->tls.transparent || rest(call, held, file))
                       ? fail(ENOBUFS, "nobody serves this listener for now")
                       : fail_plainly(EAGAIN);
        if (done < 0) {
            static const struct timespec rest = {0, SLICE * 1000000};
            nanosleep(&rest, NULL);
        } else {
            wait_for(*file, POLLIN, SLICE);
        }
        if (is_interrupted(call))
            return 0;
    }
}

static void accept_in_a_thread(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    if (accept_or_wait(call, held, &file))
        answer_last(call, -1);
    close_quietly(file);
    entry_release(held);
}

void on_accept(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    if (atomic_load(&held->tls.phase) == LISTENING)
        in_a_thread(call, accept_in_a_thread);
    else
        let_go_on(call);
    close_quietly(file);
    entry_release(held);
}
