/* options.c: setsockopt(2) and getsockopt(2) at the level IPPROTO_TLS (docs/options.md). */

#include "internal.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- setting --- */

/* ssad says whether the policy allows the options, so that an error comes where it was made. */
static int check_with_ssad(const struct settings *settings) {
    int files[ALL_FILES];
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return -1;
    request_begin(&exchange->request, KIND_CHECK);
    if (*settings->hostname)
        request_text(&exchange->request, ATTRIBUTE_HOSTNAME, settings->hostname);
    int count = settings_request(settings, &exchange->request, FOR_SERVER, files);
    int done = exchange_ask(exchange, -1, files, count);
    exchange_close(exchange);
    return done;
}

static int put_settings(struct connection *connection, struct settings *settings) {
    struct guard guard = guard_enter(&connection->lock);
    int phase = atomic_load(&connection->phase);
    bool fits = phase == FRESH || phase == PLAIN || phase == LISTENING;
    struct settings *dropped = settings;
    if (fits) {
        dropped = connection->settings;
        connection->settings = settings;
    }
    guard_leave(&guard);
    settings_release(dropped);
    return fits ? 0 : unfit(connection, EISCONN, "the option has to be set before the handshake");
}

static int change_settings(struct connection *connection, int fd, const struct option *option, const void *value,
                           socklen_t size) {
    struct guard guard = guard_enter(&connection->lock);
    struct settings *before = settings_hold(connection->settings);
    guard_leave(&guard);
    struct settings *settings = settings_changed(before, option, value, size);
    int done = -1;
    if (settings && check_with_ssad(settings)) {
        int number = errno;
        settings_release(settings);
        errno = number;
    } else if (settings) {
        done = put_settings(connection, settings);
    }
    int number = errno;
    settings_release(before);
    errno = number;
    return done || atomic_load(&connection->phase) != LISTENING ? done : serve_on(connection, fd);
}

static int upgrade(struct connection *connection, int fd, const void *value, socklen_t size) {
    int role = 0;
    if (size == sizeof role)
        memcpy(&role, value, sizeof role);
    if (role != 1 && role != 2)
        return fail(EINVAL, "value is not valid: TLS_UPGRADE is 1 (client) or 2 (server)");
    if (connection->datagram)
        return fail(EOPNOTSUPP, "TLS_UPGRADE is for streams");
    return tls_upgrade(connection, fd, role);
}

static int set_known(struct connection *connection, int fd, const struct option *option, const void *value,
                     socklen_t size) {
    int phase = atomic_load(&connection->phase);
    if (option->number == TLS_UPGRADE)
        return upgrade(connection, fd, value, size);
    if (phase != FRESH && phase != PLAIN && phase != LISTENING)
        return unfit(connection, EISCONN, "the option has to be set before the handshake");
    if (phase == LISTENING && atomic_load(&connection->beside) < 0)
        return fail(EOPNOTSUPP, "%s is set by the process that made this listener", option->name);
    return change_settings(connection, fd, option, value, size);
}

int set_option(struct connection *connection, int fd, int name, const void *value, socklen_t size) {
    const struct option *option = option_numbered(name);
    finish(connection, fd);
    int done = !option             ? fail(ENOPROTOOPT, "%d is no option of level IPPROTO_TLS", name)
               : !option->settable ? fail(ENOPROTOOPT, "%s cannot be set", option->name)
               : !value && size    ? fail_plainly(EFAULT)
                                   : set_known(connection, fd, option, value ? value : "", size);
    int number = errno;
    if (done && number != EINPROGRESS && number != EALREADY)
        failed(connection);
    errno = number;
    return done;
}

/* --- reading --- */

/* Where a value goes, as getsockopt(2) has it. */
struct room {
    const char *name;
    char *value;
    socklen_t *size;
};

static int give(struct room *room, const void *value, size_t size) {
    if (size > *room->size)
        return fail(ENOBUFS, "%s is %zu bytes long", room->name, size);
    memcpy(room->value, value, size);
    *room->size = (socklen_t)size;
    return 0;
}

/* A number as C has it; the number of a socket can outgrow four bytes. */
static int give_number(struct room *room, uint64_t number) {
    uint32_t small = (uint32_t)number;
    return number > UINT32_MAX ? give(room, &number, sizeof number) : give(room, &small, sizeof small);
}

