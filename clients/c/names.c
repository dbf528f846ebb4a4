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
#include "interpose.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

enum { REMEMBERED = 512, FROM_DNS = 128 };
static struct row {
    bool used;
    bool waits; /* nobody has connected to the name since it was looked up */
    struct endpoint to;
    char name[256];
} rows[REMEMBERED];
static unsigned next_row; /* the oldest is forgotten */
static char from_dns[FROM_DNS][sizeof rows->name];
static unsigned next_from_dns;
static struct lock rows_lock;

void (*note_look_up)(const char *host, const struct sockaddr *address);

void names_after_fork(void) {
    lock_reset(&rows_lock);
}

/* --- addresses --- */

static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

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

static void remember(const char *name, const struct endpoint *to) {
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

/* --- the functions that look names up --- */

/* The name as a certificate has it: without the dot of the root. False: it is an address, or no name. */
static bool is_name(const char *host, char *name) {
    struct in_addr four;
    size_t size = host ? strlen(host) : 0;
    if (size && host[size - 1] == '.')
        size--;
    if (!size || size >= sizeof rows->name || strchr(host, ':') || inet_aton(host, &four))
        return false;
    copy_text(name, sizeof rows->name, host, size);
    return true;
}

/* A name that the DNS has given. */
static void note_answer(const char *host) {
    char name[sizeof rows->name];
    if (!is_transparent || !is_name(host, name))
        return;
    struct guard guard = guard_enter(&rows_lock);
    if (!was_looked_up(name) && !is_from_dns(name))
        copy_text(from_dns[next_from_dns++ % FROM_DNS], sizeof *from_dns, name, sizeof name);
    guard_leave(&guard);
}

EXPORT int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    char name[sizeof rows->name];
    struct endpoint to;
    int done = NEXT(getaddrinfo)(host, service, hints, found);
    for (const struct addrinfo *info = done || !host || !note_look_up ? NULL : *found; info; info = info->ai_next)
        note_look_up(host, info->ai_addr);
    if (done || !is_transparent || !is_name(host, name))
        return done;
    for (const struct addrinfo *info = *found; info; info = info->ai_next)
        if (endpoint_of(info->ai_addr, info->ai_addrlen, &to))
            remember(name, &to);
    note_answer((*found)->ai_canonname);
    return done;
}

static void note_answers(const struct hostent *found) {
    if (!found)
        return;
    note_answer(found->h_name);
    for (char **alias = found->h_aliases; *alias; alias++)
        note_answer(*alias);
}

static void note_host(const char *host, const struct hostent *found) {
    char name[sizeof rows->name];
    struct endpoint to = {.port = 0};
    if (!found || !is_transparent || !is_name(host, name))
        return;
    for (char **address = found->h_addr_list; *address; address++) {
        memcpy(to.address, mapped, sizeof mapped);
        if (found->h_addrtype == AF_INET && found->h_length == 4)
            memcpy(to.address + sizeof mapped, *address, 4);
        else if (found->h_addrtype == AF_INET6 && found->h_length == 16)
            memcpy(to.address, *address, 16);
        else
            continue;
        remember(name, &to);
    }
    note_answers(found);
}

EXPORT struct hostent *gethostbyname(const char *host) {
    struct hostent *found = NEXT(gethostbyname)(host);
    note_host(host, found);
    return found;
}

EXPORT struct hostent *gethostbyname2(const char *host, int family) {
    struct hostent *found = NEXT(gethostbyname2)(host, family);
    note_host(host, found);
    return found;
}

EXPORT int gethostbyname_r(const char *host, struct hostent *into, char *buffer, size_t size, struct hostent **found,
                           int *failure) {
    int done = NEXT(gethostbyname_r)(host, into, buffer, size, found, failure);
    note_host(host, done ? NULL : *found);
    return done;
}

EXPORT int gethostbyname2_r(const char *host, int family, struct hostent *into, char *buffer, size_t size,
                            struct hostent **found, int *failure) {
    int done = NEXT(gethostbyname2_r)(host, family, into, buffer, size, found, failure);
    note_host(host, done ? NULL : *found);
    return done;
}

/* --- and those that look addresses up --- */

EXPORT struct hostent *gethostbyaddr(const void *address, socklen_t size, int family) {
    struct hostent *found = NEXT(gethostbyaddr)(address, size, family);
    note_answers(found);
    return found;
}

EXPORT int gethostbyaddr_r(const void *address, socklen_t size, int family, struct hostent *into, char *buffer,
                           size_t room, struct hostent **found, int *failure) {
    int done = NEXT(gethostbyaddr_r)(address, size, family, into, buffer, room, found, failure);
    note_answers(done ? NULL : *found);
    return done;
}

EXPORT int getnameinfo(const struct sockaddr *address, socklen_t size, char *host, socklen_t host_room, char *service,
                       socklen_t service_room, int flags) {
    int done = NEXT(getnameinfo)(address, size, host, host_room, service, service_room, flags);
    if (!done && host && host_room)
        note_answer(host);
    return done;
}
