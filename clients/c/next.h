/* next.h: the functions of libc that libssa replaces, as libc has them: NEXT(read)(fd, data, size).
 *
 * RTLD_NEXT finds the next library in the program's order, so other preloaded libraries (sanitizers, say) stay in
 * between. All are looked up when libssa is loaded: dlsym(3) must not be called from a signal handler.
 */
#ifndef SSA_NEXT_H
#define SSA_NEXT_H

#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#define NEXT_FUNCTIONS(X)                                                                                              \
    X(int, socketpair, (int, int, int, int *))                                                                         \
    X(int, socket, (int, int, int))                                                                                    \
    X(int, connect, (int, const struct sockaddr *, socklen_t))                                                         \
    X(int, listen, (int, int))                                                                                         \
    X(int, accept, (int, struct sockaddr *, socklen_t *))                                                              \
    X(int, accept4, (int, struct sockaddr *, socklen_t *, int))                                                        \
    X(int, setsockopt, (int, int, int, const void *, socklen_t))                                                       \
    X(int, getsockopt, (int, int, int, void *, socklen_t *))                                                           \
    X(int, getpeername, (int, struct sockaddr *, socklen_t *))                                                         \
    X(int, getsockname, (int, struct sockaddr *, socklen_t *))                                                         \
    X(int, bind, (int, const struct sockaddr *, socklen_t))                                                            \
    X(int, shutdown, (int, int))                                                                                       \
    X(int, close, (int))                                                                                               \
    X(int, dup, (int))                                                                                                 \
    X(int, dup2, (int, int))                                                                                           \
    X(int, dup3, (int, int, int))                                                                                      \
    X(int, fcntl, (int, int, ...))                                                                                     \
    X(int, fcntl64, (int, int, ...))                                                                                   \
    X(int, epoll_ctl, (int, int, int, struct epoll_event *))                                                           \
    X(ssize_t, read, (int, void *, size_t))                                                                            \
    X(ssize_t, readv, (int, const struct iovec *, int))                                                                \
    X(ssize_t, preadv2, (int, const struct iovec *, int, off_t, int))                                                  \
    X(ssize_t, recv, (int, void *, size_t, int))                                                                       \
    X(ssize_t, recvfrom, (int, void *, size_t, int, struct sockaddr *, socklen_t *))                                   \
    X(ssize_t, recvmsg, (int, struct msghdr *, int))                                                                   \
    X(int, recvmmsg, (int, struct mmsghdr *, unsigned, int, struct timespec *))                                        \
    X(ssize_t, write, (int, const void *, size_t))                                                                     \
    X(ssize_t, writev, (int, const struct iovec *, int))                                                               \
    X(ssize_t, pwritev2, (int, const struct iovec *, int, off_t, int))                                                 \
    X(ssize_t, send, (int, const void *, size_t, int))                                                                 \
    X(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))                           \
    X(ssize_t, sendmsg, (int, const struct msghdr *, int))                                                             \
    X(int, sendmmsg, (int, struct mmsghdr *, unsigned, int))                                                           \
    X(ssize_t, sendfile, (int, int, off_t *, size_t))                                                                  \
    X(ssize_t, sendfile64, (int, int, off_t *, size_t))                                                                \
    X(ssize_t, splice, (int, off_t *, int, off_t *, size_t, unsigned))                                                 \
    X(int, getaddrinfo, (const char *, const char *, const struct addrinfo *, struct addrinfo **))                     \
    X(struct hostent *, gethostbyaddr, (const void *, socklen_t, int))                                                 \
    X(int, gethostbyaddr_r,                                                                                            \
      (const void *, socklen_t, int, struct hostent *, char *, size_t, struct hostent **, int *))                      \
    X(int, getnameinfo, (const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int))               \
    X(struct hostent *, gethostbyname, (const char *))                                                                 \
    X(struct hostent *, gethostbyname2, (const char *, int))                                                           \
    X(int, gethostbyname_r, (const char *, struct hostent *, char *, size_t, struct hostent **, int *))                \
    X(int, gethostbyname2_r, (const char *, int, struct hostent *, char *, size_t, struct hostent **, int *))          \
    X(int, close_range, (unsigned, unsigned, int))                                                                     \
    X(void, closefrom, (int))                                                                                          \
    X(FILE *, fdopen, (int, const char *))

#define DECLARE(type, name, arguments) type(*name) arguments;
struct next {
    NEXT_FUNCTIONS(DECLARE)
};
#undef DECLARE
extern struct next next_functions;
void next_look_up(void);

/* A call that comes before libssa's own constructor looks them up. */
#define NEXT(name) (next_functions.name ? next_functions.name : (next_look_up(), next_functions.name))

#endif
