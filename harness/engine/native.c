/* Flash attention in AVX-512's bfloat16 dot products: queries lie in the lanes, keys are broadcast.

   With a query to each lane, maximum, exponent and sum over keys need nothing across lanes, and
   keys are read where they lie. Tiles of keys go by under an online softmax: Dao 2023, algorithm 1,
   https://arxiv.org/abs/2307.08691

   Of one key head and n = heads / key heads, row r is token r / n of head r % n: a key is read once
   for all heads that share it, and rows stay in the order of their tokens. */

#include "native.h"

enum { TILE = 256 }; /* keys under one maximum: their scores and values stay in the cache */

typedef struct {
    const uint16_t *q, *k, *v;
    uint16_t *out;
    float *lse;
    int64_t heads, key_heads, queries, keys, dim;
    Stride of_q, of_k, of_v, of_out, of_lse;
    int causal;
    float scale; /* to logarithms of base 2 */
    int64_t groups, pieces; /* at most so many groups a piece of work; pieces a key head */
    atomic_llong next;
} Call;

typedef struct {
    uint32_t q[WIDEST / 2 * GROUP]; /* (pairs of channels, GROUP) */
    float out[GROUP * WIDEST];      /* (GROUP, channels), not yet divided by the sum */
    float top[GROUP];               /* the largest scaled score so far */
    float sum[GROUP];               /* of 2^(score - top) */
    int32_t last[GROUP];            /* the last key it sees, in rising order */
} Group;

typedef struct {
    Group groups[MOST];
    float scores[TILE * GROUP];
    uint32_t p[TILE / 2 * GROUP];
    uint32_t values[TILE / 2 * WIDEST];
    float shrink[GROUP]; /* what a higher top makes of earlier sums */
} Scratch; /* of a thread; all of it aligned, as every member is whole vectors */

/* Scores of a tile's keys, (keys, GROUP), -infinity where a query does not see the key; `top` grows
   to their maximum. */
static void score(const Call *c, const Group *g, const uint16_t *k, int64_t first, int keys,
                  float *scores, __m512 top[WIDE]) {
    for (int begin = 0; begin < keys; begin += KEYS) {
        const uint16_t *row[KEYS];
        __m512 s[KEYS][WIDE];
        UNROLL for (int i = 0; i < KEYS; i++) {
            /* Past the end any key will do: it is masked. */
            row[i] = k + smaller(begin + i, keys - 1) * c->of_k.token;
            UNROLL for (int w = 0; w < WIDE; w++) s[i][w] = _mm512_setzero_ps();
        }
        add_products(s, row, g->q, c->dim / 2);
        if (first + begin + KEYS - 1 > g->last[0])
            UNROLL for (int i = 0; i < KEYS; i++) UNROLL for (int w = 0; w < WIDE; w++) {
                __mmask16 seen = seeing(g->last + w * LANES, first + begin + i);
                s[i][w] = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen, s[i][w]);
            }
        UNROLL for (int i = 0; i < KEYS; i++) UNROLL for (int w = 0; w < WIDE; w++) {
            top[w] = _mm512_max_ps(top[w], s[i][w]);
            _mm512_store_ps(scores + (begin + i) * GROUP + w * LANES, s[i][w]);
        }
    }
}

/* Scores to probabilities over 2^top, two keys beside each other, (pairs of keys, GROUP). */
static void exponentiate(const Call *c, Scratch *s, Group *g, int pairs, const __m512 tops[WIDE]) {
    const __m512 scale = _mm512_set1_ps(c->scale);
    __m512 top[WIDE], sum[WIDE];
    UNROLL for (int w = 0; w < WIDE; w++) {
        __m512 before = _mm512_load_ps(g->top + w * LANES);
        top[w] = _mm512_max_ps(before, _mm512_mul_ps(tops[w], scale));
        __m512 less = exp2_of(_mm512_sub_ps(before, top[w]));
        sum[w] = _mm512_mul_ps(_mm512_load_ps(g->sum + w * LANES), less);
        _mm512_store_ps(s->shrink + w * LANES, less);
        _mm512_store_ps(g->top + w * LANES, top[w]);
    }
    for (int pair = 0; pair < pairs; pair++) UNROLL for (int w = 0; w < WIDE; w++) {
        const float *at = s->scores + 2 * pair * GROUP + w * LANES;
        __m512 even = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(at), scale, top[w]));
        __m512 odd = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(at + GROUP), scale, top[w]));
        sum[w] = _mm512_add_ps(sum[w], _mm512_add_ps(even, odd));
        __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
        _mm512_store_si512(s->p + pair * GROUP + w * LANES, zipped(rounded));
    }
    UNROLL for (int w = 0; w < WIDE; w++) _mm512_store_ps(g->sum + w * LANES, sum[w]);
}

/* Queries from row `begin`, a query a lane, two channels beside each other; rows past the end
   repeat the last one. */
