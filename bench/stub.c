/* A minimal provider: fixed answers in two dialects, from one thread, over kept-alive connections.
 *
 * It reads only the request's path (".../chat/completions" is OpenAI's dialect, ":generateContent" and
 * ":streamGenerateContent" are Gemini's) and two words of the body ("stream" and "include_usage"). The first port sends a
 * stream in one write; the second one event every --gap-ms; the third two events at once, and then one every --held-gap-ms
 * until the client closes. Events of paced streams carry the time at which they were sent ("@", 16 digits of microseconds of
 * CLOCK_MONOTONIC, "@"), so that a load client can measure their delay. Prints the three ports in one line: "fast 1 paced 2
 * held 3".
 *
 *   cc -O2 -std=c99 -o stub stub.c && ./stub --events 64 --paced-events 100 --gap-ms 10 --held-gap-ms 5000
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

enum { FAST, PACED, HELD, PORTS };
enum { OPENAI, OPENAI_USAGE, GEMINI, DIALECTS };
enum { BATCH = 256, IN_START = 8192, IN_MOST = 1 << 20, STAMP_DIGITS = 16 };

/* A response as frames: burst streams send all of `data` at once, paced ones a frame at a time. */
struct answer {
    char *data;
    size_t size, room, frames;
    size_t *ends;   /* where each frame ends */
    size_t *stamps; /* offset of its timestamp; 0: none */
};

struct connection {
    int fd, port;
    char *in;
    size_t in_size, in_room;
    const char *out;
    size_t out_left;
    struct answer *paced;
    size_t frame;
    uint64_t due_us;
    struct connection *next, *previous;
};

/* Paced connections of one port wait equally long, so the first in the queue is due first. */
struct queue {
    struct connection *head, *tail;
    uint64_t gap_us;
};

static struct answer json_answers[DIALECTS], bursts[DIALECTS], steps[DIALECTS];
static struct queue queues[PORTS];
static int poller, timer;

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

/* ---- answers ---- */

static void add(struct answer *to, const char *text, size_t size) {
    if (to->size + size > to->room) {
        to->room = (to->size + size) * 2;
        to->data = room_for(to->data, to->room);
    }
    memcpy(to->data + to->size, text, size);
    to->size += size;
}

static void end_frame(struct answer *to, size_t stamp) {
    to->ends = room_for(to->ends, (to->frames + 1) * sizeof(size_t));
    to->stamps = room_for(to->stamps, (to->frames + 1) * sizeof(size_t));
    to->ends[to->frames] = to->size;
    to->stamps[to->frames++] = stamp;
}

/* One event in its own chunk, as servers that flush each event send it; returns the offset of its timestamp, or 0. */
static size_t add_event(struct answer *to, const char *json, const char *line_end) {
    char event[1024], head[32];
    int size = snprintf(event, sizeof event, "data: %s%s%s", json, line_end, line_end);
    int head_size = snprintf(head, sizeof head, "%x\r\n", (unsigned)size);
    add(to, head, (size_t)head_size);
    const char *stamp = strchr(event, '@');
    size_t at = stamp == NULL ? 0 : to->size + (size_t)(stamp - event) + 1;
    add(to, event, (size_t)size);
    add(to, "\r\n", 2);
    return at;
}

static void add_stream_head(struct answer *to) {
    static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                               "x-request-id: req_stub\r\ntransfer-encoding: chunked\r\n\r\n";
    add(to, head, sizeof head - 1);
}

static size_t add_chunk(struct answer *to, int with_usage, const char *choices, const char *usage) {
    char json[1024];
    snprintf(json, sizeof json,
             "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1763596800,"
             "\"model\":\"gpt-6-luna\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\","
             "\"choices\":[%s]%s%s}",
             choices, with_usage ? ",\"usage\":" : "", with_usage ? usage : "");
    return add_event(to, json, "\n");
}

#define CHOICE(delta, finish) "{\"index\":0,\"delta\":{" delta "},\"logprobs\":null,\"finish_reason\":" finish "}"

