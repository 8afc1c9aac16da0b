/* broadcast PORT CONNECTIONS MESSAGES WARMUP WELCOME MESSAGE
 *
 * Everybody is greeted on arrival. Then one connection sends a line, and all of them receive it, before the next. */
#include "load.h"

static int *fds;
static size_t *got;
static char buffer[1 << 16];

/* Wait until everybody has received `text`. */
static void all_receive(int ep, int count, const char *text) {
    struct epoll_event events[EVENTS];
    size_t size = strlen(text);
    int done = 0;
    memset(got, 0, count * sizeof *got);
    while (done < count) {
        int n = wait_for(ep, events);
        for (int j = 0; j < n; j++) {
            int i = events[j].data.u32;
            size_t more = get(fds[i], buffer, sizeof buffer);
            if (got[i] + more > size) die("more than was sent");
            expect(buffer, more, got[i], text, size);
            got[i] += more;
            done += got[i] == size;
        }
    }
}

static void send_messages(int ep, int count, long messages, const char *message) {
    for (long i = 0; i < messages; i++) {
        double begun = now();
        put(fds[i % count], message, strlen(message));
        all_receive(ep, count, message);
        took(now() - begun);
    }
}

int main(int argc, char **argv) {
    if (argc != 7) die("usage: broadcast PORT CONNECTIONS MESSAGES WARMUP WELCOME MESSAGE");
    int port = atoi(argv[1]), count = atoi(argv[2]), ep = epoll_create1(0);
    long messages = atol(argv[3]);
    begin();
    fds = room(count, sizeof *fds);
    got = room(count, sizeof *got);
    for (int i = 0; i < count; i++) {
        fds[i] = dial(port, 0);
        watch(ep, fds[i], EPOLLIN, i);
    }
    all_receive(ep, count, argv[5]);
    send_messages(ep, count, atol(argv[4]), argv[6]);
    memset(steps, 0, sizeof steps);
    latencies = 0, longest = 0;
    ready();
    double start = now();
    send_messages(ep, count, messages, argv[6]);
    report((double)messages * count, now() - start);
    return 0;
}
