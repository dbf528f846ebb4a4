/* nothing_but_libc: a program whose TLS is one number in a call of socket(2). It is not linked with libssa, but
 * preloads it; and it is compiled with _FORTIFY_SOURCE, as Debian's programs are. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IPPROTO_TLS = 205 };

int main(int count, char **arguments) {
    static const char request[] = "GET / HTTP/1.0\r\n\r\n";
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(arguments[count - 1]))};
    char answer[4096];
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TLS);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server)) {
        perror("connect");
        return 1;
    }
    if (write(fd, request, sizeof request - 1) < 0)
        return 2;
    size_t room = sizeof answer - (size_t)count; /* which the compiler does not know: this is __read_chk, __recv_chk */
    for (ssize_t got; (got = read(fd, answer, room)) > 0 || (got = recv(fd, answer, room, 0)) > 0;)
        fwrite(answer, 1, (size_t)got, stdout);
    return close(fd);
}
