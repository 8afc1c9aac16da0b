/* What the load generators share: connections over loopback, the handshake with the suite, a histogram of latencies.
 *
 * A generator connects, warms up, says "ready" and waits for a line on its standard input, so that the suite can look
 * at the server's clock in between. It then does a fixed amount of work, prints its figures as one line of JSON, and
 * waits for the end of its input before it lets go of its connections. It is bounded by an alarm. */
#ifndef LOAD_H
#define LOAD_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { EVENTS = 1024, SECONDS_AT_MOST = 300, SECONDS_OF_SILENCE = 20 };

static void die(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static void begin(void) {
    struct rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    alarm(SECONDS_AT_MOST);
}

static void *room(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) die("out of memory");
    return memory;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* A socket on its way to the server. Each comes from another address of 127/8, so that ports do not run out. */
static int dial(int port, int flags) {
    static unsigned source;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    if (fd < 0) die("socket");
    struct sockaddr_in here = {.sin_family = AF_INET}, there = {.sin_family = AF_INET, .sin_port = htons(port)};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + source++ % 200);
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (void *)&here, sizeof here)) die("bind");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (void *)&there, sizeof there) && errno != EINPROGRESS) die("connect");
    errno = 0;
    return fd;
}

static void watch(int ep, int fd, unsigned events, unsigned number) {
    struct epoll_event e = {.events = events, .data.u32 = number};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

static int wait_for(int ep, struct epoll_event *events) {
    int count = epoll_wait(ep, events, EVENTS, SECONDS_OF_SILENCE * 1000);
    if (count <= 0) die("the server is silent");
    return count;
}

static void put(int fd, const char *data, size_t size) {
    if (write(fd, data, size) != (ssize_t)size) die("write");
}

static size_t get(int fd, char *into, size_t size) {
    ssize_t got = read(fd, into, size);
    if (got < 0) die("read");
    if (!got) {
        errno = 0;
        die("the server has closed a connection");
    }
    return got;
}

/* Is this piece of the stream, which begins at `offset`, made of repetitions of `reply`? */
__attribute__((unused)) static void expect(const char *piece, size_t size, size_t offset, const char *reply, size_t length) {
    while (size) {
        size_t at = offset % length, part = length - at < size ? length - at : size;
        if (memcmp(piece, reply + at, part)) {
            errno = 0;
            die("a wrong reply");
        }
        piece += part, size -= part, offset += part;
    }
}

static void ready(void) {
    char go;
    puts("ready");
    fflush(stdout);
    if (read(0, &go, 1) != 1) exit(0);
}

/* Latencies in microseconds: 64 steps for each power of two, so that none is off by more than 2 %. */
static unsigned long steps[64 * 40], latencies;
static double longest;

static void took(double seconds) {
    double us = seconds * 1e6;
    int power = 0;
    if (us > longest) longest = us;
    while (us >= 128 && power < 38) us /= 2, power++;
    steps[power * 64 + (us < 128 ? (int)us : 127)]++;
    latencies++;
}

static double percentile(double part) {
    unsigned long seen = 0;
    for (int power = 0; power < 39; power++)
        for (int i = power ? 64 : 0; i < 128; i++) {
            if (power * 64 + i >= 64 * 40) break;
            seen += steps[power * 64 + i];
            if (seen >= latencies * part && seen) return (i + 0.5) * (1L << power);
        }
    return longest;
}

static void report(double units, double seconds) {
    printf("{\"units\": %.0f, \"seconds\": %.6f, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f}\n", units,
           seconds, percentile(0.50), percentile(0.90), percentile(0.99), longest);
    fflush(stdout);
    for (char rest; read(0, &rest, 1) == 1;) {
    }
}
#endif
