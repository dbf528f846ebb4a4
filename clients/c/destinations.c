/* destinations.c: which connections of a program that knows no TLS become TLS, and for whose name; which of its
 * listeners serve TLS. What cannot be decided is refused.
 *
 * The settings are environment variables, which `ssa run` sets:
 *
 *     SSA_TLS          "all", or the servers, with a space between: host:port, [address]:port
 *     SSA_TLS_NAME     the name to verify, whatever name was looked up
 *     SSA_TLS_LISTEN   "all", or the ports, with a space between
 */

#include "destinations.h"
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TARGETS = 64, MOST_PORTS = 64 };

static struct {
    bool clients, all_clients, listeners, all_listeners;
    char wrong[96]; /* a setting that cannot be read: nothing is connected then, and nothing served */
    char name[256];
    int target_count, port_count;
    struct target {
        char host[256];
        struct endpoint at; /* where it is an address */
        bool is_address;
        uint16_t port;
    } targets[MOST_TARGETS];
    uint16_t ports[MOST_PORTS];
} mode;

/* --- the settings --- */

static bool read_port(const char *text, uint16_t *port) {
    char *end;
    long number = strtol(text, &end, 10);
    *port = (uint16_t)number;
    return *text >= '0' && *text <= '9' && !*end && number > 0 && number < 1 << 16;
}

static bool read_target(char *text) {
    struct target *target = &mode.targets[mode.target_count];
    char *colon = strrchr(text, ':');
    if (mode.target_count == MOST_TARGETS || !colon || colon == text || !read_port(colon + 1, &target->port))
        return false;
    *colon = 0;
    if (*text == '[' && colon[-1] == ']') {
        colon[-1] = 0;
        text++;
    }
    if (!*text || strlen(text) >= sizeof target->host)
        return false;
    strcpy(target->host, text);
    target->is_address = endpoint_of_text(text, &target->at);
    mode.target_count++;
    return true;
}

static bool read_listener(char *text) {
    return mode.port_count < MOST_PORTS && read_port(text, &mode.ports[mode.port_count++]);
}

/* A setting of words. False: it is not set. */
static bool read_words(const char *variable, bool (*read)(char *), bool *all) {
    const char *told = secure_getenv(variable);
    char text[sizeof mode.targets], *rest;
    if (!told)
        return false;
    bool fits = strlen(told) < sizeof text;
    int count = 0;
    strcpy(text, fits ? told : "");
    *all = !strcmp(text, "all");
    for (char *word = *all ? NULL : strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest), count++)
        fits = fits && read(word);
    if (!fits || (!*all && !count))
        snprintf(mode.wrong, sizeof mode.wrong, "the setting %s cannot be read", variable);
    return true;
}

void destinations_begin(void) {
    const char *name = secure_getenv("SSA_TLS_NAME");
    mode.clients = read_words("SSA_TLS", read_target, &mode.all_clients);
    mode.listeners = read_words("SSA_TLS_LISTEN", read_listener, &mode.all_listeners);
    if (name && strlen(name) < sizeof mode.name)
        strcpy(mode.name, name);
    else if (name)
        strcpy(mode.wrong, "the setting SSA_TLS_NAME cannot be read");
}

bool destinations_have_clients(void) {
    return mode.clients;
}

bool destinations_have_listeners(void) {
    return mode.listeners;
}

int each_target(bool (*act)(const char *host, uint16_t port, void *argument), void *argument) {
    for (int at = 0; at < mode.target_count; at++)
        if (!mode.targets[at].is_address && act(mode.targets[at].host, mode.targets[at].port, argument))
            return 1;
    return 0;
}

/* --- a connection --- */

/* A resolver on this machine: what it is asked is not the program's data. */
static bool is_local_resolver(const struct endpoint *to) {
    struct endpoint loopback;
    endpoint_of_text("::1", &loopback);
    bool six = !memcmp(to->address, loopback.address, sizeof to->address);
    endpoint_of_text("127.0.0.1", &loopback);
    return to->port == 53 && (six || !memcmp(to->address, loopback.address, 13));
}

/* An address that no name led to may be any server's: it is taken for the one of the settings. */
static bool is_target(const struct endpoint *to) {
    bool nameless = !names_led(to, NULL);
    for (const struct target *target = mode.targets; target < mode.targets + mode.target_count; target++)
        if (target->port == to->port &&
            (target->is_address ? !memcmp(target->at.address, to->address, sizeof to->address)
                                : nameless || names_led(to, target->host)))
            return true;
    return false;
}

/* The name to verify. 0; -1: there is none, and the words say why. */
static int name_of(const struct endpoint *to, const char *address, char *name) {
    enum naming naming = names_take(to, name, sizeof mode.name);
    if (*mode.name)
        strcpy(name, mode.name);
    if (*mode.name || naming == ONE_NAME)
        return 0;
    return naming == NO_NAME
               ? fail(EACCES, "no name was looked up that led to %s: `ssa run --name NAME` says whose it is", address)
               : fail(EACCES, "several names led to %s: `ssa run --name NAME` says which is meant", address);
}

enum destination destination_of(const struct endpoint *to, char *name) {
    char address[64];
    if (!mode.clients || is_local_resolver(to))
        return PLAINLY;
    if (*mode.wrong)
        return fail(EACCES, "%s", mode.wrong), REFUSED;
    if (!mode.all_clients && !is_target(to))
        return PLAINLY;
    endpoint_text(to, address, sizeof address);
    return name_of(to, address, name) ? REFUSED : BY_TLS;
}

enum destination destination_of_listener(const struct endpoint *at) {
    if (*mode.wrong)
        return fail(EACCES, "%s", mode.wrong), REFUSED;
    if (mode.all_listeners)
        return BY_TLS;
    for (int port = 0; at && port < mode.port_count; port++)
        if (mode.ports[port] == at->port)
            return BY_TLS;
    return PLAINLY;
}

/* --- what is said of a failure --- */

/* What a program knows that knows no TLS. */
static const struct {
    int number, known;
} known_errors[] = {
    {EKEYREJECTED, EACCES},    {EKEYEXPIRED, EACCES}, {ENOKEY, EACCES},       {EINVAL, EACCES},
    {EPROTONOSUPPORT, EPROTO}, {EIO, ECONNREFUSED},   {EAGAIN, ECONNREFUSED}, {ENOTCONN, ECONNRESET},
};

int known_error(int number) {
    for (size_t at = 0; at < sizeof known_errors / sizeof *known_errors; at++)
        if (known_errors[at].number == number)
            return known_errors[at].known;
    return number;
}

/* Words that say no more than errno does are the program's to say. */
bool says_no_more(int number) {
    const char *text = strerrordesc_np(number);
    return !*words() || (text && !strcmp(text, words()));
}
