/* real.c: finds the functions of the program's TLS library. */

#include "coercion.h"

#include <dlfcn.h>
#include <pthread.h>

struct lock coerced_locks[LOCKS];

static void after_fork_in_child(void) {
    for (int at = 0; at < LOCKS; at++)
        lock_reset(&coerced_locks[at]);
}

__attribute__((constructor)) static void begin(void) {
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

/* The library is held from then on: it is looked for once. */
static void *found_in(struct library *library, const char *name) {
    void *handle = atomic_load_explicit(&library->handle, memory_order_relaxed);
    if (!handle) {
        handle = dlopen(library->name, RTLD_LAZY | RTLD_NOLOAD);
        atomic_store_explicit(&library->handle, handle, memory_order_relaxed);
    }
    return handle ? dlsym(handle, name) : NULL;
}

function find_function(struct library *libraries, const char *name) {
    void *found = NULL;
    for (; !found && libraries->name; libraries++)
        found = found_in(libraries, name);
    return (function)(found ? found : dlsym(RTLD_NEXT, name));
}
