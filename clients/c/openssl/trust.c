/* trust.c: the program's own trust anchors, and its own verification.
 *
 * The system's anchors are ssad's business: to load them would cost each process 20 ms and more. So they are noted, and
 * read only when OpenSSL itself needs them. A program that loads them, beside its own or alone, narrows nothing.
 * Anchors of its own alone ride along with the request: the peer has to satisfy them besides the administrator's.
 *
 * What ssad cannot do for the program is done here when ssad has verified the peer: the program's callbacks, its CRLs
 * and its other flags. They can only refuse.
 */

#include "coerced.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- places --- */

static const char *const system_places[] = {"/etc/ssl/certs",        "/etc/ssl/cert.pem",          "/usr/lib/ssl/certs",
                                            "/usr/lib/ssl/cert.pem", "/usr/share/ca-certificates", "/etc/pki/tls/"};

static bool is_system(const char *path) {
    for (size_t at = 0; at < sizeof system_places / sizeof *system_places; at++)
        if (!strncmp(path, system_places[at], strlen(system_places[at])))
            return true;
    return false;
}

static void note(struct place **places, const char *path, bool is_directory) {
    struct place *place = malloc(sizeof *place + strlen(path) + 1);
    if (!place)
        abort();
    place->next = *places;
    place->is_directory = is_directory;
    strcpy(place->path, path);
    *places = place;
}

/* 1, as OpenSSL's functions say it; 0 for a file that is not there. */
static int note_system(X509_STORE *store, const char *path, bool is_directory) {
    struct anchors *anchors = anchors_of(store);
    if (!is_directory && access(path, R_OK))
        return 0;
    anchors->system = true;
    note(&anchors->unread, path, is_directory);
    return 1;
}

void read_system_store(X509_STORE *store) {
    struct anchors *anchors = anchors_of(store);
    while (anchors->unread) {
        struct place *place = anchors->unread;
        anchors->unread = place->next;
        if (place->is_directory)
            REAL(X509_STORE_load_path)(store, place->path);
        else
            REAL(X509_STORE_load_file)(store, place->path);
        free(place);
    }
}

/* --- OpenSSL's functions that load anchors --- */

EXPORT int X509_STORE_load_file(X509_STORE *store, const char *file) {
    return is_system(file) ? note_system(store, file, false) || REAL(X509_STORE_load_file)(store, file)
                           : REAL(X509_STORE_load_file)(store, file);
}

EXPORT int X509_STORE_load_path(X509_STORE *store, const char *folder) {
    if (is_system(folder))
        return note_system(store, folder, true);
    note(&anchors_of(store)->folders, folder, true);
    return REAL(X509_STORE_load_path)(store, folder);
}

EXPORT int X509_STORE_load_locations(X509_STORE *store, const char *file, const char *folder) {
    if ((!file && !folder) || (file && !X509_STORE_load_file(store, file)))
        return 0;
    return !folder || X509_STORE_load_path(store, folder);
}

static int load_default(X509_STORE *store, const char *variable, const char *otherwise, bool is_directory) {
    const char *told = secure_getenv(variable), *path = told ? told : otherwise;
    REAL(ERR_set_mark)();
    if (is_directory)
        X509_STORE_load_path(store, path);
    else
        X509_STORE_load_file(store, path);
    REAL(ERR_pop_to_mark)();
    return 1; /* that a default is not there is no error */
}

static int load_default_file(X509_STORE *store) {
    return load_default(store, REAL(X509_get_default_cert_file_env)(), REAL(X509_get_default_cert_file)(), false);
}

static int load_default_folder(X509_STORE *store) {
    return load_default(store, REAL(X509_get_default_cert_dir_env)(), REAL(X509_get_default_cert_dir)(), true);
}

EXPORT int X509_STORE_set_default_paths(X509_STORE *store) {
    return load_default_file(store) && load_default_folder(store);
}

static X509_STORE *store_of(SSL_CTX *context) {
    return REAL(SSL_CTX_get_cert_store)(context);
}