static int give_version(struct room *room, uint32_t number, bool datagram) {
    const char *name = datagram ? "DTLSv1.2" : number == 0x0304 ? "TLSv1.3" : "TLSv1.2";
    if (*room->size == sizeof number)
        return give_number(room, datagram ? 0xfefd : number);
    return give(room, name, strlen(name));
}

/* Names with commas between them, from those with a length byte before each. */
static int give_names(struct room *room, const unsigned char *names, size_t size) {
    if (size && size - 1 > *room->size)
        return fail(ENOBUFS, "%s is %zu bytes long", room->name, size - 1);
    size_t out = 0;
    for (size_t at = 0; at < size; at += 1U + names[at]) {
        size_t length = names[at] < size - at ? names[at] : size - at - 1;
        if (out)
            room->value[out++] = ',';
        memcpy(room->value + out, names + at + 1, length);
        out += length;
    }
    *room->size = (socklen_t)out;
    return 0;
}

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct writer {
    char *to;
    size_t room, size; /* `size` counts on where there is no room */
};

static void put(struct writer *writer, const char *text, size_t size) {
    if (writer->size + size <= writer->room)
        memcpy(writer->to + writer->size, text, size);
    writer->size += size;
}

static void put_base64(struct writer *writer, const unsigned char *data, size_t size) {
    for (size_t at = 0; at < size; at += 3) {
        uint32_t three = (uint32_t)data[at] << 16 | (at + 1 < size ? (uint32_t)data[at + 1] << 8 : 0) |
                         (at + 2 < size ? data[at + 2] : 0U);
        char four[4] = {base64[three >> 18], base64[three >> 12 & 63], at + 1 < size ? base64[three >> 6 & 63] : '=',
                        at + 2 < size ? base64[three & 63] : '='};
        put(writer, four, sizeof four);
        if (at % 48 == 45 || at + 3 >= size)
            put(writer, "\n", 1);
    }
}

/* The length of the DER certificate that begins here; 0 where none does. */
size_t der_length_untrusted(const unsigned char *data, size_t size) {
    if (size < 2 || data[0] != 0x30)
        return 0;
    size_t octets = data[1] & 0x80 ? data[1] & 0x7fU : 0, length = octets ? 0 : data[1];
    if (octets > 4 || size < 2 + octets)
        return 0;
    for (size_t at = 0; at < octets; at++)
        length = length << 8 | data[2 + at];
    length += 2 + octets;
    return length <= size ? length : 0;
}

static int give_chain(struct room *room, const unsigned char *ders, size_t size) {
    static const char begin[] = "-----BEGIN CERTIFICATE-----\n", end[] = "-----END CERTIFICATE-----\n";
    struct writer writer = {room->value, *room->size, 0};
    for (size_t length; (length = der_length_untrusted(ders, size)); ders += length, size -= length) {
        put(&writer, begin, sizeof begin - 1);
        put_base64(&writer, ders, length);
        put(&writer, end, sizeof end - 1);
    }
    if (writer.size > *room->size)
        return fail(ENOBUFS, "%s is %zu bytes long", room->name, writer.size);
    *room->size = (socklen_t)writer.size;
    return 0;
}

static int give_files(struct room *room, const struct settings *settings, int kind) {
    size_t out = 0;
    for (int at = 0; settings && at < settings->file_counts[kind]; at++) {
        ssize_t got = 0;
        off_t from = 0;
        while ((got = pread(settings->files[kind][at], room->value + out, *room->size - out, from)) > 0) {
            out += (size_t)got;
            from += got;
        }
        char more;
        if (got < 0 || pread(settings->files[kind][at], &more, 1, from) > 0)
            return fail(got < 0 ? errno : ENOBUFS, "%s is longer than %u bytes", room->name, (unsigned)*room->size);
    }
    *room->size = (socklen_t)out;
    return 0;
}

/* A value of the live socket, as ssad has said it. */
static int give_told(struct connection *connection, struct room *room, const struct option *option, const void *value,
                     size_t size) {
    uint64_t number = 0;
    switch (option->form) {
    case FORM_NAMES:
        return give_names(room, value, size);
    case FORM_FILES:
        return give_chain(room, value, size);
    case FORM_VERSION:
        return give_version(room, size == 7 && !memcmp(value, "TLSv1.3", 7) ? 0x0304 : 0x0303, connection->datagram);
    case FORM_TEXT:
        return give(room, value, size);
    default:
        if (size <= sizeof number)
            memcpy(&number, value, size);
        return give_number(room, number);
    }
}

