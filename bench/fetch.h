/* What both C clients of bench/crowds.py do with a connection: ask for a file, and count what comes. */

#ifndef BENCH_FETCH_H
#define BENCH_FETCH_H

#include <stdio.h>
#include <string.h>
#include <sys/types.h>

static char request[512], buffer[1 << 16];

/* The request for a file, without keep-alive: the stream's end is the answer's. */
static size_t ask(const char *host, const char *path) {
    return (size_t)snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host);
}

/* Whether an answer of that many bytes, which began so, is the file of `size` bytes. */
static int whole(const char *begin, long count, long size) {
    return !strncmp(begin, "HTTP/1.1 200", 12) && count > size;
}

#endif
