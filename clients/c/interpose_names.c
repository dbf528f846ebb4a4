/* interpose_names.c: the functions of libc that look names up, and those that look addresses up: names.c remembers. */

#include "interpose.h"
#include "names.h"

#include <netinet/in.h>
#include <string.h>

void (*note_look_up)(const char *host, const struct sockaddr *address);

/* A name that the DNS has given. */
static void note_answer(const char *host) {
    char name[NAME_ROOM];
    if (is_transparent && names_is_name(host, name))
        names_note_answer(name);
}

EXPORT int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    char name[NAME_ROOM];
    struct endpoint to;
    int done = NEXT(getaddrinfo)(host, service, hints, found);
    for (const struct addrinfo *info = done || !host || !note_look_up ? NULL : *found; info; info = info->ai_next)
        note_look_up(host, info->ai_addr);
    if (done || !is_transparent || !names_is_name(host, name))
        return done;
    for (const struct addrinfo *info = *found; info; info = info->ai_next)
        if (endpoint_of(info->ai_addr, info->ai_addrlen, &to))
            names_remember(name, &to);
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
    char name[NAME_ROOM];
    struct endpoint to = {.port = 0};
    if (!found || !is_transparent || !names_is_name(host, name))
        return;
    for (char **address = found->h_addr_list; *address; address++) {
        memcpy(to.address, mapped, sizeof mapped);
        if (found->h_addrtype == AF_INET && found->h_length == 4)
            memcpy(to.address + sizeof mapped, *address, 4);
        else if (found->h_addrtype == AF_INET6 && found->h_length == 16)
            memcpy(to.address, *address, 16);
        else
            continue;
        names_remember(name, &to);
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
