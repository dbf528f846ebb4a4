/* fetch_ssa HOST PORT PATH SIZE: fetches a file of that many bytes by way of libssa. Exit status 0: it came whole. */

#include "fetch.h"
#include "ssa.h"

#include <stdlib.h>

int main(int count, char **arguments) {
    char begin[16] = "";
    long total = 0;
    ssize_t size;
    int fd = count == 5 ? ssa_connect_tls(arguments[1], arguments[2], NULL) : -1;
    if (fd < 0) {
        fprintf(stderr, "fetch_ssa: %s\n", count == 5 ? ssa_error() : "HOST PORT PATH SIZE");
        return 1;
    }
    size_t length = ask(arguments[1], arguments[3]);
    if (ssa_send(fd, request, length) != (ssize_t)length)
        return 1;
    while ((size = ssa_recv(fd, buffer, sizeof buffer)) > 0) {
        if (!total)
            memcpy(begin, buffer, (size_t)size < sizeof begin ? (size_t)size : sizeof begin - 1);
        total += size;
    }
    return size < 0 || ssa_close(fd) || !whole(begin, total, atol(arguments[4]));
}
