/* listeners.c: listen(2) and accept(2). ssad makes the handshakes; what accept(2) gives is ready.
 *
 * The listener's number is the connection to ssad, on which each packet is a connection that is ready; the listening
 * TCP socket is `beside`. A listener outlives the ssad: its successor goes on with what waits in TCP's queue.
 */

#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Have a listening socket served: the connection on which what is ready comes; -1: errno. */
static int serve(struct connection *connection, int listener) {
    int files[ALL_FILES];
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return -1;
    struct guard guard = guard_enter(&connection->lock);
    struct settings *settings = settings_hold(connection->settings);
    guard_leave(&guard);
    request_begin(&exchange->request, KIND_LISTEN);
    request_number(&exchange->request, ATTRIBUTE_BACKLOG, (uint32_t)connection->backlog);
    int count = settings_request(settings, &exchange->request, FOR_SERVER, files);
    int done = exchange_ask(exchange, listener, files, count), ssad = exchange->ssad, number = errno;
    settings_release(settings);
    errno = number;
    if (done) {
        exchange_close(exchange);
        return -1;
    }
    struct timeval none = {0, 0};
    syscall(SYS_setsockopt, ssad, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    exchange_forget(exchange);
    return ssad;
}

static int listen_first(struct connection *connection, int fd, int backlog) {
    if (connection->datagram ? datagram_prepare_listener(fd) : NEXT(listen)(fd, backlog))
        return fail_plainly(errno);
    connection->backlog = backlog > 0 ? backlog : connection->datagram ? 1 : 0;
    bool waits = does_wait(fd); /* ssad has the same open file, and makes it one that does not */
    int ssad = serve(connection, fd);
    if (ssad < 0 || put_beside(connection, fd, ssad)) {
        int number = errno;
        if (ssad >= 0)
            close_quietly(ssad);
        if (!connection->datagram)
            syscall(SYS_shutdown, fd, SHUT_RDWR); /* it listens no longer */
        errno = number;
        return failed(connection);
    }
    set_waiting(fd, waits);
    atomic_store(&connection->phase, LISTENING);
    return 0;
}

int tls_listen(struct connection *connection, int fd, int backlog) {
    int phase = atomic_load(&connection->phase), beside = atomic_load(&connection->beside);
    if (phase == PLAIN)
        return NEXT(listen)(fd, backlog);
    if (phase == LISTENING && beside >= 0)
        return connection->datagram ? 0 : (int)syscall(SYS_listen, beside, backlog);
    if (phase != FRESH)
        return unfit(connection, EINVAL, "the socket cannot listen");
    return listen_first(connection, fd, backlog);
}

/* --- another ssad --- */

enum { NEXT_LOOK = 200 * 1000000, REST = 50 * 1000000 }; /* nanoseconds */

/* While nobody serves a listener, its number is a timer. So it becomes readable, and a read of it returns, when it is
 * time to look for another ssad, and until then the program rests, whatever it does at an error of accept(2). The timer
 * goes on and on: each of several threads that wait for it is woken. */
static int put_timer(struct connection *connection, int fd) {
    static const struct itimerspec when = {{0, NEXT_LOOK}, {0, NEXT_LOOK}};
    if (!atomic_load(&connection->on_timer)) {
        int timer = (int)syscall(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC);
        if (timer < 0)
            return -1;
        if (swap(connection, fd, timer)) {
            close_quietly(timer);
            return -1;
        }
        atomic_store(&connection->on_timer, true);
    }
    return (int)syscall(SYS_timerfd_settime, fd, 0, &when, NULL);
}

/* EAGAIN: there is none yet. What a successor refuses is told to a program that knows of ssa. */
static int look_for_another(struct connection *connection, int fd, int beside) {
    int ssad = serve(connection, beside), number = errno;
    if (ssad >= 0 && !swap(connection, fd, ssad)) {
        atomic_store(&connection->on_timer, false);
        return 0;
    }
    if (ssad >= 0) {
        number = errno;
        close_quietly(ssad);
    }
    errno = number;
    failed(connection);
    if (put_timer(connection, fd)) /* no descriptor is left: the number stays readable, and event loops rest at this */
        number = ENOBUFS;
    else if (connection->transparent || number == ECONNREFUSED || number == ETIMEDOUT)
        number = EAGAIN;
    return fail(number, "nobody serves this listener for now: %s", words());
}

/* ssad has gone: have its successor go on. One thread of the process looks for it; the mark of a thread that was in
 * another process does not count, as its fork(2) may have come between. */
static int serve_again(struct connection *connection, int fd) {
    int beside = atomic_load(&connection->beside), self = getpid(), looking = atomic_load(&connection->looking);
    if (beside < 0)
        return fail(EIO, "ssad went away; the process that made this listener can go on with another one");
    if (looking == self || !atomic_compare_exchange_strong(&connection->looking, &looking, self))
        return fail(EAGAIN, "nobody serves this listener for now: another thread looks for an ssad");
    int done = look_for_another(connection, fd, beside), number = errno;
    atomic_store(&connection->looking, 0);
    errno = number;
    return done;
}

/* Have a listener that is being served go on with the options as they are now. Nobody holds the other end of the pipe
 * any more when ssad has taken them. */
int serve_on(struct connection *connection, int fd) {
    int ends[2], files[1 + ALL_FILES];
    if (syscall(SYS_pipe2, ends, 02000000 /* O_CLOEXEC */))
        return fail_plainly(errno);
    struct exchange *exchange = exchange_of(fd);
    if (!exchange)
        return -1;
    request_begin(&exchange->request, KIND_LISTEN);
    files[0] = ends[1];
    struct guard guard = guard_enter(&connection->lock);
    struct settings *settings = settings_hold(connection->settings);
    guard_leave(&guard);
    int count = 1 + settings_request(settings, &exchange->request, FOR_SERVER, files + 1);
    int done = exchange_tell(exchange, -1, files, count), number = errno;
    settings_release(settings);
    exchange_forget(exchange);
    close_quietly(ends[1]);
    if (!done && !wait_for(ends[0], 0, LOCAL))
        done = fail(ETIMEDOUT, "the ssad that serves this listener does not answer; is it stopped?");
    else if (done && (number == ECONNRESET || number == EPIPE || number == ENOTCONN))
        done = serve_again(connection, fd); /* another one has just agreed */
    close_quietly(ends[0]);
    return done;
}

/* --- accept(2) --- */

/* The peer's address; the kernel forgets it when the peer has gone, and ssad has said it. */
static void told_address(struct connection *connection, struct sockaddr_storage *peer, socklen_t *size) {
    char text[80];
    size_t length = 0;
    const char *told = attribute(connection->info, connection->info_size, ATTRIBUTE_REMOTE, &length);
    copy_text(text, sizeof text, told ? told : " 0", told ? length : 2);
    char *space = strchr(text, ' ');
    in_port_t port = htons((in_port_t)(space ? atoi(space + 1) : 0));
    if (space)
        *space = 0;
    memset(peer, 0, sizeof *peer);
    peer->ss_family = (sa_family_t)connection->family;
    if (connection->family == AF_INET6) {
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)peer;
        six->sin6_port = port;
        inet_pton(AF_INET6, text, &six->sin6_addr);
        *size = sizeof *six;
    } else {
        struct sockaddr_in *four = (struct sockaddr_in *)peer;
        four->sin_port = port;
        inet_pton(AF_INET, text, &four->sin_addr);
        *size = sizeof *four;
    }
}

