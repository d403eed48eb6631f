/* A load client: one POST, many connections, one thread; every answer is read to its end and checked.
 *
 *   load --port N --target PATH --body FILE [--header "name: value"]... [--connections N] [--seconds S]
 *        [--warm-up S] [--rate N] [--ramp-ms N] [--min-events N] [--hold 1] [--pid N]...
 *
 * Without --rate each connection sends the next request as soon as it has its answer. With it, N requests per second are
 * sent at even intervals, independent of the answers, and a request without a free connection counts as missed. --ramp-ms
 * spreads the first requests. An answer counts if its status is 200, its body is complete, and it has at least --min-events
 * blank lines.
 *
 * The window opens after --warm-up. One line of JSON reports the requests that ended in it, errors, events, latencies and the
 * CPU time of the processes of --pid. `delay_us` is the age of stamped events ("@", 16 digits of microseconds of
 * CLOCK_MONOTONIC, "@") when they were read.
 *
 * With --hold 1 each connection asks once and stays; {"held": N} is printed when each has had --min-events events
 * or has failed, or after --seconds, and the client then reads on until its standard input is closed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD, COUNTED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, TO_CLOSE };
enum { HEAD_MOST = 16384, READ_SIZE = 65536, BATCH = 256, PIDS_MOST = 64, OPENING_AT_ONCE = 64, ERRORS_MOST = 1000 };

struct connection {
    int fd, busy, state, status, closes, chunked, line_has_text, held;
    size_t sent, head_size, left, size_digits, events;
    char *head;
    uint64_t asked_us;
};

struct sample {
    uint32_t *values;
    size_t count, room;
};

static struct {
    int port, connections, rate, hold, pid_count;
    size_t min_events;
    double seconds, warm_up;
    long ramp_ms;
    const char *target, *body_file, *headers[64];
    int header_count;
    pid_t pids[PIDS_MOST];
} options = {.connections = 64, .seconds = 3, .target = "/"};

static struct connection *all;
static char *request;
static size_t request_size;
static int poller, timer, counting;
static uint64_t requests, errors, missed, events_seen, received_bytes, all_errors;
static struct sample latencies, delays;
static int opened, held;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *room_for(void *old, size_t size) {
    void *fresh = realloc(old, size);
    if (fresh == NULL) fail("realloc");
    return fresh;
}

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* The CPU time of another process: utime + stime of /proc/PID/stat, in nanoseconds instead of ticks. */
static uint64_t cpu_ns(void) {
    uint64_t sum = 0;
    for (int i = 0; i < options.pid_count; i++) {
        clockid_t clock;
        struct timespec used;
        if (clock_getcpuclockid(options.pids[i], &clock) != 0 || clock_gettime(clock, &used) != 0) continue;
        sum += (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
    }
    return sum;
}

static void note(struct sample *sample, uint64_t value) {
    if (sample->count == sample->room) {
        sample->room = sample->room ? sample->room * 2 : 65536;
        sample->values = room_for(sample->values, sample->room * sizeof(uint32_t));
    }
    sample->values[sample->count++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int compare(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static void print_sample(const char *name, struct sample *sample) {
    static const int shares[] = {500, 900, 990, 1000};
    static const char *const names[] = {"p50", "p90", "p99", "max"};
    qsort(sample->values, sample->count, sizeof(uint32_t), compare);
    printf(", \"%s\": {\"count\": %zu", name, sample->count);
    for (int i = 0; i < 4 && sample->count > 0; i++) {
        size_t at = sample->count * (size_t)shares[i] / 1000;
        printf(", \"%s\": %u", names[i], sample->values[at < sample->count ? at : sample->count - 1]);
    }
    printf("}");
}

/* ---- requests ---- */

static void watch(struct connection *one, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data = {.ptr = one}};
    if (epoll_ctl(poller, how, one->fd, &event) != 0) fail("epoll_ctl");
}

static void open_connection(struct connection *one) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)options.port), .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int on = 1;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (one->fd < 0) fail("socket");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(one->fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS) fail("connect");
    watch(one, EPOLLOUT | EPOLLIN, EPOLL_CTL_ADD);
}

