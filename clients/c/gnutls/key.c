/* key.c: a private key of GnuTLS's as PEM.
 *
 * GnuTLS 3.7 writes the number of an ECDSA key that it has copied with a zero byte before it, or with fewer bytes than
 * RFC 5915 section 3 demands. Strict readers refuse both. So such keys are written here.
 */

#include "coerced.h"

#include <string.h>

static const struct curve {
    gnutls_ecc_curve_t number;
    unsigned size, oid_size;
    const char *oid; /* as DER, with its header */
} curves[] = {
    {GNUTLS_ECC_CURVE_SECP256R1, 32, 10, "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"},
    {GNUTLS_ECC_CURVE_SECP384R1, 48, 7, "\x06\x05\x2b\x81\x04\x00\x22"},
    {GNUTLS_ECC_CURVE_SECP521R1, 66, 7, "\x06\x05\x2b\x81\x04\x00\x23"},
};
enum { SEQUENCE = 0x30, INTEGER = 2, BITS = 3, OCTETS = 4, CURVE = 0xa0, PUBLIC = 0xa1, LONGEST_NUMBER = 66 };

static void append_part(struct buffer *to, unsigned char tag, const void *data, size_t size) {
    unsigned char header[] = {tag, (unsigned char)size, 0};
    if (size > 127) {
        header[1] = 0x81;
        header[2] = (unsigned char)size; /* none of it has more than 255 bytes */
    }
    append(to, header, size > 127 ? 3 : 2);
    append(to, data, size);
}

/* False: the number does not fit. */
static bool pad(unsigned char *to, size_t room, const gnutls_datum_t *number) {
    size_t skip = 0;
    while (skip < number->size && !number->data[skip])
        skip++;
    size_t size = number->size - skip;
    if (size > room)
        return false;
    memset(to, 0, room - size);
    memcpy(to + room - size, number->data + skip, size);
    return true;
}

/* RFC 5915 section 3: ECPrivateKey. */
static bool write_der(struct buffer *der, const struct curve *curve, const gnutls_datum_t *x, const gnutls_datum_t *y,
                      const gnutls_datum_t *secret) {
    unsigned char number[LONGEST_NUMBER], point[2 + 2 * LONGEST_NUMBER] = {0, 4}; /* no unused bits; not compressed */
    struct buffer content = {0}, public = {0};
    bool fits = pad(number, curve->size, secret) && pad(point + 2, curve->size, x) &&
                pad(point + 2 + curve->size, curve->size, y);
    append_part(&content, INTEGER, "\1", 1);
    append_part(&content, OCTETS, number, curve->size);
    append_part(&content, CURVE, curve->oid, curve->oid_size);
    append_part(&public, BITS, point, 2 + 2 * curve->size);
    append_part(&content, PUBLIC, public.data, public.size);
    append_part(der, SEQUENCE, content.data, content.size);
    explicit_bzero(number, sizeof number);
    drop_buffer(&content);
    drop_buffer(&public);
    return fits;
}

static const struct curve *curve_numbered(gnutls_ecc_curve_t number) {
    for (size_t at = 0; at < sizeof curves / sizeof *curves; at++)
        if (curves[at].number == number)
            return &curves[at];
    return NULL;
}

static void wipe(gnutls_datum_t *datum) {
    if (datum->data)
        explicit_bzero(datum->data, datum->size);
    gnutls_release(datum);
}

bool append_datum(struct buffer *buffer, int done, gnutls_datum_t *datum) {
    if (done < 0)
        return false;
    append(buffer, datum->data, datum->size);
    wipe(datum);
    return true;
}

static bool append_ecdsa(struct buffer *pem, gnutls_x509_privkey_t key) {
    gnutls_ecc_curve_t number;
    gnutls_datum_t x = {0}, y = {0}, secret = {0}, text;
    struct buffer der = {0};
    int done = REAL(gnutls_x509_privkey_export_ecc_raw)(key, &number, &x, &y, &secret);
    const struct curve *curve = done < 0 ? NULL : curve_numbered(number);
    bool written = curve && write_der(&der, curve, &x, &y, &secret);
    gnutls_datum_t whole = {der.data, (unsigned)der.size};
    written = written && append_datum(pem, REAL(gnutls_pem_base64_encode2)("EC PRIVATE KEY", &whole, &text), &text);
    drop_buffer(&der);
    wipe(&x);
    wipe(&y);
    wipe(&secret);
    return written;
}

bool append_key(struct buffer *pem, gnutls_x509_privkey_t key) {
    gnutls_datum_t text;
    if (REAL(gnutls_x509_privkey_get_pk_algorithm)(key) == GNUTLS_PK_ECDSA)
        return append_ecdsa(pem, key);
    int done = REAL(gnutls_x509_privkey_export2_pkcs8)(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &text);
    return append_datum(pem, done, &text);
}
