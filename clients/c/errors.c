/* errors.c: why a call failed, in words, and the tables of reasons and alerts. */

#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Short: each thread of every program that preloads libssa has it. */
static _Thread_local char last[WORDS_ROOM] __attribute__((tls_model("initial-exec")));

const char *words(void) {
    return last;
}

/* The reason that ssad gave for it, by its name. */
static _Thread_local char reason[REASON_ROOM] __attribute__((tls_model("initial-exec")));

__attribute__((visibility("default"))) const char *ssa_error(void) {
    return last;
}

__attribute__((visibility("default"))) const char *ssa_reason(void) {
    return reason;
}

/* What others chose is shown on one line: a control character becomes a question mark. */
void copy_text(char *to, size_t room, const char *text, size_t size) {
    size_t at = 0;
    for (; at < size && at + 1 < room && text[at]; at++)
        to[at] = (unsigned char)text[at] < ' ' || text[at] == 0x7f ? '?' : text[at];
    to[at] = 0;
}

void set_words(const char *text) {
    copy_text(last, sizeof last, text, strlen(text));
}

int fail(int number, const char *format, ...) {
    char text[WORDS_ROOM];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    set_words(text);
    *reason = 0;
    errno = number;
    return -1;
}

int fail_for(const char *name, size_t size, int number, const char *text, const char *detail, size_t length) {
    fail(number, "%s%s%.*s", text, length ? ": " : "", (int)length, length ? detail : "");
    copy_text(reason, sizeof reason, name, size);
    return -1;
}

int fail_plainly(int number) {
    const char *text = strerrordesc_np(number);
    return fail(number, "%s", text ? text : "unknown error");
}

static const struct reason reasons[] = {
#define X(name, number, text) {name, number, text},
    REASON_ROWS
#undef X
};

const struct reason *reason_named(const char *name, size_t size) {
    for (size_t at = 0; at < sizeof reasons / sizeof *reasons; at++)
        if (strlen(reasons[at].name) == size && !memcmp(reasons[at].name, name, size))
            return &reasons[at];
    return NULL;
}

static const struct {
    int number;
    const char *name;
} alerts[] = {
#define X(number, name) {number, name},
    ALERT_ROWS
#undef X
};

const char *alert_name(int number) {
    for (size_t at = 0; at < sizeof alerts / sizeof *alerts; at++)
        if (alerts[at].number == number)
            return alerts[at].name;
    return "an alert without a name";
}

int alert_number(const char *name) {
    for (size_t at = 0; at < sizeof alerts / sizeof *alerts; at++)
        if (!strcmp(alerts[at].name, name))
            return alerts[at].number;
    return -1;
}
