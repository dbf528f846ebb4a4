/* gate.c: the table of slots, and what is in them when. The theory is in gate.h.
 *
 * names.h is made from the version scripts of the libraries (the Makefile): X(number, name, LIBC or TLS).
 */

#include "gate.h"
#include "names.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef COERCED
#define COERCED "/usr/lib/ssa/libssa-tls.so"
#endif

enum { PROTOCOL_TLS = 205 }; /* IPPROTO_TLS */

enum kind { LIBC, TLS };
enum state { WAITING, LOADED, LEFT_ALONE, BROKEN };

typedef void *address;
#define ROW(number, name, kind) {#name, kind},
static const struct {
    const char *name;
    enum kind kind;
} names[] = {NAMES(ROW)};
enum { COUNT = sizeof names / sizeof *names };

static _Atomic(enum state) state;
static char **arguments;
static struct stat standard_error; /* as the program was started with it */
static address owns[COUNT];        /* libc's, or the next library's: looked up at the start */
static address coerced[COUNT];     /* of libssa-tls, which has to be loaded */
static _Thread_local bool loading __attribute__((tls_model("initial-exec")));

/* --- the jumps (x86-64) --- */

/* A slot that was not filled yet leads to `gate_unresolved`, with the slot's number on the stack: it asks gate_resolve
 * where the call is to go, with all registers that can hold arguments as they were. */