static int push(struct connection *one) {
    ssize_t sent = send(one->fd, request + one->sent, request_size - one->sent, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == ENOTCONN;
    one->sent += (size_t)sent;
    return 1;
}

static void ask(struct connection *one, uint64_t at_us) {
    one->busy = 1;
    one->state = HEAD;
    one->sent = one->head_size = one->left = one->events = 0;
    one->line_has_text = 1;
    one->asked_us = at_us;
    if (one->fd < 0) {
        open_connection(one);
    } else {
        push(one);
        if (one->sent < request_size) watch(one, EPOLLOUT | EPOLLIN, EPOLL_CTL_MOD);
    }
}

static void ask_next_held(void) {
    if (opened < options.connections) ask(&all[opened++], now_us());
}

static void count_held(struct connection *one, int change) {
    if (change > 0 && one->held) return;
    one->held = 1;
    held += change > 0;
    ask_next_held();
}

static void give_up(struct connection *one) {
    int asked = one->busy;
    close(one->fd);
    one->fd = -1;
    one->busy = 0;
    if (!asked) return;
    errors += (uint64_t)counting;
    if (++all_errors > ERRORS_MOST && !options.hold) {
        fprintf(stderr, "load: more than %d requests failed; the last with status %d\n", ERRORS_MOST, one->status);
        exit(1);
    }
    if (options.hold) {
        if (one->held) held--;
        else count_held(one, -1);
    } else if (options.rate == 0) {
        ask(one, now_us());
    }
}

static int finish(struct connection *one) {
    uint64_t now = now_us();
    if (options.hold || one->status != 200 || one->events < options.min_events) return 0;
    if (counting) {
        requests++;
        note(&latencies, now - one->asked_us);
    }
    one->busy = 0;
    if (one->closes) {
        close(one->fd);
        one->fd = -1;
    }
    if (options.rate == 0) ask(one, now);
    return 1;
}

/* ---- responses ---- */

static void read_body(struct connection *one, const char *data, size_t size) {
    const char *end = data + size;
    for (const char *at = data; at < end;) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL) {
            one->line_has_text |= !(end - at == 1 && *at == '\r');
            break;
        }
        if (line_end != at && !(line_end == at + 1 && *at == '\r')) one->line_has_text = 1;
        if (!one->line_has_text) {
            one->events++;
            events_seen += (uint64_t)counting;
        }
        one->line_has_text = 0;
        at = line_end + 1;
    }
    if (!counting) return;
    for (const char *at = data; (at = memchr(at, '@', (size_t)(end - at))) != NULL; at += 17) {
        if (end - at < 18) return;
        if (at[17] == '@') note(&delays, now_us() - strtoull(at + 1, NULL, 10));
    }
}

/* Returns 0 if the head is not valid HTTP. */
static int read_head(struct connection *one) {
    one->head[one->head_size] = 0;
    if (sscanf(one->head, "HTTP/1.%*d %d", &one->status) != 1) return 0;
    one->closes = one->chunked = 0;
    one->state = TO_CLOSE;
    for (char *line = strchr(one->head, '\n'); line != NULL; line = strchr(line, '\n')) {
        line++;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            one->state = COUNTED;
            one->left = strtoul(line + 15, NULL, 10);
        } else if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) {
            one->chunked = 1;
        } else if (strncasecmp(line, "connection: close", 17) == 0) {
            one->closes = 1;
        }
    }
    if (one->chunked) one->state = CHUNK_SIZE;
    one->left = one->chunked ? 0 : one->left;
    one->size_digits = 0;
    return 1;
}

