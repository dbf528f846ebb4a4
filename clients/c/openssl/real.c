/* real.c: finds OpenSSL's own functions. */

#include "real.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const libraries[] = {"libssl.so.3", "libcrypto.so.3"};

static void *found_in(const char *library, const char *name) {
    void *handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    void *found = handle ? dlsym(handle, name) : NULL;
    if (handle)
        dlclose(handle);
    return found;
}

function real_function(const char *name) {
    void *found = NULL;
    for (size_t at = 0; !found && at < sizeof libraries / sizeof *libraries; at++)
        found = found_in(libraries[at], name);
    if (!found)
        found = dlsym(RTLD_NEXT, name);
    if (!found) {
        fprintf(stderr, "ssa: this program's OpenSSL has no %s: libssa-openssl is for OpenSSL 3\n", name);
        abort();
    }
    return (function)found;
}
