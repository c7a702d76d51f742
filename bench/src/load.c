// Load on an HTTP/1.1 server of chat answers: requests, or streams whose every token is counted and timed.
//
//   load requests -p PORT -c 64 -d 6 -w 2          closed loop over keep-alive connections, plain answers
//   load rate     -p PORT -c 256 -r 200 -d 8 -w 2  open loop; latency counts from the scheduled time
//   load streams  -p PORT -c 256 -d 8 -w 2         closed loop of streams
//   load streams  -p PORT -c 2000 --rounds 1       that many streams per connection, then the end
//   load leave    -p PORT -c 50                    opens streams, waits for every first token, closes all at once
//   common: --tokens N (every stream must have so many)  --body FILE  --path P  -H 'K: V'  --ramp S  --timeout S
//           --unique TEXT   wherever the body has this, every request has a number of its own, of as many digits
//           --mark ns | id   how a token tells its time (see stub.c); --tick-us, --id-count as given to the stub
//           --cpu NAME=pid,pid,...   CPU seconds of processes over the measured window
//
// -w seconds of warming come before the -d seconds that are measured. Prints one JSON object. Never outlives
// warming + measuring (or --timeout with --rounds) by more than ten seconds.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
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

#define MAX_CONNECTIONS 20000

enum { REQUESTS, RATE, STREAMS, LEAVE };
enum state { IDLE, CONNECTING, HEAD, BODY };
enum chunk_state { SIZE_LINE, DATA, AFTER_DATA, TRAILER };

typedef struct connection {
    int fd, rounds, fresh, sent, wants_out;
    enum state state;
    char *head;
    int head_len, head_cap;
    long body_left; // of Content-Length; -1: not given
    int chunked, status, close_after, events, done;
    enum chunk_state chunk_state;
    long chunk_left;
    char line[16384], size_line[32]; // the event line and the chunk size in the making
    int line_len, size_len;
    uint64_t scheduled, first_token, last_token, start_at;
    long tokens;
    uint64_t number; // of the request under way, see --unique
} connection;

// ---- settings

static int mode, count = 64, port, rounds, tokens = 100, mark_is_id;
static double measure_s = 6, warm_s = 2, ramp_s = 0, rate = 200, timeout_s = 60;
static long tick_us = 50, id_count = 131072;
static const char *path = "/v1/chat/completions";
static char headers[8192], *request;
static int request_len;
static const char *unique = "";
static char *unique_at[16]; // its places in the request, which all connections share
static int unique_len, n_unique;
static uint64_t next_number; // begins with the time, so that no other run has the same

// ---- what is measured

typedef struct {
    float *values;
    long n, cap;
} samples;
static samples latency, first_ms, between_ms, transit_ms;
static long answers, streams_ok, tokens_seen, failed_status, failed_connection, failed_short, connects, late;
static int last_status, measuring, stopping, live, first_tokens;
static char failure_body[256];
static uint64_t window_begins, window_ends, closed_at_ns;

static connection **all, **idle, **again;
static int idle_len, again_len, poll_fd;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}
static void add(samples *s, double ms) {
    if (!measuring) return;
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 65536;
        s->values = realloc(s->values, s->cap * sizeof(float));
    }
    s->values[s->n++] = ms;
}
static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}
static double percentile(samples *s, double p) {
    long i = (long)ceil(p / 100 * s->n) - 1;
    return s->values[i < 0 ? 0 : i];
}
static void print_samples(const char *name, samples *s) {
    if (!s->n) {
        printf("\"%s\":null,", name);
        return;
    }
    qsort(s->values, s->n, sizeof(float), by_value);
    printf("\"%s\":{\"n\":%ld,\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"max\":%.4f},", name, s->n, percentile(s, 50),
           percentile(s, 90), percentile(s, 99), s->values[s->n - 1]);
}

// ---- one connection

static void start(connection *c, uint64_t scheduled);

