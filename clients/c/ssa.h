/* ssa.h: TLS as a service of the operating system, for C.
 *
 * Made by tools/make-header from the tables of ssa/protocol/options.py and from ssa.h.in. docs/c.md tells how to use it.
 */
#ifndef SSA_H
#define SSA_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* socket(AF_INET or AF_INET6, SOCK_STREAM, IPPROTO_TLS) makes a TLS socket; with SOCK_DGRAM it speaks DTLS. */
#define IPPROTO_TLS 205
#define AF_HOSTNAME 43

/* The options at level IPPROTO_TLS: docs/options.md says what each does.
 * A text, a list of names and a path have no terminating NUL in getsockopt; in setsockopt it may be there. */
#define TLS_REMOTE_HOSTNAME 85               /* the peer's name: sent as SNI; its certificate must be for it */
#define TLS_HOSTNAME 86                      /* on a listener: serve this name only; accepted: what the client asked */
#define TLS_TRUSTED_PEER_CERTIFICATES 87     /* trust anchors that the peer must satisfy besides the administrator's */
#define TLS_CERTIFICATE_CHAIN 88             /* the own certificate with its chain, for each kind of key */
#define TLS_PRIVATE_KEY 89                   /* the own private key; it has to match a certificate */
#define TLS_ALPN 90                          /* application protocols in order of preference; connected: the chosen one */
#define TLS_SESSION_TTL 91                   /* how long a session may be resumed, in seconds; 0: never */
#define TLS_DISABLE_CIPHER 92                /* cipher suites that this socket shall not use */
#define TLS_PEER_IDENTITY 93                 /* who the peer was verified to be; empty if it was not asked */
#define TLS_REQUEST_PEER_AUTH 94             /* a client has to present a certificate */
#define TLS_PEER_CERTIFICATE_CHAIN 95        /* the peer's certificates, PEM, its own first */
#define TLS_ID 96                            /* the number of the socket's directory under /ssa/sockets */
#define TLS_CHOSEN_CIPHER 98                 /* the cipher suite in use, by its IANA name */
#define TLS_ERROR 100                        /* why the last operation failed, in words */
#define TLS_RESUMED_SESSION 109              /* whether the handshake resumed an earlier session */
#define TLS_VERSION_MIN 111                  /* the lowest protocol version that this socket accepts */
#define TLS_VERSION_MAX 112                  /* the highest protocol version that this socket accepts */
#define TLS_VERSION_CONN 113                 /* the protocol version in use */
#define TLS_UPGRADE 114                      /* start TLS on a connected socket: 1 as client, 2 as server */

/* An address of the family AF_HOSTNAME: connect(2) on a TLS socket looks the name up, and the server's certificate has
 * to be for it. The port is in network byte order. A name that is shorter than the array ends with a NUL. */
struct host_addr {
    unsigned char name[255];
};
struct sockaddr_host {
    sa_family_t sin_family;
    unsigned short sin_port;
    struct host_addr sin_addr;
};

/* What ssa_connect_tls() may be told. A member that is NULL or 0 says nothing. */
struct ssa_options {
    int timeout;                 /* milliseconds for the look-up's addresses, the connection and the handshake together */
    const char *alpn;            /* application protocols, the preferred one first, as "h2,http/1.1" (RFC 7301) */
    const char *server_hostname; /* whom the server's certificate has to be for, where that is not the host */
    const char *certificate;     /* one's own certificate with its chain: PEM text, or the path of a PEM file */
    const char *private_key;     /* its key: PEM text, or the path of a PEM file */
    const char *trusted;         /* trust anchors that the server has to satisfy besides the administrator's */
    const char *source_address;  /* the local address to connect from, in numbers */
    const char *source_service;  /* the local port */
    const char *version_min;     /* the lowest version: "TLSv1.2" or "TLSv1.3" */
    const char *version_max;     /* the highest version */
    const char *disable_cipher;  /* cipher suites that are not used, with commas between */
};

/* Connect to a TLS server. The server is verified under the administrator's policy to be `host`.
 *
 * Returns a blocking descriptor, or -1 with errno set; ssa_error() then has the words. `service` is a port number or
 * a name of /etc/services. `options` may be NULL. */
int ssa_connect_tls(const char *host, const char *service, const struct ssa_options *options);

/* Read up to `size` bytes. Returns 0 at the peer's close_notify, and -1 with ECONNABORTED where the stream was cut. */
ssize_t ssa_recv(int fd, void *data, size_t size);

/* Write. Returns how many bytes were written, or -1 with errno set. Never raises SIGPIPE. */
ssize_t ssa_send(int fd, const void *data, size_t size);

/* Tell the peer that the stream ends (close_notify) and close the descriptor. */
int ssa_close(int fd);

/* Why this thread's last call that failed did so, in words. Valid until the thread's next failure. */
const char *ssa_error(void);

/* The name of the reason that ssad gave for this thread's last failure, as docs/library.md lists them. Empty: it was none
 * of ssad's. Valid until the thread's next failure. */
const char *ssa_reason(void);

#ifdef __cplusplus
}
#endif

#endif
