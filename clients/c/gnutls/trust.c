/* trust.c: the program's own trust anchors.
 *
 * The system's anchors are ssad's business: to load them would cost each process 60 ms. So they are noted, and read
 * only when GnuTLS itself needs them. A program that loads them, beside its own or alone, narrows nothing. Anchors of
 * its own alone ride along with the request: the peer has to satisfy them besides the administrator's.
 */

#include "coerced.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the system's --- */

enum { LOADED = 1 }; /* certificates, as GnuTLS's functions say it */

static int note_system(gnutls_x509_trust_list_t list, const char *path, bool is_directory,
                       gnutls_x509_crt_fmt_t format) {
    struct anchors *anchors = anchors_of(list);
    struct place *place = malloc(sizeof *place + strlen(path) + 1);
    if (!place)
        abort();
    place->is_directory = is_directory;
    place->format = format;
    strcpy(place->path, path);
    lock_take(&coerced_locks[OF_SESSIONS]);
    anchors->system = true;
    place->next = anchors->unread;
    anchors->unread = place;
    lock_release(&coerced_locks[OF_SESSIONS]);
    return LOADED;
}

static struct place *take_unread(struct anchors *anchors) {
    lock_take(&coerced_locks[OF_SESSIONS]);
    struct place *place = anchors->unread;
    if (place)
        anchors->unread = place->next;
    lock_release(&coerced_locks[OF_SESSIONS]);
    return place;
}

void read_system_trust(gnutls_x509_trust_list_t list) {
    for (struct place *place; (place = take_unread(anchors_of(list))); free(place)) {
        if (!*place->path)
            REAL(gnutls_x509_trust_list_add_system_trust)(list, 0, 0);
        else if (place->is_directory)
            REAL(gnutls_x509_trust_list_add_trust_dir)(list, place->path, NULL, place->format, 0, 0);
        else
            REAL(gnutls_x509_trust_list_add_trust_file)(list, place->path, NULL, place->format, 0, 0);
    }
}

/* --- GnuTLS's functions that load anchors into a trust list --- */

static void note_revocation(gnutls_x509_trust_list_t list, const void *crls, int done) {
    if (crls && done > 0)
        anchors_of(list)->revokes = true;
}

EXPORT int gnutls_x509_trust_list_add_system_trust(gnutls_x509_trust_list_t list, unsigned flags, unsigned verify) {
    (void)flags, (void)verify;
    return note_system(list, "", false, GNUTLS_X509_FMT_PEM);
}

EXPORT int gnutls_x509_trust_list_add_trust_file(gnutls_x509_trust_list_t list, const char *file, const char *crls,
                                                 gnutls_x509_crt_fmt_t format, unsigned flags, unsigned verify) {
    if (file && !crls && is_system(file) && !access(file, R_OK))
        return note_system(list, file, false, format);
    if (file && is_in_device(file))
        anchors_of(list)->in_device = true;
    int done = REAL(gnutls_x509_trust_list_add_trust_file)(list, file, crls, format, flags, verify);
    note_revocation(list, crls, done);
    return done;
}

EXPORT int gnutls_x509_trust_list_add_trust_dir(gnutls_x509_trust_list_t list, const char *folder, const char *crls,
                                                gnutls_x509_crt_fmt_t format, unsigned flags, unsigned verify) {
    if (folder && !crls && is_system(folder))
        return note_system(list, folder, true, format);
    int done = REAL(gnutls_x509_trust_list_add_trust_dir)(list, folder, crls, format, flags, verify);
    note_revocation(list, crls, done);
    return done;
}

EXPORT int gnutls_x509_trust_list_add_trust_mem(gnutls_x509_trust_list_t list, const gnutls_datum_t *cas,
                                                const gnutls_datum_t *crls, gnutls_x509_crt_fmt_t format,
                                                unsigned flags, unsigned verify) {
    if (cas && !crls && is_bundle(cas))
        return note_system(list, bundle, false, format);
    int done = REAL(gnutls_x509_trust_list_add_trust_mem)(list, cas, crls, format, flags, verify);
    note_revocation(list, crls, done);
    return done;
}

EXPORT int gnutls_x509_trust_list_add_crls(gnutls_x509_trust_list_t list, const gnutls_x509_crl_t *crls, unsigned count,
                                           unsigned flags, unsigned verify) {
    int done = REAL(gnutls_x509_trust_list_add_crls)(list, crls, count, flags, verify);
    note_revocation(list, crls, done);
    return done;
}

/* --- the same for credentials, which have a trust list --- */

static gnutls_x509_trust_list_t list_of(gnutls_certificate_credentials_t credentials) {
    gnutls_x509_trust_list_t list = NULL;
    REAL(gnutls_certificate_get_trust_list)(credentials, &list);
    return list;
}

EXPORT int gnutls_certificate_set_x509_system_trust(gnutls_certificate_credentials_t credentials) {
    return gnutls_x509_trust_list_add_system_trust(list_of(credentials), 0, 0);
}

EXPORT int gnutls_certificate_set_x509_trust_file(gnutls_certificate_credentials_t credentials, const char *file,
                                                  gnutls_x509_crt_fmt_t format) {
    if (is_system(file) && !access(file, R_OK))
        return note_system(list_of(credentials), file, false, format);
    if (is_in_device(file))
        anchors_of(list_of(credentials))->in_device = true;
    return REAL(gnutls_certificate_set_x509_trust_file)(credentials, file, format);
}

