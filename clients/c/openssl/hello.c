/* hello.c: a ClientHello (RFC 8446 section 4.1.2), which a server's callbacks choose by. No input or output here. */

#include "coerced.h"

#include <string.h>

enum { RECORD_HEADER = 5, MESSAGE_HEADER = 4, SNI = 0, ALPN = 16, HOST_NAME = 0 };

static unsigned number_untrusted(const unsigned char *data, size_t size) {
    unsigned number = 0;
    while (size--)
        number = number << 8 | *data++;
    return number;
}

/* Bytes that begin like a request of HTTP: OpenSSL tells such clients apart, and servers have an answer for them. */
static bool is_http_untrusted(const struct hello *hello) {
    static const char *const verbs[] = {"GET ", "POST ", "HEAD ", "PUT "};
    for (size_t at = 0; at < sizeof verbs / sizeof *verbs; at++)
        if (hello->size >= strlen(verbs[at]) && !memcmp(hello->data, verbs[at], strlen(verbs[at])))
            return true;
    return false;
}

/* Join the message's pieces, which are in one record or in several. The bytes that are there; 0 for no handshake. */
static size_t joined_untrusted(const struct hello *hello, unsigned char *room) {
    size_t all = 0;
    for (size_t at = 0; at < hello->size;) {
        if (hello->data[at] != RECORD_HANDSHAKE)
            break;
        if (hello->size - at < RECORD_HEADER)
            break;
        size_t size = number_untrusted(hello->data + at + 3, 2), there = hello->size - at - RECORD_HEADER;
        size_t take = size < there ? size : there;
        memcpy(room + all, hello->data + at + RECORD_HEADER, take);
        all += take;
        at += RECORD_HEADER + take;
    }
    return all;
}

int hello_look_untrusted(const struct hello *hello) {
    unsigned char room[sizeof hello->data];
    if (!hello->size)
        return HELLO_SHORT;
    if (is_http_untrusted(hello))
        return HELLO_IS_HTTP;
    if (hello->data[0] != RECORD_HANDSHAKE)
        return memchr("GPH", hello->data[0], 3) && hello->size < 5 ? HELLO_SHORT : HELLO_IS_NONE;
    size_t size = joined_untrusted(hello, room);
    if (size >= MESSAGE_HEADER && size >= MESSAGE_HEADER + number_untrusted(room + 1, 3))
        return room[0] == 1 /* client_hello */ ? HELLO_WHOLE : HELLO_IS_NONE;
    return hello->size < sizeof hello->data ? HELLO_SHORT : HELLO_IS_NONE;
}

/* A field with its length before it, in `width` bytes. False: it is longer than what is there. */
static bool take_untrusted(struct part *rest, size_t width, struct part *field) {
    if (rest->size < width)
        return false;
    size_t size = number_untrusted(rest->data, width);
    if (rest->size - width < size)
        return false;
    *field = (struct part){rest->data + width, size};
    rest->data += width + size;
    rest->size -= width + size;
    return true;
}

bool hello_parse_untrusted(const struct hello *hello, unsigned char *room, struct client_hello *parsed) {
    enum { RANDOM = 32, FIXED = MESSAGE_HEADER + 2 + RANDOM };
    size_t size = joined_untrusted(hello, room);
    memset(parsed, 0, sizeof *parsed);
    if (size < FIXED || MESSAGE_HEADER + number_untrusted(room + 1, 3) > size)
        return false;
    size = MESSAGE_HEADER + number_untrusted(room + 1, 3);
    if (size < FIXED)
        return false;
    parsed->version = number_untrusted(room + MESSAGE_HEADER, 2);
    parsed->random = (struct part){room + MESSAGE_HEADER + 2, RANDOM};
    struct part rest = {room + FIXED, size - FIXED};
    if (!take_untrusted(&rest, 1, &parsed->session) || !take_untrusted(&rest, 2, &parsed->ciphers) ||
        !take_untrusted(&rest, 1, &parsed->compressions))
        return false;
    return !rest.size || take_untrusted(&rest, 2, &parsed->extensions);
}

struct part hello_extension_untrusted(const struct client_hello *hello, unsigned type) {
    struct part rest = hello->extensions, value;
    while (rest.size >= 2) {
        unsigned found = number_untrusted(rest.data, 2);
        rest.data += 2;
        rest.size -= 2;
        if (!take_untrusted(&rest, 2, &value))
            break;
        if (found == type)
            return value;
    }
    return (struct part){NULL, 0};
}

/* RFC 6066 section 3. Empty: there is none, or none that is a host name. */
void hello_name_untrusted(const struct client_hello *hello, char *name, size_t room) {
    struct part value = hello_extension_untrusted(hello, SNI), list, host;
    *name = 0;
    if (!value.data || !take_untrusted(&value, 2, &list) || list.size < 1 || list.data[0] != HOST_NAME)
        return;
    list.data++;
    list.size--;
    if (take_untrusted(&list, 2, &host) && host.size < room && !memchr(host.data, 0, host.size)) {
        memcpy(name, host.data, host.size);
        name[host.size] = 0;
    }
}

/* RFC 7301's list, without its length, where each name is whole. */
struct part hello_alpn_untrusted(const struct client_hello *hello) {
    struct part value = hello_extension_untrusted(hello, ALPN), list, name;
    if (!value.data || !take_untrusted(&value, 2, &list))
        return (struct part){NULL, 0};
    for (struct part rest = list; rest.size;)
        if (!take_untrusted(&rest, 1, &name) || !name.size)
            return (struct part){NULL, 0};
    return list;
}
