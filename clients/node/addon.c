/* addon.c: what Node has no function for: packets with descriptors, and waiting until one has come.
 *
 * Nothing here waits on Node's event loop: each descriptor is non-blocking, and a thread of this addon's own waits for
 * replies of ssad (epoll(7)). Each environment of Node (the main thread, each worker thread) has such a thread from its
 * first request on. A function gives a number from 0 on, or an errno as a negative number.
 */

#define _GNU_SOURCE
#include "napi.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST_ARGUMENTS = 3, MOST_SENT = 64, MOST_RECEIVED = 2, LONGEST_REPLY = 1 << 17 };

struct watcher { /* of one environment */
    int epoll, end, watched;
    pthread_t thread;
    napi_threadsafe_function tell;
    int *held; /* descriptors that JavaScript has from here: a worker thread that is terminated closes none */
    size_t count, room;
};

/* --- values --- */

static napi_value number(napi_env env, int value) {
    napi_value made = NULL;
    napi_create_int32(env, value, &made);
    return made;
}

static napi_value done(napi_env env, int value) {
    return number(env, value < 0 ? -errno : value);
}

static void arguments_of(napi_env env, napi_callback_info info, napi_value *arguments) {
    size_t count = MOST_ARGUMENTS;
    napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
}

static int int_of(napi_env env, napi_value value) {
    int32_t read = -1;
    napi_get_value_int32(env, value, &read);
    return read;
}

static struct watcher *watcher_of(napi_env env) {
    void *data = NULL;
    napi_get_instance_data(env, &data);
    return data;
}

/* --- descriptors --- */

/* A descriptor goes to JavaScript. */
static int hold(napi_env env, int fd) {
    struct watcher *watcher = watcher_of(env);
    if (fd >= 0 && watcher->count == watcher->room) {
        int *more = realloc(watcher->held, (watcher->room + 64) * sizeof *more);
        if (!more) /* it is not closed where the thread is terminated */
            return fd;
        watcher->held = more;
        watcher->room += 64;
    }
    if (fd >= 0)
        watcher->held[watcher->count++] = fd;
    return fd;
}

static int close_held(napi_env env, int fd) {
    struct watcher *watcher = watcher_of(env);
    for (size_t at = watcher->count; at-- > 0;)
        if (watcher->held[at] == fd) {
            watcher->held[at] = watcher->held[--watcher->count];
            break;
        }
    return close(fd);
}

/* The environment ends: nobody else closes them. */
static void close_all(void *argument) {
    struct watcher *watcher = argument;
    while (watcher->count)
        close(watcher->held[--watcher->count]);
    free(watcher->held);
    free(watcher);
}

/* open(path): a connection to ssad. -EAGAIN: its queue is full. */
static napi_value open_ssad(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[PATH_MAX];
    size_t length = 0;
    arguments_of(env, info, arguments);
    if (napi_get_value_string_utf8(env, arguments[0], path, sizeof path, &length) || length >= sizeof address.sun_path)
        return number(env, -ENAMETOOLONG);
    memcpy(address.sun_path, path, length);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || !connect(fd, (struct sockaddr *)&address, sizeof address))
        return done(env, hold(env, fd));
    int failure = errno;
    close(fd);
    return number(env, -failure);
}

/* place(): a stream socket, on whose number the relayed one is put later. */
static napi_value place(napi_env env, napi_callback_info info) {
    (void)info;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        return done(env, -1);
    close(pair[1]);
    return number(env, pair[0]);
}

/* put(from, onto): the open file of `from` is on the number `onto`, and `from` is closed. */
static napi_value put(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS];
    arguments_of(env, info, arguments);
    int from = int_of(env, arguments[0]), flags = fcntl(from, F_GETFL);
    if (flags < 0 || fcntl(from, F_SETFL, flags | O_NONBLOCK) || dup3(from, int_of(env, arguments[1]), O_CLOEXEC) < 0)
        return done(env, -1);
    close_held(env, from);
    return number(env, 0);
}

static napi_value duplicate(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS];
    arguments_of(env, info, arguments);
    return done(env, hold(env, fcntl(int_of(env, arguments[0]), F_DUPFD_CLOEXEC, 0)));
}

static napi_value close_fd(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS];
    arguments_of(env, info, arguments);
    return done(env, close_held(env, int_of(env, arguments[0])));
}

