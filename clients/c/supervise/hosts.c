/* hosts.c: /etc/hosts (hosts(5)). What a program reads there is seen by nobody, so the file is asked which name an
 * address has that no answer of the DNS led to. It is the administrator's word that the name is at this address.
 *
 * Where it has several names, the one is meant that is a server of --tls-to, or else the one that the program was told
 * in its arguments. Where that is not exactly one, nobody can tell, and names.c says so.
 */

#include "supervise.h"

#include "../destinations.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { MOST = 32, ARGUMENTS = 1 << 16 };
struct search {
    const struct endpoint *to;
    char names[MOST][NAME_ROOM];
    int count;
    bool chosen[MOST];
};

static void add(struct search *search, const char *name) {
    char plain[NAME_ROOM];
    if (search->count == MOST || !names_is_name(name, plain))
        return;
    for (int at = 0; at < search->count; at++)
        if (!strcasecmp(search->names[at], plain))
            return;
    strcpy(search->names[search->count++], plain);
}

static void read_line(struct search *search, char *line) {
    struct endpoint at;
    char *rest;
    line[strcspn(line, "#\n")] = 0;
    char *word = strtok_r(line, " \t", &rest);
    if (!word || !endpoint_of_text(word, &at) || memcmp(at.address, search->to->address, sizeof at.address))
        return;
    while ((word = strtok_r(NULL, " \t", &rest)))
        add(search, word);
}

static void read_hosts(struct search *search, pid_t thread) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/root/etc/hosts", thread);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        read_line(search, line);
    if (file)
        fclose(file);
}

static bool choose_target(const char *host, uint16_t port, void *argument) {
    struct search *search = argument;
    for (int at = 0; at < search->count; at++)
        if (port == search->to->port && !strcasecmp(search->names[at], host))
            search->chosen[at] = true;
    return false;
}

static bool is_part_of_name(char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9') ||
           letter == '-' || letter == '.' || letter == '_';
}

static bool has_word(const char *text, const char *word) {
    size_t size = strlen(word);
    for (const char *at = text; (at = strcasestr(at, word)); at++)
        if ((at == text || !is_part_of_name(at[-1])) && !is_part_of_name(at[size]))
            return true;
    return false;
}

static void choose_told(struct search *search, pid_t process) {
    static char text[ARGUMENTS]; /* one at a time: names_lock */
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close_quietly(fd);
    for (ssize_t at = 0; at < size; at++)
        if (!text[at])
            text[at] = ' ';
    text[size < 0 ? 0 : size] = 0;
    for (int at = 0; at < search->count; at++)
        search->chosen[at] = has_word(text, search->names[at]);
}

static int count_chosen(const struct search *search) {
    int count = 0;
    for (int at = 0; at < search->count; at++)
        count += search->chosen[at];
    return count;
}

static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;

void hosts_remember(const struct call *call, const struct endpoint *to) {
    static struct search search;
    if (names_led(to, NULL))
        return;
    pthread_mutex_lock(&names_lock);
    search = (struct search){.to = to};
    read_hosts(&search, call->thread);
    each_target(choose_target, &search);
    if (search.count > 1 && count_chosen(&search) != 1)
        choose_told(&search, call->process->pid);
    bool one = count_chosen(&search) == 1;
    for (int at = 0; at < search.count; at++)
        if (!one || search.chosen[at])
            names_remember(search.names[at], to);
    pthread_mutex_unlock(&names_lock);
}
