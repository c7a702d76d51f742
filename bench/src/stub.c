// A model server that costs next to nothing: OpenAI's HTTP API and Triton's HTTP generate extension for the bare
// `tensorrt_llm` schema, in one epoll loop. It decodes nothing; every token says when it was made.
//
//   stub [--port 0] [--tokens 100] [--interval-us 20000] [--first-us 0] [--size 1024] [--together 0]
//        [--id-base 4096] [--id-count 131072] [--tick-us 50] [--metadata FILE] [--config FILE]
//
// Listens on 127.0.0.1 and prints "port N" once it does.
//
// POST /v1/chat/completions, /v1/completions    JSON of --size bytes, or events when the body has "stream": true.
//      A token is " t" and 16 digits: CLOCK_MONOTONIC in ns. "max_tokens"/"max_completion_tokens" overrides --tokens,
//      "include_usage": true adds the usage event.
// POST /v2/models/M/generate[_stream]           "request_output_len" token ids, one event each when "streaming" is true,
//      else all in one answer. An id is --id-base + (CLOCK_MONOTONIC / --tick-us) % --id-count.
// GET  /v2/models/M, /v2/models/M/config        the files given. /v2/health/*, /v2/models/M/ready: 200, empty.
// GET  /_set?tokens=..&interval_us=..&first_us=..&size=..&together=..    changes settings; answers the counters
// GET  /_counters[?reset=1]   streams, tokens, aborted, active, max_active, requests, last_end_ns (last stream's end)
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum format { CHAT, COMPLETION, TRITON };

// How it answers, and what it has seen.
static long tokens = 100, interval_us = 20000, first_us = 0, size = 1024, together = 0;
static long id_base = 4096, id_count = 131072, tick_us = 50;
static char *metadata = "{}", *config = "{}";
static long n_requests, n_streams, n_tokens, n_aborted, n_active, n_max_active;
static uint64_t last_end_ns;

typedef struct connection {
    int fd, place; // place: index in the heap of streams, -1 when not streaming
    char *in;
    int in_len, in_cap;
    char *out;
    int out_len, out_cap, out_sent, wants_out;
    enum format format;
    int started, usage, close_after, dead;
    long left, total;
    uint64_t due, interval_ns;
    char model[128], id[160];
    struct connection *next_dead;
} connection;

static int poll_fd;
static connection *graveyard;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

// ---- streams by the time of their next token: a binary heap

static connection **heap;
static int heap_len, heap_cap;

static void heap_swap(int a, int b) {
    connection *t = heap[a];
    heap[a] = heap[b];
    heap[b] = t;
    heap[a]->place = a;
    heap[b]->place = b;
}
static void heap_up(int i) {
    for (; i && heap[i]->due < heap[(i - 1) / 2]->due; i = (i - 1) / 2) heap_swap(i, (i - 1) / 2);
}
static void heap_down(int i) {
    for (;;) {
        int left = 2 * i + 1, right = left + 1, least = i;
        if (left < heap_len && heap[left]->due < heap[least]->due) least = left;
        if (right < heap_len && heap[right]->due < heap[least]->due) least = right;
        if (least == i) return;
        heap_swap(i, least);
        i = least;
    }
}
static void heap_push(connection *c) {
    if (heap_len == heap_cap) {
        heap_cap = heap_cap ? heap_cap * 2 : 1024;
        heap = realloc(heap, heap_cap * sizeof *heap);
    }
    c->place = heap_len;
    heap[heap_len++] = c;
    heap_up(c->place);
}
static void heap_remove(connection *c) {
    int i = c->place;
    if (i < 0) return;
    if (i != --heap_len) {
        heap[i] = heap[heap_len];
        heap[i]->place = i;
        heap_up(i);
        heap_down(i);
    }
    c->place = -1;
}

// ---- connections

static void end_stream(connection *c) {
    heap_remove(c);
    n_active--;
    last_end_ns = now_ns();
}
static void close_connection(connection *c) {
    if (c->dead) return;
    c->dead = 1;
    if (c->place >= 0) {
        n_aborted++;
        end_stream(c);
    }
    close(c->fd);
    c->next_dead = graveyard;
    graveyard = c;
}
static void free_the_dead(void) {
    while (graveyard) {
        connection *c = graveyard;
        graveyard = c->next_dead;
        free(c->in);
        free(c->out);
        free(c);
    }
}
static void want_out(connection *c, int wanted) {
    if (c->wants_out == wanted) return;
    c->wants_out = wanted;
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &e);
}
static void flush_out(connection *c) {
    while (c->out_sent < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return want_out(c, 1);
        if (n < 0) return close_connection(c);
        c->out_sent += n;
    }
    c->out_len = c->out_sent = 0;
    want_out(c, 0);
    if (c->close_after && c->place < 0) close_connection(c);
}
static void put(connection *c, const char *data, int n) {
    if (c->out_len + n > c->out_cap) {
        c->out_cap = (c->out_len + n) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, data, n);
    c->out_len += n;
    if (!c->wants_out) flush_out(c);
}

