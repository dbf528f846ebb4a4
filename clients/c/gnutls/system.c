/* system.c: which trust anchors are the system's: by the place that they come from, or by themselves. */

#include "coerced.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static const char *const places[] = {"/etc/ssl/certs",        "/etc/ssl/cert.pem",          "/usr/lib/ssl/certs",
                                     "/usr/lib/ssl/cert.pem", "/usr/share/ca-certificates", "/etc/pki/tls/"};
const char bundle[] = "/etc/ssl/certs/ca-certificates.crt"; /* in which Debian has all of them */

static bool begins(const char *text, const char *with) {
    return !strncmp(text, with, strlen(with));
}

bool is_system(const char *path) {
    for (size_t at = 0; at < sizeof places / sizeof *places; at++)
        if (begins(path, places[at]))
            return true;
    return false;
}

bool is_in_device(const char *path) {
    return begins(path, "pkcs11:");
}

/* --- a program may have read the bundle by itself, as lftp does --- */

static gnutls_datum_t map_bundle(void) {
    struct stat status;
    int fd = open(bundle, O_RDONLY | O_CLOEXEC);
    bool fits = fd >= 0 && !fstat(fd, &status) && status.st_size > 0 && status.st_size < UINT32_MAX;
    void *text = fits ? mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    if (fd >= 0)
        close_quietly(fd);
    return text == MAP_FAILED ? (gnutls_datum_t){0} : (gnutls_datum_t){text, (unsigned)status.st_size};
}

static void unmap(gnutls_datum_t text) {
    if (text.data)
        munmap(text.data, text.size);
}

bool is_bundle(const gnutls_datum_t *data) {
    gnutls_datum_t text = map_bundle();
    bool same = text.data && text.size == data->size && !memcmp(text.data, data->data, text.size);
    unmap(text);
    return same;
}

struct pems {
    int count;
    gnutls_datum_t first, last; /* each from its begin to the end of the text */
};

static struct pems pems_in(gnutls_datum_t text) {
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    struct pems pems = {.count = 0};
    const unsigned char *end = text.data + text.size, *at = text.data;
    while (at && (at = memmem(at, (size_t)(end - at), begin, sizeof begin - 1))) {
        pems.last = (gnutls_datum_t){(unsigned char *)at, (unsigned)(end - at)};
        if (!pems.count++)
            pems.first = pems.last;
        at += sizeof begin - 1;
    }
    return pems;
}

static bool is_same(gnutls_x509_crt_t one, const gnutls_datum_t *pem) {
    gnutls_datum_t had = {0}, wanted = {0};
    bool same = REAL(gnutls_x509_crt_export2)(one, GNUTLS_X509_FMT_DER, &had) >= 0 &&
                REAL(gnutls_pem_base64_decode2)("CERTIFICATE", pem, &wanted) >= 0 && had.size == wanted.size &&
                !memcmp(had.data, wanted.data, had.size);
    gnutls_release(&had);
    gnutls_release(&wanted);
    return same;
}

/* As many, and the first and the last are the same. */
bool are_bundle(gnutls_x509_crt_t *list, int count) {
    gnutls_datum_t text = map_bundle();
    struct pems pems = pems_in(text);
    bool same =
        count > 0 && count == pems.count && is_same(list[0], &pems.first) && is_same(list[count - 1], &pems.last);
    unmap(text);
    return same;
}
