/* wire.c: requests and replies as bytes (docs/architecture.md, "The request language"). No input or output here. */

#include "internal.h"

#include <string.h>

static const char magic[4] = {'S', 'S', 'A', '1'};

struct header { /* in host byte order: it never leaves the machine */
    char magic[4];
    uint16_t kind, count;
    uint32_t length;
};
struct attribute_header {
    uint16_t type, zero;
    uint32_t length;
};

void request_begin(struct request *request, int kind) {
    struct header header = {.kind = (uint16_t)kind};
    memcpy(header.magic, magic, sizeof magic);
    memcpy(request->data, &header, sizeof header);
    request->size = sizeof header;
    request->count = 0;
    request->too_long = false;
}

void request_bytes(struct request *request, int type, const void *value, size_t size) {
    struct attribute_header header = {.type = (uint16_t)type, .length = (uint32_t)size};
    if (size > sizeof request->data || request->size + sizeof header + size > sizeof request->data) {
        request->too_long = true;
        return;
    }
    memcpy(request->data + request->size, &header, sizeof header);
    if (size)
        memcpy(request->data + request->size + sizeof header, value, size);
    request->size += sizeof header + size;
    request->count++;
}

void request_text(struct request *request, int type, const char *text) {
    request_bytes(request, type, text, strlen(text));
}

void request_number(struct request *request, int type, uint32_t value) {
    request_bytes(request, type, &value, sizeof value);
}

void request_end(struct request *request) {
    struct header header;
    memcpy(&header, request->data, sizeof header);
    header.count = request->count;
    header.length = (uint32_t)request->size;
    memcpy(request->data, &header, sizeof header);
}

/* Find an attribute among those that lie one behind the other. The parser of replies has checked their lengths. */
const void *attribute(const unsigned char *data, size_t size, int type, size_t *length) {
    struct attribute_header header;
    for (size_t at = 0; at + sizeof header <= size; at += sizeof header + header.length) {
        memcpy(&header, data + at, sizeof header);
        if (header.length > size - at - sizeof header)
            return NULL;
        if (header.type == type) {
            *length = header.length;
            return data + at + sizeof header;
        }
    }
    return NULL;
}

uint32_t attribute_number(const unsigned char *data, size_t size, int type) {
    uint32_t number = 0;
    size_t length;
    const void *value = attribute(data, size, type, &length);
    if (value && length == sizeof number)
        memcpy(&number, value, sizeof number);
    return number;
}

static bool are_whole_untrusted(const unsigned char *data, size_t size, unsigned count) {
    struct attribute_header header;
    size_t at = 0;
    for (; count; count--) {
        if (size - at < sizeof header)
            return false;
        memcpy(&header, data + at, sizeof header);
        at += sizeof header;
        if (header.zero || header.length > size - at)
            return false;
        at += header.length;
    }
    return at == size;
}

bool reply_is_whole_untrusted(const unsigned char *data, size_t size) {
    struct header header;
    if (size < sizeof header)
        return false;
    memcpy(&header, data, sizeof header);
    return !memcmp(header.magic, magic, sizeof magic) && header.kind == KIND_REPLY && header.length == size &&
           are_whole_untrusted(data + sizeof header, size - sizeof header, header.count);
}
