/* real.h: GnuTLS's own functions: REAL(gnutls_init)(&session, flags). */
#ifndef SSA_GNUTLS_REAL_H
#define SSA_GNUTLS_REAL_H

#include "../coercion/coercion.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <stdatomic.h>

function gnutls_function(const char *name); /* ends the program where GnuTLS has no such function */

#define REAL(name) REAL_BY(gnutls_function, name)

void *gnutls_memory(size_t size);      /* that the program frees with gnutls_free. It never returns NULL */
void gnutls_release(gnutls_datum_t *); /* what GnuTLS has put there */

#endif
