/* request.c: what a program wishes, as attributes of a request, and files that ride along. */

#include "coercion.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { V12 = 0x0303, V13 = 0x0304 };

static const struct suite {
    unsigned number;
    const char *name;
    int version;
} suites[] = {
#define X(number, name, version) {number, name, version},
    SUITE_ROWS
#undef X
};
enum { SUITES = sizeof suites / sizeof *suites };

static int version_bit(const struct suite *suite) {
    return suite->version == V13 ? 2 : 1;
}

int add_suites(struct request *request, bool (*has)(unsigned number, const void *argument), const void *argument) {
    unsigned char disabled[SUITES * 64];
    size_t size = 0;
    int left = 0;
    for (size_t at = 0; at < SUITES; at++)
        if (has(suites[at].number, argument))
            left |= version_bit(&suites[at]);
    for (size_t at = 0; at < SUITES; at++) {
        if (!(left & version_bit(&suites[at])) || has(suites[at].number, argument))
            continue;
        size_t length = strlen(suites[at].name);
        disabled[size] = (unsigned char)length;
        memcpy(disabled + size + 1, suites[at].name, length);
        size += 1 + length;
    }
    if (size)
        request_bytes(request, ATTRIBUTE_DISABLED, disabled, size);
    return left;
}

void add_versions(struct request *request, long low, long high, int left) {
    if (!(left & 1) && low < V13)
        low = V13;
    if (!(left & 2) && high > V12)
        high = V12;
    if (low > V12)
        request_number(request, ATTRIBUTE_VERSION_MIN, (uint32_t)low);
    if (high < V13)
        request_number(request, ATTRIBUTE_VERSION_MAX, (uint32_t)high);
}

/* --- files that ride along --- */

static int memory_file(const char *data, size_t size) {
    int fd = (int)syscall(SYS_memfd_create, "ssa-coerced", 1U /* MFD_CLOEXEC */);
    for (size_t at = 0; fd >= 0 && at < size;) {
        long done = syscall(SYS_write, fd, data + at, size - at);
        if (done < 0) {
            close_quietly(fd);
            return -1;
        }
        at += (size_t)done;
    }
    return fd;
}

int add_file(struct own_files *files, const void *data, size_t size) {
    int fd = memory_file(data, size);
    if (fd < 0)
        return fail_plainly(errno);
    files->descriptors[files->count++] = fd;
    return 0;
}

void drop_files(struct own_files *files) {
    while (files->count)
        close_quietly(files->descriptors[--files->count]);
}

void add_credential_counts(struct request *request, int count) {
    if (!count)
        return;
    request_number(request, ATTRIBUTE_CERTIFICATES, (uint32_t)count);
    request_number(request, ATTRIBUTE_KEYS, (uint32_t)count);
}