EXPORT int gnutls_certificate_set_x509_trust_dir(gnutls_certificate_credentials_t credentials, const char *folder,
                                                 gnutls_x509_crt_fmt_t format) {
    return is_system(folder) ? note_system(list_of(credentials), folder, true, format)
                             : REAL(gnutls_certificate_set_x509_trust_dir)(credentials, folder, format);
}

EXPORT int gnutls_certificate_set_x509_trust_mem(gnutls_certificate_credentials_t credentials,
                                                 const gnutls_datum_t *cas, gnutls_x509_crt_fmt_t format) {
    return is_bundle(cas) ? note_system(list_of(credentials), bundle, false, format)
                          : REAL(gnutls_certificate_set_x509_trust_mem)(credentials, cas, format);
}

EXPORT int gnutls_certificate_set_x509_trust(gnutls_certificate_credentials_t credentials, gnutls_x509_crt_t *list,
                                             int count) {
    if (!are_bundle(list, count))
        return REAL(gnutls_certificate_set_x509_trust)(credentials, list, count);
    note_system(list_of(credentials), bundle, false, GNUTLS_X509_FMT_PEM);
    return count;
}

#define REVOKES(call)                                                                                                  \
    int done = call;                                                                                                   \
    note_revocation(list_of(credentials), credentials, done);                                                          \
    return done

EXPORT int gnutls_certificate_set_x509_crl(gnutls_certificate_credentials_t credentials, gnutls_x509_crl_t *crls,
                                           int count) {
    REVOKES(REAL(gnutls_certificate_set_x509_crl)(credentials, crls, count));
}

EXPORT int gnutls_certificate_set_x509_crl_file(gnutls_certificate_credentials_t credentials, const char *file,
                                                gnutls_x509_crt_fmt_t format) {
    REVOKES(REAL(gnutls_certificate_set_x509_crl_file)(credentials, file, format));
}

EXPORT int gnutls_certificate_set_x509_crl_mem(gnutls_certificate_credentials_t credentials, const gnutls_datum_t *crls,
                                               gnutls_x509_crt_fmt_t format) {
    REVOKES(REAL(gnutls_certificate_set_x509_crl_mem)(credentials, crls, format));
}

/* --- GnuTLS's functions that need the system's --- */

EXPORT int gnutls_x509_trust_list_verify_crt2(gnutls_x509_trust_list_t list, gnutls_x509_crt_t *chain, unsigned size,
                                              gnutls_typed_vdata_st *data, unsigned elements, unsigned flags,
                                              unsigned *status, gnutls_verify_output_function *tell) {
    read_system_trust(list);
    return REAL(gnutls_x509_trust_list_verify_crt2)(list, chain, size, data, elements, flags, status, tell);
}

EXPORT int gnutls_x509_trust_list_verify_crt(gnutls_x509_trust_list_t list, gnutls_x509_crt_t *chain, unsigned size,
                                             unsigned flags, unsigned *status, gnutls_verify_output_function *tell) {
    read_system_trust(list);
    return REAL(gnutls_x509_trust_list_verify_crt)(list, chain, size, flags, status, tell);
}

EXPORT int gnutls_x509_trust_list_get_issuer(gnutls_x509_trust_list_t list, gnutls_x509_crt_t certificate,
                                             gnutls_x509_crt_t *issuer, unsigned flags) {
    read_system_trust(list);
    return REAL(gnutls_x509_trust_list_get_issuer)(list, certificate, issuer, flags);
}

EXPORT int gnutls_x509_trust_list_iter_get_ca(gnutls_x509_trust_list_t list, gnutls_x509_trust_list_iter_t *at,
                                              gnutls_x509_crt_t *found) {
    read_system_trust(list);
    return REAL(gnutls_x509_trust_list_iter_get_ca)(list, at, found);
}

/* --- for the request --- */

static int write_anchors(gnutls_x509_trust_list_t list, struct buffer *pem) {
    gnutls_x509_trust_list_iter_t at = NULL;
    gnutls_x509_crt_t one;
    int done = 0;
    while (!done && REAL(gnutls_x509_trust_list_iter_get_ca)(list, &at, &one) >= 0) {
        gnutls_datum_t text;
        if (REAL(gnutls_x509_crt_export2)(one, GNUTLS_X509_FMT_PEM, &text) < 0) {
            done = fail(EINVAL, "one of the program's trust anchors cannot be written down");
        } else {
            append(pem, text.data, text.size);
            gnutls_release(&text);
        }
        REAL(gnutls_x509_crt_deinit)(one);
    }
    if (at)
        REAL(gnutls_x509_trust_list_iter_deinit)(at);
    return done ? done : pem->size > 0;
}

int own_anchors(gnutls_session_t session, struct buffer *pem) {
    gnutls_x509_trust_list_t list = list_of(certificate_credentials(session));
    if (!list || anchors_of(list)->system)
        return 0;
    if (anchors_of(list)->in_device)
        return fail(EOPNOTSUPP, "the program's trust anchors are in a device (pkcs11:), where ssa cannot read them");
    return write_anchors(list, pem);
}