static void want_out(connection *c, int wanted) {
    if (c->wants_out == wanted) return;
    c->wants_out = wanted;
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &e);
}
static void close_fd(connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}
// The answer is over, well or not; what comes next depends on the mode.
static void over(connection *c, int good) {
    live--;
    c->state = IDLE;
    c->rounds++;
    if (stopping || mode == LEAVE) return;
    if (mode == RATE) idle[idle_len++] = c;
    else if (rounds && c->rounds >= rounds) return;
    else if (good) start(c, 0);
    else { // no busy loop on errors
        c->start_at = now_ns() + 20000000ull;
        again[again_len++] = c;
    }
}
static void broken(connection *c) {
    failed_connection++;
    close_fd(c);
    over(c, 0);
}
static void number_request(uint64_t number) {
    char digits[24];
    for (int i = unique_len - 1; i >= 0; i--, number /= 10) digits[i] = '0' + number % 10;
    for (int i = 0; i < n_unique; i++) memcpy(unique_at[i], digits, unique_len);
}
static void write_request(connection *c) {
    number_request(c->number); // another connection's may stand there
    while (c->sent < request_len) {
        ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return want_out(c, 1);
        if (n < 0) return broken(c);
        c->sent += n;
    }
    want_out(c, 0);
}
static void start(connection *c, uint64_t scheduled) {
    c->scheduled = scheduled ? scheduled : now_ns();
    c->first_token = c->last_token = 0;
    c->tokens = c->sent = c->head_len = c->line_len = c->size_len = c->chunked = c->status = c->done = c->events = 0;
    c->close_after = 0;
    c->number = next_number++;
    c->body_left = -1;
    c->chunk_state = SIZE_LINE;
    live++;
    c->fresh = c->fd < 0;
    c->state = c->fresh ? CONNECTING : HEAD;
    if (!c->fresh) return write_request(c);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("load: socket");
        exit(1);
    }
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(c->fd, (void *)&a, sizeof a) && errno != EINPROGRESS) return broken(c);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP, .data.ptr = c};
    c->wants_out = 1;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &e);
    connects++;
}
static void answered(connection *c) {
    int good = c->status == 200;
    int is_stream = mode == STREAMS || mode == LEAVE;
    if (!good) {
        failed_status++;
        last_status = c->status;
    } else if (is_stream && c->tokens != tokens) {
        good = 0;
        failed_short++;
    } else if (is_stream) {
        streams_ok += measuring;
    } else if (measuring && (mode != RATE || c->scheduled >= window_begins)) {
        answers++;
        add(&latency, (now_ns() - c->scheduled) / 1e6);
    }
    if (c->close_after) close_fd(c);
    over(c, good);
}

// ---- tokens by their marks: " t" and 16 digits of ns, or " t" and 6 digits of ticks

static int digits_at(const char *p, const char *end) {
    int n = 0;
    while (p + n < end && p[n] >= '0' && p[n] <= '9') n++;
    return n;
}
static double age_ms(uint64_t mark, uint64_t now) {
    if (!mark_is_id) return ((double)now - (double)mark) / 1e6;
    uint64_t tick = now / 1000 / tick_us % id_count;
    return (tick + id_count - mark) % id_count * tick_us / 1e3;
}
static void token(connection *c, uint64_t now) {
    c->tokens++;
    tokens_seen += measuring;
    if (c->first_token) {
        add(&between_ms, (now - c->last_token) / 1e6);
    } else {
        c->first_token = now;
        first_tokens++;
        if (rounds || c->scheduled >= window_begins) add(&first_ms, (now - c->scheduled) / 1e6);
    }
    c->last_token = now;
}
// `output_ids` of a Triton answer: the ids themselves are the marks, once --id-base is taken off.
static long id_base = 4096;
static void ids(connection *c, const char *p, const char *end, uint64_t now) {
    while (p < end && *p != '}' && *p != '"') {
        int n = digits_at(p, end);
        if (n) {
            token(c, now);
            add(&transit_ms, age_ms(strtoull(p, NULL, 10) - id_base, now));
        }
        p += n ? n : 1;
    }
}
static void event_line(connection *c, uint64_t now) {
    const char *p = c->line, *end = c->line + c->line_len;
    if (c->line_len < 6 || memcmp(p, "data:", 5)) return;
    const char *raw = memmem(p, end - p, "\"output_ids\":", 13);
    if (raw) return ids(c, raw + 13, end, now);
    int wanted = mark_is_id ? 6 : 16;
    while ((p = memmem(p, end - p, " t", 2))) {
        p += 2;
        if (digits_at(p, end) != wanted) continue;
        token(c, now);
        add(&transit_ms, age_ms(strtoull(p, NULL, 10), now));
        p += wanted;
    }
}
static void body_bytes(connection *c, const char *p, long n, uint64_t now) {
    if (c->status != 200) {
        if (!failure_body[0]) snprintf(failure_body, sizeof failure_body, "%.*s", (int)n, p);
        return;
    }
    if (mode != STREAMS && mode != LEAVE) return;
    while (n > 0) {
        const char *eol = memchr(p, '\n', n);
        long len = eol ? eol - p : n;
        if (c->line_len + len < (long)sizeof c->line) {
            memcpy(c->line + c->line_len, p, len);
            c->line_len += len;
        }
        if (!eol) return;
        c->line[c->line_len] = 0;
        event_line(c, now);
        c->line_len = 0;
        p += len + 1;
        n -= len + 1;
    }
}

