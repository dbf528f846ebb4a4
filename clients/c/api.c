/* api.c: the calls of ssa.h that have no counterpart in the socket API. */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* --- a TCP connection to a host of several addresses: Happy Eyeballs (RFC 8305) --- */

enum { ATTEMPT_DELAY = 250, MOST_ATTEMPTS = 16 }; /* milliseconds before the next address is tried beside the last */

struct race {
    struct pollfd running[MOST_ATTEMPTS];
    int count;
    int error;   /* of the last address that could be tried at all */
    int lack;    /* of one that could not: this machine lacks an address family */
    int64_t end; /* FOREVER: none */
    const struct addrinfo *source;
};

static void note_error(struct race *race, int number) {
    if (number == EADDRNOTAVAIL || number == EAFNOSUPPORT)
        race->lack = number;
    else
        race->error = number;
}

static int begin_attempt(struct race *race, const struct addrinfo *info) {
    int fd = (int)syscall(SYS_socket, info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    const struct addrinfo *source = race->source;
    if ((source && syscall(SYS_bind, fd, source->ai_addr, source->ai_addrlen)) ||
        (syscall(SYS_connect, fd, info->ai_addr, info->ai_addrlen) && errno != EINPROGRESS)) {
        close_quietly(fd);
        return -1;
    }
    return fd;
}

static void start(struct race *race, const struct addrinfo *info) {
    int fd = begin_attempt(race, info);
    if (fd < 0)
        note_error(race, errno);
    else
        race->running[race->count++] = (struct pollfd){.fd = fd, .events = POLLOUT};
}

/* The attempt that is connected, or -1. One that has failed leaves the race. */
static int winner(struct race *race) {
    for (int at = 0; at < race->count; at++) {
        if (!race->running[at].revents)
            continue;
        int fd = race->running[at].fd, number = get_number(fd, SOL_SOCKET, SO_ERROR, EIO);
        race->running[at--] = race->running[--race->count];
        if (!number)
            return fd;
        note_error(race, number);
        close_quietly(fd);
    }
    return -1;
}

static int wait_for_attempts(struct race *race, bool more) {
    int64_t left = race->end == FOREVER ? FOREVER : race->end > now() ? race->end - now() : 0;
    int64_t wait = more && (left == FOREVER || left > ATTEMPT_DELAY) ? ATTEMPT_DELAY : left;
    struct timespec interval = {wait / 1000, wait % 1000 * 1000000};
    long ready = syscall(SYS_ppoll, race->running, race->count, wait == FOREVER ? NULL : &interval, NULL, 0);
    if (ready < 0)
        return errno == EINTR ? 0 : fail_plainly(errno);
    return !ready && wait == left ? fail(ETIMEDOUT, "timed out") : 0;
}

/* The next address, of the families in turn: the resolver's first family first (RFC 8305 section 4). */
static const struct addrinfo *next_address(const struct addrinfo *all, uint32_t *tried, int *family) {
    const struct addrinfo *other = NULL, *found = NULL;
    const struct addrinfo *pick = NULL;
    uint32_t bit = 1, other_bit = 0, pick_bit = 0;
    for (found = all; found && bit; found = found->ai_next, bit <<= 1) {
        if (*tried & bit)
            continue;
        if (found->ai_family != *family && !pick)
            pick = found, pick_bit = bit;
        else if (!other)
            other = found, other_bit = bit;
    }
    *tried |= pick ? pick_bit : other_bit;
    pick = pick ? pick : other;
    *family = pick ? pick->ai_family : *family;
    return pick;
}

/* A connected, blocking TCP socket, or -1. */
static int run(struct race *race, const struct addrinfo *all) {
    uint32_t tried = 0;
    int family = 0, fd = -1;
    const struct addrinfo *next = next_address(all, &tried, &family);
    while (fd < 0 && (next || race->count)) {
        if (next && race->count < MOST_ATTEMPTS) {
            start(race, next);
            next = next_address(all, &tried, &family);
        }
        if (race->count && wait_for_attempts(race, next != NULL))
            break;
        fd = winner(race);
        if (fd < 0 && !next && !race->count)
            fail_plainly(race->error ? race->error : race->lack ? race->lack : EADDRNOTAVAIL);
    }
    int number = errno;
    while (race->count)
        close_quietly(race->running[--race->count].fd);
    if (fd >= 0)
        set_waiting(fd, true);
    errno = number;
    return fd;
}

/* --- ssa_connect_tls --- */

static int look_up(const char *host, const char *service, int flags, struct addrinfo **found) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    int done = getaddrinfo(host, service, &hints, found);
    if (!done)
        return 0;
    const char *which = host ? host : "the local address";
    return fail(done == EAI_SYSTEM  ? errno
                : done == EAI_AGAIN ? EAGAIN
                                    : EHOSTUNREACH,
                "%s: %s", which, gai_strerror(done));
}

static int connect_tcp(const char *host, const char *service, const struct ssa_options *options, int64_t end) {
    struct race race = {.end = end};
    struct addrinfo *all = NULL, *source = NULL;
    bool from = options && (options->source_address || options->source_service);
    if (look_up(host, service, AI_IDN, &all))
        return -1;
    int fd = -1;
    if (!from || !look_up(options->source_address, options->source_service, AI_PASSIVE | AI_NUMERICHOST, &source)) {
        race.source = source;
        fd = run(&race, all);
    }
    int number = errno;
    freeaddrinfo(all);
    if (source)
        freeaddrinfo(source);
    errno = number;
    return fd;
}

