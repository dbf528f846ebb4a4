/* optioning.c: setsockopt and getsockopt. ../options.c has the options of TLS. */

#include "supervise.h"

#include "../destinations.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LARGEST_VALUE = 1 << 20, LARGEST_PLAIN = 4096 };

_Thread_local struct call *current_call;

/* --- options of TLS --- */

/* A path is opened here, as the program would have: ../settings.c gets the file. */
static int settle_path(struct call *call, int name, char **value, size_t *size, int *opened) {
    const struct option *option = option_numbered(name);
    if (!option || option->form != FORM_FILES || !*size || memmem(*value, *size, "-----BEGIN ", 11) ||
        memchr(*value, '\n', *size) || strnlen(*value, *size) + 1 < *size)
        return 0;
    char *path = realloc(*value, *size + 64);
    if (!path)
        return fail_plainly(ENOMEM);
    *value = path;
    path[*size] = 0;
    if ((*opened = open_for(call, path)) < 0)
        return -1;
    *size = (size_t)snprintf(path, 64, "/proc/self/fd/%d", *opened);
    return 0;
}

static int read_value(struct call *call, char **value, size_t *size) {
    int32_t length = (int32_t)call->arguments[4];
    if (length < 0 || length > LARGEST_VALUE)
        return fail_plainly(EINVAL);
    *size = (size_t)length;
    if (!(*value = malloc(*size + 1)))
        return fail_plainly(ENOMEM);
    return *size ? memory_read(call, call->arguments[3], *value, *size) : 0;
}

static int set_for(struct call *call, struct held *held, int file) {
    char *value = NULL;
    size_t size = 0;
    int opened = -1, name = (int)call->arguments[2], done = -1;
    if (has_own_rights(call) && !read_value(call, &value, &size) && !settle_path(call, name, &value, &size, &opened)) {
        current_call = call;
        set_words("");
        done = set_option(&held->tls, file, name, value, (socklen_t)size);
        current_call = NULL;
    }
    int number = errno;
    if (opened >= 0)
        close_quietly(opened);
    free(value);
    errno = number;
    return done;
}

/* The first option on a plain TCP socket: it may be told more, and TLS_UPGRADE makes it a TLS socket. */
static struct held *entry_to_set(int file) {
    struct held *held = entry_of(file);
    if (!held && is_tcp(file))
        held = entry_new(file, PLAIN, get_number(file, SOL_SOCKET, SO_DOMAIN, 0));
    return held;
}

static void set_tls_option(struct call *call) {
    int file = fetch(call, (int)call->arguments[0]);
    struct held *held = file < 0 ? NULL : entry_to_set(file);
    if (!held && file >= 0) {
        let_go_on(call);
    } else if (!held) {
        answer_last(call, -1);
    } else {
        int done = set_for(call, held, file);
        if (done < 0 && call->arguments[2] == TLS_UPGRADE && errno != EINPROGRESS && errno != EALREADY)
            say(call, "TLS_UPGRADE");
        if (done <= 0)
            answer_last(call, done);
    }
    if (file >= 0)
        close_quietly(file);
    entry_release(held);
}

static int give_value(struct call *call, const void *value, socklen_t size) {
    return memory_write(call, call->arguments[3], value, size) ||
                   memory_write(call, call->arguments[4], &size, sizeof size)
               ? -1
               : 0;
}

static int get_for(struct call *call, struct held *held, int file) {
    int32_t room;
    if (memory_read(call, call->arguments[4], &room, sizeof room))
        return -1;
    if (room < 0)
        return fail_plainly(EINVAL);
    socklen_t size = room < LARGEST_VALUE ? (socklen_t)room : LARGEST_VALUE;
    char *value = malloc(size + 1U);
    int done = value ? get_option(&held->tls, file, (int)call->arguments[2], value, &size) : fail_plainly(ENOMEM);
    if (!done)
        done = give_value(call, value, size);
    int number = errno;
    free(value);
    errno = number;
    return done;
}

static void get_tls_option(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    answer_last(call, get_for(call, held, file));
    close_quietly(file);
    entry_release(held);
}

/* --- other options --- */

int ask_for_tcp(int file) {
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return -1;
    request_begin(&exchange->request, KIND_DESCRIBE);
    int tcp = exchange_ask(exchange, file, NULL, 0)       ? -1
              : exchange_check_descriptor(exchange, true) ? -1
                                                          : exchange->reply.descriptors[--exchange->reply.count];
    exchange_close(exchange);
    return tcp;
}