#define JUMP(number, name, kind)                                                                                       \
    __asm__(".text\n.globl " #name "\n.type " #name ",@function\n" #name ": endbr64\n\tjmp *gate_slots+8*" #number     \
            "(%rip)\n.size " #name ", .-" #name "\n"                                                                   \
            "unresolved_" #number ": endbr64\n\tpush $" #number "\n\tjmp gate_unresolved\n"                            \
            ".section .data.rel,\"aw\"\n\t.quad unresolved_" #number "\n.text\n");

__asm__(".section .data.rel,\"aw\"\n.balign 8\n.hidden gate_slots\n.globl gate_slots\ngate_slots:\n.text\n");
NAMES(JUMP)
__asm__(".text\ngate_unresolved:\n"
        "push %rbp\n\tmov %rsp, %rbp\n\tand $-16, %rsp\n"
        "push %rax\n\tpush %r10\n\tpush %r9\n\tpush %r8\n\tpush %rcx\n\tpush %rdx\n\tpush %rsi\n\tpush %rdi\n"
        "mov 8(%rbp), %rdi\n\tmov %rsp, %rsi\n\tcall gate_resolve\n\tmov %rax, %r11\n"
        "pop %rdi\n\tpop %rsi\n\tpop %rdx\n\tpop %rcx\n\tpop %r8\n\tpop %r9\n\tpop %r10\n\tpop %rax\n"
        "mov %rbp, %rsp\n\tpop %rbp\n\tlea 8(%rsp), %rsp\n\tjmp *%r11\n");
extern _Atomic(address) gate_slots[COUNT] __attribute__((visibility("hidden")));
__attribute__((visibility("hidden"), used)) address gate_resolve(unsigned long number, const long *given);

/* --- the program's own functions --- */

static const char *const libraries[] = {"libssl.so.3", "libcrypto.so.3", "libgnutls.so.30"};

/* A library that was loaded with RTLD_LOCAL (a module of Python's) is not in RTLD_NEXT's order. */
static address own(unsigned long number) {
    address found = dlsym(RTLD_NEXT, names[number].name);
    for (size_t at = 0; !found && at < sizeof libraries / sizeof *libraries; at++) {
        void *handle = dlopen(libraries[at], RTLD_LAZY | RTLD_NOLOAD);
        found = handle ? dlsym(handle, names[number].name) : NULL;
    }
    return found;
}

static bool is_tls_library(const char *path) {
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    return !strncmp(name, "libssl.so.3", 11) || !strncmp(name, "libgnutls.so.30", 15);
}

static int look(struct dl_phdr_info *library, size_t size, void *found) {
    (void)size;
    *(bool *)found = is_tls_library(library->dlpi_name);
    return *(bool *)found;
}

static bool has_tls_library(void) {
    bool found = false;
    dl_iterate_phdr(look, &found);
    return found;
}

/* --- libssa-tls --- */

static char why[400]; /* it cannot be loaded */

static const char *script(void) {
    for (char **word = arguments ? arguments + 1 : NULL; word && *word; word++)
        if (**word != '-')
            return *word;
    return NULL;
}

static bool should_pass(void) {
    return getauxval(AT_SECURE) || dlsym(RTLD_DEFAULT, "ssa_connect_tls") || is_left_alone(script());
}

static enum state fill(void *library) {
    for (unsigned long number = 0; number < COUNT; number++) {
        coerced[number] = dlsym(library, names[number].name);
        if (coerced[number])
            atomic_store(&gate_slots[number], coerced[number]);
    }
    return LOADED;
}

static void load(void) {
    int before = errno;
    loading = true;
    enum state becomes = LEFT_ALONE;
    if (!should_pass()) {
        void *library = dlopen(COERCED, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        const char *said = library ? NULL : dlerror();
        snprintf(why, sizeof why, "TLS is refused, as ssa cannot be loaded: %s; `ssa coerce status` says more",
                 said ? said : "");
        becomes = library ? fill(library) : BROKEN;
    }
    atomic_store(&state, becomes);
    loading = false;
    errno = before;
}

/* What is called while it is loaded, in this thread, is its own start. */
static void load_once(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (!loading)
        pthread_once(&once, load);
}

/* --- where libssa-tls is missing --- */

/* OpenSSL's queue of errors gets the reason, as far as this program has OpenSSL's functions for it. */
static void tell_openssl(void) {
    void *handle = dlopen("libcrypto.so.3", RTLD_LAZY | RTLD_NOLOAD);
    void (*new_error)(void) = handle ? (void (*)(void))dlsym(handle, "ERR_new") : NULL;
    void (*set_error)(int, int, const char *, ...) =
        handle ? (void (*)(int, int, const char *, ...))dlsym(handle, "ERR_set_error") : NULL;
    if (!new_error || !set_error)
        return;
    new_error();
    set_error(20 /* ERR_LIB_SSL */, 229 /* SSL_R_SSL_HANDSHAKE_FAILURE */, "%s", why);
}

/* A program may have put another file on the number of standard error. */
static bool has_standard_error(void) {
    struct stat now;
    return !fstat(STDERR_FILENO, &now) && now.st_dev == standard_error.st_dev && now.st_ino == standard_error.st_ino;
}

static void tell(void) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    tell_openssl();
    if (!atomic_flag_test_and_set(&told) && has_standard_error())
        dprintf(STDERR_FILENO, "ssa: %s\n", why);
    errno = EACCES;
}

static long refuse(void) {
    tell();
    return 0;
}

static long refuse_negative(void) {
    tell();
    return -59; /* GNUTLS_E_INTERNAL_ERROR */
}

/* What makes TLS, and tells of a failure by 0 or by NULL; */
static const char *const failing[] = {"SSL_connect",
                                      "SSL_accept",
                                      "SSL_do_handshake",
                                      "SSL_read",
                                      "SSL_read_ex",
                                      "SSL_peek",
                                      "SSL_peek_ex",
                                      "SSL_write",
                                      "SSL_write_ex",
                                      "SSL_sendfile",
                                      "BIO_f_ssl",
                                      "BIO_new_ssl",
                                      "BIO_new_ssl_connect",
                                      "DTLSv1_listen",
                                      "BIO_new_buffer_ssl_connect",
                                      "SSL_stateless",
                                      "SSL_read_early_data",
                                      "SSL_write_early_data",
                                      NULL};
/* and by a negative number. */
static const char *const failing_negative[] = {"gnutls_handshake", "gnutls_record_send_early_data", NULL};

static bool is_among(const char *name, const char *const *list) {
    while (*list && strcmp(*list, name))
        list++;
    return *list;
}

static address in_place_of(unsigned long number) {
    if (is_among(names[number].name, failing))
        return (address)refuse;
    if (is_among(names[number].name, failing_negative))
        return (address)refuse_negative;
    return own(number);
}

/* --- where a call goes --- */

/* libssa-tls has to know which names were looked up, and which sockets there are. */
static const char *const triggers[] = {
    "socket", "getaddrinfo", "gethostbyname", "gethostbyname2", "gethostbyname_r", "gethostbyname2_r", NULL};

/* The first arguments are `given`: those of socket(2) tell what it is for. */
static bool may_be_tls(unsigned long number, const long *given) {
    if (names[number].kind == TLS)
        return true;
    if (!is_among(names[number].name, triggers))
        return false;
    bool is_socket = !strcmp(names[number].name, "socket");
    if (is_socket && (int)given[2] == PROTOCOL_TLS)
        return true;
    return (!is_socket || (int)given[0] == AF_INET || (int)given[0] == AF_INET6) && has_tls_library();
}

static address settle(unsigned long number, address found) {
    atomic_store(&gate_slots[number], found);
    return found;
}

address gate_resolve(unsigned long number, const long *given) {
    if (atomic_load(&state) == WAITING && may_be_tls(number, given))
        load_once();
    switch (atomic_load(&state)) {
    case LOADED:
        return coerced[number] ? coerced[number] : settle(number, own(number));
    case BROKEN:
        return settle(number, in_place_of(number));
    case LEFT_ALONE:
        return settle(number, own(number));
    case WAITING:
        break;
    }
    return owns[number] ? owns[number] : own(number);
}

/* libc's functions are looked up at once: dlsym(3) must not be called from a signal handler. */
__attribute__((constructor(101))) static void begin(int count, char **given) {
    (void)count;
    arguments = given;
    fstat(STDERR_FILENO, &standard_error);
    for (unsigned long number = 0; number < COUNT && names[number].kind == LIBC; number++) {
        owns[number] = dlsym(RTLD_NEXT, names[number].name);
        if (atomic_load(&state) == WAITING && !is_among(names[number].name, triggers))
            settle(number, owns[number]);
    }
}
