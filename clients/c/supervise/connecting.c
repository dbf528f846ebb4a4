/* connecting.c: connect(2) and TLS_UPGRADE. */

#include "supervise.h"

#include "../destinations.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SLICE = 50 }; /* milliseconds between looks at the caller's signals */

struct target {
    char hostname[NAME_ROOM];
    struct addrinfo *found; /* of AF_HOSTNAME */
    struct sockaddr_storage address;
    socklen_t size;
};

/* The address as it was when the call came: it is copied once. */
static int read_address(struct call *call, struct sockaddr_storage *address, struct sockaddr_host *host) {
    uint64_t size = (uint32_t)call->arguments[2];
    union {
        sa_family_t family;
        struct sockaddr_storage address;
        struct sockaddr_host host;
    } copy;
    memset(&copy, 0, sizeof copy);
    if (size > sizeof copy || size < sizeof copy.family)
        return fail_plainly(EINVAL);
    if (memory_read(call, call->arguments[1], &copy, size))
        return -1;
    *address = copy.address;
    *host = copy.host;
    return 0;
}

static int look_up(struct held *held, struct target *target, const struct sockaddr_host *host, size_t size) {
    char service[8];
    struct addrinfo hints = {.ai_family = held->tls.family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_IDN};
    copy_text(target->hostname, sizeof target->hostname, (const char *)host->sin_addr.name,
              size - offsetof(struct sockaddr_host, sin_addr));
    snprintf(service, sizeof service, "%u", ntohs(host->sin_port));
    int done = getaddrinfo(target->hostname, service, &hints, &target->found);
    if (done)
        return fail(done == EAI_SYSTEM ? errno : EHOSTUNREACH, "%s: %s", target->hostname, gai_strerror(done));
    return 0;
}

static int find_target(struct call *call, struct held *held, struct target *target) {
    struct sockaddr_host host;
    struct endpoint to;
    target->found = NULL;
    target->size = (socklen_t)call->arguments[2];
    if (read_address(call, &target->address, &host))
        return -1;
    if (host.sin_family == AF_HOSTNAME && !held->tls.transparent) {
        if (target->size <= offsetof(struct sockaddr_host, sin_addr) || target->size > sizeof host)
            return fail_plainly(EINVAL);
        return look_up(held, target, &host, target->size);
    }
    if (!endpoint_of((struct sockaddr *)&target->address, target->size, &to))
        return fail_plainly(host.sin_family == AF_INET || host.sin_family == AF_INET6 ? EINVAL : EAFNOSUPPORT);
    endpoint_text(&to, target->hostname, sizeof target->hostname);
    return 0;
}

/* The certificate has to be for TLS_REMOTE_HOSTNAME, or for the host of the address, which can be read as that then. */
static int settle_hostname(struct held *held, char *hostname) {
    struct guard guard = guard_enter(&held->tls.lock);
    struct settings *before = held->tls.settings, *with = NULL;
    bool known = before && *before->hostname && !held->tls.transparent;
    if (known)
        copy_text(hostname, NAME_ROOM, before->hostname, sizeof before->hostname);
    else
        with = settings_with_hostname(before, hostname);
    if (with) {
        held->tls.settings = with;
        settings_release(before);
    }
    guard_leave(&guard);
    return known || with ? 0 : -1;
}

static int connect_tcp(int tcp, const struct sockaddr *address, socklen_t size) {
    int done = connect(tcp, address, size);
    if (done && errno == ECONNABORTED) /* of an attempt before, whose error nobody has read */
        done = connect(tcp, address, size);
    return done && errno != EINPROGRESS && errno != EALREADY ? fail_plainly(errno) : 0;
}

/* Wait until TCP is connected. A signal ends the wait early: the handshake goes on without the caller then. */
static int wait_for_tcp(struct call *call, int tcp) {
    while (!wait_for(tcp, POLLOUT, SLICE))
        if (!call_is_waiting(call) || call_interruption(call) != GO_ON_WAITING)
            return 0;
    int failure = get_number(tcp, SOL_SOCKET, SO_ERROR, 0);
    return failure ? fail_plainly(failure) : 0;
}

/* To the first address of a name's that answers; one who does not wait has the first only. */
static int connect_to_one(struct call *call, int tcp, const struct target *target, bool waits) {
    if (!target->found)
        return connect_tcp(tcp, (const struct sockaddr *)&target->address, target->size);
    int done = -1;
    for (struct addrinfo *info = target->found; info && done; info = info->ai_next) {
        done = connect_tcp(tcp, info->ai_addr, info->ai_addrlen);
        if (!done && waits && info->ai_next)
            done = wait_for_tcp(call, tcp);
        if (!waits)
            break;
    }
    return done;
}