// ---- HTTP/1.1 answers; each returns 1 when the body has ended

static int chunked_bytes(connection *c, const char *p, long n, uint64_t now) {
    while (n > 0) {
        long used = 1;
        switch (c->chunk_state) {
        case SIZE_LINE:
            if (*p == '\n') {
                c->size_line[c->size_len] = 0;
                c->size_len = 0;
                c->chunk_left = strtol(c->size_line, NULL, 16);
                c->chunk_state = c->chunk_left ? DATA : TRAILER;
            } else if (c->size_len < (int)sizeof c->size_line - 1) {
                c->size_line[c->size_len++] = *p;
            }
            break;
        case DATA:
            used = n < c->chunk_left ? n : c->chunk_left;
            body_bytes(c, p, used, now);
            c->chunk_left -= used;
            if (!c->chunk_left) c->chunk_state = AFTER_DATA;
            break;
        case AFTER_DATA:
            if (*p == '\n') c->chunk_state = SIZE_LINE;
            break;
        case TRAILER:
            if (*p == '\n' && !c->size_len) return 1;
            c->size_len = *p == '\n' ? 0 : c->size_len + (*p != '\r');
        }
        p += used;
        n -= used;
    }
    return 0;
}
static int body(connection *c, const char *p, long n, uint64_t now) {
    if (c->chunked) return chunked_bytes(c, p, n, now);
    long used = c->body_left >= 0 && n > c->body_left ? c->body_left : n;
    body_bytes(c, p, used, now);
    if (c->body_left >= 0) c->body_left -= used;
    return c->body_left == 0;
}
// Takes the head; returns bytes of `n` that belong to it, or -1 while it is incomplete.
static long take_head(connection *c, const char *p, long n) {
    if (c->head_len + n + 1 > c->head_cap) c->head = realloc(c->head, c->head_cap = (c->head_len + n + 1) * 2);
    memcpy(c->head + c->head_len, p, n);
    int before = c->head_len;
    c->head_len += n;
    c->head[c->head_len] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return -1;
    c->status = atoi(c->head + 9);
    for (char *h = strstr(c->head, "\r\n") + 2; h < end; h = strstr(h, "\r\n") + 2) {
        if (!strncasecmp(h, "content-length:", 15)) c->body_left = atol(h + 15);
        else if (!strncasecmp(h, "transfer-encoding: chunked", 26)) c->chunked = 1;
        else if (!strncasecmp(h, "connection: close", 17)) c->close_after = 1;
    }
    c->state = BODY;
    return end + 4 - c->head - before;
}
static void closed(connection *c) {
    int ends_here = c->state == BODY && !c->chunked && c->body_left < 0;
    int keep_alive_race = c->state == HEAD && !c->fresh && !c->head_len;
    if (ends_here) {
        c->close_after = 1;
        return answered(c);
    }
    if (!keep_alive_race) return broken(c);
    close_fd(c);
    live--;
    start(c, c->scheduled);
}
static void read_answer(connection *c) {
    static char buffer[262144];
    for (;;) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (c->state == IDLE) return n > 0 ? (void)0 : close_fd(c);
        if (n <= 0) return closed(c);
        uint64_t now = now_ns();
        long used = 0;
        if (c->state == HEAD && (used = take_head(c, buffer, n)) < 0) continue;
        if (c->body_left == 0 && !c->chunked) return answered(c);
        if (n > used && body(c, buffer + used, n - used, now)) return answered(c);
        if (n < (ssize_t)sizeof buffer) return;
    }
}
static void ready(connection *c, uint32_t events) {
    if (c->fd < 0) return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error) return broken(c);
        if (!(events & EPOLLOUT)) return;
        c->state = HEAD;
    }
    if (events & EPOLLOUT) write_request(c);
    if (c->fd >= 0 && events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) read_answer(c);
}

// ---- CPU of others

typedef struct {
    char name[64];
    int pids[256], n;
    double before_s, used_s;
} group;
static group groups[8];
static int n_groups;