static void begin_group(const Call *c, Group *g, int64_t key_head, int64_t begin) {
    const int64_t n = c->heads / c->key_heads, pairs = c->dim / 2;
    for (int lane = 0; lane < GROUP; lane++) {
        int64_t row = smaller(begin + lane, n * c->queries - 1);
        int64_t head = key_head * n + row % n, token = row / n;
        const uint16_t *q = c->q + head * c->of_q.head + token * c->of_q.token;
        for (int64_t pair = 0; pair < pairs; pair++)
            memcpy(g->q + pair * GROUP + lane, q + 2 * pair, sizeof *g->q);
        g->last[lane] = (int32_t)(c->causal ? token : c->keys - 1);
        g->top[lane] = -INFINITY;
        g->sum[lane] = 0;
    }
    memset(g->out, 0, sizeof(float) * GROUP * c->dim);
}

static void end_group(const Call *c, const Group *g, int64_t key_head, int64_t begin) {
    const int64_t n = c->heads / c->key_heads;
    for (int lane = 0; lane < GROUP && begin + lane < n * c->queries; lane++) {
        int64_t head = key_head * n + (begin + lane) % n, token = (begin + lane) / n;
        uint16_t *out = c->out + head * c->of_out.head + token * c->of_out.token;
        for (int64_t d = 0; d < c->dim; d += LANES) {
            __m512 o = _mm512_div_ps(_mm512_load_ps(g->out + lane * c->dim + d),
                                     _mm512_set1_ps(g->sum[lane]));
            store_rounded(out + d, o);
        }
        c->lse[head * c->of_lse.head + token * c->of_lse.token] =
            (g->top[lane] + log2f(g->sum[lane])) * (float)M_LN2;
    }
}

static void attend_to_tile(const Call *c, Scratch *s, Group *g, const uint16_t *k, int64_t first,
                           int keys) {
    const int pairs = (int)round_up(keys, KEYS) / 2;
    __m512 tops[WIDE];
    UNROLL for (int w = 0; w < WIDE; w++) tops[w] = _mm512_set1_ps(-INFINITY);
    score(c, g, k, first, keys, s->scores, tops);
    exponentiate(c, s, g, pairs, tops);
    add_weighted(GROUP, s->p, 1, GROUP, s->values, pairs, c->dim, s->shrink, g->out);
}

static void work(void *argument) {
    Call *c = argument;
    const int64_t rows = c->heads / c->key_heads * c->queries;
    Scratch *s = aligned_alloc(64, sizeof *s);
    if (!s) return; /* the other threads do it all */
    for (int64_t item; (item = atomic_fetch_add(&c->next, 1)) < c->pieces * c->key_heads;) {
        /* The last rows first: where causal, they are the longest. */
        const int64_t head = item % c->key_heads, piece = c->pieces - 1 - item / c->key_heads;
        const int64_t begin = piece * c->groups * GROUP;
        int count = 0;
        for (; count < c->groups && begin + count * GROUP < rows; count++)
            begin_group(c, s->groups + count, head, begin + count * GROUP);
        const int64_t end = s->groups[count - 1].last[GROUP - 1] + 1;
        for (int64_t first = 0; first < end; first += TILE) {
            const uint16_t *k = c->k + head * c->of_k.head + first * c->of_k.token;
            const uint16_t *v = c->v + head * c->of_v.head + first * c->of_v.token;
            const int all = smaller(end - first, TILE);
            pack_rows(v, c->of_v.token, all, (int)round_up(all, KEYS), c->dim, s->values);
            for (Group *g = s->groups; g < s->groups + count; g++) {
                const int keys = smaller(g->last[GROUP - 1] + 1 - first, TILE);
                if (keys > 0) attend_to_tile(c, s, g, k, first, keys);
            }
        }
        for (int i = 0; i < count; i++) end_group(c, s->groups + i, head, begin + i * GROUP);
    }
    free(s);
}

/* Attention of queries (heads, queries, dim) over keys and values (key heads, keys, dim), dim a
   multiple of 16; sizes and strides as in Call. Not 0 if there is no memory. */
int attend(const void *q, const void *k, const void *v, void *out, float *lse,
           const int64_t sizes[5], const Stride strides[5], int causal, float scale, Team team,
           int threads) {
    Call c = {q, k, v, out, lse, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4],
              strides[0], strides[1], strides[2], strides[3], strides[4],
              causal, scale * (float)M_LOG2E, .groups = MOST};
    const int64_t groups = (c.heads / c.key_heads * c.queries + GROUP - 1) / GROUP;
    /* Few pieces for the threads would leave some idle at the end. */
    while (c.groups > 1 && (groups + c.groups - 1) / c.groups * c.key_heads < 4 * threads)
        c.groups /= 2;
    c.pieces = (groups + c.groups - 1) / c.groups;
    atomic_init(&c.next, 0);
    in_threads(work, &c, team, threads, c.pieces * c.key_heads);
    return atomic_load(&c.next) < c.pieces * c.key_heads;
}
