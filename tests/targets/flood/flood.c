/* flood COUNT ADDRESS:PORT ...
 *
 * Sends COUNT packets of 12 bytes to each address, each from a socket of its own, so each is a flow of its own to whoever
 * forwards them. Prints how many were sent. For the tests of the Service proxy. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int parse(const char *text, struct sockaddr_in *to) {
    char address[INET_ADDRSTRLEN];
    const char *colon = strchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof address) return -1;
    memcpy(address, text, (size_t)(colon - text));
    address[colon - text] = '\0';
    memset(to, 0, sizeof *to);
    to->sin_family = AF_INET;
    to->sin_port = htons((unsigned short)atoi(colon + 1));
    return inet_pton(AF_INET, address, &to->sin_addr) == 1 ? 0 : -1;
}

int main(int argc, char **argv) {
    long sent = 0;
    if (argc < 3) {
        fprintf(stderr, "usage: flood COUNT ADDRESS:PORT ...\n");
        return 2;
    }
    for (long i = atol(argv[1]); i > 0; i--) {
        for (int each = 2; each < argc; each++) {
            struct sockaddr_in to;
            if (parse(argv[each], &to) != 0) {
                fprintf(stderr, "flood: %s is no address\n", argv[each]);
                return 2;
            }
            int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
            if (descriptor < 0) continue;
            if (sendto(descriptor, "hello, world", 12, 0, (struct sockaddr *)&to, sizeof to) == 12) sent++;
            close(descriptor);
        }
    }
    printf("%ld\n", sent);
    return 0;
}
