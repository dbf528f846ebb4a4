/* answers.c: what the kernel is told to do with a call that waits. */

#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { RESTART = 512 }; /* ERESTARTSYS of the kernel's include/linux/errno.h: a signal is about to be delivered */

/* Where the caller is dead, nobody is there to be told (ENOENT). */
static void send_answer(struct call *call, int64_t value, int error, uint32_t flags) {
    struct seccomp_notif_resp response = {.id = call->id, .val = value, .error = -error, .flags = flags};
    if (call->answered)
        return;
    call->answered = true;
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

void answer(struct call *call, int64_t value, int error) {
    send_answer(call, error ? 0 : value, error, 0);
}

void answer_last(struct call *call, int done) {
    answer(call, 0, done < 0 ? errno : 0);
}

void answer_restart(struct call *call) {
    send_answer(call, 0, RESTART, 0);
}

void let_go_on(struct call *call) {
    send_answer(call, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

static int add(struct call *call, int file, int number, bool cloexec, uint32_t flags) {
    struct seccomp_notif_addfd what = {.id = call->id,
                                       .flags = (number >= 0 ? SECCOMP_ADDFD_FLAG_SETFD : 0) | flags,
                                       .srcfd = (uint32_t)file,
                                       .newfd = number >= 0 ? (uint32_t)number : 0,
                                       .newfd_flags = cloexec ? O_CLOEXEC : 0};
    int done;
    do
        done = ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &what);
    while (done < 0 && (errno == EBUSY || errno == EINTR));
    if (done < 0 && errno == EBADF) /* the number is beyond RLIMIT_NOFILE */
        return fail_plainly(EMFILE);
    return done < 0 ? fail_plainly(errno) : done;
}

int put_descriptor(struct call *call, int file, int number, bool cloexec) {
    return add(call, file, number, cloexec, 0);
}

/* One at a time: a number that was found free is taken before another look. */
static pthread_mutex_t numbers = PTHREAD_MUTEX_INITIALIZER;

void answer_descriptor(struct call *call, int file, unsigned from, unsigned to, bool cloexec) {
    pthread_mutex_lock(&numbers);
    int number = find_free_number(call, from, to), done = number;
    if (number >= 0 || to) /* where there is an end, any other number does as well */
        done = add(call, file, number, cloexec, SECCOMP_ADDFD_FLAG_SEND);
    pthread_mutex_unlock(&numbers);
    close_quietly(file);
    if (done >= 0)
        call->answered = true;
    else
        answer(call, 0, errno);
}
