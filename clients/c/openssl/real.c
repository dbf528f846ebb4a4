/* real.c: finds OpenSSL's own functions. */

#include "real.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const libraries[] = {"libssl.so.3", "libcrypto.so.3"};

/* The library is held from then on: it is looked for once. */
static void *found_in(size_t which, const char *name) {
    static _Atomic(void *) handles[sizeof libraries / sizeof *libraries];
    void *handle = atomic_load_explicit(&handles[which], memory_order_relaxed);
    if (!handle) {
        handle = dlopen(libraries[which], RTLD_LAZY | RTLD_NOLOAD);
        atomic_store_explicit(&handles[which], handle, memory_order_relaxed);
    }
    return handle ? dlsym(handle, name) : NULL;
}

function real_function(const char *name) {
    void *found = NULL;
    for (size_t at = 0; !found && at < sizeof libraries / sizeof *libraries; at++)
        found = found_in(at, name);
    if (!found)
        found = dlsym(RTLD_NEXT, name);
    if (!found) {
        fprintf(stderr, "ssa: this program's OpenSSL has no %s: libssa-openssl is for OpenSSL 3\n", name);
        abort();
    }
    return (function)found;
}
