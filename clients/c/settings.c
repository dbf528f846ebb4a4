/* settings.c: what a socket was told by its options, from the values of setsockopt(2) to the attributes of a request.
 *
 * Certificates and keys are kept as descriptors: of the file that a path names, opened here, so that ssad reads nothing
 * that the application could not read itself; or of memory that holds the PEM text. A key that a path names is never
 * read in the application.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct option options[] = {
#define X(number, name, attribute, form, settable, readable) {number, name, form, settable, readable},
    OPTION_ROWS
#undef X
};

const struct option *option_numbered(int number) {
    for (size_t at = 0; at < sizeof options / sizeof *options; at++)
        if (options[at].number == number)
            return &options[at];
    return NULL;
}

static int bad_value(const struct option *option, const char *why) {
    return fail(EINVAL, "value is not valid: %s: %s", option->name, why);
}

/* --- copies --- */

struct settings *settings_hold(struct settings *settings) {
    if (settings)
        atomic_fetch_add(&settings->holders, 1);
    return settings;
}

static void drop_files(struct settings *settings, int kind) {
    while (settings->file_counts[kind])
        unhide(settings->files[kind][--settings->file_counts[kind]]);
}

void settings_release(struct settings *settings) {
    if (!settings || atomic_fetch_sub(&settings->holders, 1) != 1)
        return;
    for (int kind = 0; kind < FILE_KINDS; kind++)
        drop_files(settings, kind);
    munmap(settings, sizeof *settings);
}

static int copy_files(struct settings *to, const struct settings *from) {
    memset(to->file_counts, 0, sizeof to->file_counts);
    for (int kind = 0; kind < FILE_KINDS; kind++)
        for (int at = 0; at < from->file_counts[kind]; at++) {
            int fd = hide(from->files[kind][at]);
            if (fd < 0)
                return -1;
            to->files[kind][to->file_counts[kind]++] = fd;
        }
    return 0;
}