static double cpu_s(int pid) {
    char file[64], text[1024];
    snprintf(file, sizeof file, "/proc/%d/stat", pid);
    FILE *f = fopen(file, "r");
    if (!f) return 0;
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    char *p = strrchr(text, ')');
    unsigned long user = 0, system = 0;
    if (p) sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (user + system) / (double)sysconf(_SC_CLK_TCK);
}
static void read_groups(int at_end) {
    for (group *g = groups; g < groups + n_groups; g++) {
        double sum = 0;
        for (int i = 0; i < g->n; i++) sum += cpu_s(g->pids[i]);
        if (at_end) g->used_s = sum - g->before_s;
        else g->before_s = sum;
    }
}
static void add_group(char *text) {
    char *pids = strchr(text, '=');
    if (!pids || n_groups == 8) return;
    group *g = &groups[n_groups++];
    *pids++ = 0;
    snprintf(g->name, sizeof g->name, "%s", text);
    for (char *p = strtok(pids, ","); p && g->n < 256; p = strtok(NULL, ",")) g->pids[g->n++] = atoi(p);
}

// ---- the run

static uint64_t start_due(uint64_t now, uint64_t begun, uint64_t next) {
    static int started;
    static uint64_t scheduled;
    if (mode == RATE) {
        uint64_t gap = 1e9 / rate;
        if (!scheduled) scheduled = begun;
        for (; scheduled <= now && idle_len; scheduled += gap) start(idle[--idle_len], scheduled);
        if (scheduled <= now) late++;
        return scheduled < next ? scheduled : next;
    }
    while (started < count && all[started]->start_at <= now) start(all[started++], 0);
    if (started < count && all[started]->start_at < next) next = all[started]->start_at;
    for (int i = 0; i < again_len;) {
        connection *c = again[i];
        if (c->start_at > now) {
            if (c->start_at < next) next = c->start_at;
            i++;
            continue;
        }
        again[i] = again[--again_len];
        start(c, 0);
    }
    return next;
}
static int all_done(void) {
    int finished = 0;
    if (mode == LEAVE) return first_tokens >= count;
    if (!rounds) return 0;
    for (int i = 0; i < count; i++) finished += all[i]->rounds >= rounds;
    return finished == count;
}
static void run(void) {
    static struct epoll_event events[1024];
    uint64_t begun = now_ns();
    for (int i = 0; i < count; i++) {
        all[i] = calloc(1, sizeof(connection));
        all[i]->fd = -1;
        all[i]->start_at = begun + (uint64_t)(ramp_s * 1e9 * i / count);
        if (mode == RATE) idle[idle_len++] = all[i];
    }
    int bounded_by_count = rounds || mode == LEAVE;
    window_begins = begun + (bounded_by_count ? 0 : warm_s * 1e9);
    window_ends = bounded_by_count ? begun + timeout_s * 1e9 : window_begins + measure_s * 1e9;
    for (uint64_t now = begun; now < window_ends && !all_done(); now = now_ns()) {
        if (!measuring && now >= window_begins) {
            measuring = 1;
            window_begins = now;
            read_groups(0);
        }
        uint64_t next = start_due(now, begun, measuring ? window_ends : window_begins);
        now = now_ns();
        uint64_t ns = next > now ? next - now : 0;
        struct timespec wait = {ns / 1000000000ull, ns % 1000000000ull};
        int n = epoll_pwait2(poll_fd, events, 1024, &wait, NULL);
        for (int i = 0; i < n; i++) ready(events[i].data.ptr, events[i].events);
    }
    window_ends = now_ns();
    read_groups(1);
    measuring = 0;
    stopping = 1;
    closed_at_ns = now_ns();
    for (int i = 0; i < count; i++) close_fd(all[i]);
}
static void report(const char *name) {
    double window_s = (window_ends - window_begins) / 1e9;
    long unfinished = 0;
    for (int i = 0; rounds && i < count; i++) unfinished += all[i]->rounds < rounds;
    printf("{\"mode\":\"%s\",\"connections\":%d,\"window_s\":%.4f,\"answers\":%ld,\"requests_per_s\":%.2f,", name, count,
           window_s, answers, answers / window_s);
    printf("\"streams_ok\":%ld,\"tokens\":%ld,\"tokens_per_s\":%.1f,\"closed_at_ns\":%llu,", streams_ok, tokens_seen,
           tokens_seen / window_s, (unsigned long long)closed_at_ns);
    print_samples("latency_ms", &latency);
    print_samples("ttft_ms", &first_ms);
    print_samples("itl_ms", &between_ms);
    print_samples("transit_ms", &transit_ms);
    printf("\"cpu_s\":{");
    for (int i = 0; i < n_groups; i++) printf("%s\"%s\":%.3f", i ? "," : "", groups[i].name, groups[i].used_s);
    for (char *p = failure_body; *p; p++)
        if (*p == '"' || *p == '\\' || *p < 32 || *p > 126) *p = '\'';
    printf("},\"connects\":%ld,\"late\":%ld,\"failed\":{\"status\":%ld,\"connection\":%ld,\"short\":%ld,\"unfinished\":%ld,"
           "\"last_status\":%d,\"body\":\"%s\"}}\n",
           connects, late, failed_status, failed_connection, failed_short, unfinished, last_status, failure_body);
}

