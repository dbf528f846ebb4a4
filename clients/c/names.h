/* names.h: the names by which addresses were looked up. */
#ifndef SSA_NAMES_H
#define SSA_NAMES_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { NAME_ROOM = 256 };
extern const unsigned char mapped[12]; /* how an IPv4 address begins: RFC 4291 section 2.5.5.2 */
struct endpoint {
    unsigned char address[16]; /* of IPv4: mapped */
    uint16_t port;
};
bool endpoint_of(const struct sockaddr *address, socklen_t size, struct endpoint *endpoint); /* false: no IP address */
bool endpoint_of_text(const char *text, struct endpoint *endpoint);                          /* with port 0 */
void endpoint_text(const struct endpoint *endpoint, char *text, size_t room);                /* the address alone */

enum naming { NO_NAME, ONE_NAME, SEVERAL_NAMES };
enum naming names_take(const struct endpoint *endpoint, char *name, size_t room);
bool names_led(const struct endpoint *endpoint, const char *name); /* to there; NULL: any name did */
void names_remember(const char *name, const struct endpoint *endpoint);
bool names_is_name(const char *host, char *name); /* and the name as a certificate has it, in NAME_ROOM bytes */
void names_note_answer(const char *name);         /* the DNS has given it, and nobody asked for it */
void names_after_fork(void);

/* Called for each address that was found, where a library on top of this one wants to know. */
extern void (*note_look_up)(const char *host, const struct sockaddr *address);

#endif