/* What concerns the calls on the descriptor itself, and not the connection. */
static bool is_of_calls(int level, int name) {
    return level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == SO_RCVLOWAT ||
                                   name == SO_RCVBUF || name == SO_SNDBUF || name == SO_TYPE);
}

/* The TCP socket of what is on the number; the caller closes it. */
static int tcp_of(struct held *held, int file) {
    int beside = atomic_load(&held->tls.beside);
    if (beside >= 0)
        return fcntl(beside, F_DUPFD_CLOEXEC, 3);
    return ask_for_tcp(file);
}

static int set_on_tcp(struct call *call, int tcp) {
    char value[LARGEST_PLAIN];
    uint32_t size = (uint32_t)call->arguments[4];
    if (size > sizeof value)
        return fail_plainly(EINVAL);
    if (memory_read(call, call->arguments[3], value, size))
        return -1;
    return setsockopt(tcp, (int)call->arguments[1], (int)call->arguments[2], value, size);
}

static int get_from_tcp(struct call *call, int tcp) {
    char value[LARGEST_PLAIN];
    int32_t room;
    if (memory_read(call, call->arguments[4], &room, sizeof room))
        return -1;
    if (room < 0)
        return fail_plainly(EINVAL);
    socklen_t size = (size_t)room < sizeof value ? (socklen_t)room : sizeof value;
    if (getsockopt(tcp, (int)call->arguments[1], (int)call->arguments[2], value, &size))
        return -1;
    return give_value(call, value, size);
}

static void option_of_tcp(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    int tcp = tcp_of(held, file), done = -1;
    if (tcp < 0)
        errno = ENOTCONN; /* it has ended */
    else
        done = call->number == SYS_setsockopt ? set_on_tcp(call, tcp) : get_from_tcp(call, tcp);
    answer_last(call, done);
    if (tcp >= 0)
        close_quietly(tcp);
    close_quietly(file);
    entry_release(held);
}

static bool is_elsewhere(struct held *held, int level, int name) {
    return (held->paired || atomic_load(&held->tls.phase) == LISTENING) && !is_of_calls(level, name);
}

/* --- SO_ERROR, and what a pair would say wrongly --- */

/* How a connect(2) that was under way went. */
static void tell_error(struct call *call) {
    int file;
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    int error = settle_handshake(held, file) ? atomic_exchange(&held->tls.failure, 0) : EINPROGRESS;
    if (error && error != EINPROGRESS) {
        set_words(held->tls.words);
        errno = error;
        say(call, held->tls.settings ? held->tls.settings->hostname : "connect");
        if (held->tls.transparent)
            error = known_error(error);
    }
    answer_last(call, give_value(call, &error, sizeof error));
    close_quietly(file);
    entry_release(held);
}

static bool tell_number(struct call *call, struct held *held) {
    int name = (int)call->arguments[2];
    int value = name == SO_DOMAIN       ? held->tls.family
                : name == SO_PROTOCOL   ? IPPROTO_TCP
                : name == SO_ACCEPTCONN ? atomic_load(&held->tls.phase) == LISTENING
                                        : -1;
    if (value < 0 || call->arguments[1] != SOL_SOCKET)
        return false;
    answer_last(call, give_value(call, &value, sizeof value));
    return true;
}

static bool is_error(const struct call *call) {
    return call->arguments[1] == SOL_SOCKET && call->arguments[2] == SO_ERROR;
}

void on_get_option(struct call *call) {
    int file;
    if ((int)call->arguments[1] == IPPROTO_TLS) {
        in_a_thread(call, get_tls_option);
        return;
    }
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    bool quick = finish_handshake(held);
    if (held->paired && is_error(call) && quick && !atomic_load(&held->tls.failure))
        answer_last(call, give_value(call, &(int){0}, sizeof(int)));
    else if (held->paired && is_error(call))
        in_a_thread(call, tell_error);
    else if (!is_elsewhere(held, (int)call->arguments[1], (int)call->arguments[2]))
        let_go_on(call);
    else if (!tell_number(call, held))
        in_a_thread(call, option_of_tcp);
    close_quietly(file);
    entry_release(held);
}

void on_set_option(struct call *call) {
    int file;
    if ((int)call->arguments[1] == IPPROTO_TLS) {
        in_a_thread(call, set_tls_option);
        return;
    }
    struct held *held = entry_of_call(call, &file);
    if (!held)
        return;
    if (is_elsewhere(held, (int)call->arguments[1], (int)call->arguments[2]))
        in_a_thread(call, option_of_tcp);
    else
        let_go_on(call);
    close_quietly(file);
    entry_release(held);
}