static struct settings *copy_of(const struct settings *before) {
    struct settings *settings =
        mmap(NULL, sizeof *settings, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (settings == MAP_FAILED) {
        fail_plainly(ENOMEM);
        return NULL;
    }
    if (before)
        memcpy((char *)settings + sizeof settings->holders, (const char *)before + sizeof settings->holders,
               sizeof *settings - sizeof settings->holders);
    atomic_store(&settings->holders, 1);
    if (before && copy_files(settings, before)) {
        settings_release(settings);
        return NULL;
    }
    return settings;
}

struct settings *settings_with_hostname(struct settings *before, const char *hostname) {
    struct settings *settings = copy_of(before);
    if (settings)
        copy_text(settings->hostname, sizeof settings->hostname, hostname, strlen(hostname));
    return settings;
}

/* --- values, by their form --- */

static int set_text(struct settings *settings, const struct option *option, const char *value, size_t size) {
    char *text = option->number == TLS_REMOTE_HOSTNAME ? settings->hostname : settings->server_name;
    if (size >= sizeof settings->hostname)
        return bad_value(option, "longer than a host name can be");
    memcpy(text, value, size);
    text[size] = 0;
    return 0;
}

static int take_number(const struct option *option, const void *value, size_t size, uint32_t *number) {
    int32_t given;
    if (size != sizeof given)
        return bad_value(option, "it takes an int");
    memcpy(&given, value, sizeof given);
    *number = (uint32_t)given;
    return 0;
}

static int set_number(struct settings *settings, const struct option *option, const char *value, size_t size) {
    uint32_t number = 0;
    if (take_number(option, value, size, &number))
        return -1;
    if (option->form == FORM_FLAG && number > 1)
        return bad_value(option, "0 or 1");
    settings->numbers[option->number] = number;
    settings->has_number[option->number] = true;
    return 0;
}

static const struct {
    const char *name;
    uint32_t number, number_for_datagrams;
} versions[] = {{"TLSv1.2", 0x0303, 0xfefd}, {"TLSv1.3", 0x0304, 0}, {"DTLSv1.2", 0x0303, 0xfefd}};

static int set_version(struct settings *settings, const struct option *option, const char *value, size_t size) {
    uint32_t number = 0;
    if (size == sizeof number)
        memcpy(&number, value, sizeof number);
    for (size_t at = 0; at < sizeof versions / sizeof *versions; at++)
        if ((size == strlen(versions[at].name) && !memcmp(value, versions[at].name, size)) ||
            (number && (number == versions[at].number || number == versions[at].number_for_datagrams))) {
            settings->numbers[option->number] = versions[at].number;
            settings->has_number[option->number] = true;
            return 0;
        }
    return bad_value(option, "TLSv1.2 or TLSv1.3, 0x0303 or 0x0304");
}

static int add_name(struct names *names, const struct option *option, const char *name, size_t size) {
    while (size && (*name == ' ' || *name == '\t'))
        name++, size--;
    while (size && (name[size - 1] == ' ' || name[size - 1] == '\t'))
        size--;
    if (!size || size > LONGEST_NAME)
        return bad_value(option, "a name has 1 to 255 ASCII characters");
    for (size_t at = 0; at < size; at++)
        if ((unsigned char)name[at] > 0x7f)
            return bad_value(option, "a name has 1 to 255 ASCII characters");
    if (names->count == MOST_NAMES)
        return bad_value(option, "more than 64 names");
    names->data[names->size] = (unsigned char)size;
    memcpy(names->data + names->size + 1, name, size);
    names->size += 1 + (uint32_t)size;
    names->count++;
    return 0;
}

static int set_names(struct settings *settings, const struct option *option, const char *value, size_t size) {
    struct names *names = option->number == TLS_ALPN ? &settings->alpn : &settings->disabled;
    if (!size)
        names->count = 0, names->size = 0;
    for (const char *end = value + size; value < end;) {
        const char *comma = memchr(value, ',', (size_t)(end - value));
        if (add_name(names, option, value, (size_t)((comma ? comma : end) - value)))
            return -1;
        if (comma && comma + 1 == end)
            return bad_value(option, "nothing follows the last comma");
        value = comma ? comma + 1 : end;
    }
    return 0;
}

static int file_of_text(const char *value, size_t size) {
    int fd = (int)syscall(SYS_memfd_create, "ssa-option", 1U /* MFD_CLOEXEC */);
    for (size_t written = 0; fd >= 0 && written < size;) {
        long done = syscall(SYS_write, fd, value + written, size - written);
        if (done < 0) {
            close_quietly(fd);
            return -1;
        }
        written += (size_t)done;
    }
    return fd;
}

static int file_at_path(const struct option *option, const char *value, size_t size) {
    char path[PATH_MAX];
    if (memchr(value, '\n', size))
        return bad_value(option, "neither PEM nor a path");
    if (size >= sizeof path)
        return fail_plainly(ENAMETOOLONG);
    memcpy(path, value, size);
    path[size] = 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? fail(errno, "%s: %s", path, strerrordesc_np(errno)) : fd;
}

static int add_file(struct settings *settings, const struct option *option, const char *value, size_t size) {
    int kind = option->number - TLS_TRUSTED_PEER_CERTIFICATES;
    if (!size) {
        drop_files(settings, kind);
        return 0;
    }
    if (settings->file_counts[kind] == MOST_FILES)
        return bad_value(option, "more than 16 files");
    int fd = memmem(value, size, "-----BEGIN ", 11) ? file_of_text(value, size) : file_at_path(option, value, size);
    if (fd < 0)
        return errno == EINVAL || errno == ENAMETOOLONG || *words() ? -1 : fail_plainly(errno);
    int number = hide(fd);
    close_quietly(fd);
    if (number < 0)
        return -1;
    settings->files[kind][settings->file_counts[kind]++] = number;
    return 0;
}

static int (*const setters[])(struct settings *, const struct option *, const char *, size_t) = {
    [FORM_TEXT] = set_text,   [FORM_NUMBER] = set_number, [FORM_FLAG] = set_number,
    [FORM_NAMES] = set_names, [FORM_FILES] = add_file,    [FORM_VERSION] = set_version,
};

static bool is_bytes(const struct option *option, size_t size) {
    return option->form == FORM_TEXT || option->form == FORM_NAMES || option->form == FORM_FILES ||
           (option->form == FORM_VERSION && size != sizeof(int));
}

struct settings *settings_changed(struct settings *before, const struct option *option, const void *value,
                                  size_t size) {
    const char *bytes = value;
    if (is_bytes(option, size)) {
        if (size && !bytes[size - 1])
            size--; /* as a C string ends */
        if (memchr(bytes, 0, size)) {
            bad_value(option, "a NUL in the middle");
            return NULL;
        }
    }
    struct settings *settings = copy_of(before);
    if (settings && setters[option->form](settings, option, bytes, size)) {
        int number = errno;
        settings_release(settings);
        errno = number;
        return NULL;
    }
    return settings;
}

/* --- the attributes of a request --- */

static const int numbers_of_all[] = {TLS_SESSION_TTL, TLS_VERSION_MIN, TLS_VERSION_MAX, 0};
static const int numbers_of_servers[] = {TLS_REQUEST_PEER_AUTH, 0};

static void add_numbers(const struct settings *settings, struct request *request, const int *numbers) {
    for (; *numbers; numbers++)
        if (settings->has_number[*numbers])
            request_number(request, *numbers, settings->numbers[*numbers]);
}

int settings_request(const struct settings *settings, struct request *request, int whom, int *files) {
    int count = 0;
    if (!settings)
        return 0;
    add_numbers(settings, request, numbers_of_all);
    if (settings->alpn.count)
        request_bytes(request, TLS_ALPN, settings->alpn.data, settings->alpn.size);
    if (settings->disabled.count)
        request_bytes(request, TLS_DISABLE_CIPHER, settings->disabled.data, settings->disabled.size);
    if (whom == FOR_SERVER) {
        add_numbers(settings, request, numbers_of_servers);
        if (*settings->server_name)
            request_text(request, TLS_HOSTNAME, settings->server_name);
    }
    for (int kind = 0; kind < FILE_KINDS; kind++) {
        if (settings->file_counts[kind])
            request_number(request, TLS_TRUSTED_PEER_CERTIFICATES + kind, (uint32_t)settings->file_counts[kind]);
        for (int at = 0; at < settings->file_counts[kind]; at++)
            files[count++] = settings->files[kind][at];
    }
    return count;
}