/* `events` counts every event except [DONE]: the role, the text, the finish, and the usage if requested. */
static void make_openai_stream(struct answer *to, int with_usage, int events, const char *word) {
    char choice[512];
    add_stream_head(to);
    end_frame(to, add_chunk(to, with_usage, CHOICE("\"role\":\"assistant\",\"content\":\"\",\"refusal\":null", "null"), "null"));
    for (int i = 0; i < events - 2 - with_usage; i++) {
        snprintf(choice, sizeof choice, CHOICE("\"content\":\"%s\"", "null"), word);
        end_frame(to, add_chunk(to, with_usage, choice, "null"));
    }
    add_chunk(to, with_usage, CHOICE("", "\"stop\""), "null");
    if (with_usage)
        add_chunk(to, 1, "",
                  "{\"prompt_tokens\":42,\"completion_tokens\":61,\"total_tokens\":103,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
                  "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0}}");
    static const char done[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    add(to, done, sizeof done - 1);
    end_frame(to, 0);
}

static void make_gemini_stream(struct answer *to, int events, const char *word) {
    char json[1024];
    add_stream_head(to);
    for (int i = 0; i < events; i++) {
        snprintf(json, sizeof json,
                 "{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"%s\"}],\"role\": \"model\"},%s\"index\": 0}],"
                 "\"usageMetadata\": {\"promptTokenCount\": 42,\"candidatesTokenCount\": %d,\"totalTokenCount\": %d},"
                 "\"modelVersion\": \"gemini-3.8-flash\",\"responseId\": \"mFkfacaAEPOn\"}",
                 word, i == events - 1 ? "\"finishReason\": \"STOP\"," : "", i + 1, i + 43);
        size_t stamp = add_event(to, json, "\r\n");
        if (i == events - 1) add(to, "0\r\n\r\n", 5);
        end_frame(to, stamp);
    }
}

#define PARAGRAPH                                                                                                    \
    "The gateway reads where a request comes from, decides which provider may answer it, and hands the answer back " \
    "in one shape. Nothing of the prompt leaves the boundary of its region, whatever fails on the way, and a "       \
    "failure that can be mended is mended before the first byte of an answer has been sent to the client."

static void make_json(struct answer *to, const char *body) {
    char head[256];
    int size = snprintf(head, sizeof head,
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_stub\r\n"
                        "content-length: %zu\r\n\r\n",
                        strlen(body));
    add(to, head, (size_t)size);
    add(to, body, strlen(body));
}

static void make_answers(int burst_events, int paced_events) {
    static const char openai[] =
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1763596800,\"model\":\"gpt-6-luna\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" PARAGRAPH "\",\"refusal\":null,"
        "\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":42,"
        "\"completion_tokens\":61,\"total_tokens\":103,\"prompt_tokens_details\":{\"cached_tokens\":0,"
        "\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0}},"
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\"}";
    static const char gemini[] =
        "{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"" PARAGRAPH "\"}],\"role\": \"model\"},"
        "\"finishReason\": \"STOP\",\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 42,"
        "\"candidatesTokenCount\": 61,\"totalTokenCount\": 103},\"modelVersion\": \"gemini-3.8-flash\","
        "\"responseId\": \"mFkfacaAEPOn\"}";
    static const char word[] = " boundary", stamped[] = "@0000000000000000@";
    make_json(&json_answers[OPENAI], openai);
    json_answers[OPENAI_USAGE] = json_answers[OPENAI];
    make_json(&json_answers[GEMINI], gemini);
    for (int with_usage = 0; with_usage < 2; with_usage++) {
        make_openai_stream(&bursts[OPENAI + with_usage], with_usage, burst_events, word);
        make_openai_stream(&steps[OPENAI + with_usage], with_usage, paced_events, stamped);
    }
    make_gemini_stream(&bursts[GEMINI], burst_events, word);
    make_gemini_stream(&steps[GEMINI], paced_events, stamped);
}

/* ---- connections ---- */

static void leave_queue(struct connection *one) {
    struct queue *queue = &queues[one->port];
    if (one->previous != NULL) one->previous->next = one->next;
    else if (queue->head == one) queue->head = one->next;
    if (one->next != NULL) one->next->previous = one->previous;
    else if (queue->tail == one) queue->tail = one->previous;
    one->next = one->previous = NULL;
}

static void join_queue(struct connection *one) {
    struct queue *queue = &queues[one->port];
    one->due_us = now_us() + queue->gap_us;
    one->previous = queue->tail;
    if (queue->tail != NULL) queue->tail->next = one;
    else queue->head = one;
    queue->tail = one;
}

static void drop(struct connection *one) {
    if (one->paced != NULL) leave_queue(one);
    close(one->fd);
    free(one->in);
    free(one);
}

static void watch(struct connection *one, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data = {.ptr = one}};
    if (epoll_ctl(poller, how, one->fd, &event) != 0) fail("epoll_ctl");
}