static napi_value end_writing(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS];
    arguments_of(env, info, arguments);
    return done(env, shutdown(int_of(env, arguments[0]), SHUT_WR));
}

/* memory(buffer): a file in memory with these bytes. */
static napi_value memory(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS];
    void *data = NULL;
    size_t size = 0;
    arguments_of(env, info, arguments);
    if (napi_get_buffer_info(env, arguments[0], &data, &size))
        return number(env, -EINVAL);
    int fd = memfd_create("ssa", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) == (ssize_t)size)
        return done(env, hold(env, fd));
    int failure = errno ? errno : EIO;
    close(fd);
    return number(env, -failure);
}

/* --- packets --- */

static size_t ints_of(napi_env env, napi_value array, int *to) {
    uint32_t count = 0;
    napi_get_array_length(env, array, &count);
    for (uint32_t at = 0; at < count && at < MOST_SENT; at++) {
        napi_value element = NULL;
        napi_get_element(env, array, at, &element);
        to[at] = int_of(env, element);
    }
    return count;
}

/* send(fd, packet, descriptors): how many bytes were sent. */
static napi_value send_packet(napi_env env, napi_callback_info info) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(MOST_SENT * sizeof(int))];
    } control = {0};
    napi_value arguments[MOST_ARGUMENTS];
    int descriptors[MOST_SENT];
    struct iovec part = {0};
    arguments_of(env, info, arguments);
    if (napi_get_buffer_info(env, arguments[1], &part.iov_base, &part.iov_len))
        return number(env, -EINVAL);
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    size_t count = ints_of(env, arguments[2], descriptors);
    if (count > MOST_SENT)
        return number(env, -EINVAL);
    if (count) {
        control.header = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), descriptors, count * sizeof(int));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    }
    return done(env, (int)sendmsg(int_of(env, arguments[0]), &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

static napi_value descriptors_of(napi_env env, struct msghdr *message) {
    napi_value array = NULL;
    uint32_t count = 0;
    napi_create_array(env, &array);
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part))
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
            for (size_t at = 0; CMSG_LEN((at + 1) * sizeof(int)) <= part->cmsg_len; at++) {
                int fd;
                memcpy(&fd, CMSG_DATA(part) + at * sizeof fd, sizeof fd);
                napi_set_element(env, array, count++, number(env, hold(env, fd)));
            }
    return array;
}

/* receive(fd): {data, descriptors, cut}; cut is 1 where descriptors were lost. */
static napi_value receive(napi_env env, napi_callback_info info) {
    static _Thread_local char *room; /* of each thread of Node, which there are few of */
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(MOST_RECEIVED * sizeof(int))];
    } control;
    napi_value arguments[MOST_ARGUMENTS], told = NULL, data = NULL;
    arguments_of(env, info, arguments);
    if (!room && !(room = malloc(LONGEST_REPLY)))
        return number(env, -ENOMEM);
    struct iovec part = {room, LONGEST_REPLY};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(int_of(env, arguments[0]), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size < 0)
        return done(env, -1);
    napi_create_object(env, &told);
    napi_create_buffer_copy(env, (size_t)size, room, NULL, &data);
    napi_set_named_property(env, told, "data", data);
    napi_set_named_property(env, told, "descriptors", descriptors_of(env, &message));
    napi_set_named_property(env, told, "cut", number(env, message.msg_flags & MSG_CTRUNC ? 1 : 0));
    return told;
}

/* --- waiting --- */

/* The thread. It tells the environment which descriptors can be read, by the numbers that `watch` was given. */
static void *wait_for_replies(void *argument) {
    struct watcher *watcher = argument;
    struct epoll_event events[64];
    for (;;) {
        int count = epoll_wait(watcher->epoll, events, sizeof events / sizeof *events, -1);
        for (int at = 0; at < count; at++) {
            if (!events[at].data.u64) /* of `end` */
                return NULL;
            napi_call_threadsafe_function(watcher->tell, (void *)(uintptr_t)events[at].data.u64, NAPI_NONBLOCKING);
        }
    }
}

/* On the event loop: call JavaScript's function with the number. */
static void tell(napi_env env, napi_value callback, void *context, void *data) {
    (void)context;
    napi_value undefined = NULL, argument;
    if (!env) /* it is being torn down */
        return;
    napi_get_undefined(env, &undefined);
    argument = number(env, (int)(uintptr_t)data);
    napi_call_function(env, undefined, callback, 1, &argument, NULL);
}