static int connect_and_shake(struct call *call, struct held *held, int file, int tcp, const struct target *target,
                             const char *hostname) {
    const struct wish wish = {KIND_CONNECT, hostname, false};
    bool waits = does_wait(file);
    struct exchange *exchange = exchange_open(LOCAL); /* is there an ssad at all? */
    if (!exchange)
        return -1;
    set_waiting(tcp, false);
    int done = connect_to_one(call, tcp, target, waits);
    int before = errno;
    set_waiting(tcp, waits);
    errno = before;
    if (done) {
        exchange_close(exchange);
        return -1;
    }
    done = shake_early(call, held, file, tcp, exchange, &wish);
    if (done) {
        before = errno;
        shutdown(tcp, SHUT_RDWR); /* it is in plain text */
        errno = before;
    }
    return done;
}

/* An attempt that never reached its peer leaves a socket that can try again. */
static int tcp_to_connect(struct held *held, int file) {
    int phase = FRESH, beside = atomic_load(&held->tls.beside);
    if (atomic_compare_exchange_strong(&held->tls.phase, &phase, SHAKING))
        return file;
    if (phase == FAILED && beside >= 0 && !atomic_load(&held->tls.failure) && tcp_state(beside) == TCP_CLOSE &&
        atomic_compare_exchange_strong(&held->tls.phase, &phase, SHAKING))
        return beside;
    return unfit(&held->tls,
                 phase == SHAKING  ? EALREADY
                 : phase == FAILED ? EINVAL
                                   : EISCONN,
                 "the socket cannot connect");
}

static int connect_fresh(struct call *call, struct held *held, int file, struct target *target, const char *hostname) {
    char name[NAME_ROOM];
    int tcp = tcp_to_connect(held, file), from = tcp == file ? FRESH : FAILED;
    if (tcp < 0)
        return -1;
    copy_text(name, sizeof name, hostname, sizeof name);
    bool waits = does_wait(file);
    int done = settle_hostname(held, name) ? -1 : connect_and_shake(call, held, file, tcp, target, name);
    if (done) {
        int number = errno, phase = SHAKING;
        failed(&held->tls);
        atomic_compare_exchange_strong(&held->tls.phase, &phase, from);
        errno = number;
        return -1;
    }
    return waits ? wait_for_handshake(call, held, timeout_of(file, SO_SNDTIMEO))
                 : fail(EINPROGRESS, "the connection and its handshake are under way");
}

static bool is_under_way(struct held *held) {
    return atomic_load(&held->tls.phase) == CONNECTING || atomic_load(&held->tls.failure);
}

static int connect_again(struct call *call, struct held *held, int file) {
    if (!settle_handshake(held, file) && !does_wait(file))
        return fail(EALREADY, "the connection and its handshake are under way");
    return wait_for_handshake(call, held, timeout_of(file, SO_SNDTIMEO));
}

/* --- programs that know no TLS --- */

/* In plain text, to the address that was looked at: it is not read again. */
static int connect_plainly(struct call *call, int file, const struct target *target) {
    bool waits = does_wait(file);
    set_waiting(file, false);
    int done = connect(file, (const struct sockaddr *)&target->address, target->size), number = errno;
    set_waiting(file, waits);
    errno = number;
    if (!done || !waits || (number != EINPROGRESS && number != EALREADY))
        return done;
    while (!wait_for(file, POLLOUT, SLICE))
        if (is_interrupted(call))
            return 1;
    int failure = get_number(file, SOL_SOCKET, SO_ERROR, 0);
    errno = failure;
    return failure ? -1 : 0;
}

static int connect_as_settings_say(struct call *call, struct held *held, int file, struct target *target) {
    char name[NAME_ROOM];
    struct endpoint to;
    int plain = PLAIN;
    bool again = atomic_load(&held->tls.phase) == FAILED; /* its number has a pair by now */
    endpoint_of((struct sockaddr *)&target->address, target->size, &to);
    if (!again && tcp_state(file) != TCP_CLOSE)
        return connect_plainly(call, file, target);
    hosts_remember(call, &to);
    enum destination destination = destination_of(&to, name);
    if (destination == REFUSED)
        return -1;
    if (destination == PLAINLY)
        return again ? unfit(&held->tls, EINVAL, "the socket cannot connect") : connect_plainly(call, file, target);
    atomic_compare_exchange_strong(&held->tls.phase, &plain, FRESH);
    int done = connect_fresh(call, held, file, target, name);
    int fresh = FRESH, number = errno;
    atomic_compare_exchange_strong(&held->tls.phase, &fresh, PLAIN); /* which the settings decide about again */
    errno = number;
    return done;
}