static int hex_digit(char letter) {
    if (letter >= '0' && letter <= '9') return letter - '0';
    letter |= 32;
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* Parses the bytes read; returns 1 if the answer is complete, 0 if more is needed, -1 if it is not valid HTTP. */
static int take(struct connection *one, const char *data, size_t size) {
    size_t at = 0;
    if (one->state == HEAD) {
        size_t room = HEAD_MOST - 1 - one->head_size, copied = size < room ? size : room, before = one->head_size;
        memcpy(one->head + before, data, copied);
        char *end = memmem(one->head, before + copied, "\r\n\r\n", 4);
        if (end == NULL) {
            one->head_size += copied;
            return copied < size ? -1 : 0;
        }
        one->head_size = (size_t)(end - one->head) + 4;
        at = one->head_size - before;
        if (!read_head(one)) return -1;
    }
    for (;;) {
        size_t here = size - at;
        switch (one->state) {
        case COUNTED:
        case CHUNK_DATA:
        case TO_CLOSE:
            if (one->state != TO_CLOSE && here > one->left) here = one->left;
            read_body(one, data + at, here);
            at += here;
            if (one->state == TO_CLOSE) return 0;
            one->left -= here;
            if (one->left > 0) return 0;
            if (one->state == COUNTED) return 1;
            one->state = CHUNK_END;
            break;
        case CHUNK_END: /* the line end after a chunk */
            if (here == 0) return 0;
            if (data[at++] == '\n') one->state = CHUNK_SIZE, one->size_digits = 0, one->left = 0;
            break;
        case CHUNK_SIZE:
            if (here == 0) return 0;
            if (data[at] == '\n') {
                if (one->size_digits == 0) return -1;
                one->state = one->left > 0 ? CHUNK_DATA : TRAILER;
                one->size_digits = 0;
            } else if (data[at] != '\r') {
                int digit = hex_digit(data[at]);
                if (digit < 0) return -1;
                one->left = one->left * 16 + (size_t)digit;
                one->size_digits++;
            }
            at++;
            break;
        case TRAILER: /* size_digits counts the characters of a trailer line */
            if (here == 0) return 0;
            if (data[at] == '\n') {
                if (one->size_digits == 0) return 1;
                one->size_digits = 0;
            } else if (data[at] != '\r') {
                one->size_digits++;
            }
            at++;
            break;
        default:
            return -1;
        }
    }
}

static void on_ready(struct connection *one, uint32_t ready) {
    static char data[READ_SIZE];
    if ((ready & EPOLLOUT) && one->busy) {
        if (!push(one)) {
            give_up(one);
            return;
        }
        if (one->sent == request_size) watch(one, EPOLLIN, EPOLL_CTL_MOD);
    }
    if (!(ready & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    ssize_t got = recv(one->fd, data, sizeof data, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        if (got == 0 && one->busy && one->state == TO_CLOSE && (one->closes = 1) && finish(one)) return;
        give_up(one);
        return;
    }
    if (counting) received_bytes += (uint64_t)got;
    int whole = one->busy ? take(one, data, (size_t)got) : -1;
    if (whole < 0 || (whole > 0 && !finish(one))) {
        give_up(one);
    } else if (options.hold && !one->held && one->status == 200 && one->events >= options.min_events) {
        count_held(one, 1);
    }
}

/* ---- timing ---- */

static void set_timer(uint64_t every_us) {
    struct timespec gap = {.tv_sec = (time_t)(every_us / 1000000u), .tv_nsec = (long)(every_us % 1000000u) * 1000};
    struct itimerspec when = {.it_interval = gap, .it_value = gap};
    timerfd_settime(timer, 0, &when, NULL);
}

static void on_timer(void) {
    uint64_t times = 0;
    if (read(timer, &times, sizeof times) < 0) return;
    for (; times > 0; times--) {
        if (options.rate == 0) {
            if (opened < options.connections) ask(&all[opened++], now_us());
            else set_timer(0);
            continue;
        }
        struct connection *free_one = NULL;
        for (int i = 0; i < options.connections && free_one == NULL; i++)
            if (!all[i].busy) free_one = &all[i];
        if (free_one != NULL) ask(free_one, now_us());
        else missed += (uint64_t)counting;
    }
}

static void start(void) {
    if (options.rate > 0) {
        set_timer(1000000u / (uint64_t)options.rate);
    } else if (options.hold) {
        for (int i = 0; i < OPENING_AT_ONCE; i++) ask_next_held();
    } else if (options.ramp_ms > 0) {
        set_timer((uint64_t)options.ramp_ms * 1000u / (uint64_t)options.connections + 1);
    } else {
        while (opened < options.connections) ask(&all[opened++], now_us());
    }
}

/* ---- main ---- */

static void build_request(void) {
    FILE *file = fopen(options.body_file, "rb");
    static char body[1 << 20];
    if (file == NULL) fail(options.body_file);
    size_t body_size = fread(body, 1, sizeof body, file);
    fclose(file);
    request = room_for(NULL, body_size + 65536);
    int size = snprintf(request, 65536, "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-length: %zu\r\n", options.target,
                        options.port, body_size);
    for (int i = 0; i < options.header_count; i++)
        size += snprintf(request + size, 65536 - (size_t)size, "%s\r\n", options.headers[i]);
    size += snprintf(request + size, 65536 - (size_t)size, "\r\n");
    memcpy(request + size, body, body_size);
    request_size = (size_t)size + body_size;
}

static void read_options(int count, char **words) {
    for (int i = 1; i + 1 < count; i += 2) {
        const char *name = words[i], *value = words[i + 1];
        if (strcmp(name, "--port") == 0) options.port = atoi(value);
        else if (strcmp(name, "--target") == 0) options.target = value;
        else if (strcmp(name, "--body") == 0) options.body_file = value;
        else if (strcmp(name, "--header") == 0 && options.header_count < 64) options.headers[options.header_count++] = value;
        else if (strcmp(name, "--connections") == 0) options.connections = atoi(value);
        else if (strcmp(name, "--seconds") == 0) options.seconds = atof(value);
        else if (strcmp(name, "--warm-up") == 0) options.warm_up = atof(value);
        else if (strcmp(name, "--rate") == 0) options.rate = atoi(value);
        else if (strcmp(name, "--ramp-ms") == 0) options.ramp_ms = atol(value);
        else if (strcmp(name, "--min-events") == 0) options.min_events = strtoul(value, NULL, 10);
        else if (strcmp(name, "--hold") == 0) options.hold = atoi(value);
        else if (strcmp(name, "--pid") == 0 && options.pid_count < PIDS_MOST) options.pids[options.pid_count++] = atoi(value);
        else {
            fprintf(stderr, "load: what is %s?\n", name);
            exit(2);
        }
    }
    if (options.port == 0 || options.body_file == NULL) {
        fprintf(stderr, "load: --port and --body are needed\n");
        exit(2);
    }
}

static void turn(int wait_ms) {
    struct epoll_event ready[BATCH];
    int found = epoll_wait(poller, ready, BATCH, wait_ms);
    for (int i = 0; i < found; i++) {
        struct connection *one = ready[i].data.ptr;
        if (one == NULL) on_timer();
        else if (one->fd >= 0) on_ready(one, ready[i].events);
    }
}

static void run_until(uint64_t end_us) {
    for (uint64_t now = now_us(); now < end_us; now = now_us()) turn((int)((end_us - now) / 1000u) + 1);
}

static void hold(void) {
    int told = 0;
    uint64_t end_us = now_us() + (uint64_t)(options.seconds * 1e6);
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = &told}};
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    for (;;) {
        struct epoll_event ready[BATCH];
        int found = epoll_wait(poller, ready, BATCH, 100);
        for (int i = 0; i < found; i++) {
            struct connection *one = ready[i].data.ptr;
            if (ready[i].data.ptr == &told) return;
            if (one != NULL && one->fd >= 0) on_ready(one, ready[i].events);
        }
        int settled = opened == options.connections && held + (int)all_errors >= opened;
        if (!told && (settled || now_us() > end_us)) {
            opened = options.connections; /* the others stay closed */
            told = printf("{\"held\": %d, \"errors\": %llu}\n", held, (unsigned long long)all_errors);
            fflush(stdout);
        }
    }
}

int main(int count, char **words) {
    read_options(count, words);
    signal(SIGPIPE, SIG_IGN);
    build_request();
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = NULL}};
    if (poller < 0 || timer < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event) != 0) fail("epoll");
    all = room_for(NULL, (size_t)options.connections * sizeof *all);
    memset(all, 0, (size_t)options.connections * sizeof *all);
    for (int i = 0; i < options.connections; i++) {
        all[i].fd = -1;
        all[i].head = room_for(NULL, HEAD_MOST);
    }
    start();
    if (options.hold) {
        hold();
        printf("{\"held\": %d, \"errors\": %llu}\n", held, (unsigned long long)all_errors);
        return 0;
    }
    run_until(now_us() + (uint64_t)(options.warm_up * 1e6));
    counting = 1;
    uint64_t cpu_before = cpu_ns(), began = now_us();
    run_until(began + (uint64_t)(options.seconds * 1e6));
    uint64_t cpu = cpu_ns() - cpu_before, took = now_us() - began;
    printf("{\"seconds\": %.6f, \"requests\": %llu, \"errors\": %llu, \"missed\": %llu, \"events\": %llu, \"bytes\": %llu, "
           "\"cpu_ns\": %llu",
           (double)took / 1e6, (unsigned long long)requests, (unsigned long long)errors, (unsigned long long)missed,
           (unsigned long long)events_seen, (unsigned long long)received_bytes, (unsigned long long)cpu);
    print_sample("latency_us", &latencies);
    print_sample("delay_us", &delays);
    printf("}\n");
    return 0;
}
