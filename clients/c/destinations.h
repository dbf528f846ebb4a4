/* destinations.h: what becomes of the connections and listeners of a program that knows no TLS. */
#ifndef SSA_DESTINATIONS_H
#define SSA_DESTINATIONS_H

#include "names.h"

enum destination { PLAINLY, BY_TLS, REFUSED };
void destinations_begin(void); /* reads the environment */
bool destinations_have_clients(void);
bool destinations_have_listeners(void);
/* BY_TLS: `name`, of NAME_ROOM bytes, is to be verified. REFUSED: errno and the words are set. */
enum destination destination_of(const struct endpoint *to, char *name);
enum destination destination_of_listener(const struct endpoint *at); /* NULL: it is not known where it listens */
/* Call `act` for each server of the settings that is no address, until it returns true. 1: it did. */
int each_target(bool (*act)(const char *host, uint16_t port, void *argument), void *argument);

int known_error(int number);   /* what a program knows that knows no TLS */
bool says_no_more(int number); /* words that say no more than errno does are the program's to say */

#endif