static int change(struct settings **settings, int name, const char *value) {
    if (!value)
        return 0;
    struct settings *changed = settings_changed(*settings, option_numbered(name), value, strlen(value));
    if (!changed)
        return -1;
    settings_release(*settings);
    *settings = changed;
    return 0;
}

static struct settings *settings_of(const char *host, const struct ssa_options *options) {
    static const struct ssa_options nothing;
    struct settings *settings = NULL;
    if (!options)
        options = &nothing;
    const struct {
        int name;
        const char *value;
    } wanted[] = {
        {TLS_REMOTE_HOSTNAME, options->server_hostname ? options->server_hostname : host},
        {TLS_ALPN, options->alpn},
        {TLS_TRUSTED_PEER_CERTIFICATES, options->trusted},
        {TLS_CERTIFICATE_CHAIN, options->certificate},
        {TLS_PRIVATE_KEY, options->private_key},
        {TLS_VERSION_MIN, options->version_min},
        {TLS_VERSION_MAX, options->version_max},
        {TLS_DISABLE_CIPHER, options->disable_cipher},
    };
    for (size_t at = 0; at < sizeof wanted / sizeof *wanted; at++) {
        if (!change(&settings, wanted[at].name, wanted[at].value))
            continue;
        settings_release(settings);
        return NULL;
    }
    return settings;
}

/* The handshake on a socket that is connected. Plain reads of another process may follow: so session tickets are left
 * to ssad, which takes them out of their way. */
static int shake_hands(int fd, struct exchange *exchange, struct settings *settings, int64_t end) {
    int files[ALL_FILES];
    request_begin(&exchange->request, KIND_CONNECT);
    request_text(&exchange->request, ATTRIBUTE_HOSTNAME, settings->hostname);
    if (end != FOREVER)
        request_number(&exchange->request, ATTRIBUTE_TIMEOUT_MS, end > now() ? (uint32_t)(end - now()) : 1);
    int count = settings_request(settings, &exchange->request, FOR_CLIENT, files);
    if (exchange_ask(exchange, fd, files, count) || exchange_check_descriptor(exchange, false))
        return -1;
    struct connection *connection = connection_new(fd, SHAKING);
    if (!connection)
        return -1;
    connection->family = get_number(fd, SOL_SOCKET, SO_DOMAIN, 0);
    connection->settings = settings_hold(settings);
    int done = go_live(connection, fd, &exchange->reply);
    connection_put(connection);
    return done;
}

enum { GRACE = 500 }; /* milliseconds for ssad to say that time is up; one that is stopped never will */

EXPORT int ssa_connect_tls(const char *host, const char *service, const struct ssa_options *options) {
    if (!host || !service || !*host)
        return fail(EINVAL, "ssa_connect_tls takes a host and a service");
    int timeout = options && options->timeout > 0 ? options->timeout : FOREVER;
    int64_t end = timeout == FOREVER ? FOREVER : now() + timeout;
    struct settings *settings = settings_of(host, options);
    if (!settings)
        return -1;
    struct exchange *exchange =
        exchange_open(timeout == FOREVER ? FOREVER : timeout + GRACE); /* is one there at all? */
    int fd = exchange ? connect_tcp(host, service, options, end) : -1;
    if (fd >= 0 && shake_hands(fd, exchange, settings, end)) {
        int number = errno;
        if (connection_look(fd))
            connection_leave(fd);
        syscall(SYS_shutdown, fd, SHUT_RDWR);
        close_quietly(fd);
        errno = number;
        fd = -1;
    }
    if (exchange)
        exchange_close(exchange);
    int number = errno;
    settings_release(settings);
    errno = number;
    return fd;
}

/* --- reading, writing, closing --- */

static struct connection *get(int fd) {
    struct connection *connection = connection_get(fd);
    return connection ? connection : adopt(fd);
}

static ssize_t not_tls(void) {
    return fail(ENOTCONN, "the descriptor is no TLS socket");
}

EXPORT ssize_t ssa_recv(int fd, void *data, size_t size) {
    struct iovec part = {data, size};
    struct connection *connection = get(fd);
    if (!connection || connection == &hidden || atomic_load(&connection->phase) == PLAIN)
        return connection ? (connection_put(connection), not_tls()) : not_tls();
    ssize_t got = stream_read(connection, fd, &part, 1, 0);
    connection_put(connection);
    return got;
}

EXPORT ssize_t ssa_send(int fd, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    struct connection *connection = get(fd);
    if (!connection || connection == &hidden || atomic_load(&connection->phase) == PLAIN)
        return connection ? (connection_put(connection), not_tls()) : not_tls();
    ssize_t sent = stream_write(connection, fd, &part, 1, MSG_NOSIGNAL);
    connection_put(connection);
    return sent;
}

EXPORT int ssa_close(int fd) {
    struct connection *connection = get(fd);
    if (connection)
        connection_put(connection);
    return tls_close(fd);
}