static void end_watcher(void *argument) {
    struct watcher *watcher = argument;
    uint64_t one = 1;
    if (write(watcher->end, &one, sizeof one) == sizeof one)
        pthread_join(watcher->thread, NULL);
    close(watcher->epoll);
    close(watcher->end);
}

static int start_thread(struct watcher *watcher) {
    sigset_t all, before;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    watcher->epoll = epoll_create1(EPOLL_CLOEXEC);
    watcher->end = eventfd(0, EFD_CLOEXEC);
    if (watcher->epoll < 0 || watcher->end < 0 || epoll_ctl(watcher->epoll, EPOLL_CTL_ADD, watcher->end, &event))
        return -1;
    sigfillset(&all); /* signals are for Node's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&watcher->thread, NULL, wait_for_replies, watcher);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = failure;
    return failure ? -1 : 0;
}

/* start(callback): have `callback(number)` called for each number that was watched and can be read. */
static napi_value start(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS], name;
    struct watcher *watcher = watcher_of(env);
    arguments_of(env, info, arguments);
    napi_create_string_utf8(env, "ssa", 3, &name);
    if (napi_create_threadsafe_function(env, arguments[0], NULL, name, 0, 1, NULL, NULL, NULL, tell, &watcher->tell))
        return number(env, -ENOMEM);
    napi_unref_threadsafe_function(env, watcher->tell);
    if (start_thread(watcher)) { /* the function stays: it is small, and the environment's end takes it */
        int failure = errno;
        close(watcher->epoll);
        close(watcher->end);
        return number(env, -failure);
    }
    napi_add_env_cleanup_hook(env, end_watcher, watcher); /* it runs before the function's own end */
    return number(env, 0);
}

/* watch(fd, number): say once when the descriptor can be read. Node's event loop stays alive for it. */
static napi_value watch(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS];
    arguments_of(env, info, arguments);
    struct watcher *watcher = watcher_of(env);
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = (uint64_t)int_of(env, arguments[1])};
    if (epoll_ctl(watcher->epoll, EPOLL_CTL_ADD, int_of(env, arguments[0]), &event))
        return done(env, -1);
    if (!watcher->watched++)
        napi_ref_threadsafe_function(env, watcher->tell);
    return number(env, 0);
}

static napi_value unwatch(napi_env env, napi_callback_info info) {
    napi_value arguments[MOST_ARGUMENTS];
    arguments_of(env, info, arguments);
    struct watcher *watcher = watcher_of(env);
    if (epoll_ctl(watcher->epoll, EPOLL_CTL_DEL, int_of(env, arguments[0]), NULL))
        return done(env, -1);
    if (!--watcher->watched)
        napi_unref_threadsafe_function(env, watcher->tell);
    return number(env, 0);
}

/* --- the module --- */

static const struct {
    const char *name;
    napi_callback call;
} functions[] = {
    {"open", open_ssad},  {"place", place},   {"put", put},          {"duplicate", duplicate},
    {"close", close_fd},  {"memory", memory}, {"send", send_packet}, {"start", start},
    {"receive", receive}, {"watch", watch},   {"unwatch", unwatch},  {"shutdown", end_writing},
};

__attribute__((visibility("default"))) int32_t node_api_module_get_api_version_v1(void);
__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports);

int32_t node_api_module_get_api_version_v1(void) {
    return NAPI_VERSION_USED;
}

napi_value napi_register_module_v1(napi_env env, napi_value exports) {
    struct watcher *watcher = calloc(1, sizeof *watcher);
    if (!watcher)
        return NULL;
    watcher->epoll = watcher->end = -1;
    napi_set_instance_data(env, watcher, NULL, NULL);
    napi_add_env_cleanup_hook(env, close_all, watcher); /* the last of all */
    for (size_t at = 0; at < sizeof functions / sizeof *functions; at++) {
        napi_value function = NULL;
        napi_create_function(env, functions[at].name, (size_t)NAPI_AUTO_LENGTH, functions[at].call, NULL, &function);
        napi_set_named_property(env, exports, functions[at].name, function);
    }
    return exports;
}
