/* exchange.c: all that talks to ssad. A request is one packet, and so is its reply. */

#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* The memory of the last conversation serves the next one: neither malloc(3) nor, as a rule, mmap(2). */
static _Atomic(struct exchange *) spare;

struct exchange *exchange_of(int ssad) {
    struct exchange *exchange = atomic_exchange(&spare, NULL);
    if (!exchange) {
        void *memory = mmap(NULL, sizeof *exchange, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            fail_plainly(ENOMEM);
            return NULL;
        }
        exchange = memory;
    }
    exchange->ssad = ssad;
    exchange->reply.size = 0;
    exchange->reply.count = 0;
    return exchange;
}

void exchange_forget(struct exchange *exchange) {
    int before = errno;
    exchange_drop_descriptors(exchange);
    exchange = atomic_exchange(&spare, exchange);
    if (exchange)
        munmap(exchange, sizeof *exchange);
    errno = before;
}

void exchange_close(struct exchange *exchange) {
    close_quietly(exchange->ssad);
    exchange_forget(exchange);
}

void exchange_drop_descriptors(struct exchange *exchange) {
    while (exchange->reply.count)
        close_quietly(exchange->reply.descriptors[--exchange->reply.count]);
}

static void set_timeout(int fd, int name, int milliseconds) {
    struct timeval interval = {milliseconds / 1000, milliseconds % 1000 * 1000};
    if (!milliseconds)
        interval.tv_usec = 1; /* 0 would mean none */
    syscall(SYS_setsockopt, fd, SOL_SOCKET, name, &interval, sizeof interval);
}

/* A blocking connect(2) with a time: to one that does not block a full queue of ssad's is EAGAIN at once (unix(7)). */
static int connect_within(int fd, const struct sockaddr_un *address, int milliseconds) {
    if (milliseconds != FOREVER) {
        set_timeout(fd, SO_SNDTIMEO, milliseconds);
        set_timeout(fd, SO_RCVTIMEO, milliseconds);
    }
    while (syscall(SYS_connect, fd, address, sizeof *address))
        if (errno != EINTR)
            return -1;
    return 0;
}

static int explain_no_ssad(int number, const char *path) {
    if (number == ENOENT || number == ECONNREFUSED)
        return fail(ECONNREFUSED,
                    "no ssad listens at %s; start it with `ssad` (as root); for your own daemon: `ssad --user`, then "
                    "eval \"$(ssa env)\"",
                    path);
    if (number == EAGAIN)
        return fail(ETIMEDOUT, "the ssad at %s takes no request in time", path);
    return fail(number, "the ssad at %s cannot be reached: %s", path, strerrordesc_np(number));
}

struct exchange *exchange_open(int milliseconds) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *directory = run_directory();
    if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s/ssad.sock", directory) >=
        sizeof address.sun_path) {
        fail(ENAMETOOLONG, "SSA_RUN_DIR is longer than the address of a socket: %s", directory);
        return NULL;
    }
    int fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        fail_plainly(errno);
        return NULL;
    }
    if (connect_within(fd, &address, milliseconds)) {
        int number = errno;
        close_quietly(fd);
        explain_no_ssad(number, address.sun_path);
        return NULL;
    }
    struct exchange *exchange = exchange_of(fd);
    if (!exchange)
        close_quietly(fd);
    return exchange;
}

/* Why ssad has hung up: what it said before, if it said anything. */
static int last_words(struct exchange *exchange) {
    int before = errno;
    if (before == EPIPE && exchange_hear(exchange, MSG_DONTWAIT) && exchange->reply.size)
        return -1;
    exchange_drop_descriptors(exchange);
    return fail(before == EPIPE ? ECONNRESET : before, "the ssad that was asked has gone");
}

