/* datagrams.c: DTLS (docs/dtls.md). */

#include "internal.h"

#include <errno.h>

void datagram_disconnect(int fd) {
    (void)fd;
}
int datagram_prepare_listener(int fd) {
    (void)fd;
    return fail_plainly(EOPNOTSUPP);
}
int datagram_address(struct connection *connection, int type, struct sockaddr *address, socklen_t *size) {
    (void)connection, (void)type, (void)address, (void)size;
    return fail_plainly(EOPNOTSUPP);
}
void datagram_release(struct connection *connection) {
    (void)connection;
}
ssize_t datagram_read(struct connection *connection, int fd, struct msghdr *message, int flags) {
    (void)connection, (void)fd, (void)message, (void)flags;
    return fail_plainly(EOPNOTSUPP);
}
ssize_t datagram_write(struct connection *connection, int fd, const struct msghdr *message, int flags) {
    (void)connection, (void)fd, (void)message, (void)flags;
    return fail_plainly(EOPNOTSUPP);
}
