/* bulk PORT CONNECTIONS MEBIBYTES WARMUP DIRECTION
 *
 * Large transfers on several connections at a time. "receive" is what the server does: the load sends MEBIBYTES on each
 * connection, ends its side, and is told in a line how many bytes there were. "send": the load asks in a line for a
 * number of bytes, and reads that many. */
#include "load.h"

enum { PIECE = 1 << 18 };
static char piece[PIECE];

struct connection {
    int fd;
    long left;
    char answer[32];
    size_t answered;
    double begun;
};

/* One event on a connection that sends to the server. True when it has been told the right number. */
static int upload(int ep, struct connection *c, int i, long size) {
    if (c->left) {
        ssize_t sent = write(c->fd, piece, c->left < PIECE ? c->left : PIECE);
        if (sent < 0 && errno != EAGAIN) die("write");
        errno = 0;
        if (sent > 0) c->left -= sent;
        if (!c->left) {
            struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
            shutdown(c->fd, SHUT_WR);
            epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
        }
        return 0;
    }
    c->answered += get(c->fd, c->answer + c->answered, sizeof c->answer - 1 - c->answered);
    if (!strchr(c->answer, '\n')) return 0;
    if (atol(c->answer) != size) die("the server has counted wrongly");
    return 1;
}

static int download(struct connection *c) {
    ssize_t got = read(c->fd, piece, PIECE);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) die("the server has ended too early");
    c->left -= got;
    if (c->left < 0) die("more bytes than asked for");
    return !c->left;
}

static void transfer(int port, int count, long size, int to_server) {
    struct epoll_event events[EVENTS];
    struct connection *all = room(count, sizeof *all);
    int ep = epoll_create1(0), done = 0;
    char line[32];
    for (int i = 0; i < count; i++) {
        struct connection *c = &all[i];
        c->begun = now(), c->left = size, c->fd = dial(port, 0);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        if (!to_server) put(c->fd, line, snprintf(line, sizeof line, "%ld\n", size));
        watch(ep, c->fd, to_server ? EPOLLOUT : EPOLLIN, i);
    }
    while (done < count) {
        int n = wait_for(ep, events);
        for (int j = 0; j < n; j++) {
            int i = events[j].data.u32;
            if (!(to_server ? upload(ep, &all[i], i, size) : download(&all[i]))) continue;
            took(now() - all[i].begun);
            close(all[i].fd);
            done++;
        }
    }
    close(ep);
    free(all);
}

int main(int argc, char **argv) {
    if (argc != 6) die("usage: bulk PORT CONNECTIONS MEBIBYTES WARMUP receive|send");
    int port = atoi(argv[1]), count = atoi(argv[2]), to_server = !strcmp(argv[5], "receive");
    long mebibytes = atol(argv[3]);
    begin();
    transfer(port, count, atol(argv[4]) << 20, to_server);
    memset(steps, 0, sizeof steps);
    latencies = 0, longest = 0;
    ready();
    double start = now();
    transfer(port, count, mebibytes << 20, to_server);
    report((double)mebibytes * count, now() - start);
    return 0;
}