// ---- what is said

#define EVENT_HEAD                                                                                                   \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CHAT_HEAD                                                                                                    \
    "data: {\"id\":\"chatcmpl-5f2b8c1e9d7a4f60\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"       \
    "\"model\":\"stub\",\"choices\":["
#define TEXT_HEAD                                                                                                    \
    "data: {\"id\":\"cmpl-5f2b8c1e9d7a4f60\",\"object\":\"text_completion\",\"created\":1700000000,"                 \
    "\"model\":\"stub\",\"choices\":["

static void put_chunk(char *buffer, int *n, const char *template, ...) {
    char event[1024];
    va_list args;
    va_start(args, template);
    int len = vsnprintf(event, sizeof event, template, args);
    va_end(args);
    *n += sprintf(buffer + *n, "%x\r\n", len);
    memcpy(buffer + *n, event, len);
    memcpy(buffer + *n + len, "\r\n", 2);
    *n += len + 2;
}
static long token_id(void) { return id_base + (long)(now_ns() / 1000 / tick_us % id_count); }

static void say_first(connection *c, char *b, int *n) {
    *n += sprintf(b + *n, "%s", EVENT_HEAD);
    if (c->format == CHAT)
        put_chunk(b, n, CHAT_HEAD "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                                  "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
}
static void say_token(connection *c, char *b, int *n) {
    unsigned long long t = now_ns() % 10000000000000000ull;
    if (c->format == CHAT)
        put_chunk(b, n, CHAT_HEAD "{\"index\":0,\"delta\":{\"content\":\" t%016llu\"},"
                                  "\"logprobs\":null,\"finish_reason\":null}]}\n\n", t);
    else if (c->format == COMPLETION)
        put_chunk(b, n, TEXT_HEAD "{\"index\":0,\"text\":\" t%016llu\",\"logprobs\":null,\"finish_reason\":null}]}\n\n", t);
    else
        put_chunk(b, n, "data: {%s\"model_name\":\"%s\",\"model_version\":\"1\",\"output_ids\":%ld,\"sequence_length\":1}\n\n",
                  c->id, c->model, token_id());
}
static void say_last(connection *c, char *b, int *n) {
    if (c->format == CHAT)
        put_chunk(b, n, CHAT_HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}]}\n\n");
    if (c->format == COMPLETION)
        put_chunk(b, n, TEXT_HEAD "{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"length\"}]}\n\n");
    if (c->usage)
        put_chunk(b, n, "%s],\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\n",
                  c->format == CHAT ? CHAT_HEAD : TEXT_HEAD, c->total, c->total + 200);
    if (c->format != TRITON) put_chunk(b, n, "data: [DONE]\n\n");
    *n += sprintf(b + *n, "0\r\n\r\n");
}

// Together: all streams emit at the same instants, as an engine with in-flight batching does.
static uint64_t next_due(connection *c, uint64_t from, uint64_t now) {
    return together && c->interval_ns ? (now / c->interval_ns + 1) * c->interval_ns : from + c->interval_ns;
}
static void step(connection *c, uint64_t now) {
    static char b[8192];
    int n = 0;
    if (!c->started) say_first(c, b, &n);
    c->started = 1;
    if (c->left > 0) {
        say_token(c, b, &n);
        c->left--;
        n_tokens++;
    }
    if (c->left == 0) {
        say_last(c, b, &n);
        end_stream(c);
    } else {
        c->due = next_due(c, c->due, now);
        heap_down(c->place);
    }
    put(c, b, n);
}

