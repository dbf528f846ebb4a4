/* vectors: libssa's own writing and reading of messages and records, for test_c_vectors.py. A question a line:
 *
 *     write KIND TYPE:HEX ...        the request as hex
 *     read HEX                       "reply TYPE:HEX ...", "other version" or "nothing"
 *     record VERSION ROLE TYPE HEX   "end", "pass over", "ticket", "no_renegotiation", "ask", or "fail ALERT"
 *     address HEX                    "EVENT FAMILY ADDRESS PORT SCOPE", and the same as hex again
 *
 * An empty HEX is "-".
 */

#include "internal.h"
#include "peers.h"
#include "post_handshake.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t from_hex(const char *text, unsigned char *data) {
    size_t size = 0;
    for (unsigned byte; sscanf(text, "%2x", &byte) == 1; text += 2)
        data[size++] = (unsigned char)byte;
    return size;
}

static void print_hex(const unsigned char *data, size_t size) {
    for (size_t at = 0; at < size; at++)
        printf("%02x", data[at]);
}

static void write_request(void) {
    static struct request request;
    static unsigned char value[MAX_REQUEST];
    request_begin(&request, atoi(strtok(NULL, " ")));
    for (char *word; (word = strtok(NULL, " "));) {
        char *hex = strchr(word, ':') + 1;
        request_bytes(&request, atoi(word), value, from_hex(hex, value));
    }
    request_end(&request);
    print_hex(request.data, request.size);
    puts(request.too_long ? " too long" : "");
}

static void read_reply(void) {
    static unsigned char data[MAX_REPLY];
    size_t size = from_hex(strtok(NULL, " "), data), length;
    enum reading read = reply_read_untrusted(data, size);
    printf("%s", read == READ_REPLY ? "reply" : read == READ_OTHER_VERSION ? "other version" : "nothing");
    for (int type = 0; read == READ_REPLY && type < 65536; type++) {
        const unsigned char *value = attribute(data + 12, size - 12, type, &length);
        if (value) {
            printf(" %d:", type);
            print_hex(value, length);
        }
    }
    puts("");
}

static void judge_record(void) {
    static const char *const names[] = {"end", "pass over", "ticket", "no_renegotiation", "ask", "fail"};
    static unsigned char content[LONGEST_RECORD];
    int version = atoi(strtok(NULL, " ")), server = atoi(strtok(NULL, " ")), type = atoi(strtok(NULL, " "));
    size_t size = from_hex(strtok(NULL, " "), content);
    struct verdict verdict = verdict_untrusted(version, server, type, content, size);
    if (verdict.meaning == MEANS_FAIL)
        printf("fail %d\n", verdict.alert);
    else
        puts(names[verdict.meaning]);
}

static void show_address(void) {
    unsigned char peer[PEER_SIZE], again[PEER_SIZE];
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    char text[INET6_ADDRSTRLEN];
    from_hex(strtok(NULL, " "), peer);
    peer_address(peer, &name, &size);
    const struct sockaddr_in *four = (struct sockaddr_in *)&name;
    const struct sockaddr_in6 *six = (struct sockaddr_in6 *)&name;
    bool is_six = name.ss_family == AF_INET6;
    inet_ntop(name.ss_family, is_six ? (void *)&six->sin6_addr : (void *)&four->sin_addr, text, sizeof text);
    printf("%d %d %s %d %u ", peer[0], name.ss_family, text, ntohs(four->sin_port), is_six ? six->sin6_scope_id : 0);
    print_hex(again, peer_of(&name, size, again) ? 0 : sizeof again);
    puts("");
}

int main(void) {
    static char line[4 * MAX_REPLY];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        const char *word = strtok(line, " ");
        if (!strcmp(word, "write"))
            write_request();
        else if (!strcmp(word, "read"))
            read_reply();
        else if (!strcmp(word, "address"))
            show_address();
        else
            judge_record();
        fflush(stdout);
    }
    return 0;
}