static bool is_told(int name) {
    return name == TLS_HOSTNAME || name == TLS_ALPN || name == TLS_PEER_IDENTITY ||
           name == TLS_PEER_CERTIFICATE_CHAIN || name == TLS_ID || name == TLS_CHOSEN_CIPHER ||
           name == TLS_RESUMED_SESSION || name == TLS_VERSION_CONN;
}

/* What ssad has said in its reply to the handshake, or says now: the socket may come from elsewhere, and chains are
 * long. */
static int give_of_live(struct connection *connection, int fd, struct room *room, const struct option *option) {
    size_t size;
    struct guard guard = guard_enter(&connection->lock);
    const void *value = attribute(connection->info, connection->info_size, option->number, &size);
    int done = value ? give_told(connection, room, option, value, size) : 0;
    guard_leave(&guard);
    if (value)
        return done;
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return -1;
    request_begin(&exchange->request, KIND_DESCRIBE);
    done = exchange_ask(exchange, fd, NULL, 0);
    if (!done) {
        value = attribute(exchange->reply.data, exchange->reply.size, option->number, &size);
        done = give_told(connection, room, option, value ? value : "", value ? size : 0);
    }
    exchange_close(exchange);
    return done;
}

/* What counts where the socket was told nothing: the policy's value. */
static int policy_says(const struct settings *settings, int name, uint32_t *number) {
    int files[ALL_FILES], count = 0;
    struct exchange *exchange = exchange_open(LOCAL);
    if (!exchange)
        return -1;
    request_begin(&exchange->request, KIND_CHECK);
    if (settings)
        count = settings_request(settings, &exchange->request, FOR_SERVER, files);
    int done = exchange_ask(exchange, -1, files, count);
    *number = attribute_number(exchange->reply.data, exchange->reply.size, name);
    exchange_close(exchange);
    return done;
}

static int give_setting(const struct settings *settings, struct room *room, const struct option *option,
                        bool datagram) {
    int name = option->number;
    const struct names *names = settings ? (name == TLS_ALPN ? &settings->alpn : &settings->disabled) : NULL;
    const char *text = !settings ? "" : name == TLS_REMOTE_HOSTNAME ? settings->hostname : settings->server_name;
    uint32_t number = settings ? settings->numbers[name] : 0;
    bool of_policy = name == TLS_SESSION_TTL || name == TLS_VERSION_MIN || name == TLS_VERSION_MAX;
    switch (option->form) {
    case FORM_TEXT:
        return give(room, text, strlen(text));
    case FORM_NAMES:
        return give_names(room, names ? names->data : NULL, names ? names->size : 0);
    case FORM_FILES:
        return give_files(room, settings, name - TLS_TRUSTED_PEER_CERTIFICATES);
    default:
        if (of_policy && !(settings && settings->has_number[name]) && policy_says(settings, name, &number))
            return -1;
        return option->form == FORM_VERSION ? give_version(room, number, datagram) : give_number(room, number);
    }
}

static int give_error(struct connection *connection, struct room *room) {
    struct guard guard = guard_enter(&connection->lock);
    int done = give(room, connection->words, strlen(connection->words));
    guard_leave(&guard);
    return done;
}

static int give_known(struct connection *connection, int fd, struct room *room, const struct option *option) {
    int phase = atomic_load(&connection->phase);
    if (option->number == TLS_ERROR)
        return give_error(connection, room);
    if (option->number == TLS_UPGRADE)
        return give_number(room, phase == LIVE);
    if ((phase == LIVE || phase == BROKEN) && is_told(option->number))
        return give_of_live(connection, fd, room, option);
    if (option->readable == READ_CONNECTED)
        return unfit(connection, ENOTCONN, "the option can be read after the handshake");
    struct guard guard = guard_enter(&connection->lock);
    struct settings *settings = settings_hold(connection->settings);
    guard_leave(&guard);
    int done = give_setting(settings, room, option, false), number = errno;
    settings_release(settings);
    errno = number;
    return done;
}

int get_option(struct connection *connection, int fd, int name, void *value, socklen_t *size) {
    const struct option *option = option_numbered(name);
    if (!option)
        return fail(ENOPROTOOPT, "%d is no option of level IPPROTO_TLS", name);
    if (option->readable == READ_NEVER)
        return fail(ENOPROTOOPT, "%s cannot be read", option->name);
    if (!value || !size)
        return fail_plainly(EFAULT);
    finish(connection, fd);
    struct room room = {option->name, value, size};
    return give_known(connection, fd, &room, option);
}
