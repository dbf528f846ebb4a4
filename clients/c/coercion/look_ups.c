/* look_ups.c: the names that addresses were looked up by: for programs that do not tell their TLS library whom they
 * want to reach.
 */

#include "../names.h"
#include "coercion.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REMEMBERED = 64 };
static struct look_up {
    char name[256];
    int family;
    unsigned char address[16];
} look_ups[REMEMBERED];
static unsigned count;

static const void *bytes_of(const struct sockaddr *address, size_t *size) {
    *size = address->sa_family == AF_INET ? 4 : address->sa_family == AF_INET6 ? 16 : 0;
    return address->sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)address)->sin_addr
                                         : (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr;
}

static void remember(const char *name, const struct sockaddr *address) {
    size_t size;
    const void *bytes = bytes_of(address, &size);
    if (!size || strlen(name) >= sizeof look_ups->name)
        return;
    struct guard guard = guard_enter(&coerced_locks[OF_NAMES]);
    struct look_up *row = &look_ups[count++ % REMEMBERED];
    strcpy(row->name, name);
    row->family = address->sa_family;
    memcpy(row->address, bytes, size);
    guard_leave(&guard);
}

/* The name that was looked up last, if several have the address. */
static bool name_of_address(const struct sockaddr *address, char *name, size_t room) {
    size_t size;
    const void *bytes = bytes_of(address, &size);
    bool found = false;
    struct guard guard = guard_enter(&coerced_locks[OF_NAMES]);
    for (unsigned back = 1; size && !found && back <= REMEMBERED && back <= count; back++) {
        const struct look_up *row = &look_ups[(count - back) % REMEMBERED];
        if (row->family == address->sa_family && !memcmp(row->address, bytes, size)) {
            copy_text(name, room, row->name, strlen(row->name));
            found = true;
        }
    }
    guard_leave(&guard);
    return found;
}

bool name_of_peer(int fd, char *name, size_t room) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    if (syscall(SYS_getpeername, fd, &peer, &size))
        return false;
    if (name_of_address((struct sockaddr *)&peer, name, room))
        return true;
    const void *address = bytes_of((struct sockaddr *)&peer, (size_t[]){0});
    return inet_ntop(peer.ss_family, address, name, (socklen_t)room) != NULL;
}

__attribute__((constructor)) static void begin(void) {
    note_look_up = remember;
}