static void reply(connection *c, const char *status, const char *type, const char *body, long len) {
    char head[256];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %ld\r\n\r\n", status, type, len);
    char *whole = malloc(n + len);
    memcpy(whole, head, n);
    memcpy(whole + n, body, len);
    put(c, whole, n + len);
    free(whole);
}
static void reply_json(connection *c, const char *status, const char *body) {
    reply(c, status, "application/json", body, strlen(body));
}
static void reply_openai(connection *c, long count) {
    static char body[1 << 20];
    const char *before = c->format == CHAT ? "\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"stub\","
                                             "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
                                           : "\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"stub\","
                                             "\"choices\":[{\"index\":0,\"text\":\"";
    int n = sprintf(body, "{\"id\":\"chatcmpl-5f2b8c1e9d7a4f60\",%s", before);
    for (int i = 0; n < size - 140 && n < (int)sizeof body - 512; i++) body[n++] = "lorem ipsum dolor sit amet "[i % 27];
    n += sprintf(body + n, "\"%s,\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":200,"
                           "\"completion_tokens\":%ld,\"total_tokens\":%ld}}", c->format == CHAT ? "}" : "", count, count + 200);
    reply(c, "200 OK", "application/json", body, n);
}
static void reply_triton(connection *c, long count, int as_event) {
    static char body[1 << 16], framed[1 << 17];
    if (count > 4000) count = 4000;
    int n = sprintf(body, "%s{%s\"model_name\":\"%s\",\"model_version\":\"1\",\"output_ids\":", as_event ? "data: " : "", c->id, c->model);
    if (count > 1) body[n++] = '[';
    for (long i = 0; i < count; i++) n += sprintf(body + n, i ? ",%ld" : "%ld", token_id());
    if (count > 1) body[n++] = ']';
    n += sprintf(body + n, ",\"sequence_length\":%ld}%s", count, as_event ? "\n\n" : "");
    int f = sprintf(framed, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n",
                    as_event ? "text/event-stream; charset=utf-8" : "application/json", n);
    memcpy(framed + f, body, n);
    f += n;
    f += sprintf(framed + f, "\r\n0\r\n\r\n");
    put(c, framed, f);
}

// ---- what is asked (a stub for our own clients: no JSON parser)

static char *json_value(char *body, int n, const char *quoted_key) {
    char *p = memmem(body, n, quoted_key, strlen(quoted_key));
    if (!p) return NULL;
    for (p += strlen(quoted_key); p < body + n && strchr(" :\t[", *p); p++) continue;
    return p < body + n ? p : NULL;
}
static long json_long(char *body, int n, const char *quoted_key, long otherwise) {
    char *p = json_value(body, n, quoted_key);
    return p && *p >= '0' && *p <= '9' ? atol(p) : otherwise;
}
static int json_true(char *body, int n, const char *quoted_key) {
    char *p = json_value(body, n, quoted_key);
    return p && body + n - p >= 4 && !memcmp(p, "true", 4);
}
static int ends(const char *s, const char *end) {
    size_t a = strlen(s), b = strlen(end);
    return a >= b && !strcmp(s + a - b, end);
}
static void query_long(const char *query, const char *key, long *value) {
    char wanted[32];
    snprintf(wanted, sizeof wanted, "%s=", key);
    for (const char *p = query; (p = strstr(p, wanted)); p++)
        if (p == query || p[-1] == '&') *value = atol(p + strlen(wanted));
}

