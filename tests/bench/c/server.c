/* server MODE: the contestant that all others are measured by, a bare epoll loop.
 *
 * The modes are those of every server of the suite: lines, http, receive, send, broadcast. It prints its port. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, MAX_FD = 1 << 16, PIECE = 1 << 18, LONGEST = 1 << 16, HEADERS = 64 };

struct connection {
    size_t size; /* of what is kept: an incomplete request */
    long count;  /* bytes received, or still to be sent */
    int blocked;
    char *kept;
};

static struct connection *connections[MAX_FD];
static int ep, everybody[MAX_FD], members;
static char input[PIECE], output[1 << 20], block[PIECE];
static size_t produced;
static const char HTTP_REPLY[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\nServer: bench\r\n\r\nHello, world!";

struct header {
    const char *name, *value;
    size_t name_size, value_size;
};

static void produce(const char *data, size_t size) {
    memcpy(output + produced, data, size);
    produced += size;
}

__attribute__((noinline)) static void handle(const char *line, size_t size) {
    __asm__ volatile("" : : "r"(line), "r"(size)); /* the call is part of the workload */
    produce("+PONG\r\n", 7);
}

/* Split the headers of one request into a table, as the others split them into a dict. */
__attribute__((noinline)) static int parse(const char *text, const char *end, struct header *table) {
    int count = 0;
    const char *line = memchr(text, '\n', end - text);
    while (line && ++line < end && count < HEADERS) {
        const char *stop = memchr(line, '\r', end - line);
        const char *colon = stop ? memchr(line, ':', stop - line) : NULL;
        if (!colon) break;
        table[count++] = (struct header){line, colon + 2, colon - line, stop - colon - 2};
        line = stop + 1;
    }
    __asm__ volatile("" : : "r"(table) : "memory");
    return count;
}

/* Each of these takes what is complete, and answers how much that was. */
static size_t take_lines(int fd, const char *data, size_t size) {
    const char *at = data, *end = data + size, *stop;
    (void)fd;
    for (; (stop = memchr(at, '\n', end - at)); at = stop + 1) handle(at, stop - at);
    return at - data;
}

static size_t take_http(int fd, const char *data, size_t size) {
    const char *at = data, *end = data + size, *stop;
    struct header table[HEADERS];
    (void)fd;
    for (; (stop = memmem(at, end - at, "\r\n\r\n", 4)); at = stop + 4)
        if (parse(at, stop + 2, table)) produce(HTTP_REPLY, sizeof HTTP_REPLY - 1);
    return at - data;
}

static size_t take_count(int fd, const char *data, size_t size) {
    (void)data;
    connections[fd]->count += size;
    return size;
}

static void interest(int fd, unsigned events) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
}

static void pump(int fd) {
    struct connection *c = connections[fd];
    while (c->count > 0) {
        ssize_t sent = write(fd, block, c->count < PIECE ? c->count : PIECE);
        if (sent < 0) {
            if (errno != EAGAIN) c->count = 0;
            break;
        }
        c->count -= sent;
    }
    int blocked = c->count > 0;
    if (blocked != c->blocked) interest(fd, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    c->blocked = blocked;
}

static size_t take_order(int fd, const char *data, size_t size) {
    const char *stop = memchr(data, '\n', size);
    if (!stop) return 0;
    connections[fd]->count += atol(data);
    pump(fd);
    return stop + 1 - data;
}

static size_t take_message(int fd, const char *data, size_t size) {
    const char *stop = memrchr(data, '\n', size);
    (void)fd;
    if (!stop) return 0;
    for (int i = 0; i < members; i++)
        if (write(everybody[i], data, stop + 1 - data) < 0) continue;
    return stop + 1 - data;
}

static size_t (*take)(int, const char *, size_t);

static void forget(int fd) {
    if (take == take_count) {
        char line[32];
        if (write(fd, line, snprintf(line, sizeof line, "%ld\n", connections[fd]->count)) < 0) errno = 0;
    }
    for (int i = 0; take == take_message && i < members; i++)
        if (everybody[i] == fd) everybody[i--] = everybody[--members];
    free(connections[fd]->kept);
    free(connections[fd]);
    connections[fd] = NULL;
    close(fd);
}

static void readable(int fd) {
    struct connection *c = connections[fd];
    size_t kept = c->size;
    if (kept) memcpy(input, c->kept, kept);
    ssize_t got = read(fd, input + kept, sizeof input - kept);
    if (got <= 0) {
        if (!got || errno != EAGAIN) forget(fd);
        return;
    }
    produced = 0;
    size_t size = kept + got, taken = take(fd, input, size);
    if (produced && write(fd, output, produced) != (ssize_t)produced) exit(1); /* a closed loop never fills it */
    c->size = size - taken;
    if (c->size > LONGEST) exit(1);
    if (c->size) {
        if (!c->kept && !(c->kept = malloc(LONGEST))) exit(1);
        memcpy(c->kept, input + taken, c->size);
    }
}

static void welcome(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
    if (fd < 0) return;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (fd >= MAX_FD || !(connections[fd] = calloc(1, sizeof **connections))) exit(1);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    if (take == take_message) {
        everybody[members++] = fd;
        if (write(fd, "+PONG\r\n", 7) < 0) errno = 0;
    }
}

static int listening(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) exit(1);
    getsockname(fd, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    struct { const char *name; size_t (*take)(int, const char *, size_t); } modes[] = {
        {"lines", take_lines}, {"http", take_http}, {"receive", take_count},
        {"send", take_order}, {"broadcast", take_message},
    };
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(mode, modes[i].name)) take = modes[i].take;
    if (!take) return 2;
    memset(block, 'x', sizeof block);  /* or it would be one page of zeros, read again and again */
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    ep = epoll_create1(0);
    int listener = listening();
    struct epoll_event events[EVENTS], e = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int count = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                welcome(fd);
                continue;
            }
            if (events[i].events & EPOLLOUT) pump(fd);
            if (events[i].events & ~EPOLLOUT) readable(fd);
        }
    }
}
