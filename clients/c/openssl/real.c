/* real.c: finds OpenSSL's own functions. */

#include "real.h"

#include <stdio.h>
#include <stdlib.h>

function openssl_function(const char *name) {
    static struct library libraries[] = {{.name = "libssl.so.3"}, {.name = "libcrypto.so.3"}, {0}};
    function found = find_function(libraries, name);
    if (!found) {
        fprintf(stderr, "ssa: this program's OpenSSL has no %s: libssa-openssl is for OpenSSL 3\n", name);
        abort();
    }
    return found;
}
