/* connection.c: connect(2) and TLS_UPGRADE, at once or while the program does something else. */

#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static const char *const phases[] = {
    [LIVE] = "it is connected",
    [FRESH] = "it is not connected",
    [PLAIN] = "it is in plain text until TLS_UPGRADE",
    [CONNECTING] = "its handshake is under way",
    [SHAKING] = "its handshake is under way",
    [LISTENING] = "it listens",
    [FAILED] = "its handshake failed",
    [BROKEN] = "its connection has failed",
    [GATHERING] = "it serves all its clients",
};

/* A copy of why the last operation failed. */
static void copy_words(struct connection *connection, char *to) {
    struct guard guard = guard_enter(&connection->lock);
    copy_text(to, WORDS_ROOM, connection->words, WORDS_ROOM);
    guard_leave(&guard);
}

int unfit(struct connection *connection, int number, const char *what) {
    char why[WORDS_ROOM] = "";
    int phase = atomic_load(&connection->phase);
    if (phase == FAILED)
        copy_words(connection, why);
    return fail(number, "%s: %s%s%s", what, phases[phase], *why ? ": " : "", why);
}

int fail_again(struct connection *connection, int number) {
    char why[WORDS_ROOM];
    copy_words(connection, why);
    return fail(number, "%s", why);
}

int failed(struct connection *connection) {
    if (connection->transparent)
        transparent_failed(connection);
    struct guard guard = guard_enter(&connection->lock);
    copy_text(connection->words, sizeof connection->words, words(), WORDS_ROOM);
    guard_leave(&guard);
    return -1;
}

