/* priorities.c: what a priority string leaves of versions and cipher suites. Groups and signatures are the policy's. */

#include "coerced.h"

static const struct {
    gnutls_protocol_t version;
    long number;
} versions[] = {
    {GNUTLS_SSL3, 0x0300},   {GNUTLS_TLS1_0, 0x0301}, {GNUTLS_TLS1_1, 0x0302},
    {GNUTLS_TLS1_2, 0x0303}, {GNUTLS_TLS1_3, 0x0304},
};

static void add_version(struct priorities *priorities, unsigned version) {
    for (size_t at = 0; at < sizeof versions / sizeof *versions; at++) {
        long number = versions[at].number;
        if ((unsigned)versions[at].version != version)
            continue;
        if (!priorities->low || number < priorities->low)
            priorities->low = number;
        if (number > priorities->high)
            priorities->high = number;
    }
}

void read_priorities(struct priorities *priorities, gnutls_priority_t cache) {
    enum { MOST = sizeof priorities->suites / sizeof *priorities->suites };
    *priorities = (struct priorities){.known = true};
    const unsigned *list;
    for (int at = 0, count = REAL(gnutls_priority_protocol_list)(cache, &list); at < count; at++)
        add_version(priorities, list[at]);
    unsigned index = 0;
    for (unsigned at = 0; priorities->count < MOST; at++) {
        unsigned char id[2];
        int found = REAL(gnutls_priority_get_cipher_suite_index)(cache, at, &index);
        if (found == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            break;
        if (found >= 0 && REAL(gnutls_cipher_suite_info)(index, id, NULL, NULL, NULL, NULL))
            priorities->suites[priorities->count++] = (unsigned)id[0] << 8 | id[1];
    }
}