/* --- the call --- */

static int connect_entry(struct call *call, struct held *held, int file, struct target *target) {
    int phase = atomic_load(&held->tls.phase);
    if (is_under_way(held))
        return connect_again(call, held, file);
    if (find_target(call, held, target))
        return -1;
    if (held->tls.transparent && (phase == PLAIN || phase == FRESH || phase == FAILED))
        return connect_as_settings_say(call, held, file, target);
    return connect_fresh(call, held, file, target, target->hostname);
}

/* A failure is in words of its own, where they say more than errno does. */
static void answer_connect(struct call *call, struct held *held, const char *about, int done) {
    int number = errno;
    if (done > 0)
        return;
    if (done && number != EINPROGRESS && number != EALREADY && number != EISCONN)
        say(call, about);
    answer(call, 0, !done ? 0 : held->tls.transparent ? known_error(number) : number);
}

static void connect_in_a_thread(struct call *call) {
    struct target target = {.found = NULL};
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    int done = has_own_rights(call) ? connect_entry(call, held, file, &target) : -1;
    const struct settings *settings = held->tls.settings;
    answer_connect(call, held, settings && *settings->hostname ? settings->hostname : target.hostname, done);
    if (target.found)
        freeaddrinfo(target.found);
    close_quietly(file);
    entry_release(held);
}

/* A TCP socket that came from elsewhere, or was put on a low number. */
static bool adopt_tcp(int file) {
    struct held *held = is_tcp(file) ? entry_new(file, PLAIN, get_number(file, SOL_SOCKET, SO_DOMAIN, 0)) : NULL;
    if (held)
        held->tls.transparent = true;
    entry_release(held);
    return held;
}

void on_connect(struct call *call) {
    int file = fetch(call, (int)call->arguments[0]);
    struct held *held = file < 0 ? NULL : entry_of(file);
    bool ours = held && !held->datagram && (atomic_load(&held->tls.phase) != PLAIN || held->tls.transparent);
    if (!held && file >= 0 && watches_clients)
        ours = adopt_tcp(file);
    if (file < 0 && errno != EBADF && watches_clients) /* it cannot be looked at, so it is not let go */
        answer_last(call, -1);
    else if (!ours)
        let_go_on(call);
    else
        in_a_thread(call, connect_in_a_thread);
    if (file >= 0)
        close_quietly(file);
    entry_release(held);
}

/* --- TLS_UPGRADE --- */

extern _Thread_local struct call *current_call; /* whose option is being set: options.c asks for an upgrade */

static int peer_address(int fd, char *text, size_t room) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    struct endpoint to;
    if (getpeername(fd, (struct sockaddr *)&peer, &size))
        return fail_plainly(errno);
    if (!endpoint_of((struct sockaddr *)&peer, size, &to))
        return fail_plainly(EAFNOSUPPORT);
    endpoint_text(&to, text, room);
    return 0;
}

int tls_upgrade(struct connection *connection, int fd, int role) {
    struct held *held = (struct held *)connection;
    char hostname[NAME_ROOM];
    int plain = PLAIN;
    if (is_under_way(held))
        return connect_again(current_call, held, fd);
    if (atomic_load(&connection->phase) != PLAIN)
        return unfit(connection, atomic_load(&connection->phase) == LIVE ? EISCONN : ENOTCONN,
                     "there is nothing to upgrade");
    if (peer_address(fd, hostname, sizeof hostname))
        return -1;
    if (connection->settings && *connection->settings->hostname)
        copy_text(hostname, sizeof hostname, connection->settings->hostname, sizeof connection->settings->hostname);
    if (!atomic_compare_exchange_strong(&connection->phase, &plain, SHAKING))
        return unfit(connection, EALREADY, "the socket cannot be upgraded");
    const struct wish wish = {role == 2 ? KIND_ACCEPT : KIND_CONNECT, hostname, true};
    bool waits = does_wait(fd);
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange || shake_early(current_call, held, fd, fd, exchange, &wish)) {
        atomic_store(&connection->phase, PLAIN);
        return -1;
    }
    return waits ? wait_for_handshake(current_call, held, timeout_of(fd, SO_SNDTIMEO))
                 : fail(EINPROGRESS, "the handshake is under way");
}
