/* real.c: finds GnuTLS's own functions. */

#include "real.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct library libraries[] = {{.name = "libgnutls.so.30"}, {0}};

function gnutls_function(const char *name) {
    function found = find_function(libraries, name);
    if (!found) {
        fprintf(stderr, "ssa: this program's GnuTLS has no %s: libssa-gnutls is for GnuTLS 3.6 and later\n", name);
        abort();
    }
    return found;
}

/* gnutls_malloc and gnutls_free are variables, which a program can set. */
void *gnutls_memory(size_t size) {
    gnutls_alloc_function *found = (gnutls_alloc_function *)gnutls_function("gnutls_malloc");
    void *memory = (*found)(size);
    if (!memory)
        abort(); /* as little as this: the program has no memory left */
    return memory;
}

void gnutls_release(gnutls_datum_t *datum) {
    gnutls_free_function *found = (gnutls_free_function *)gnutls_function("gnutls_free");
    (*found)(datum->data);
    *datum = (gnutls_datum_t){0};
}
