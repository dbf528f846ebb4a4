/* records.c: the records of a kernel TLS socket that are no data (Documentation/networking/tls.rst).
 *
 * A plain read that meets such a record gets EIO, again and again, with nothing lost; recvmsg(2) with room for a
 * control message returns the record and its type. And what the kernel calls the end of the stream is a bare FIN, the
 * truncation of RFC 8446 section 6.1: the true end is a close_notify alert.
 */

#include "internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
enum { TLS_TX = 1, TLS_RX = 2 }; /* include/uapi/linux/tls.h */
enum { TLS_SET_RECORD_TYPE = 1, TLS_GET_RECORD_TYPE = 2 };
enum { WARNING = 1, FATAL = 2, CLOSE_NOTIFY = 0 }; /* RFC 8446 section 6 */

ssize_t record_read(int fd, void *data, size_t size, int flags, int *type) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(1)];
    } control;
    struct iovec part = {data, size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = syscall(SYS_recvmsg, fd, &message, flags);
    struct cmsghdr *header = got < 0 ? NULL : CMSG_FIRSTHDR(&message);
    bool is_told = header && header->cmsg_level == SOL_TLS && header->cmsg_type == TLS_GET_RECORD_TYPE;
    *type = is_told ? *CMSG_DATA(header) : RECORD_DATA;
    return got;
}

/* To look for more data than a byte could make the kernel find a KeyUpdate behind it, and poll(2) hide everything. */
ssize_t record_look(int fd, void *data, size_t size, int *type) {
    ssize_t got = record_read(fd, data, 1, MSG_PEEK | MSG_DONTWAIT, type);
    return got < 0 || *type == RECORD_DATA ? got : record_read(fd, data, size, MSG_PEEK | MSG_DONTWAIT, type);
}

int send_alert(int fd, int level, int number, int flags) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(1)];
    } control;
    unsigned char alert[2] = {(unsigned char)level, (unsigned char)number};
    struct iovec part = {alert, sizeof alert};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memset(&control, 0, sizeof control);
    control.header.cmsg_level = SOL_TLS;
    control.header.cmsg_type = TLS_SET_RECORD_TYPE;
    control.header.cmsg_len = CMSG_LEN(1);
    *CMSG_DATA(&control.header) = RECORD_ALERT;
    return syscall(SYS_sendmsg, fd, &message, flags | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* A full send buffer has so many milliseconds to make room. */
int say_close_notify(int fd, int patience) {
    if (send_alert(fd, WARNING, CLOSE_NOTIFY, MSG_DONTWAIT)) {
        if (errno != EAGAIN || !patience)
            return -1;
        wait_for(fd, POLLOUT, patience);
        if (send_alert(fd, WARNING, CLOSE_NOTIFY, MSG_DONTWAIT))
            return -1;
    }
    return (int)syscall(SYS_shutdown, fd, SHUT_WR);
}

/* Where there is no room for close_notify, ssad waits for it, and keeps the connection until the peer has all. */
void say_goodbye(int fd) {
    if (!say_close_notify(fd, 0) || errno != EAGAIN)
        return;
    struct exchange *exchange = exchange_open(0);
    if (exchange) {
        request_begin(&exchange->request, KIND_CLOSE);
        int told = exchange_tell(exchange, fd, NULL, 0);
        exchange_close(exchange);
        if (!told)
            return;
    }
    say_close_notify(fd, 1000);
}

enum { LEFTOVERS = 64 }; /* records: a peer that goes on sending is reset */

/* The descriptor is about to be closed. Who closes with something left unread resets the connection, and what was
 * written last may never arrive: so what has come meanwhile is read and thrown away. */
void end_in_order(int fd, bool says_goodbye) {
    unsigned char waste[4096];
    int type, before = errno;
    if (says_goodbye)
        say_goodbye(fd);
    for (int count = 0; count < LEFTOVERS * 4; count++)
        if (record_read(fd, waste, sizeof waste, MSG_DONTWAIT, &type) <= 0)
            break;
    errno = before;
}

static void shut_down(int fd) {
    syscall(SYS_shutdown, fd, SHUT_RDWR);
}

/* The peer gets an alert, once, and then the end of our stream. Nobody waits for a peer that does not read: it gets no
 * alert then. `unreadable`: reading ends too, as the kernel would wait for ever for a record that makes sense. */
void fail_connection(int fd, int alert, bool unreadable) {
    int before = errno;
    get_number(fd, SOL_SOCKET, SO_ERROR, 0);            /* an error that the kernel remembers would stop the alert */
    bool writable = wait_for(fd, POLLOUT, 0) & POLLOUT; /* else the kernel waits for a send that is blocked */
    if ((alert >= 0 && writable && send_alert(fd, FATAL, alert, MSG_DONTWAIT)) ||
        syscall(SYS_shutdown, fd, unreadable ? SHUT_RDWR : SHUT_WR))
        shut_down(fd);
    errno = before;
}

bool does_abort(int fd) {
    struct linger linger = {0, 0};
    socklen_t size = sizeof linger;
    return !syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, &linger, &size) && linger.l_onoff && !linger.l_linger;
}

