/* leave_alone.c: the programs that the administrator leaves alone, in /etc/ssa/leave-alone: a line for each, the path
 * of an executable or of a script, as a pattern (fnmatch(3)); `#` begins a comment. It is read when a program is about
 * to use TLS. Where it cannot be read, the list that ssa comes with counts.
 */

#include "gate.h"
#include "left_alone.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#ifndef LIST
#define LIST "/etc/ssa/leave-alone"
#endif

enum { MOST = 32768 }; /* bytes of the list */

struct program {
    char executable[PATH_MAX], script[PATH_MAX];
};

static const char unknown[] = ""; /* no pattern is for it */

/* /proc may not be mounted yet, or not be there in a chroot. */
static void find_executable(char *path) {
    ssize_t size = readlink("/proc/self/exe", path, PATH_MAX - 1);
    const char *started = (const char *)getauxval(AT_EXECFN);
    if (size > 0)
        path[size] = 0;
    else if (!started || !realpath(started, path))
        strcpy(path, unknown);
}

/* Only an interpreter's first argument is what runs. */
static bool is_interpreter(const char *path) {
    static const char *const patterns[] = {"/usr/bin/python*", "/usr/local/bin/python*", "/opt/*/bin/python*",
                                           "/usr/bin/perl*"};
    for (size_t at = 0; at < sizeof patterns / sizeof *patterns; at++)
        if (!fnmatch(patterns[at], path, 0))
            return true;
    return false;
}

static bool has(const struct program *program, const char *pattern) {
    return !fnmatch(pattern, program->executable, 0) || (*program->script && !fnmatch(pattern, program->script, 0));
}

/* Most systems have /bin in /usr; where they have not, what is said of /usr/bin is meant for /bin. */
static bool is_meant(const struct program *program, const char *pattern) {
    return has(program, pattern) || (!strncmp(pattern, "/usr/", 5) && has(program, pattern + 4));
}

static bool is_in(const struct program *program, char *list) {
    char *rest;
    for (char *line = strtok_r(list, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        line[strcspn(line, "#")] = 0;
        line += strspn(line, " \t");
        size_t size = strlen(line);
        while (size && strchr(" \t\r", line[size - 1]))
            line[--size] = 0;
        if (*line && is_meant(program, line))
            return true;
    }
    return false;
}

/* False: it cannot be read. */
static bool read_list(char *list) {
    size_t size = 0;
    ssize_t got = -1;
    int fd = open(LIST, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd >= 0 && size < MOST && (got = read(fd, list + size, MOST - size)) > 0)
        size += (size_t)got;
    if (fd >= 0)
        close(fd);
    list[size] = 0;
    return got >= 0;
}

bool is_left_alone(const char *script) {
    static struct program program;
    static char list[MOST + 1];
    find_executable(program.executable);
    if (script && is_interpreter(program.executable) && !realpath(script, program.script))
        strcpy(program.script, unknown);
    if (!read_list(list))
        strcpy(list, LEFT_ALONE);
    return is_in(&program, list);
}
