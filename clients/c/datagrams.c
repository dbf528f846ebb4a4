/* datagrams.c: DTLS (docs/dtls.md).
 *
 * ssad does the records, and keeps the UDP socket. The descriptor's number is one end of a SOCK_SEQPACKET pair from the
 * handshake on: each packet is a datagram's content. What tells the ends of a session apart:
 *
 *     the peer's close_notify      end of file: ssad has ended its writing, and stays
 *     the session was cut          end of file and a hang-up: ssad, or its end, has gone
 *
 * After listen(2) there is a descriptor for each client. Without it, recvfrom(2) and sendto(2) on the bound socket
 * serve all of them: then each packet has its client's address before it (peers.c).
 */

#include "internal.h"
#include "peers.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Dissolve the association with the peer (connect(2), AF_UNSPEC): what is written now would be plain text. */
void datagram_disconnect(int fd) {
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    syscall(SYS_connect, fd, &nobody, sizeof nobody);
}

static bool is_bound(int fd) {
    struct sockaddr_storage name = {0};
    socklen_t size = sizeof name;
    return !syscall(SYS_getsockname, fd, &name, &size) && ((struct sockaddr_in *)&name)->sin_port;
}

int datagram_prepare_listener(int fd) {
    struct sockaddr_storage any = {.ss_family = (sa_family_t)get_number(fd, SOL_SOCKET, SO_DOMAIN, AF_INET)};
    if (is_bound(fd))
        return 0;
    return (int)syscall(SYS_bind, fd, &any,
                        any.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
}

/* Have all clients served on this descriptor. */
static int gather(struct connection *connection, int fd) {
    int files[ALL_FILES];
    if (!is_bound(fd))
        return fail(ENOTCONN, "the socket is neither connected nor bound");
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return -1;
    request_begin(&exchange->request, KIND_GATHER);
    int count = settings_request(connection->settings, &exchange->request, FOR_SERVER, files);
    int done = exchange_ask(exchange, fd, files, count);
    if (!done)
        done = exchange_check_descriptor(exchange, true);
    if (!done && !(done = put_beside(connection, fd, exchange->reply.descriptors[0]))) {
        exchange->reply.count = 0;
        atomic_store(&connection->phase, GATHERING);
    }
    exchange_close(exchange);
    return done ? failed(connection) : 0;
}

/* 0: bytes may pass. -1: errno. */
static int check(struct connection *connection, int fd, int flags, bool serves) {
    int phase = atomic_load(&connection->phase);
    if (phase == FRESH && serves && gather(connection, fd))
        return -1;
    return atomic_load(&connection->phase) == GATHERING ? 0 : check_live(connection, fd, flags);
}

int datagram_address(struct connection *connection, int type, struct sockaddr *address, socklen_t *size) {
    size_t length = 0;
    struct guard guard = guard_enter(&connection->lock);
    const unsigned char *told = attribute(connection->info, connection->info_size, type, &length);
    int done = told && length == PEER_SIZE ? 0 : -1;
    if (!done)
        peer_address(told, address, size);
    guard_leave(&guard);
    return done ? fail_plainly(ENOTCONN) : 0;
}

static void give_peer(struct connection *connection, struct msghdr *message) {
    int beside = atomic_load(&connection->beside);
    socklen_t size = message->msg_namelen;
    int done = beside >= 0 ? (int)syscall(SYS_getpeername, beside, message->msg_name, &size)
                           : datagram_address(connection, ATTRIBUTE_PEER, message->msg_name, &size);
    message->msg_namelen = done ? 0 : size;
}

/* --- reading --- */

static ssize_t cut(struct connection *connection) {
    fail(ECONNABORTED, "the session was cut: it failed, or the ssad that served it has gone");
    return failed(connection);
}

/* Nothing more comes: by the peer's close_notify, or as the session was cut. */
static ssize_t end(struct connection *connection, int fd) {
    if (atomic_load(&connection->read_ended))
        return 0;
    if (wait_for(fd, 0, 0) & POLLHUP && !atomic_load(&connection->write_ended))
        return cut(connection);
    atomic_store(&connection->read_ended, true);
    return 0;
}

static ssize_t receive(struct connection *connection, int fd, struct msghdr *packet, int flags) {
    ssize_t got = NEXT(recvmsg)(fd, packet, flags);
    packet->msg_flags &= ~MSG_EOR;
    return got < 0 && errno == ECONNRESET ? cut(connection) : got;
}

enum { MOST_PARTS = 64 };

/* The next datagram of any client. One whose session has ended is forgotten. */
static ssize_t receive_of_any(struct connection *connection, int fd, struct msghdr *message, int flags) {
    unsigned char peer[PEER_SIZE];
    struct iovec parts[1 + MOST_PARTS] = {{peer, sizeof peer}};
    if (message->msg_iovlen > MOST_PARTS)
        return fail_plainly(EMSGSIZE);
    memcpy(parts + 1, message->msg_iov, message->msg_iovlen * sizeof *parts);
    for (;;) {
        struct msghdr packet = {.msg_iov = parts, .msg_iovlen = 1 + message->msg_iovlen};
        ssize_t got = receive(connection, fd, &packet, flags);
        if (got < PEER_SIZE)
            return got < 0 ? -1 : end(connection, fd);
        message->msg_flags = packet.msg_flags;
        struct guard guard = guard_enter(&connection->lock);
        int noted = peers_note(&connection->peers, peer);
        guard_leave(&guard);
        if (noted < 0)
            return fail_plainly(ENOMEM);
        if (noted) {
            if (message->msg_name)
                peer_address(peer, message->msg_name, &message->msg_namelen);
            return got - PEER_SIZE;
        }
        if (flags & MSG_PEEK)
            NEXT(recv)(fd, peer, 1, 0);
    }
}

ssize_t datagram_read(struct connection *connection, int fd, struct msghdr *message, int flags) {
    if (check(connection, fd, flags, true))
        return -1;
    message->msg_controllen = 0;
    message->msg_flags = 0;
    if (atomic_load(&connection->phase) == GATHERING)
        return receive_of_any(connection, fd, message, flags);
    struct msghdr packet = {.msg_iov = message->msg_iov, .msg_iovlen = message->msg_iovlen};
    ssize_t got = receive(connection, fd, &packet, flags);
    message->msg_flags = packet.msg_flags;
    if (!got && end(connection, fd))
        return -1;
    if (got >= 0 && message->msg_name)
        give_peer(connection, message);
    return got;
}

/* --- writing --- */

static size_t total(const struct msghdr *message) {
    size_t size = 0;
    for (size_t at = 0; at < message->msg_iovlen; at++)
        size += message->msg_iov[at].iov_len;
    return size;
}

static int check_size(struct connection *connection, size_t size) {
    if (!size)
        return fail(EINVAL, "DTLS carries no empty datagrams");
    if (size > connection->largest)
        return fail(EMSGSIZE, "a datagram of %zu bytes, where the path takes %u", size, connection->largest);
    return 0;
}

static ssize_t send_to_one_of_all(struct connection *connection, int fd, const struct msghdr *message, int flags) {
    unsigned char peer[PEER_SIZE];
    struct iovec parts[1 + MOST_PARTS] = {{peer, sizeof peer}};
    if (!message->msg_name)
        return fail(EDESTADDRREQ, "the socket serves many clients: sendto(2) says which");
    if (message->msg_iovlen > MOST_PARTS || peer_of(message->msg_name, message->msg_namelen, peer))
        return fail_plainly(EINVAL);
    struct guard guard = guard_enter(&connection->lock);
    bool known = peers_have(connection->peers, peer);
    guard_leave(&guard);
    if (!known)
        return fail(ENOTCONN, "there is no session with this address");
    memcpy(parts + 1, message->msg_iov, message->msg_iovlen * sizeof *parts);
    struct msghdr packet = {.msg_iov = parts, .msg_iovlen = 1 + message->msg_iovlen};
    ssize_t sent = NEXT(sendmsg)(fd, &packet, flags);
    return sent < 0 ? -1 : sent - PEER_SIZE;
}

/* sendto(2) on a connected socket may name its peer, and nobody else. */
static int check_address(struct connection *connection, const struct msghdr *message) {
    unsigned char wanted[PEER_SIZE], actual[PEER_SIZE];
    struct sockaddr_storage name;
    struct msghdr known = {.msg_name = &name, .msg_namelen = sizeof name};
    if (!message->msg_name)
        return 0;
    give_peer(connection, &known);
    if (peer_of(message->msg_name, message->msg_namelen, wanted) || peer_of(&name, known.msg_namelen, actual) ||
        memcmp(wanted, actual, sizeof wanted))
        return fail(EISCONN, "the socket is connected to another address");
    return 0;
}

ssize_t datagram_write(struct connection *connection, int fd, const struct msghdr *message, int flags) {
    if (message->msg_controllen)
        return fail(EINVAL, "there is no ancillary data for DTLS");
    if (check(connection, fd, flags, message->msg_name != NULL) || check_size(connection, total(message)))
        return -1;
    if (atomic_load(&connection->phase) == GATHERING)
        return send_to_one_of_all(connection, fd, message, flags);
    if (check_address(connection, message))
        return -1;
    struct msghdr packet = {.msg_iov = message->msg_iov, .msg_iovlen = message->msg_iovlen};
    return NEXT(sendmsg)(fd, &packet, flags);
}

void datagram_release(struct connection *connection) {
    peers_release(connection->peers);
    connection->peers = NULL;
}