EXPORT int SSL_CTX_load_verify_locations(SSL_CTX *context, const char *file, const char *folder) {
    return X509_STORE_load_locations(store_of(context), file, folder);
}

EXPORT int SSL_CTX_load_verify_file(SSL_CTX *context, const char *file) {
    return X509_STORE_load_file(store_of(context), file);
}

EXPORT int SSL_CTX_load_verify_dir(SSL_CTX *context, const char *folder) {
    return X509_STORE_load_path(store_of(context), folder);
}

EXPORT int SSL_CTX_set_default_verify_paths(SSL_CTX *context) {
    return X509_STORE_set_default_paths(store_of(context));
}

EXPORT int SSL_CTX_set_default_verify_file(SSL_CTX *context) {
    return load_default_file(store_of(context));
}

EXPORT int SSL_CTX_set_default_verify_dir(SSL_CTX *context) {
    return load_default_folder(store_of(context));
}

/* --- OpenSSL's functions that need them --- */

EXPORT int X509_STORE_CTX_init(X509_STORE_CTX *context, X509_STORE *store, X509 *leaf, STACK_OF(X509) * chain) {
    if (store)
        read_system_store(store);
    return REAL(X509_STORE_CTX_init)(context, store, leaf, chain);
}

EXPORT STACK_OF(X509_OBJECT) * X509_STORE_get0_objects(const X509_STORE *store) {
    read_system_store((X509_STORE *)store);
    return REAL(X509_STORE_get0_objects)(store);
}

EXPORT STACK_OF(X509) * X509_STORE_get1_all_certs(X509_STORE *store) {
    read_system_store(store);
    return REAL(X509_STORE_get1_all_certs)(store);
}

/* --- the program's own anchors --- */

static X509_STORE *store_for(SSL *ssl) {
    X509_STORE *store = NULL;
    REAL(SSL_ctrl)(ssl, SSL_CTRL_GET_VERIFY_CERT_STORE, 0, &store);
    return store ? store : store_of(REAL(SSL_get_SSL_CTX)(ssl));
}

/* A folder of anchors has files by the hash of their subject: 5ad8a5d6.0 (openssl-rehash(1)). */
static bool is_hash(const char *name) {
    return strspn(name, "0123456789abcdef") == 8 && name[8] == '.' && name[9] >= '0' && name[9] <= '9';
}

static int write_file(int folder, const char *name, BIO *bio) {
    char text[4096];
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return 0;
    for (ssize_t got; (got = NEXT(read)(fd, text, sizeof text)) > 0;)
        REAL(BIO_write)(bio, text, (int)got);
    close_quietly(fd);
    REAL(BIO_write)(bio, "\n", 1);
    return 1;
}

static int write_folder(const char *path, BIO *bio) {
    int count = 0;
    DIR *folder = opendir(path);
    for (struct dirent *found; folder && (found = readdir(folder));)
        if (is_hash(found->d_name))
            count += write_file(dirfd(folder), found->d_name, bio);
    if (folder)
        closedir(folder);
    return count;
}

static int write_certificates(X509_STORE *store, BIO *bio) {
    OPENSSL_STACK *objects = (OPENSSL_STACK *)REAL(X509_STORE_get0_objects)(store);
    int written = 0;
    for (int at = 0, count = objects ? REAL(OPENSSL_sk_num)(objects) : 0; at < count; at++) {
        X509 *certificate = REAL(X509_OBJECT_get0_X509)(REAL(OPENSSL_sk_value)(objects, at));
        if (certificate && REAL(PEM_write_bio_X509)(bio, certificate))
            written++;
    }
    return written;
}

int write_anchors(SSL *ssl, BIO *bio) {
    X509_STORE *store = store_for(ssl);
    struct anchors *anchors = store ? anchors_of(store) : NULL;
    if (!store || anchors->system)
        return -1;
    int written = write_certificates(store, bio);
    for (const struct place *place = anchors->folders; place; place = place->next)
        written += write_folder(place->path, bio);
    return written || anchors->folders ? written : -1;
}

/* --- its own verification --- */

