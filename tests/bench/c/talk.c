/* talk PORT CONNECTIONS TOTAL WARMUP IN_FLIGHT REQUEST REPLY
 *
 * Requests and replies on connections that stay open, IN_FLIGHT of them at a time on each, sent together when the
 * replies to those before have come. A closed loop: the load never runs ahead of the server. */
#include "load.h"

struct connection {
    int fd;
    size_t got;
    double sent;
};

static struct connection *connections;
static char batch[1 << 16], buffer[1 << 16];
static const char *reply;
static size_t batch_size, reply_size;
static long in_flight;

static void ask(struct connection *c) {
    c->got = 0;
    c->sent = now();
    put(c->fd, batch, batch_size);
}

/* Ask on all connections, and go on until `total` replies have come and none is under way. */
static void talk(int ep, int count, long total, int measured) {
    struct epoll_event events[EVENTS];
    long asked = 0, done = 0;
    for (int i = 0; i < count && asked < total; i++, asked += in_flight) ask(&connections[i]);
    while (done < asked) {
        int n = wait_for(ep, events);
        for (int j = 0; j < n; j++) {
            struct connection *c = &connections[events[j].data.u32];
            size_t size = get(c->fd, buffer, sizeof buffer);
            expect(buffer, size, c->got, reply, reply_size);
            c->got += size;
            if (c->got < reply_size * in_flight) continue;
            if (c->got > reply_size * in_flight) die("more replies than requests");
            if (measured) took(now() - c->sent);
            done += in_flight;
            if (asked < total) asked += in_flight, ask(c);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 8) die("usage: talk PORT CONNECTIONS TOTAL WARMUP IN_FLIGHT REQUEST REPLY");
    int port = atoi(argv[1]), count = atoi(argv[2]), ep = epoll_create1(0);
    long total = atol(argv[3]), warmup = atol(argv[4]);
    in_flight = atol(argv[5]);
    const char *request = argv[6];
    reply = argv[7], reply_size = strlen(reply);
    if (strlen(request) * in_flight > sizeof batch) die("too much in flight");
    for (long i = 0; i < in_flight; i++, batch_size += strlen(request))
        memcpy(batch + batch_size, request, strlen(request));
    begin();
    connections = room(count, sizeof *connections);
    for (int i = 0; i < count; i++) {
        connections[i].fd = dial(port, 0);
        watch(ep, connections[i].fd, EPOLLIN, i);
    }
    talk(ep, count, warmup > count * in_flight ? warmup : count * in_flight, 0);
    ready();
    double start = now();
    talk(ep, count, total, 1);
    report(total, now() - start);
    return 0;
}