static int make_request(const char *body_file) {
    static char text[1 << 20];
    FILE *f = fopen(body_file, "r");
    if (!f) {
        perror(body_file);
        return 0;
    }
    int n = fread(text, 1, sizeof text, f);
    fclose(f);
    request = malloc(n + 16384);
    request_len = sprintf(request,
                          "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                          "Accept: */*\r\n%sContent-Length: %d\r\n\r\n",
                          path, port, headers, n);
    char *begin = request + request_len, *end = begin + n;
    memcpy(begin, text, n);
    request_len += n;
    unique_len = strlen(unique);
    next_number = now_ns();
    for (char *p = begin; unique_len && n_unique < 16 && (p = memmem(p, end - p, unique, unique_len)); p += unique_len)
        unique_at[n_unique++] = p;
    return 1;
}
static int usage(const char *what) {
    fprintf(stderr, "load: %s (see the head of load.c)\n", what);
    return 2;
}
int main(int argc, char **argv) {
    static const char *modes[] = {"requests", "rate", "streams", "leave"};
    const char *body_file = NULL;
    for (mode = 0; mode < 4 && (argc < 2 || strcmp(argv[1], modes[mode])); mode++) continue;
    if (mode == 4) return usage("mode must be requests, rate, streams or leave");
    for (int i = 2; i + 1 < argc; i += 2) {
        char *k = argv[i], *v = argv[i + 1];
        if (!strcmp(k, "-p")) port = atoi(v);
        else if (!strcmp(k, "-c")) count = atoi(v);
        else if (!strcmp(k, "-d")) measure_s = atof(v);
        else if (!strcmp(k, "-w")) warm_s = atof(v);
        else if (!strcmp(k, "-r")) rate = atof(v);
        else if (!strcmp(k, "--tokens")) tokens = atoi(v);
        else if (!strcmp(k, "--rounds")) rounds = atoi(v);
        else if (!strcmp(k, "--ramp")) ramp_s = atof(v);
        else if (!strcmp(k, "--timeout")) timeout_s = atof(v);
        else if (!strcmp(k, "--path")) path = v;
        else if (!strcmp(k, "--body")) body_file = v;
        else if (!strcmp(k, "--unique")) unique = v;
        else if (!strcmp(k, "--mark")) mark_is_id = !strcmp(v, "id");
        else if (!strcmp(k, "--tick-us")) tick_us = atol(v);
        else if (!strcmp(k, "--id-base")) id_base = atol(v);
        else if (!strcmp(k, "--id-count")) id_count = atol(v);
        else if (!strcmp(k, "--cpu")) add_group(v);
        else if (!strcmp(k, "-H") && strlen(headers) + strlen(v) + 3 < sizeof headers) strcat(strcat(headers, v), "\r\n");
        else return usage(k);
    }
    if (!body_file || port < 1) return usage("-p and --body are needed");
    if (count < 1 || count > MAX_CONNECTIONS) return usage("-c must be 1 to 20000");
    if (rate <= 0 || measure_s > 600 || warm_s > 600 || timeout_s > 600) return usage("a rate above 0, times up to 600 s");
    if (strlen(unique) > 20) return usage("--unique may have up to 20 characters");
    if (!make_request(body_file)) return 2;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    alarm((rounds || mode == LEAVE ? timeout_s : warm_s + measure_s) + 10);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    all = calloc(count, sizeof *all);
    idle = calloc(count, sizeof *idle);
    again = calloc(count + 1, sizeof *again);
    run();
    report(argv[1]);
    return 0;
}