static void give_address(struct connection *made, int fd, struct sockaddr *address, socklen_t *size) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int beside = atomic_load(&made->beside);
    if (!address || !size)
        return;
    if (made->datagram) {
        datagram_address(made, ATTRIBUTE_PEER, address, size);
        return;
    }
    if (syscall(SYS_getpeername, beside >= 0 ? beside : fd, &peer, &length))
        told_address(made, &peer, &length);
    memcpy(address, &peer, length < *size ? length : *size);
    *size = length;
}

/* Make a connection of what came with a reply: the descriptor to read and write, and a relayed one's TCP socket. */
static int take_up(struct connection *listener, struct reply *reply, int flags, struct connection **made) {
    int fd = reply->descriptors[0], beside = -1;
    if (reply->count > 1 && (beside = hide(reply->descriptors[1])) < 0)
        return -1;
    struct connection *connection = connection_new(fd, LIVE);
    if (!connection) {
        if (beside >= 0)
            unhide(beside);
        return -1;
    }
    connection->family = listener->family;
    connection->datagram = listener->datagram;
    note_info(connection, reply);
    atomic_store(&connection->server, true);
    connection->beside_cookie = beside < 0 ? 0 : cookie_of(beside);
    atomic_store(&connection->beside, beside);
    atomic_store(&connection->relayed, beside >= 0);
    atomic_store(&connection->rekeyable, attribute_number(reply->data, reply->size, ATTRIBUTE_REKEYABLE) != 0);
    if (beside >= 0)
        atomic_store(&connection->budget, ENDLESS);
    struct guard guard = guard_enter(&listener->lock);
    connection->settings = settings_hold(listener->settings);
    guard_leave(&guard);
    connection->cookie = cookie_of(fd);
    set_waiting(fd, !(flags & SOCK_NONBLOCK));
    if (!(flags & SOCK_CLOEXEC))
        syscall(SYS_fcntl, fd, 2 /* F_SETFD */, 0);
    if (reply->count > 1)
        close_quietly(reply->descriptors[1]);
    reply->count = 0;
    *made = connection;
    return fd;
}

