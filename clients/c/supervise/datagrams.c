/* datagrams.c: the program's UDP sockets, as far as they speak to the DNS: what is sent, and what is about to be read.
 * They go on as they are.
 */

#include "supervise.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DNS = 53, LONGEST_QUESTION = 512, LONGEST_ANSWER = 1 << 16, SLICE = 50, MOST_PARTS = 8, MOST_MESSAGES = 8 };

/* --- what is sent --- */

static void note_parts(const struct call *call, struct held *held, uint64_t at, size_t count) {
    struct iovec parts[MOST_PARTS];
    unsigned char data[LONGEST_QUESTION];
    size_t size = 0;
    count = count < MOST_PARTS ? count : MOST_PARTS;
    if (memory_read(call, at, parts, count * sizeof *parts))
        return;
    for (size_t part = 0; part < count; part++) {
        size_t room = sizeof data - size, wanted = parts[part].iov_len < room ? parts[part].iov_len : room;
        size += memory_read_some(call, (uint64_t)(uintptr_t)parts[part].iov_base, data + size, wanted);
    }
    dns_question_untrusted(held, data, size);
}

static void note_bytes(const struct call *call, struct held *held, uint64_t at, uint64_t length) {
    unsigned char data[LONGEST_QUESTION];
    size_t size = memory_read_some(call, at, data, length < sizeof data ? length : sizeof data);
    dns_question_untrusted(held, data, size);
}

static void note_message(const struct call *call, struct held *held, uint64_t at) {
    struct msghdr message;
    if (!memory_read(call, at, &message, sizeof message))
        note_parts(call, held, (uint64_t)(uintptr_t)message.msg_iov, message.msg_iovlen);
}

void on_datagram_out(struct call *call) {
    int file;
    const uint64_t *arguments = call->arguments;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    if (call->number == SYS_write || call->number == SYS_sendto)
        note_bytes(call, held, arguments[1], arguments[2]);
    else if (call->number == SYS_writev)
        note_parts(call, held, arguments[1], arguments[2]);
    else if (call->number == SYS_sendmsg)
        note_message(call, held, arguments[1]);
    else
        for (uint64_t at = 0; at < arguments[2] && at < MOST_MESSAGES; at++)
            note_message(call, held, arguments[1] + at * sizeof(struct mmsghdr));
    close_quietly(file);
    entry_release(held);
    let_go_on(call);
}

/* --- what is about to be read --- */

static unsigned port_of(const struct sockaddr_storage *address, socklen_t size) {
    struct endpoint from;
    return endpoint_of((const struct sockaddr *)address, size, &from) ? from.port : 0;
}

/* False: nothing is there. */
static bool look_at_next(struct held *held, int file) {
    unsigned char data[4096];
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    ssize_t got = recvfrom(file, data, sizeof data, MSG_PEEK | MSG_DONTWAIT, (struct sockaddr *)&from, &size);
    if (got < 0)
        return errno != EAGAIN;
    if (port_of(&from, size) == DNS)
        dns_answer_untrusted(held, data, (size_t)got);
    return true;
}

static int flags_of(const struct call *call) {
    return call->number == SYS_recvfrom  ? (int)call->arguments[3]
           : call->number == SYS_recvmsg ? (int)call->arguments[2]
                                         : 0;
}

static void wait_for_datagram(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    int timeout = timeout_of(file, SO_RCVTIMEO);
    int64_t end = timeout == FOREVER ? INT64_MAX : now() + timeout;
    while (!look_at_next(held, file) && now() < end && !is_interrupted(call))
        wait_for(file, POLLIN, SLICE);
    if (!call->answered && !look_at_next(held, file))
        answer(call, 0, EAGAIN); /* SO_RCVTIMEO's time is up */
    close_quietly(file);
    entry_release(held);
    if (!call->answered)
        let_go_on(call);
}

/* Where nothing is there, the program does not get what comes a moment later without our having seen it. */
void on_datagram_in(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    bool there = !held->asked_count || look_at_next(held, file); /* who has asked nothing gets no answer */
    if (there)
        let_go_on(call);
    else if (flags_of(call) & MSG_DONTWAIT || !does_wait(file))
        answer(call, 0, EAGAIN);
    else
        in_a_thread(call, wait_for_datagram);
    close_quietly(file);
    entry_release(held);
}