static void start_stream(connection *c, long count, int usage) {
    uint64_t now = now_ns();
    c->left = c->total = count;
    c->usage = usage;
    c->started = 0;
    c->interval_ns = interval_us * 1000ull;
    c->due = now + first_us * 1000ull;
    if (together) c->due = next_due(c, c->due, c->due);
    n_streams++;
    if (++n_active > n_max_active) n_max_active = n_active;
    heap_push(c);
    if (c->due <= now) step(c, now);
}
static void post_openai(connection *c, char *body, int n) {
    long count = json_long(body, n, "\"max_tokens\"", json_long(body, n, "\"max_completion_tokens\"", tokens));
    if (count < 1) count = 1;
    if (!json_true(body, n, "\"stream\"")) return reply_openai(c, count);
    start_stream(c, count, json_true(body, n, "\"include_usage\""));
}
static void post_triton(connection *c, const char *path, char *body, int n, int as_stream) {
    const char *name = path + strlen("/v2/models/");
    snprintf(c->model, sizeof c->model, "%.*s", (int)strcspn(name, "/"), name);
    char *id = json_value(body, n, "\"id\"");
    c->id[0] = 0;
    if (id && *id == '"') snprintf(c->id, sizeof c->id, "\"id\":\"%.*s\",", (int)strcspn(id + 1, "\""), id + 1);
    long count = json_long(body, n, "\"request_output_len\"", 0);
    if (count < 1) return reply_json(c, "400 Bad Request", "{\"error\":\"request_output_len is missing\"}");
    if (as_stream && json_true(body, n, "\"streaming\"")) return start_stream(c, count, 0);
    reply_triton(c, count, as_stream);
}
static void get_counters(connection *c, const char *query, int settable) {
    long reset = 0;
    if (settable) {
        query_long(query, "tokens", &tokens);
        query_long(query, "interval_us", &interval_us);
        query_long(query, "first_us", &first_us);
        query_long(query, "size", &size);
        query_long(query, "together", &together);
    }
    query_long(query, "reset", &reset);
    if (reset) {
        n_requests = n_streams = n_tokens = n_aborted = 0;
        n_max_active = n_active;
    }
    char b[512];
    snprintf(b, sizeof b,
             "{\"requests\":%ld,\"streams\":%ld,\"tokens\":%ld,\"aborted\":%ld,\"active\":%ld,\"max_active\":%ld,"
             "\"last_end_ns\":%llu}\n",
             n_requests, n_streams, n_tokens, n_aborted, n_active, n_max_active, (unsigned long long)last_end_ns);
    reply_json(c, "200 OK", b);
}
static void handle(connection *c, const char *method, char *path, char *body, int n) {
    char *query = strchr(path, '?');
    if (query) *query++ = 0;
    else query = "";
    if (!strcmp(path, "/_set") || !strcmp(path, "/_counters")) return get_counters(c, query, !strcmp(path, "/_set"));
    n_requests++;
    int triton = !strncmp(path, "/v2/models/", 11), post = !strcmp(method, "POST");
    c->format = triton ? TRITON : ends(path, "/chat/completions") ? CHAT : COMPLETION;
    if (post && triton && ends(path, "/generate_stream")) return post_triton(c, path, body, n, 1);
    if (post && triton && ends(path, "/generate")) return post_triton(c, path, body, n, 0);
    if (post && ends(path, "/completions")) return post_openai(c, body, n);
    if (!strncmp(path, "/v2/health/", 11) || (triton && ends(path, "/ready"))) return reply(c, "200 OK", "text/plain", "", 0);
    if (triton && ends(path, "/config")) return reply_json(c, "200 OK", config);
    if (triton) return reply_json(c, "200 OK", metadata);
    if (!strcmp(path, "/v2")) return reply_json(c, "200 OK", "{\"name\":\"triton\",\"version\":\"0\",\"extensions\":[]}");
    if (ends(path, "/v1/models"))
        return reply_json(c, "200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"stub\",\"object\":\"model\","
                                       "\"created\":1700000000,\"owned_by\":\"stub\",\"max_model_len\":32768}]}");
    // Routers that look for an SGLang or vLLM worker ask for more; they are content with these.
    if (ends(path, "model_info")) return reply_json(c, "200 OK", "{\"model_path\":\"stub\",\"is_generation\":true}");
    if (ends(path, "server_info"))
        return reply_json(c, "200 OK", "{\"model_id\":\"stub\",\"model_path\":\"stub\",\"served_model_name\":\"stub\","
                                       "\"tp_size\":1,\"dp_size\":1,\"version\":\"0.5.0\",\"max_num_reqs\":4096}");
    if (ends(path, "/metrics")) return reply(c, "200 OK", "text/plain", "", 0);
    if (ends(path, "/health") || ends(path, "/health_generate") || ends(path, "/version"))
        return reply_json(c, "200 OK", "{\"status\":\"ok\",\"version\":\"0.11.0\"}");
    reply_json(c, "404 Not Found", "{\"error\":\"no such path\"}");
}

// ---- HTTP/1.1 in

