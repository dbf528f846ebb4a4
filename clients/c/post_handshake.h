/* post_handshake.h: what a record means that is no data, behind the handshake. No input or output here. */
#ifndef SSA_POST_HANDSHAKE_H
#define SSA_POST_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TLS12 = 0x0303, TLS13 = 0x0304 };
enum { HELLO_REQUEST = 0, CLIENT_HELLO = 1, NEW_SESSION_TICKET = 4, KEY_UPDATE = 24 }; /* RFC 8446 section 4 */
enum { WARNING = 1, FATAL = 2 };                                                       /* RFC 8446 section 6 */
enum {
    CLOSE_NOTIFY = 0,
    UNEXPECTED_MESSAGE = 10,
    BAD_RECORD_MAC = 20,
    RECORD_OVERFLOW = 22,
    HANDSHAKE_FAILURE = 40,
    ILLEGAL_PARAMETER = 47,
    DECODE_ERROR = 50,
    INTERNAL_ERROR = 80,
    USER_CANCELED = 90,
    NO_RENEGOTIATION = 100,
    NO_ALERT = -1,
};

enum meaning {
    MEANS_END,              /* close_notify: it stays in the socket */
    MEANS_PASS_OVER,        /* it is taken, and the stream goes on */
    MEANS_TICKET,           /* the same, and ssad gets the session tickets */
    MEANS_NO_RENEGOTIATION, /* the same, and the peer gets that alert */
    MEANS_ASK,              /* ssad takes it: a KeyUpdate, or a message that goes on in the next record */
    MEANS_FAIL,             /* the connection has failed: the peer gets `alert`, or nothing where it has sent one */
};

struct verdict {
    enum meaning meaning;
    int alert;
    const char *why; /* of MEANS_FAIL; NULL: the peer has sent the alert `peer_alert` */
    int peer_alert;
    bool update;      /* a whole KeyUpdate is at the end */
    unsigned first;   /* the type of a message that goes on in the next record, */
    uint32_t missing; /*   how many bytes of it are to come, 0 where its length is not there yet, */
    size_t whole;     /*   and how many bytes of whole messages are before it */
};

/* `version`: the number on the wire. `server`: 1: our role is the server's, 0: the client's, -1: not known. */
struct verdict verdict_untrusted(int version, int server, int type, const unsigned char *content, size_t size);

#endif