/* Wait until it is time to look for another ssad; false: errno, EINTR for a signal without SA_RESTART. */
static bool rests(struct connection *listener, int fd) {
    static const struct timespec rest = {0, REST};
    uint64_t times;
    if (atomic_load(&listener->on_timer))
        return syscall(SYS_read, fd, &times, sizeof times) >= 0 || errno != EINTR;
    return !syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &rest, NULL) || fail_plainly(EINTR) == 0;
}

/* The next reply with a descriptor. 0, or -1: errno. */
static int next_ready(struct connection *listener, int fd, struct exchange *exchange) {
    for (;;) {
        bool away = atomic_load(&listener->on_timer);
        exchange->ssad = fd;
        int done = away ? -1 : exchange_hear(exchange, does_wait(fd) ? 0 : MSG_DONTWAIT);
        if (!done && exchange->reply.count)
            return 0;
        if (!done)
            continue;
        if (atomic_load(&listener->read_ended))
            return fail(EINVAL, "the socket does not listen any more");
        if (!away && (errno != EIO || exchange->reply.size))
            return -1;
        if (serve_again(listener, fd) && !(errno == EAGAIN && does_wait(fd) && rests(listener, fd)))
            return -1;
    }
}

int tls_accept(struct connection *listener, int fd, struct sockaddr *address, socklen_t *size, int flags) {
    if (atomic_load(&listener->phase) == PLAIN)
        return NEXT(accept4)(fd, address, size, flags);
    if (atomic_load(&listener->phase) != LISTENING)
        return unfit(listener, EINVAL, "the socket does not listen");
    if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC))
        return fail_plainly(EINVAL);
    struct exchange *exchange = exchange_of(fd);
    if (!exchange)
        return -1;
    struct connection *made = NULL;
    int got = next_ready(listener, fd, exchange) ? -1 : take_up(listener, &exchange->reply, flags, &made);
    exchange_forget(exchange);
    if (got < 0)
        return -1;
    give_address(made, got, address, size);
    connection_put(made);
    return got;
}
