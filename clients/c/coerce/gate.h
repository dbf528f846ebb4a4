/* gate.h: what the files of libssa-gate share: the library that /etc/ld.so.preload names (`ssa coerce on`).
 *
 * Theory of operation. A library in that file is part of every dynamically linked program: of init, of every shell, of
 * sshd. So it has to do nothing in them, and it must not fail. libssa-gate is small, needs libc alone, and does not
 * change from one version of ssa to the next. It exports each name that libssa, libssa-openssl and libssa-gnutls
 * replace, and each is one jump through a slot of a table:
 *
 *     before TLS is used     libc's functions go to the next library: a jump, and nothing else
 *     TLS is used            libssa-tls is loaded (dlopen(3)), which has all that those three have; the slots are
 *                            its functions from then on
 *     it cannot be loaded    functions that would make TLS fail, and say why; the others are the program's own
 *     left alone             all slots are the program's own functions, for good
 *
 * TLS is used where a function of OpenSSL's or GnuTLS's is called, where socket(2) is called with IPPROTO_TLS, and
 * where a program that has one of these libraries looks up a name or makes an internet socket: libssa-tls has to
 * know of both before a handshake.
 *
 * Left alone are programs with more privileges than their user (AT_SECURE), those of the administrator's list
 * (leave_alone.c), and those that have a libssa already (`ssa run`, -lssa).
 */
#ifndef SSA_GATE_H
#define SSA_GATE_H

#include <stdbool.h>
#include <stddef.h>

/* The administrator's list has this program. `script` is the first argument that is no option, or NULL. */
bool is_left_alone(const char *script);

#endif