int exchange_tell(struct exchange *exchange, int sock, const int *files, int count) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE((1 + ALL_FILES) * sizeof(int))];
    } control;
    struct request *request = &exchange->request;
    if (request->too_long)
        return fail(EINVAL, "the options are longer than a request");
    request_end(request);
    struct iovec part = {request->data, request->size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int descriptors[1 + ALL_FILES], all = 0;
    if (sock >= 0)
        descriptors[all++] = sock;
    for (int at = 0; at < count; at++)
        descriptors[all++] = files[at];
    if (all) {
        memset(&control, 0, sizeof control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN((size_t)all * sizeof(int));
        memcpy(CMSG_DATA(&control.header), descriptors, (size_t)all * sizeof(int));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)all * sizeof(int));
    }
    while (syscall(SYS_sendmsg, exchange->ssad, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return errno == EAGAIN ? fail(ETIMEDOUT, "the ssad that was asked takes no request") : last_words(exchange);
    return 0;
}

static void take_descriptors(struct reply *reply, struct msghdr *message) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part))
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
            for (size_t at = 0; CMSG_LEN((at + 1) * sizeof(int)) <= part->cmsg_len; at++) {
                int fd;
                memcpy(&fd, CMSG_DATA(part) + at * sizeof fd, sizeof fd);
                if (reply->count < MOST_DESCRIPTORS)
                    reply->descriptors[reply->count++] = fd;
                else
                    close_quietly(fd);
            }
}

/* The reply's reason as errno and words. 0: there is none, so it was done. */
static int judge(const struct reply *reply) {
    size_t size, length = 0;
    const char *name = attribute(reply->data, reply->size, ATTRIBUTE_REASON, &size);
    if (!name)
        return 0;
    const struct reason *reason = reason_named(name, size);
    const char *detail = attribute(reply->data, reply->size, ATTRIBUTE_DETAIL, &length);
    uint32_t number = attribute_number(reply->data, reply->size, ATTRIBUTE_ERRNO);
    char unknown[REASON_ROOM]; /* of a later version: the number and the details are enough */
    copy_text(unknown, sizeof unknown, name, size);
    int errno_of_it = reason ? reason->number : number ? (int)number : EIO;
    return fail_for(name, size, errno_of_it, reason ? reason->text : unknown, detail, length);
}

enum { HEADER = 12 }; /* bytes: a reply's attributes are kept without it */

static int read_untrusted(struct exchange *exchange, size_t size) {
    struct reply *reply = &exchange->reply;
    enum reading read = reply_read_untrusted(reply->data, size);
    if (read == READ_REPLY) {
        reply->size = size - HEADER;
        memmove(reply->data, reply->data + HEADER, reply->size);
        return judge(reply);
    }
    reply->size = 0;
    if (read == READ_OTHER_VERSION)
        return fail(EPROTONOSUPPORT,
                    "ssad speaks another version of the request language than this library, which speaks "
                    "SSA1: they have to be of one version");
    return fail(EIO, "ssad failed: %s",
                size ? "its reply is none of this protocol's" : "it went away in the middle of the request");
}

int exchange_hear(struct exchange *exchange, int flags) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
    } control;
    struct reply *reply = &exchange->reply;
    struct iovec part = {reply->data, sizeof reply->data};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    reply->size = 0;
    ssize_t size = syscall(SYS_recvmsg, exchange->ssad, &message, flags | MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EAGAIN && !(flags & MSG_DONTWAIT))
        return fail(ETIMEDOUT, "the ssad that was asked does not answer; is it stopped?");
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? -1 : fail(errno, "the ssad that was asked has gone");
    take_descriptors(reply, &message);
    int done = message.msg_flags & MSG_CTRUNC
                   ? fail(EMFILE, "ssad's reply brings more descriptors than there is room for")
                   : read_untrusted(exchange, (size_t)size);
    if (done)
        exchange_drop_descriptors(exchange);
    return done;
}

int exchange_ask(struct exchange *exchange, int sock, const int *files, int count) {
    if (exchange_tell(exchange, sock, files, count))
        return -1;
    int done;
    while ((done = exchange_hear(exchange, 0)) && errno == EINTR)
        continue;
    return done;
}

int exchange_check_descriptor(struct exchange *exchange, bool always) {
    struct reply *reply = &exchange->reply;
    bool is_due = always || attribute_number(reply->data, reply->size, ATTRIBUTE_RELAYED);
    return is_due && !reply->count ? fail(EIO, "ssad failed: its reply lacks the descriptor") : 0;
}

bool exchange_says(const struct exchange *exchange, const char *reason) {
    size_t size;
    const char *name = attribute(exchange->reply.data, exchange->reply.size, ATTRIBUTE_REASON, &size);
    return name && size == strlen(reason) && !memcmp(name, reason, size);
}
