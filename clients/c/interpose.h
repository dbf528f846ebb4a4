/* interpose.h: what the functions that libssa replaces have in common. Each looks its descriptor up; what is none of
 * ours goes on to libc.
 *
 * Not seen from there are the calls that libc makes to itself (stdio's; but see fdopen), syscall(2), and static
 * programs.
 */
#ifndef SSA_INTERPOSE_H
#define SSA_INTERPOSE_H

#include "internal.h"

#include <errno.h>

#define EXPORT __attribute__((visibility("default")))

/* `return` the value of `otherwise` for a descriptor that is none of ours; else go on with `connection`. */
#define OURS(fd, otherwise)                                                                                            \
    struct connection *connection = connection_get(fd);                                                                \
    if (!connection)                                                                                                   \
        return otherwise;                                                                                              \
    if (connection == &hidden) {                                                                                       \
        connection_put(connection);                                                                                    \
        return fail_plainly(EBADF);                                                                                    \
    }

static inline ssize_t done(struct connection *connection, ssize_t result) {
    connection_put(connection);
    return result;
}

/* A number that libc has just given: what the table may have of it was closed behind our back. */
static inline int not_ours(int fd) {
    if (fd >= 0 && connection_look(fd))
        connection_forget(fd);
    return fd;
}

#endif