/* Returns 0 if the connection broke. */
static int send_bytes(struct connection *one, const char *data, size_t size) {
    ssize_t sent = send(one->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) return 0;
        sent = 0;
    }
    if ((size_t)sent < size) {
        if (one->paced != NULL) return 0; /* frames are written in place: a client that is too slow loses its stream */
        one->out = data + sent;
        one->out_left = size - (size_t)sent;
        watch(one, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
    return 1;
}

/* Sends the next frame of a paced stream; returns 0 if the connection broke. */
static int send_frame(struct connection *one) {
    struct answer *answer = one->paced;
    size_t frame = one->frame;
    size_t start = frame == 0 ? 0 : answer->ends[frame - 1];
    if (answer->stamps[frame] != 0) {
        char digits[STAMP_DIGITS + 1];
        snprintf(digits, sizeof digits, "%016llu", (unsigned long long)now_us());
        memcpy(answer->data + answer->stamps[frame], digits, STAMP_DIGITS);
    }
    if (!send_bytes(one, answer->data + start, answer->ends[frame] - start)) return 0;
    if (one->port != HELD || frame == 0) one->frame++;
    return 1;
}

/* ---- requests ---- */

static int has_word(const char *body, size_t size, const char *word, const char *spaced) {
    return memmem(body, size, word, strlen(word)) != NULL || memmem(body, size, spaced, strlen(spaced)) != NULL;
}

/* Returns 0 if the connection must be closed. */
static int answer_request(struct connection *one, const char *line, size_t line_size, const char *body, size_t size) {
    int dialect, streams;
    if (memmem(line, line_size, "/chat/completions", 17) != NULL) {
        streams = has_word(body, size, "\"stream\":true", "\"stream\": true");
        dialect = has_word(body, size, "\"include_usage\":true", "\"include_usage\": true") ? OPENAI_USAGE : OPENAI;
    } else if (memmem(line, line_size, "enerateContent", 14) != NULL) {
        streams = memmem(line, line_size, ":streamGenerateContent", 22) != NULL;
        dialect = GEMINI;
    } else {
        static const char unknown[] = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        return send_bytes(one, unknown, sizeof unknown - 1);
    }
    if (!streams) return send_bytes(one, json_answers[dialect].data, json_answers[dialect].size);
    if (one->port == FAST) return send_bytes(one, bursts[dialect].data, bursts[dialect].size);
    one->paced = &steps[dialect];
    one->frame = 0;
    join_queue(one);
    if (!send_frame(one)) return 0;
    return one->port != HELD || send_frame(one); /* a held stream sends its first event at once */
}

/* Answers every complete request that has been read; returns 0 if the connection must be closed. */
static int take_requests(struct connection *one) {
    while (one->in_size > 0 && one->out_left == 0 && one->paced == NULL) {
        char *end = memmem(one->in, one->in_size, "\r\n\r\n", 4);
        if (end == NULL) return one->in_size < IN_MOST;
        size_t head_size = (size_t)(end - one->in) + 4, body_size = 0;
        for (char *line = memchr(one->in, '\n', head_size); line != NULL && line < end;
             line = memchr(line + 1, '\n', (size_t)(end - line) + 1)) {
            if (strncasecmp(line + 1, "content-length:", 15) == 0) body_size = strtoul(line + 16, NULL, 10);
        }
        if (body_size > IN_MOST) return 0;
        if (one->in_size < head_size + body_size) return 1;
        char *line_end = memchr(one->in, '\r', head_size);
        if (!answer_request(one, one->in, (size_t)(line_end - one->in), one->in + head_size, body_size)) return 0;
        one->in_size -= head_size + body_size;
        memmove(one->in, one->in + head_size + body_size, one->in_size);
    }
    return 1;
}

/* Returns 0 if the connection must be closed. */
static int on_ready(struct connection *one, uint32_t events) {
    if (events & EPOLLOUT) {
        ssize_t sent = send(one->fd, one->out, one->out_left, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return 0;
        if (sent > 0) {
            one->out += sent;
            one->out_left -= (size_t)sent;
        }
        if (one->out_left == 0) {
            watch(one, EPOLLIN, EPOLL_CTL_MOD);
            return take_requests(one);
        }
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (one->in_room - one->in_size < IN_START / 2) {
            if (one->in_room >= 2 * IN_MOST) return 0;
            one->in_room *= 2;
            one->in = room_for(one->in, one->in_room);
        }
        ssize_t got = recv(one->fd, one->in + one->in_size, one->in_room - one->in_size, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) return 0;
        if (got > 0) {
            one->in_size += (size_t)got;
            return take_requests(one);
        }
    }
    return 1;
}

static void accept_all(int listener, int port) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *one = room_for(NULL, sizeof *one);
        memset(one, 0, sizeof *one);
        one->fd = fd;
        one->port = port;
        one->in_room = IN_START;
        one->in = room_for(NULL, IN_START);
        watch(one, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* ---- the clock of paced streams ---- */

static void send_due(struct queue *queue) {
    uint64_t now = now_us();
    while (queue->head != NULL && queue->head->due_us <= now) {
        struct connection *one = queue->head;
        leave_queue(one);
        int last = one->frame == one->paced->frames - 1;
        join_queue(one);
        if (!send_frame(one)) {
            drop(one);
        } else if (last) {
            leave_queue(one);
            one->paced = NULL;
            if (!take_requests(one)) drop(one);
        }
    }
}

static void set_timer(void) {
    static uint64_t set_to;
    uint64_t due = 0;
    for (int port = PACED; port <= HELD; port++) {
        struct connection *head = queues[port].head;
        if (head != NULL && (due == 0 || head->due_us < due)) due = head->due_us;
    }
    if (due == set_to) return;
    set_to = due;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(due / 1000000u), .tv_nsec = (long)(due % 1000000u) * 1000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static int listen_on_free_port(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        fail("listen");
    *port = ntohs(address.sin_port);
    return listener;
}

static long option(int count, char **words, const char *name, long value) {
    for (int i = 1; i + 1 < count; i += 2)
        if (strcmp(words[i], name) == 0) value = strtol(words[i + 1], NULL, 10);
    return value;
}

int main(int count, char **words) {
    long events = option(count, words, "--events", 64), paced_events = option(count, words, "--paced-events", 100);
    if (events < 4 || paced_events < 4) {
        fprintf(stderr, "stub: a stream has at least 4 events\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    make_answers((int)events, (int)paced_events);
    queues[PACED].gap_us = (uint64_t)option(count, words, "--gap-ms", 10) * 1000u;
    queues[HELD].gap_us = (uint64_t)option(count, words, "--held-gap-ms", 5000) * 1000u;
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (poller < 0 || timer < 0) fail("epoll");

    struct connection listeners[PORTS + 1];
    int ports[PORTS];
    memset(listeners, 0, sizeof listeners);
    for (int i = 0; i <= PORTS; i++) {
        listeners[i].fd = i == PORTS ? timer : listen_on_free_port(&ports[i]);
        watch(&listeners[i], EPOLLIN, EPOLL_CTL_ADD);
    }
    printf("fast %d paced %d held %d\n", ports[FAST], ports[PACED], ports[HELD]);
    fflush(stdout);

    for (;;) {
        struct epoll_event ready[BATCH];
        int found = epoll_wait(poller, ready, BATCH, -1);
        for (int i = 0; i < found; i++) {
            struct connection *one = ready[i].data.ptr;
            if (one >= listeners && one < listeners + PORTS) {
                accept_all(one->fd, (int)(one - listeners));
            } else if (one == listeners + PORTS) {
                uint64_t times;
                if (read(timer, &times, sizeof times) < 0 && errno != EAGAIN) fail("timer");
            } else if (!on_ready(one, ready[i].events)) {
                drop(one);
            }
        }
        /* Only here, when no event of this batch can refer to a connection that a broken stream closes. */
        send_due(&queues[PACED]);
        send_due(&queues[HELD]);
        set_timer();
    }
}
