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
 * The settings are environment variables, which `ssa run` sets:
 *
 *     SSA_TLS          "all", or the servers, with a space between: host:port, [address]:port
 *     SSA_TLS_NAME     the name to verify, whatever name was looked up
 *     SSA_TLS_LISTEN   "all", or the ports, with a space between
 *     SSA_EXPLAIN      why something is refused is said on standard error
 */

#include "transparent.h"
#include "internal.h"
#include "names.h"

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

enum { MOST_TARGETS = 64, MOST_PORTS = 64 };

static struct {
    bool clients, all_clients, listeners, all_listeners, quiet;
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
    struct stat errors; /* standard error, as the program was started with it */
} mode;

bool is_transparent;

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

void transparent_begin(void) {
    const char *name = secure_getenv("SSA_TLS_NAME");
    mode.clients = read_words("SSA_TLS", read_target, &mode.all_clients);
    mode.listeners = read_words("SSA_TLS_LISTEN", read_listener, &mode.all_listeners);
    mode.quiet = !secure_getenv("SSA_EXPLAIN");
    if (name && strlen(name) < sizeof mode.name)
        strcpy(mode.name, name);
    else if (name)
        strcpy(mode.wrong, "the setting SSA_TLS_NAME cannot be read");
    is_transparent = mode.clients || mode.listeners;
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

/* What a program knows that knows no TLS. */
static const struct {
    int number, known;
} known_errors[] = {
    {EKEYREJECTED, EACCES},    {EKEYEXPIRED, EACCES}, {ENOKEY, EACCES},       {EINVAL, EACCES},
    {EPROTONOSUPPORT, EPROTO}, {EIO, ECONNREFUSED},   {EAGAIN, ECONNREFUSED}, {ENOTCONN, ECONNRESET},
};

static int known_error(int number) {
    for (size_t at = 0; at < sizeof known_errors / sizeof *known_errors; at++)
        if (known_errors[at].number == number)
            return known_errors[at].known;
    return number;
}

/* Words that say no more than errno does are the program's to say. */
static bool is_plain(int number) {
    const char *text = strerrordesc_np(number);
    return !*words() || (text && !strcmp(text, words()));
}

void transparent_failed(struct connection *connection) {
    int number = errno, phase = atomic_load(&connection->phase);
    char about[sizeof mode.name] = "listening";
    if (is_plain(number))
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
    char text[64], name[sizeof mode.name];
    int phase = atomic_load(&connection->phase);
    if ((phase != PLAIN && phase != FRESH) || atomic_load(&connection->failure))
        return tls_connect(connection, fd, address, size);
    if (!mode.clients || (phase == PLAIN && tcp_state(fd) != TCP_CLOSE) || !address ||
        !endpoint_of(address, size, &to) || is_local_resolver(&to))
        return connect_plainly(connection, fd, address, size);
    endpoint_text(&to, text, sizeof text);
    if (*mode.wrong && fail(EACCES, "%s", mode.wrong))
        return refuse(text);
    if (!mode.all_clients && !is_target(&to))
        return connect_plainly(connection, fd, address, size);
    if (name_of(&to, text, name))
        return refuse(text);
    if (put_name(connection, name))
        return -1;
    atomic_store(&connection->phase, FRESH);
    return tls_connect(connection, fd, address, size);
}

/* --- listen(2) --- */

static bool is_served(int fd) {
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    struct endpoint at;
    if (mode.all_listeners || *mode.wrong)
        return true;
    if (syscall(SYS_getsockname, fd, &name, &size) || !endpoint_of((struct sockaddr *)&name, size, &at))
        return false;
    for (int port = 0; port < mode.port_count; port++)
        if (mode.ports[port] == at.port)
            return true;
    return false;
}

int transparent_listen(struct connection *connection, int fd, int backlog) {
    if (atomic_load(&connection->phase) == PLAIN && mode.listeners && is_served(fd)) {
        if (*mode.wrong && fail(EACCES, "%s", mode.wrong))
            return refuse("listening");
        atomic_store(&connection->phase, FRESH);
    }
    return tls_listen(connection, fd, backlog);
}

enum { BACKLOG = 128 };

bool transparent_take_over(int fd) {
    if (!mode.listeners || !get_number(fd, SOL_SOCKET, SO_ACCEPTCONN, 0))
        return true;
    struct connection *connection = transparent_adopt(fd);
    if (!connection)
        return true;
    int done = transparent_listen(connection, fd, BACKLOG);
    connection_put(connection);
    return !done;
}
