/* saying.c: a line on the program's standard error that says why something is refused.
 *
 * It is fetched from the program each time: nothing of the program's is held here, as whoever reads a pipe waits for
 * its last writer. The program may have closed it, and opened a file or a socket on the number: that is not written to.
 */

#include "supervise.h"

#include "../destinations.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct stat standard_error;
static bool is_quiet;

void saying_begin(const struct stat *errors, bool quiet) {
    standard_error = *errors;
    is_quiet = quiet;
}

static void name_of_program(const struct call *call, char *name, size_t room) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", call->process->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, name, room - 1);
    if (fd >= 0)
        close_quietly(fd);
    name[size < 1 ? 0 : size - 1] = 0; /* without its end of line */
}

static void write_to(int errors, const char *line, size_t size) {
    struct stat there;
    if (!fstat(errors, &there) && there.st_dev == standard_error.st_dev && there.st_ino == standard_error.st_ino &&
        wait_for(errors, POLLOUT, 0) & POLLOUT && write(errors, line, size) < 0)
        return; /* nobody reads it */
}

void say(const struct call *call, const char *about) {
    char line[WORDS_ROOM + 400], name[64];
    struct call copy = *call;
    int before = errno;
    if (is_quiet || says_no_more(before) || !call->process)
        return;
    name_of_program(call, name, sizeof name);
    int size = snprintf(line, sizeof line, "ssa: %s: %.255s: %s\n", name, about, words());
    char kept[WORDS_ROOM];
    copy_text(kept, sizeof kept, words(), WORDS_ROOM);
    int errors = fetch(&copy, STDERR_FILENO);
    if (errors >= 0) {
        write_to(errors, line, (size_t)size);
        close_quietly(errors);
    }
    set_words(kept);
    errno = before;
}