// Decode a chunked body in place; returns bytes consumed and sets *n to the decoded length, or -1 when incomplete.
static int dechunk(char *body, char *end, int *n) {
    char *from = body, *to = body;
    for (int pass = 0; pass < 2; pass++) {
        from = body;
        for (;;) {
            char *eol = memmem(from, end - from, "\r\n", 2);
            if (!eol) return -1;
            long len = strtol(from, NULL, 16);
            if (len < 0 || end - eol < len + 4) return -1;
            if (len == 0) {
                from = eol + 4;
                break;
            }
            if (pass) {
                memmove(to, eol + 2, len);
                to += len;
            }
            from = eol + 2 + len + 2;
        }
    }
    *n = to - body;
    return from - body;
}
static int take_request(connection *c) {
    if (c->place >= 0) return 0; // one answer at a time
    char *head_end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!head_end) return 0;
    int head = head_end - c->in + 4, chunked = 0, body_len = 0, used;
    char *eol = memmem(c->in, head, "\r\n", 2);
    c->close_after = eol - c->in > 8 && !memcmp(eol - 8, "HTTP/1.0", 8);
    for (char *p = eol + 2; p < head_end; p = strstr(p, "\r\n") + 2) {
        if (!strncasecmp(p, "content-length:", 15)) body_len = atoi(p + 15);
        else if (!strncasecmp(p, "transfer-encoding: chunked", 26)) chunked = 1;
        else if (!strncasecmp(p, "connection: close", 17)) c->close_after = 1;
    }
    if (chunked) {
        int consumed = dechunk(c->in + head, c->in + c->in_len, &body_len);
        if (consumed < 0) return 0;
        used = head + consumed;
    } else {
        if (body_len < 0 || c->in_len < head + body_len) return 0;
        used = head + body_len;
    }
    char method[16] = "", path[1024] = "";
    *eol = 0;
    if (sscanf(c->in, "%15s %1023s", method, path) != 2) {
        close_connection(c);
        return 0;
    }
    handle(c, method, path, c->in + head, body_len);
    if (c->dead) return 0;
    memmove(c->in, c->in + used, c->in_len - used);
    c->in_len -= used;
    c->in[c->in_len] = 0;
    return c->in_len > 0;
}
static void read_in(connection *c) {
    for (;;) {
        if (c->in_len == c->in_cap) c->in = realloc(c->in, (c->in_cap *= 2) + 1);
        ssize_t n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (n <= 0) return close_connection(c);
        c->in_len += n;
        c->in[c->in_len] = 0;
        if (c->in_len < c->in_cap) break;
    }
    while (take_request(c)) continue;
}
static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->place = -1;
        c->in_cap = 4096;
        c->in = malloc(c->in_cap + 1);
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}
static void ready(connection *c, uint32_t events) {
    if (c->dead) return;
    if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) return close_connection(c);
    if (events & EPOLLOUT) flush_out(c);
    if (!c->dead && events & EPOLLIN) read_in(c);
}
static void emit_due(void) {
    uint64_t now = now_ns();
    for (int budget = 4096; budget && heap_len && heap[0]->due <= now; budget--) {
        connection *c = heap[0];
        step(c, now);
        while (!c->dead && c->in_len && take_request(c)) continue;
    }
}
static void serve(int listener) {
    static struct epoll_event events[512];
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        struct timespec wait = {0}, *until = NULL;
        if (heap_len) {
            uint64_t now = now_ns(), ns = heap[0]->due > now ? heap[0]->due - now : 0;
            wait.tv_sec = ns / 1000000000ull;
            wait.tv_nsec = ns % 1000000000ull;
            until = &wait;
        }
        int n = epoll_pwait2(poll_fd, events, 512, until, NULL);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) ready(events[i].data.ptr, events[i].events);
            else accept_all(listener);
        }
        emit_due();
        free_the_dead();
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    if (bind(fd, (void *)&a, sizeof a) || listen(fd, 8192) || getsockname(fd, (void *)&a, &len)) {
        perror("stub: cannot listen");
        exit(1);
    }
    printf("port %d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}
static char *read_file(const char *path) {
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 1 << 20);
    if (!f || !fread(text, 1, (1 << 20) - 1, f)) {
        perror(path);
        exit(2);
    }
    fclose(f);
    return text;
}
int main(int argc, char **argv) {
    struct {
        const char *name;
        long *value;
    } numbers[] = {{"--tokens", &tokens}, {"--interval-us", &interval_us}, {"--first-us", &first_us}, {"--size", &size},
                   {"--together", &together}, {"--id-base", &id_base}, {"--id-count", &id_count}, {"--tick-us", &tick_us}};
    int port = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        int known = 1;
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--metadata")) metadata = read_file(argv[i + 1]);
        else if (!strcmp(argv[i], "--config")) config = read_file(argv[i + 1]);
        else known = 0;
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            if (!strcmp(argv[i], numbers[k].name)) *numbers[k].value = atol(argv[i + 1]), known = 1;
        if (!known) return fprintf(stderr, "stub: unknown option %s\n", argv[i]), 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);      // the runner's end is ours
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0); // 1 us instead of 50 us
    serve(listen_on(port));
}
