/* real.h: OpenSSL's own functions: REAL(SSL_new)(context). */
#ifndef SSA_OPENSSL_REAL_H
#define SSA_OPENSSL_REAL_H

#include "../coercion/coercion.h"

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <stdatomic.h>

function openssl_function(const char *name); /* ends the program where OpenSSL has no such function */

#define REAL(name) REAL_BY(openssl_function, name)

#endif
