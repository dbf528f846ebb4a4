/* real.h: OpenSSL's own functions: REAL(SSL_new)(context).
 *
 * libssl is not linked. It is found where the program has it: a program without OpenSSL loads nothing. A library that
 * was loaded with RTLD_LOCAL (Python's, PHP's modules) is not in RTLD_NEXT's order, so it is asked for by its name.
 */
#ifndef SSA_OPENSSL_REAL_H
#define SSA_OPENSSL_REAL_H

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <stdatomic.h>

typedef void (*function)(void);
function real_function(const char *name); /* ends the program where OpenSSL has no such function */

#define REAL(name)                                                                                                     \
    ({                                                                                                                 \
        static _Atomic(function) found_;                                                                               \
        function at_ = atomic_load_explicit(&found_, memory_order_relaxed);                                            \
        if (!at_)                                                                                                      \
            atomic_store_explicit(&found_, at_ = real_function(#name), memory_order_relaxed);                          \
        (__typeof__(&name))at_;                                                                                        \
    })

#define EXPORT __attribute__((visibility("default")))

#endif