int tls_socket(int family, int type) {
    bool datagram = (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_DGRAM;
    if (family == AF_HOSTNAME)
        return fail(EAFNOSUPPORT, "AF_HOSTNAME is of addresses: connect(2) takes one on any TLS socket");
    if (family != AF_INET && family != AF_INET6)
        return fail(EAFNOSUPPORT, "TLS runs over AF_INET and AF_INET6");
    if (!datagram && (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM)
        return fail(EPROTONOSUPPORT, "TLS runs over SOCK_STREAM, and DTLS over SOCK_DGRAM");
    int fd = NEXT(socket)(family, type, datagram ? IPPROTO_UDP : IPPROTO_TCP);
    if (fd < 0)
        return fail_plainly(errno);
    struct connection *connection = connection_new(fd, FRESH);
    if (!connection) {
        close_quietly(fd);
        return -1;
    }
    connection->family = family;
    connection->datagram = datagram;
    note_cookie(connection, fd);
    connection_put(connection);
    return fd;
}

/* --- a handshake that is done --- */

/* What concerns the calls on the descriptor itself goes with the number. */
static void carry_over(int from, int to, int name) {
    struct timeval interval = {0, 0};
    socklen_t size = sizeof interval;
    if (!syscall(SYS_getsockopt, from, SOL_SOCKET, name, &interval, &size) && (interval.tv_sec || interval.tv_usec))
        syscall(SYS_setsockopt, to, SOL_SOCKET, name, &interval, size);
}

static int live_on(struct connection *connection, int fd, int other) {
    int tcp = atomic_load(&connection->beside);
    carry_over(tcp < 0 ? fd : tcp, other, SO_RCVTIMEO);
    carry_over(tcp < 0 ? fd : tcp, other, SO_SNDTIMEO);
    if (tcp < 0 ? put_beside(connection, fd, other) : swap(connection, fd, other)) {
        close_quietly(other);
        return -1;
    }
    return 0;
}

int go_live(struct connection *connection, int fd, struct reply *reply) {
    note_info(connection, reply);
    if (reply->count) {
        if (live_on(connection, fd, reply->descriptors[--reply->count]))
            return -1;
        atomic_store(&connection->relayed, true);
    }
    atomic_store(&connection->rekeyable, attribute_number(reply->data, reply->size, ATTRIBUTE_REKEYABLE) != 0);
    if (atomic_load(&connection->relayed))
        atomic_store(&connection->budget, ENDLESS);
    note_cookie(connection, fd);
    struct guard guard = guard_enter(&connection->lock);
    connection->words[0] = 0;
    guard_leave(&guard);
    atomic_store(&connection->phase, LIVE);
    return 0;
}

/* --- a handshake that failed --- */

/* Where TCP has never reached its peer, the socket is as before and can try again. */
static int fallen_back(struct connection *connection, int fd) {
    bool reached = was_connected(fd);
    if (connection->datagram) /* it has no connection to be ended, and can try again */
        datagram_disconnect(fd);
    else if (reached || tcp_state(fd) != TCP_CLOSE)
        syscall(SYS_shutdown, fd, SHUT_RDWR); /* nobody waits for it any more */
    return reached || connection->datagram ? FAILED : FRESH;
}

static void fall_back(struct connection *connection, int fd) {
    int before = errno;
    int phase = is_ours(connection, fd) ? fallen_back(connection, fd) : FAILED; /* or it was closed meanwhile */
    struct settings *dropped = NULL;
    struct guard guard = guard_enter(&connection->lock);
    if (connection->has_before && (phase == FRESH || connection->datagram)) {
        dropped = connection->settings;
        connection->settings = connection->settings_before;
        connection->settings_before = NULL;
        connection->has_before = false;
    }
    guard_leave(&guard);
    settings_release(dropped);
    atomic_store(&connection->phase, phase);
    errno = before;
}

/* --- while the program does something else --- */

enum { PLUG = 2048 }; /* bytes: more than a quarter of the smallest send buffer, see unix_writable() of af_unix.c */

/* The descriptor's number is the connection to ssad now. What ssad leaves unread until it is done keeps that from
 * looking writable. */
static int start_unattended(struct connection *connection, int fd, struct exchange *exchange) {
    static const unsigned char zeros[PLUG];
    int smallest = 1;
    request_begin(&exchange->request, KIND_PLUG);
    request_bytes(&exchange->request, ATTRIBUTE_PADDING, zeros, sizeof zeros);
    syscall(SYS_setsockopt, exchange->ssad, SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest);
    if (exchange_tell(exchange, -1, NULL, 0) || put_beside(connection, fd, exchange->ssad))
        return -1;
    exchange_forget(exchange);
    connection->connecting = getpid();
    atomic_store(&connection->phase, CONNECTING);
    return 0;
}

static void note_failure(struct connection *connection, int fd) {
    failed(connection);
    atomic_store(&connection->failure, errno);
    take_back(connection, fd);
    fall_back(connection, fd);
}

static bool finish_now(struct connection *connection, int fd) {
    struct exchange *exchange = exchange_of(fd);
    if (!exchange)
        return false;
    int done = exchange_hear(exchange, MSG_DONTWAIT);
    if (done && (errno == EAGAIN || errno == EINTR)) {
        exchange_forget(exchange);
        return false;
    }
    if (!done)
        done = exchange_check_descriptor(exchange, connection->datagram);
    if (!done && !exchange->reply.count)
        done = take_back(connection, fd);
    if (done || go_live(connection, fd, &exchange->reply))
        note_failure(connection, fd);
    exchange_forget(exchange);
    return true;
}

bool finish(struct connection *connection, int fd) {
    int before = errno;
    if (atomic_load(&connection->phase) != CONNECTING)
        return true;
    struct guard guard = guard_enter(&connection->lock);
    bool done = atomic_load(&connection->phase) != CONNECTING || !is_ours(connection, fd) || finish_now(connection, fd);
    guard_leave(&guard);
    errno = before;
    return done;
}

static int wait_until_done(struct connection *connection, int fd, int timeout) {
    while (!finish(connection, fd)) {
        struct pollfd poll = {.fd = fd, .events = POLLIN};
        struct timespec left = {timeout / 1000, timeout % 1000 * 1000000L};
        long found = syscall(SYS_ppoll, &poll, 1, timeout == FOREVER ? NULL : &left, NULL, 0);
        if (found <= 0)
            return found ? -1 : fail(EAGAIN, "the connection and its handshake are under way");
    }
    return 0;
}

/* connect(2) while one is under way: EALREADY, or it waits; when it is done: how it went, once. */
static int connect_again(struct connection *connection, int fd) {
    if (!finish(connection, fd)) {
        if (!does_wait(fd))
            return fail(EALREADY, "the connection and its handshake are under way");
        if (wait_until_done(connection, fd, timeout_of(fd, SO_SNDTIMEO)))
            return -1;
    }
    int failure = atomic_exchange(&connection->failure, 0);
    return failure ? fail_again(connection, failure) : 0;
}

int check_live(struct connection *connection, int fd, int flags) {
    int phase = atomic_load(&connection->phase);
    if (phase == CONNECTING && !finish(connection, fd)) {
        if (flags & MSG_DONTWAIT || !does_wait(fd))
            return fail(EAGAIN, "the connection and its handshake are under way");
        if (wait_until_done(connection, fd, timeout_of(fd, SO_RCVTIMEO)))
            return -1;
    }
    phase = atomic_load(&connection->phase);
    int broken = atomic_load(&connection->broken);
    if (broken)
        return fail_again(connection, broken);
    return phase == LIVE ? 0 : unfit(connection, ENOTCONN, "the socket is no TLS connection");
}

/* --- connect(2) --- */

struct target {
    char hostname[256];
    struct addrinfo *found; /* of AF_HOSTNAME */
    struct sockaddr_storage address;
    socklen_t size;
};

/* The name need not end with a NUL, where the address ends behind it. */
static int look_up(struct connection *connection, struct target *target, const struct sockaddr_host *host,
                   socklen_t size) {
    char service[8];
    struct addrinfo hints = {.ai_family = connection->family,
                             .ai_socktype = connection->datagram ? SOCK_DGRAM : SOCK_STREAM,
                             .ai_flags = AI_IDN};
    size_t length = size - offsetof(struct sockaddr_host, sin_addr);
    copy_text(target->hostname, sizeof target->hostname, (const char *)host->sin_addr.name, length);
    snprintf(service, sizeof service, "%u", ntohs(host->sin_port));
    int done = getaddrinfo(target->hostname, service, &hints, &target->found);
    if (done)
        return fail(done == EAI_SYSTEM ? errno : EHOSTUNREACH, "%s: %s", target->hostname, gai_strerror(done));
    return 0;
}

static bool is_host(const struct sockaddr *address, socklen_t size) {
    return size > offsetof(struct sockaddr_host, sin_addr) && size <= sizeof(struct sockaddr_host) &&
           address->sa_family == AF_HOSTNAME;
}

static int find_target(struct connection *connection, struct target *target, const struct sockaddr *address,
                       socklen_t size) {
    target->found = NULL;
    if (is_host(address, size))
        return look_up(connection, target, (const struct sockaddr_host *)address, size);
    if (size < sizeof(struct sockaddr_in) || size > sizeof target->address)
        return fail_plainly(EINVAL);
    memcpy(&target->address, address, size);
    target->size = size;
    const struct sockaddr_in *four = (const struct sockaddr_in *)&target->address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&target->address;
    if (address->sa_family == AF_INET)
        inet_ntop(AF_INET, &four->sin_addr, target->hostname, sizeof target->hostname);
    else if (address->sa_family == AF_INET6 && size >= offsetof(struct sockaddr_in6, sin6_scope_id))
        inet_ntop(AF_INET6, &six->sin6_addr, target->hostname, sizeof target->hostname);
    else
        return fail_plainly(address->sa_family == AF_INET6 ? EINVAL : EAFNOSUPPORT);
    return 0;
}

static void drop_target(struct target *target) {
    if (target->found)
        freeaddrinfo(target->found);
}

/* The certificate has to be for TLS_REMOTE_HOSTNAME, or for the host of the address, which can be read as that then. */
static int settle_hostname(struct connection *connection, struct target *target) {
    struct guard guard = guard_enter(&connection->lock);
    struct settings *before = connection->settings, *with = NULL;
    bool known = before && *before->hostname;
    if (known)
        copy_text(target->hostname, sizeof target->hostname, before->hostname, sizeof before->hostname);
    else
        with = settings_with_hostname(before, target->hostname);
    if (with) {
        settings_release(connection->settings_before);
        connection->settings_before = before; /* a server that was never reached is forgotten */
        connection->has_before = true;
        connection->settings = with;
    }
    guard_leave(&guard);
    return known || with ? 0 : -1;
}

static int write_request(struct connection *connection, struct exchange *exchange, int kind, const char *hostname,
                         bool upgrade, int *files) {
    request_begin(&exchange->request, kind);
    if (kind == KIND_CONNECT)
        request_text(&exchange->request, ATTRIBUTE_HOSTNAME, hostname);
    /* A program that knows no TLS takes a session ticket for data that select(2) tells of, and its read would wait for
     * more: so ssad takes the tickets out of its way. */
    if (!connection->datagram && !connection->transparent)
        request_number(&exchange->request, ATTRIBUTE_CONTROL, 1);
    if (upgrade)
        request_number(&exchange->request, ATTRIBUTE_UPGRADE, 1);
    struct guard guard = guard_enter(&connection->lock);
    int count = settings_request(connection->settings, &exchange->request,
                                 kind == KIND_CONNECT ? FOR_CLIENT : FOR_SERVER, files);
    guard_leave(&guard);
    return count;
}

static int connect_tcp(int fd, const struct sockaddr *address, socklen_t size) {
    int done = NEXT(connect)(fd, address, size);
    if (done && errno == ECONNABORTED) /* of an attempt before, whose error somebody has read */
        done = NEXT(connect)(fd, address, size);
    return done;
}

/* Connect to the address, or to the first of a name's that answers. What was interrupted goes on by itself. */
static int connect_to_one(int fd, struct target *target) {
    if (!target->found)
        return connect_tcp(fd, (struct sockaddr *)&target->address, target->size);
    int done = -1;
    for (struct addrinfo *info = target->found; info; info = info->ai_next)
        if (!(done = connect_tcp(fd, info->ai_addr, info->ai_addrlen)) || errno == EINPROGRESS || errno == EINTR)
            break;
    return done;
}

/* Have the handshake made. Where the wait ends early, by a signal or SO_SNDTIMEO, it goes on by itself, as a connect(2)
 * of TCP does. */
static int shake_hands(struct connection *connection, int fd, struct exchange *exchange, const int *files, int count,
                       int waited) {
    if (exchange_tell(exchange, fd, files, count)) {
        exchange_close(exchange);
        return -1;
    }
    int done = waited ? (errno = waited, -1) : exchange_hear(exchange, 0), number = errno;
    bool silent = done && !exchange->reply.size;
    if (silent && (number == EINTR || number == EINPROGRESS || number == ETIMEDOUT)) {
        if (start_unattended(connection, fd, exchange)) {
            exchange_close(exchange);
            return -1;
        }
        return fail(number == ETIMEDOUT ? EINPROGRESS : number, "the connection and its handshake are under way");
    }
    if (!done && !(done = exchange_check_descriptor(exchange, connection->datagram)))
        done = go_live(connection, fd, &exchange->reply);
    exchange_close(exchange);
    return done;
}

static int connect_stream(struct connection *connection, int fd, struct target *target) {
    int files[ALL_FILES];
    bool waits = does_wait(fd);
    struct exchange *exchange = exchange_open(waits ? timeout_of(fd, SO_SNDTIMEO) : LOCAL);
    if (!exchange)
        return -1;
    int count = write_request(connection, exchange, KIND_CONNECT, target->hostname, false, files), waited = 0;
    if (connect_to_one(fd, target)) {
        waited = errno;
        if (waited != EINPROGRESS && waited != EINTR) {
            exchange_close(exchange);
            return fail_plainly(waited);
        }
    }
    return shake_hands(connection, fd, exchange, files, count, waits ? waited : EINPROGRESS);
}

static int connect_datagram_to(struct connection *connection, int fd, const char *hostname,
                               const struct sockaddr *address, socklen_t size) {
    int files[ALL_FILES];
    bool waits = does_wait(fd);
    struct exchange *exchange = exchange_open(waits ? timeout_of(fd, SO_SNDTIMEO) : LOCAL);
    if (!exchange)
        return -1;
    int count = write_request(connection, exchange, KIND_CONNECT, hostname, false, files);
    if (!NEXT(connect)(fd, address, size))
        return shake_hands(connection, fd, exchange, files, count, waits ? 0 : EINPROGRESS);
    int number = errno;
    exchange_close(exchange);
    return fail_plainly(number);
}

/* An address whose host says that nobody is there is passed over for the name's next one. */
static int connect_datagram(struct connection *connection, int fd, struct target *target) {
    struct addrinfo one = {.ai_addr = (struct sockaddr *)&target->address, .ai_addrlen = target->size};
    int done = -1;
    for (const struct addrinfo *info = target->found ? target->found : &one; info; info = info->ai_next) {
        done = connect_datagram_to(connection, fd, target->hostname, info->ai_addr, info->ai_addrlen);
        if (!done || errno != ECONNREFUSED)
            break;
    }
    return done;
}

static bool claim(struct connection *connection, int phase) {
    return atomic_compare_exchange_strong(&connection->phase, &phase, SHAKING);
}

static int cannot_connect(struct connection *connection) {
    int phase = atomic_load(&connection->phase);
    int number = phase == SHAKING  ? EALREADY
                 : phase == FAILED ? EINVAL
                                   : EISCONN; /* which retry loops take for success */
    return unfit(connection, number, "the socket cannot connect");
}

static bool is_under_way(struct connection *connection) {
    return atomic_load(&connection->phase) == CONNECTING || atomic_load(&connection->failure);
}

int tls_connect(struct connection *connection, int fd, const struct sockaddr *address, socklen_t size) {
    if (is_under_way(connection))
        return connect_again(connection, fd);
    if (!claim(connection, FRESH) && !(connection->datagram && claim(connection, FAILED)))
        return cannot_connect(connection);
    struct target target;
    int done = find_target(connection, &target, address, size);
    if (!done)
        done = settle_hostname(connection, &target);
    if (!done)
        done = (connection->datagram ? connect_datagram : connect_stream)(connection, fd, &target);
    if (done && atomic_load(&connection->phase) == SHAKING)
        failed(connection), fall_back(connection, fd);
    drop_target(&target);
    return done;
}

/* --- TLS_UPGRADE --- */

static int peer_address(int fd, char *text, size_t room) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    if (syscall(SYS_getpeername, fd, &peer, &size))
        return fail_plainly(errno);
    const void *address = peer.ss_family == AF_INET ? (void *)&((struct sockaddr_in *)&peer)->sin_addr
                                                    : (void *)&((struct sockaddr_in6 *)&peer)->sin6_addr;
    return inet_ntop(peer.ss_family, address, text, (socklen_t)room) ? 0 : fail_plainly(errno);
}

int tls_shake(struct connection *connection, int fd, struct exchange *exchange, const int *files, int count) {
    if (!claim(connection, PLAIN)) {
        exchange_close(exchange);
        return cannot_connect(connection);
    }
    int done = shake_hands(connection, fd, exchange, files, count, does_wait(fd) ? 0 : EINPROGRESS);
    if (done && atomic_load(&connection->phase) == SHAKING)
        failed(connection), fall_back(connection, fd);
    return done;
}

static int upgrade_claimed(struct connection *connection, int fd, int kind, const char *hostname) {
    int files[ALL_FILES];
    bool waits = does_wait(fd);
    struct exchange *exchange = exchange_open(waits ? timeout_of(fd, SO_SNDTIMEO) : LOCAL);
    if (!exchange) {
        atomic_store(&connection->phase, PLAIN);
        return failed(connection);
    }
    int count = write_request(connection, exchange, kind, hostname, true, files);
    return shake_hands(connection, fd, exchange, files, count, waits ? 0 : EINPROGRESS);
}

int tls_upgrade(struct connection *connection, int fd, int role) {
    char hostname[256] = "";
    int phase = atomic_load(&connection->phase);
    if (is_under_way(connection))
        return connect_again(connection, fd);
    if (phase != PLAIN)
        return unfit(connection, phase == LIVE ? EISCONN : ENOTCONN, "there is nothing to upgrade");
    if (peer_address(fd, hostname, sizeof hostname))
        return -1;
    if (!claim(connection, PLAIN))
        return cannot_connect(connection);
    if (connection->settings && *connection->settings->hostname)
        copy_text(hostname, sizeof hostname, connection->settings->hostname, sizeof connection->settings->hostname);
    int done = upgrade_claimed(connection, fd, role == 2 ? KIND_ACCEPT : KIND_CONNECT, hostname);
    if (done && atomic_load(&connection->phase) == SHAKING)
        failed(connection), fall_back(connection, fd);
    return done;
}
