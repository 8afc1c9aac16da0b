/* churn PORT AT_ONCE TOTAL WARMUP REQUEST REPLY
 *
 * Connect, one request, its reply, close; AT_ONCE of them at a time. */
#include "load.h"

struct connection {
    int fd;
    size_t got;
    double begun;
};

static struct connection *connections;

static void dial_again(int ep, int port, int i) {
    connections[i].got = 0;
    connections[i].begun = now();
    connections[i].fd = dial(port, SOCK_NONBLOCK);
    watch(ep, connections[i].fd, EPOLLOUT, i);
}

static void churn(int ep, int port, int at_once, long total, const char *request, const char *reply) {
    struct epoll_event events[EVENTS];
    char buffer[4096];
    size_t size = strlen(reply);
    long begun = 0, done = 0;
    for (int i = 0; i < at_once && begun < total; i++, begun++) dial_again(ep, port, i);
    while (done < begun) {
        int n = wait_for(ep, events);
        for (int j = 0; j < n; j++) {
            int i = events[j].data.u32;
            struct connection *c = &connections[i];
            if (events[j].events & EPOLLOUT) {
                struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
                put(c->fd, request, strlen(request));
                epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
                continue;
            }
            size_t got = get(c->fd, buffer, sizeof buffer);
            expect(buffer, got, c->got, reply, size);
            c->got += got;
            if (c->got < size) continue;
            close(c->fd);
            took(now() - c->begun);
            done++;
            if (begun < total) begun++, dial_again(ep, port, i);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 7) die("usage: churn PORT AT_ONCE TOTAL WARMUP REQUEST REPLY");
    int port = atoi(argv[1]), at_once = atoi(argv[2]), ep = epoll_create1(0);
    begin();
    connections = room(at_once, sizeof *connections);
    churn(ep, port, at_once, atol(argv[4]), argv[5], argv[6]);
    memset(steps, 0, sizeof steps);
    latencies = 0, longest = 0;
    ready();
    double start = now();
    churn(ep, port, at_once, atol(argv[3]), argv[5], argv[6]);
    report(atol(argv[3]), now() - start);
    return 0;
}
