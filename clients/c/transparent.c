/* transparent.c: programs that know no TLS (`ssa run --tls`, `--tls-listen`). What such a program makes of TCP becomes
 * what socket(2) makes with IPPROTO_TLS.
 *
 * A TCP socket is in the table from socket(2) on, in PLAIN, so that the numbers to which it is dup(2)ed are known.
 * connect(2) and listen(2) decide what it becomes, and whatever cannot be decided is refused:
 *
 *     connect to a server of the settings    TLS, for the name that was looked up
 *     connect to another                     plain text
 *     listen on a port of the settings       TLS, with the administrator's credential
 *     listen on another                      plain text
 *
 * destinations.c has the settings. SSA_EXPLAIN: why something is refused is said on standard error.
 */

#include "transparent.h"
#include "destinations.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct {
    bool quiet;
    struct stat errors; /* standard error, as the program was started with it */
} mode;

bool is_transparent;

void transparent_begin(void) {
    destinations_begin();
    mode.quiet = !secure_getenv("SSA_EXPLAIN");
    is_transparent = destinations_have_clients() || destinations_have_listeners();
    if (is_transparent && syscall(SYS_newfstatat, STDERR_FILENO, "", &mode.errors, AT_EMPTY_PATH))
        mode.quiet = true;
}

/* --- what is said --- */

/* The program may have closed its standard error, and opened a file or a socket on the number: that is not written to.
 */
static bool is_standard_error(void) {
    struct stat now_there;
    return !syscall(SYS_newfstatat, STDERR_FILENO, "", &now_there, AT_EMPTY_PATH) &&
           now_there.st_dev == mode.errors.st_dev && now_there.st_ino == mode.errors.st_ino &&
           !connection_look(STDERR_FILENO) && wait_for(STDERR_FILENO, POLLOUT, 0) & POLLOUT;
}

/* Write a line without a wait, and without a signal where nobody reads. */
static void write_line(const char *line, size_t size) {
    static struct lock line_lock;
    sigset_t pending, pipe;
    struct timespec at_once = {0, 0};
    struct guard guard = guard_enter(&line_lock);
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    if (is_standard_error() && syscall(SYS_write, STDERR_FILENO, line, size) < 0 && errno == EPIPE &&
        !sigismember(&pending, SIGPIPE))
        sigtimedwait(&pipe, NULL, &at_once);
    guard_leave(&guard);
}

static void say(const char *about) {
    char line[WORDS_ROOM + 600];
    int size = snprintf(line, sizeof line, "ssa: %.60s: %s: %s\n", program_invocation_short_name, about, words());
    if (!mode.quiet)
        write_line(line, (size_t)size);
}

void transparent_failed(struct connection *connection) {
    int number = errno, phase = atomic_load(&connection->phase);
    char about[NAME_ROOM] = "listening";
    if (says_no_more(number))
        return;
    struct guard guard = guard_enter(&connection->lock);
    bool is_new = strcmp(connection->words, words()) != 0;
    if (connection->settings && *connection->settings->hostname)
        copy_text(about, sizeof about, connection->settings->hostname, sizeof about);
    guard_leave(&guard);
    if (is_new)
        say(about);
    errno = phase == LIVE || phase == BROKEN || phase == LISTENING ? number : known_error(number);
}

/* --- sockets --- */

static struct connection *begin(int fd) {
    struct connection *connection = connection_new(fd, PLAIN);
    if (!connection)
        return NULL;
    connection->family = get_number(fd, SOL_SOCKET, SO_DOMAIN, 0);
    connection->transparent = true;
    note_cookie(connection, fd);
    return connection;
}

static bool is_tcp(int fd) {
    int family = get_number(fd, SOL_SOCKET, SO_DOMAIN, 0);
    return (family == AF_INET || family == AF_INET6) && get_number(fd, SOL_SOCKET, SO_TYPE, 0) == SOCK_STREAM &&
           get_number(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_TCP;
}

struct connection *transparent_adopt(int fd) {
    struct connection *connection = is_tcp(fd) ? begin(fd) : NULL;
    if (connection)
        connection->find_sets = true;
    return connection;
}

int transparent_socket(int fd, int protocol) {
    if (fd < 0)
        return -1;
    if (protocol == IPPROTO_MPTCP) { /* which a program does without where it is not there */
        close_quietly(fd);
        return fail(EPROTONOSUPPORT, "TLS runs over TCP with one path");
    }
    if (!is_tcp(fd))
        return fd;
    struct connection *connection = begin(fd);
    if (!connection) {
        close_quietly(fd);
        return -1;
    }
    connection_put(connection);
    return fd;
}

static int refuse(const char *about) {
    say(about);
    errno = EACCES;
    return -1;
}

/* --- connect(2) --- */

static int put_name(struct connection *connection, const char *name) {
    struct guard guard = guard_enter(&connection->lock);
    struct settings *dropped = connection->settings, *with = settings_with_hostname(dropped, name);
    if (with)
        connection->settings = with;
    guard_leave(&guard);
    if (with)
        settings_release(dropped);
    return with ? 0 : -1;
}

static int connect_plainly(struct connection *connection, int fd, const struct sockaddr *address, socklen_t size) {
    atomic_store(&connection->phase, PLAIN);
    return NEXT(connect)(fd, address, size);
}

int transparent_connect(struct connection *connection, int fd, const struct sockaddr *address, socklen_t size) {
    struct endpoint to;
    char text[64], name[NAME_ROOM];
    int phase = atomic_load(&connection->phase);
    if ((phase != PLAIN && phase != FRESH) || atomic_load(&connection->failure))
        return tls_connect(connection, fd, address, size);
    if ((phase == PLAIN && tcp_state(fd) != TCP_CLOSE) || !address || !endpoint_of(address, size, &to))
        return connect_plainly(connection, fd, address, size);
    enum destination destination = destination_of(&to, name);
    endpoint_text(&to, text, sizeof text);
    if (destination == REFUSED)
        return refuse(text);
    if (destination == PLAINLY)
        return connect_plainly(connection, fd, address, size);
    if (put_name(connection, name))
        return -1;
    atomic_store(&connection->phase, FRESH);
    return tls_connect(connection, fd, address, size);
}

/* --- listen(2) --- */

static enum destination destination_of_fd(int fd) {
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    struct endpoint at;
    bool known = !syscall(SYS_getsockname, fd, &name, &size) && endpoint_of((struct sockaddr *)&name, size, &at);
    return destination_of_listener(known ? &at : NULL);
}

int transparent_listen(struct connection *connection, int fd, int backlog) {
    if (atomic_load(&connection->phase) == PLAIN && destinations_have_listeners()) {
        enum destination destination = destination_of_fd(fd);
        if (destination == REFUSED)
            return refuse("listening");
        if (destination == BY_TLS)
            atomic_store(&connection->phase, FRESH);
    }
    return tls_listen(connection, fd, backlog);
}

enum { BACKLOG = 128 };

bool transparent_take_over(int fd) {
    if (!destinations_have_listeners() || !get_number(fd, SOL_SOCKET, SO_ACCEPTCONN, 0))
        return true;
    struct connection *connection = transparent_adopt(fd);
    if (!connection)
        return true;
    int done = transparent_listen(connection, fd, BACKLOG);
    connection_put(connection);
    return !done;
}
