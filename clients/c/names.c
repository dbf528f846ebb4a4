/* names.c: the names by which addresses were looked up, for programs that connect to an address and tell nobody whom
 * they mean.
 *
 * Several names can have one address, as all that one machine serves do. Then the name is meant that was looked up and
 * not connected to yet. Where there are several of those, or none is left, nobody can tell which name is meant: so no
 * name is given. Else whoever can have a program look up a name of his own, with the address of another server, could
 * pass for that server.
 *
 * For the same reason a name counts for nothing that the program has from the DNS itself, by an address (netcat asks
 * for it to show it) or as another name's canonical one, unless it was looked up before.
 */

#include "names.h"
#include "internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

enum { REMEMBERED = 512, FROM_DNS = 128 };
static struct row {
    bool used;
    bool waits; /* nobody has connected to the name since it was looked up */
    struct endpoint to;
    char name[NAME_ROOM];
} rows[REMEMBERED];
static unsigned next_row; /* the oldest is forgotten */
static char from_dns[FROM_DNS][NAME_ROOM];
static unsigned next_from_dns;
static struct lock rows_lock;

void names_after_fork(void) {
    lock_reset(&rows_lock);
}

/* --- addresses --- */

const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

bool endpoint_of(const struct sockaddr *address, socklen_t size, struct endpoint *endpoint) {
    if (size >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;
        memcpy(endpoint->address, mapped, sizeof mapped);
        memcpy(endpoint->address + sizeof mapped, &four->sin_addr, 4);
        endpoint->port = ntohs(four->sin_port);
        return true;
    }
    if (size >= offsetof(struct sockaddr_in6, sin6_scope_id) && address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
        memcpy(endpoint->address, &six->sin6_addr, 16);
        endpoint->port = ntohs(six->sin6_port);
        return true;
    }
    return false;
}

bool endpoint_of_text(const char *text, struct endpoint *endpoint) {
    endpoint->port = 0;
    memcpy(endpoint->address, mapped, sizeof mapped);
    return inet_pton(AF_INET, text, endpoint->address + sizeof mapped) == 1 ||
           inet_pton(AF_INET6, text, endpoint->address) == 1;
}

void endpoint_text(const struct endpoint *endpoint, char *text, size_t room) {
    bool four = !memcmp(endpoint->address, mapped, sizeof mapped);
    *text = 0;
    inet_ntop(four ? AF_INET : AF_INET6, endpoint->address + (four ? sizeof mapped : 0), text, (socklen_t)room);
}

/* --- the memory --- */

/* A look-up without a service says nothing of the port. */
static bool leads_to(const struct row *row, const struct endpoint *to) {
    return row->used && !memcmp(row->to.address, to->address, sizeof to->address) &&
           (!row->to.port || row->to.port == to->port);
}

static struct row *row_for(const char *name, const struct endpoint *to) {
    for (struct row *row = rows; row < rows + REMEMBERED; row++)
        if (row->used && row->to.port == to->port && leads_to(row, to) && !strcasecmp(row->name, name))
            return row;
    return &rows[next_row++ % REMEMBERED];
}

static bool was_looked_up(const char *name) {
    for (const struct row *row = rows; row < rows + REMEMBERED; row++)
        if (row->used && !strcasecmp(row->name, name))
            return true;
    return false;
}

static bool is_from_dns(const char *name) {
    for (int at = 0; at < FROM_DNS; at++)
        if (!strcasecmp(from_dns[at], name))
            return true;
    return false;
}

static void fill(struct row *row, const char *name, const struct endpoint *to) {
    row->used = false; /* a fork(2) may come in the middle */
    row->to = *to;
    copy_text(row->name, sizeof row->name, name, strlen(name));
    row->waits = row->used = true;
}

void names_remember(const char *name, const struct endpoint *to) {
    struct guard guard = guard_enter(&rows_lock);
    if (!is_from_dns(name) || was_looked_up(name))
        fill(row_for(name, to), name, to);
    guard_leave(&guard);
}

/* The one name among those that led there; `waiting`: of those alone that nobody has connected to yet. */
static enum naming find(const struct endpoint *to, bool waiting, const struct row **found) {
    *found = NULL;
    for (const struct row *row = rows; row < rows + REMEMBERED; row++) {
        if (!leads_to(row, to) || (waiting && !row->waits))
            continue;
        if (*found && strcasecmp(row->name, (*found)->name))
            return SEVERAL_NAMES;
        *found = row;
    }
    return *found ? ONE_NAME : NO_NAME;
}

/* A name that was connected to waits no more, at none of its addresses. Those that cannot be told apart do neither: a
 * program that looks one of them up again means that one. */
static void end_waiting(const struct endpoint *to, const char *name) {
    for (struct row *row = rows; row < rows + REMEMBERED; row++)
        if (row->used && (name ? !strcasecmp(row->name, name) : leads_to(row, to)))
            row->waits = false;
}

enum naming names_take(const struct endpoint *to, char *name, size_t room) {
    const struct row *found;
    struct guard guard = guard_enter(&rows_lock);
    enum naming naming = find(to, true, &found);
    if (naming == NO_NAME)
        naming = find(to, false, &found);
    if (naming == ONE_NAME)
        copy_text(name, room, found->name, sizeof found->name);
    end_waiting(to, naming == ONE_NAME ? name : NULL);
    guard_leave(&guard);
    return naming;
}

bool names_led(const struct endpoint *to, const char *name) {
    bool led = false;
    struct guard guard = guard_enter(&rows_lock);
    for (const struct row *row = rows; !led && row < rows + REMEMBERED; row++)
        led = leads_to(row, to) && (!name || !strcasecmp(row->name, name));
    guard_leave(&guard);
    return led;
}

/* --- what is remembered --- */

/* The name as a certificate has it: without the dot of the root. False: it is an address, or no name. */
bool names_is_name(const char *host, char *name) {
    struct in_addr four;
    size_t size = host ? strlen(host) : 0;
    if (size && host[size - 1] == '.')
        size--;
    if (!size || size >= NAME_ROOM || strchr(host, ':') || inet_aton(host, &four))
        return false;
    copy_text(name, NAME_ROOM, host, size);
    return true;
}

void names_note_answer(const char *name) {
    struct guard guard = guard_enter(&rows_lock);
    if (!was_looked_up(name) && !is_from_dns(name))
        copy_text(from_dns[next_from_dns++ % FROM_DNS], sizeof *from_dns, name, strlen(name));
    guard_leave(&guard);
}