bool demands_verification(const SSL *ssl) {
    return (REAL(SSL_get_verify_mode)(ssl) & SSL_VERIFY_PEER) != 0;
}

/* Flags of X509_VERIFY_PARAM that change nothing about what ssad has verified. */
enum { NO_WISHES = X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_ALT_CHAINS };

static bool has_flags(SSL *ssl, X509_STORE *store) {
    unsigned long flags = REAL(X509_VERIFY_PARAM_get_flags)(REAL(SSL_get0_param)(ssl));
    if (store)
        flags |= REAL(X509_VERIFY_PARAM_get_flags)(REAL(X509_STORE_get0_param)(store));
    return (flags & ~(unsigned long)NO_WISHES) != 0;
}

/* The peer's own chain as anchors: for a program whose anchors are the system's, by which ssad has verified it. */
static X509_STORE *store_of_chain(STACK_OF(X509) * chain) {
    X509_STORE *store = REAL(X509_STORE_new)();
    for (int at = 0, count = REAL(OPENSSL_sk_num)((OPENSSL_STACK *)chain); store && at < count; at++)
        REAL(X509_STORE_add_cert)(store, REAL(OPENSSL_sk_value)((OPENSSL_STACK *)chain, at));
    if (store)
        REAL(X509_STORE_set_flags)(store, X509_V_FLAG_PARTIAL_CHAIN);
    return store;
}

static int verify_in(SSL *ssl, X509_STORE *store, struct coerced *coerced, int *error) {
    struct wishes *wishes = wishes_of(REAL(SSL_get_SSL_CTX)(ssl));
    X509_STORE_CTX *context = REAL(X509_STORE_CTX_new)();
    int done = 0;
    if (context && REAL(X509_STORE_CTX_init)(context, store, coerced->peer, coerced->chain)) {
        REAL(X509_STORE_CTX_set_ex_data)(context, REAL(SSL_get_ex_data_X509_STORE_CTX_idx)(), ssl);
        REAL(X509_STORE_CTX_set_default)(context, coerced->role == SERVER ? "ssl_client" : "ssl_server");
        REAL(X509_VERIFY_PARAM_set1)(REAL(X509_STORE_CTX_get0_param)(context), REAL(SSL_get0_param)(ssl));
        if (REAL(SSL_get_verify_callback)(ssl))
            REAL(X509_STORE_CTX_set_verify_cb)(context, REAL(SSL_get_verify_callback)(ssl));
        done = wishes->verify_cb ? wishes->verify_cb(context, wishes->verify_cb_argument)
                                 : REAL(X509_verify_cert)(context);
        *error = REAL(X509_STORE_CTX_get_error)(context);
    }
    REAL(X509_STORE_CTX_free)(context);
    return done > 0;
}

static bool refused(struct coerced *coerced, int error) {
    const char *why = REAL(X509_verify_cert_error_string)(error);
    coerced->verdict = error;
    fail(EKEYREJECTED, "certificate is not acceptable: the program's own verification refuses it: %s", why);
    return false;
}

bool agrees(SSL *ssl, struct coerced *coerced) {
    X509_STORE *store = store_for(ssl);
    bool flags = has_flags(ssl, store);
    if (!demands_verification(ssl) ||
        !(flags || REAL(SSL_get_verify_callback)(ssl) || wishes_of(REAL(SSL_get_SSL_CTX)(ssl))->verify_cb))
        return true;
    learn_chain(ssl, true);
    if (!coerced->peer)
        return coerced->role == SERVER || refused(coerced, X509_V_ERR_UNSPECIFIED);
    bool of_system = !store || anchors_of(store)->system;
    if (of_system && flags && store)
        read_system_store(store);
    X509_STORE *used = of_system && !flags ? store_of_chain(coerced->chain) : store;
    int error = X509_V_ERR_OUT_OF_MEM, done = used && verify_in(ssl, used, coerced, &error);
    if (used && used != store)
        REAL(X509_STORE_free)(used);
    if (!done)
        return refused(coerced, error);
    REAL(SSL_set_verify_result)(ssl, error); /* a callback may have passed over it: that is the program's to know */
    return true;
}
