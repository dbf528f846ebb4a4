/* names: plays look-ups and connects against names.c, a line each of standard input:
 *
 *     look NAME ADDRESS PORT     getaddrinfo(3) finds this
 *     answer NAME                gethostbyaddr(3) does
 *     take ADDRESS PORT          connect(2): the name, "-" for none, "?" for several
 */

#include "../../clients/c/names.h"
#include "../../clients/c/internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sockaddr_in there = {.sin_family = AF_INET};
static struct addrinfo answer = {
    .ai_family = AF_INET, .ai_addr = (struct sockaddr *)&there, .ai_addrlen = sizeof there};
static char told[300];

static int find(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    (void)host, (void)service, (void)hints;
    *found = &answer;
    return 0;
}

static struct hostent *find_name(const void *address, socklen_t size, int family) {
    static char *nothing[] = {NULL};
    static struct hostent host = {.h_name = told, .h_aliases = nothing};
    (void)address, (void)size, (void)family;
    return &host;
}

static void take(const char *address, int port) {
    char name[256] = "";
    struct endpoint to;
    endpoint_of_text(address, &to);
    to.port = (uint16_t)port;
    enum naming naming = names_take(&to, name, sizeof name);
    puts(naming == ONE_NAME ? name : naming == NO_NAME ? "-" : "?");
}

int main(void) {
    char line[600], name[300], address[64];
    int port;
    struct addrinfo *found;
    is_transparent = true;
    next_functions.getaddrinfo = find;
    next_functions.gethostbyaddr = find_name;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "look %299s %63s %d", name, address, &port) == 3) {
            inet_pton(AF_INET, address, &there.sin_addr);
            there.sin_port = htons((in_port_t)port);
            getaddrinfo(name, NULL, NULL, &found);
        } else if (sscanf(line, "answer %299s", told) == 1) {
            gethostbyaddr("", 4, AF_INET);
        } else if (sscanf(line, "take %63s %d", address, &port) == 2) {
            take(address, port);
        }
    }
    return 0;
}
