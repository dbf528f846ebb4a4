/* dns.c: which name led to an address, read along in the program's own questions to the DNS and the answers (RFC 1035).
 *
 * An answer counts where the program has asked this question on this socket, with this ID: whoever can send it packets
 * may not add names that it never asked for. An alias (CNAME) leads from the name that was asked for to its addresses.
 */

#include "supervise.h"

#include <string.h>
#include <strings.h>

enum { HEADER = 12, A = 1, CNAME = 5, AAAA = 28, INTERNET = 1, IS_ANSWER = 0x80, JUMPS = 64, LABEL = 63 };

struct packet {
    const unsigned char *data;
    size_t size, at;
    bool broken;
};

static unsigned number(struct packet *packet, int bytes) {
    unsigned value = 0;
    for (; bytes; bytes--, packet->at++) {
        packet->broken |= packet->at >= packet->size;
        value = value << 8 | (packet->broken ? 0 : packet->data[packet->at]);
    }
    return value;
}

static bool is_letter(unsigned char letter) { /* of a host's name: others are none that a certificate could have */
    return letter > ' ' && letter < 0x7f && letter != '.' && letter != '\\';
}

static size_t put_label(struct packet *packet, char *name, size_t used, const unsigned char *label, size_t size) {
    if (size > LABEL || used + size + 2 > NAME_ROOM) {
        packet->broken = true;
        return used;
    }
    if (used)
        name[used++] = '.';
    for (size_t at = 0; at < size; at++) {
        packet->broken |= !is_letter(label[at]);
        name[used++] = (char)label[at];
    }
    return used;
}

/* A name, which can go on elsewhere in the packet (section 4.1.4). */
static void read_name_untrusted(struct packet *packet, char *name) {
    size_t used = 0, at = packet->at, behind = 0;
    int jumps = 0;
    while (!packet->broken) {
        if (at >= packet->size || jumps > JUMPS) {
            packet->broken = true;
            break;
        }
        unsigned length = packet->data[at++];
        if (length >> 6 == 3 && at < packet->size) {
            size_t to = (length & 0x3f) << 8 | packet->data[at++];
            behind = behind ? behind : at;
            at = to;
            jumps++;
        } else if (!length) {
            break;
        } else if (length > LABEL || length > packet->size - at) {
            packet->broken = true;
        } else {
            used = put_label(packet, name, used, packet->data + at, length);
            at += length;
        }
    }
    name[used] = 0;
    packet->at = behind ? behind : at;
}

/* The header and the one question. False: it has none that concerns us. */
static bool read_question_untrusted(struct packet *packet, bool is_answer, uint16_t *id, unsigned *answers,
                                    char *name) {
    *id = (uint16_t)number(packet, 2);
    unsigned flags = number(packet, 1);
    number(packet, 1);
    unsigned questions = number(packet, 2);
    *answers = number(packet, 2);
    packet->at = HEADER;
    if (packet->size < HEADER || questions != 1 || !(flags & IS_ANSWER) == is_answer)
        return false;
    read_name_untrusted(packet, name);
    unsigned kind = number(packet, 2);
    return number(packet, 2) == INTERNET && (kind == A || kind == AAAA) && !packet->broken && *name;
}

void dns_question_untrusted(struct held *held, const unsigned char *data, size_t size) {
    struct packet packet = {data, size, 0, false};
    struct asked asked;
    unsigned answers;
    if (!read_question_untrusted(&packet, false, &asked.id, &answers, asked.name))
        return;
    struct guard guard = guard_enter(&held->tls.lock);
    held->asked[held->asked_count++ % ASKED] = asked;
    guard_leave(&guard);
}

static bool was_asked(struct held *held, uint16_t id, const char *name) {
    bool was = false;
    struct guard guard = guard_enter(&held->tls.lock);
    for (int at = 0; at < ASKED; at++)
        was = was || (held->asked[at].id == id && *name && !strcasecmp(held->asked[at].name, name));
    guard_leave(&guard);
    return was;
}

static void remember(const char *name, const unsigned char *address, size_t size) {
    struct endpoint to = {.port = 0};
    memcpy(to.address, mapped, sizeof mapped);
    memcpy(to.address + sizeof to.address - size, address, size);
    names_remember(name, &to);
}

/* One record: `owner` is the name that the answers are about by now. */
static void read_record_untrusted(struct packet *packet, const char *asked, char *owner) {
    char name[NAME_ROOM];
    read_name_untrusted(packet, name);
    unsigned kind = number(packet, 2), of = number(packet, 2);
    number(packet, 4);
    size_t size = number(packet, 2), at = packet->at;
    packet->broken |= packet->size - at < size || at > packet->size;
    if (packet->broken)
        return;
    bool ours = of == INTERNET && !strcasecmp(name, owner);
    if (ours && kind == CNAME)
        read_name_untrusted(packet, owner);
    else if (ours && ((kind == A && size == 4) || (kind == AAAA && size == 16)))
        remember(asked, packet->data + at, size);
    packet->at = at + size;
}

void dns_answer_untrusted(struct held *held, const unsigned char *data, size_t size) {
    struct packet packet = {data, size, 0, false};
    char name[NAME_ROOM], owner[NAME_ROOM], asked[NAME_ROOM];
    unsigned answers;
    uint16_t id;
    if (!read_question_untrusted(&packet, true, &id, &answers, name) || !was_asked(held, id, name) ||
        !names_is_name(name, asked))
        return;
    strcpy(owner, name);
    for (; answers && !packet.broken; answers--)
        read_record_untrusted(&packet, asked, owner);
}
