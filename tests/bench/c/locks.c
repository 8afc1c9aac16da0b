/* locks PORT CONNECTIONS PAIRS WARMUP
 *
 * Takes and frees a lock of its own on each connection, one request at a time: a closed loop. Every answer is to be
 * the one of success. */
#include "load.h"

enum { TAKE, FREE, REQUESTS };
static const char *const words[REQUESTS] = {"trylock lock=bench:%d\r\n", "releaselock lock=bench:%d\r\n"};
static const char REPLY[] = "OK \r\n";

struct connection {
    int fd, asked;
    size_t got;
    double began;
    char requests[REQUESTS][64];
};

static struct connection *connections;
static char buffer[4096];

static void ask(struct connection *c, int what) {
    c->asked = what, c->got = 0;
    if (what == TAKE) c->began = now();
    put(c->fd, c->requests[what], strlen(c->requests[what]));
}

/* Go on until `total` locks have been taken and freed. */
static void compete(int ep, int count, long total, int measured) {
    struct epoll_event events[EVENTS];
    long begun = 0, done = 0;
    for (; begun < count && begun < total; begun++) ask(&connections[begun], TAKE);
    while (done < begun) {
        int n = wait_for(ep, events);
        for (int j = 0; j < n; j++) {
            struct connection *c = &connections[events[j].data.u32];
            size_t size = get(c->fd, buffer, sizeof buffer);
            expect(buffer, size, c->got, REPLY, sizeof REPLY - 1);
            c->got += size;
            if (c->got < sizeof REPLY - 1) continue;
            if (c->asked == TAKE) {
                ask(c, FREE);
                continue;
            }
            if (measured) took(now() - c->began);
            done++;
            if (begun < total) begun++, ask(c, TAKE);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 5) die("usage: locks PORT CONNECTIONS PAIRS WARMUP");
    int port = atoi(argv[1]), count = atoi(argv[2]), ep = epoll_create1(0);
    long total = atol(argv[3]), warmup = atol(argv[4]);
    begin();
    connections = room(count, sizeof *connections);
    for (int i = 0; i < count; i++) {
        for (int what = TAKE; what < REQUESTS; what++) sprintf(connections[i].requests[what], words[what], i);
        connections[i].fd = dial(port, 0);
        watch(ep, connections[i].fd, EPOLLIN, i);
    }
    compete(ep, count, warmup > count ? warmup : count, 0);
    ready();
    double start = now();
    compete(ep, count, total, 1);
    report(total, now() - start);
    return 0;
}