/* --- what TCP knows --- */

int tcp_state(int fd) {
    unsigned char state = 0;
    socklen_t size = sizeof state;
    return syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &state, &size) ? TCP_CLOSE : state;
}

enum { BYTES_ACKED = 120 }; /* of struct tcp_info (include/uapi/linux/tcp.h): where tcpi_bytes_acked is */

/* True where connect(2) has reached the peer, whatever came then: its SYN was acknowledged. */
bool was_connected(int fd) {
    unsigned char info[BYTES_ACKED + 8] = {0};
    uint64_t acked;
    socklen_t size = sizeof info;
    if (syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, info, &size))
        return true;
    memcpy(&acked, info + BYTES_ACKED, sizeof acked);
    return (info[0] != TCP_SYN_SENT && info[0] != TCP_CLOSE) || acked;
}

/* --- what the kernel knows of its keys --- */

/* By the kernel's number of the cipher: how many records one key may protect, below what RFC 8446 section 5.5 allows
 * AES-GCM, and RFC 9147 section 4.5.3 AES-CCM; and the size of struct tls12_crypto_info_*, which ends with the number.
 */
static const struct {
    int cipher;
    int64_t records;
    socklen_t size;
} ciphers[] = {
    {51, 1 << 24, 40},
    {52, 1 << 24, 56},
    {53, 1 << 22, 40},
    {54, INT64_C(1) << 62, 56},
};

struct key_state { /* begins as struct tls_crypto_info does */
    uint16_t version, cipher;
    unsigned char rest[60];
};

static socklen_t key_state(int fd, int direction, struct key_state *state) {
    socklen_t size = 4;
    if (syscall(SYS_getsockopt, fd, SOL_TLS, direction, state, &size))
        return 0;
    for (size_t at = 0; at < sizeof ciphers / sizeof *ciphers; at++)
        if (ciphers[at].cipher == state->cipher) {
            size = ciphers[at].size;
            return syscall(SYS_getsockopt, fd, SOL_TLS, direction, state, &size) ? 0 : size;
        }
    errno = EOPNOTSUPP;
    return 0;
}

int tls_version(int fd) {
    struct key_state state;
    socklen_t size = 4;
    return syscall(SYS_getsockopt, fd, SOL_TLS, TLS_TX, &state, &size) ? -1 : state.version;
}

int64_t records_left(int fd) {
    struct key_state state;
    socklen_t size = key_state(fd, TLS_TX, &state);
    int64_t sent = 0, allowed = 0;
    if (!size)
        return -1;
    for (socklen_t at = size - 8; at < size; at++)
        sent = (int64_t)((uint64_t)sent << 8 | ((unsigned char *)&state)[at]);
    for (size_t at = 0; at < sizeof ciphers / sizeof *ciphers; at++)
        if (ciphers[at].cipher == state.cipher)
            allowed = ciphers[at].records;
    explicit_bzero(&state, sizeof state);
    return allowed > sent ? allowed - sent : 0;
}

/* Have the kernel read on behind a handshake record that begins like a KeyUpdate and is none. Since Linux 6.14 it goes
 * by the record's first byte, which can be in the middle of a message, and waits for a key: it gets the one it has. */
void read_on(int fd) {
    struct key_state state;
    socklen_t size = key_state(fd, TLS_RX, &state);
    if (size)
        syscall(SYS_setsockopt, fd, SOL_TLS, TLS_RX, &state, size);
    explicit_bzero(&state, sizeof state);
}
