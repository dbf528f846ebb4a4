/* threads.c: a call that may wait has a thread of its own. Threads that have nothing to do serve the next one. */

#include "supervise.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { STACK = 512 << 10, MOST_IDLE = 8 };

struct job {
    struct call call;
    void (*serve)(struct call *);
    struct job *next;
};
static struct job *first, **last = &first;
static int idle;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;

static struct job *next_job(void) {
    struct job *job = first;
    if (job && !(first = job->next))
        last = &first;
    return job;
}

static void do_job(struct job *job) {
    job->serve(&job->call);
    answer(&job->call, 0, EIO); /* if it was not answered */
    process_release(job->call.process);
    free(job);
}

static void *work(void *nothing) {
    pthread_mutex_lock(&lock);
    for (struct job *job; (job = next_job()) || idle < MOST_IDLE;) {
        if (!job) {
            idle++;
            pthread_cond_wait(&more, &lock);
            idle--;
            continue;
        }
        pthread_mutex_unlock(&lock);
        do_job(job);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return nothing;
}

static int start_one(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int done = pthread_create(&thread, &attributes, work, NULL);
    pthread_attr_destroy(&attributes);
    return done;
}

static int count_jobs(void) {
    int count = 0;
    for (struct job *job = first; job; job = job->next)
        count++;
    return count;
}

/* A thread for each job that waits: one that begins just now may be counted once more. False: there is none for it. */
static bool add_job(struct job *job) {
    if (count_jobs() >= idle && start_one())
        return false;
    *last = job;
    last = &job->next;
    pthread_cond_signal(&more);
    return true;
}

void in_a_thread(struct call *call, void (*serve)(struct call *call)) {
    struct job *job = malloc(sizeof *job);
    if (!job) {
        answer(call, 0, ENOMEM);
        return;
    }
    *job = (struct job){.call = *call, .serve = serve};
    pthread_mutex_lock(&lock);
    bool taken = add_job(job);
    pthread_mutex_unlock(&lock);
    if (taken) {
        call->answered = true; /* the job does it */
        call->process = NULL;
    } else {
        free(job);
        answer(call, 0, EAGAIN);
    }
}
