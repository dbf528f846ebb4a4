/* wire.c: requests and replies as bytes (docs/library.md, "The request language"). No input or output here. */

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

/* --- reading a reply --- */

static bool is_u32_untrusted(const unsigned char *value, size_t size) {
    (void)value;
    return size == sizeof(uint32_t);
}

static bool is_u64_untrusted(const unsigned char *value, size_t size) {
    (void)value;
    return size == sizeof(uint64_t);
}

/* How many bytes the character has that begins here; 0 where it is none of UTF-8 (RFC 3629). */
static size_t character_untrusted(const unsigned char *text, size_t size) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = *text < 0x80 ? 1 : *text >> 5 == 6 ? 2 : *text >> 4 == 14 ? 3 : *text >> 3 == 30 ? 4 : 0;
    if (!length || length > size)
        return 0;
    uint32_t point = length == 1 ? *text : *text & (0x7fU >> length);
    for (size_t at = 1; at < length; at++) {
        if (text[at] >> 6 != 2)
            return 0;
        point = point << 6 | (text[at] & 0x3fU);
    }
    return point < least[length] || point > 0x10ffff || point >> 11 == 0x1b ? 0 : length;
}

static bool is_text_untrusted(const unsigned char *value, size_t size) {
    for (size_t length; size; value += length, size -= length)
        if (!*value || !(length = character_untrusted(value, size)))
            return false;
    return true;
}

/* RFC 7301's ProtocolNameList: a length byte before each name. */
static bool is_names_untrusted(const unsigned char *value, size_t size) {
    for (size_t at = 0; at < size; at += 1U + value[at]) {
        if (!value[at] || value[at] >= size - at)
            return false;
        for (size_t byte = 1; byte <= value[at]; byte++)
            if (value[at + byte] > 0x7f)
                return false;
    }
    return true;
}

static bool is_bytes_untrusted(const unsigned char *value, size_t size) {
    (void)value, (void)size;
    return true;
}

enum { WRITTEN_U32, WRITTEN_U64, WRITTEN_TEXT, WRITTEN_NAMES, WRITTEN_BYTES };
static bool (*const forms[])(const unsigned char *, size_t) = {
    [WRITTEN_U32] = is_u32_untrusted,     [WRITTEN_U64] = is_u64_untrusted,     [WRITTEN_TEXT] = is_text_untrusted,
    [WRITTEN_NAMES] = is_names_untrusted, [WRITTEN_BYTES] = is_bytes_untrusted,
};

static const struct {
    int number, form;
} attributes[] = {
#define X(number, form) {number, form},
    ATTRIBUTE_ROWS
#undef X
};

/* The value is written as its attribute says. One of a later version can be anything. */
static bool is_value_untrusted(int type, const unsigned char *value, size_t size) {
    for (size_t at = 0; at < sizeof attributes / sizeof *attributes; at++)
        if (attributes[at].number == type)
            return forms[attributes[at].form](value, size);
    return true;
}

enum { MOST_ATTRIBUTES = 128 }; /* of a reply: more than there are */

/* Each attribute is whole, none comes twice, and nothing is behind the last. One of a later version is passed over. */
static bool are_whole_untrusted(const unsigned char *data, size_t size, unsigned count) {
    struct attribute_header header;
    uint16_t types[MOST_ATTRIBUTES];
    size_t at = 0;
    if (count > MOST_ATTRIBUTES)
        return false;
    for (unsigned done = 0; done < count; done++) {
        if (size - at < sizeof header)
            return false;
        memcpy(&header, data + at, sizeof header);
        at += sizeof header;
        if (header.zero || header.length > size - at || !is_value_untrusted(header.type, data + at, header.length))
            return false;
        for (unsigned before = 0; before < done; before++)
            if (types[before] == header.type)
                return false;
        types[done] = header.type;
        at += header.length;
    }
    return at == size;
}

enum reading reply_read_untrusted(const unsigned char *data, size_t size) {
    struct header header;
    if (size < sizeof magic || memcmp(data, magic, sizeof magic - 1))
        return READ_NOTHING;
    if (data[sizeof magic - 1] != magic[sizeof magic - 1])
        return READ_OTHER_VERSION;
    if (size < sizeof header)
        return READ_NOTHING;
    memcpy(&header, data, sizeof header);
    if (header.kind > LAST_KIND)
        return READ_OTHER_VERSION;
    return header.kind == KIND_REPLY && header.length == size &&
                   are_whole_untrusted(data + sizeof header, size - sizeof header, header.count)
               ? READ_REPLY
               : READ_NOTHING;
}
