/* The gradient of causal flash attention, in one pass over keys: Dao 2023, algorithm 2, with the
   loops exchanged, https://arxiv.org/abs/2307.08691

   With P = softmax(scale Q K^T), O = P V and D = rowsum(dO * O):
       dV = P^T dO    dP = dO V^T    dS = P * (dP - D)    dQ = scale dS K    dK = scale dS^T Q

   As in native.c queries lie in the lanes and row r of a key head is token r / n of head r % n.
   Groups of queries stay in the cache while all their keys go by: with grouped queries the sums
   that must be written over and over, dK and dV, are n times fewer than dQ.

   The rows of a key head are cut into pieces of equal work, each with its own dK and dV, added up
   in their order when the head's last piece is done. Pieces do not depend on the number of threads,
   so neither does any bit of the result. */

#include "native.h"

enum {
    TILE = 96,   /* keys: a multiple of KEYS and of ROWS */
    PIECES = 16, /* at least so many in all where queries allow: what threads can share */
};

typedef struct {
    const uint16_t *q, *k, *v, *out, *grad;
    const float *lse;
    uint16_t *dq, *dk, *dv;
    int64_t heads, key_heads, tokens, dim;
    Stride of_q, of_k, of_v, of_out, of_grad, of_lse, of_dq, of_dk, of_dv;
    float scale;
    int64_t groups, pieces; /* of a key head */
    float **sums;           /* of each piece: dK and dV, each (keys it sees, dim) */
    atomic_int *left;       /* pieces of a key head that are not done */
    atomic_llong next;
    atomic_int failed;
} Call;

typedef struct {
    uint32_t q[WIDEST / 2 * GROUP], grad[WIDEST / 2 * GROUP]; /* (pairs of channels, GROUP) */
    uint32_t q_rows[GROUP / 2 * WIDEST], grad_rows[GROUP / 2 * WIDEST]; /* (pairs, channels) */
    float dq[GROUP * WIDEST];                                           /* (GROUP, channels) */
    float lse[GROUP];                                                   /* of base 2 */
    float minus_delta[GROUP];
    int32_t last[GROUP]; /* the last key it sees, in rising order */
} Group;

typedef struct {
    Group groups[MOST];
    uint16_t p[TILE * GROUP], ds[TILE * GROUP]; /* (keys, GROUP) */
    uint32_t ds_pairs[TILE / 2 * GROUP];        /* (pairs of keys, GROUP) */
    uint32_t keys[TILE / 2 * WIDEST];           /* (pairs of keys, channels) */
} Scratch; /* of a thread; all of it aligned, as every member is whole vectors */

/* P and dS of a tile's keys, zero where a query does not see the key. */
static void differentiate(const Call *c, Scratch *s, const Group *g, const uint16_t *k,
                          const uint16_t *v, int64_t first, int keys, int padded) {
    const __m512 scale = _mm512_set1_ps(c->scale * (float)M_LOG2E);
    for (int begin = 0; begin < padded; begin += KEYS) {
        const uint16_t *key[KEYS], *value[KEYS];
        __m512 p[KEYS][WIDE], ds[KEYS][WIDE];
        UNROLL for (int i = 0; i < KEYS; i++) {
            /* Past the end any key will do: nobody sees it. */
            key[i] = k + smaller(begin + i, keys - 1) * c->of_k.token;
            value[i] = v + smaller(begin + i, keys - 1) * c->of_v.token;
            UNROLL for (int w = 0; w < WIDE; w++) p[i][w] = _mm512_setzero_ps();
        }
        add_products(p, key, g->q, c->dim / 2);
        const int masked = first + begin + KEYS - 1 > g->last[0];
        UNROLL for (int i = 0; i < KEYS; i++) UNROLL for (int w = 0; w < WIDE; w++) {
            p[i][w] = exp2_of(
                _mm512_fmsub_ps(p[i][w], scale, _mm512_load_ps(g->lse + w * LANES)));
            if (masked)
                p[i][w] = _mm512_maskz_mov_ps(seeing(g->last + w * LANES, first + begin + i),
                                              p[i][w]);
            ds[i][w] = _mm512_load_ps(g->minus_delta + w * LANES);
        }
        add_products(ds, value, g->grad, c->dim / 2);
        UNROLL for (int i = 0; i < KEYS; i += 2) UNROLL for (int w = 0; w < WIDE; w++) {
            const int at = (begin + i) * GROUP + w * LANES;
            __m512i two = (__m512i)_mm512_cvtne2ps_pbh(p[i + 1][w], p[i][w]);
            _mm256_store_si256((void *)(s->p + at), _mm512_castsi512_si256(two));
            _mm256_store_si256((void *)(s->p + at + GROUP), _mm512_extracti64x4_epi64(two, 1));
            two = (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(p[i + 1][w], ds[i + 1][w]),
                                               _mm512_mul_ps(p[i][w], ds[i][w]));
            _mm256_store_si256((void *)(s->ds + at), _mm512_castsi512_si256(two));
            _mm256_store_si256((void *)(s->ds + at + GROUP), _mm512_extracti64x4_epi64(two, 1));
            _mm512_store_si512(s->ds_pairs + (begin + i) / 2 * GROUP + w * LANES, zipped(two));
        }
    }
}

/* Queries from row `begin` with all that is theirs; rows past the end have no gradient. */
static void begin_group(const Call *c, Group *g, int64_t key_head, int64_t begin) {
    const int64_t n = c->heads / c->key_heads, rows = n * c->tokens, dim = c->dim;
    const uint16_t *q[GROUP], *grad[GROUP];
    for (int lane = 0; lane < GROUP; lane++) {
        const int64_t row = smaller(begin + lane, rows - 1), token = row / n;
        const int64_t head = key_head * n + row % n;
        q[lane] = c->q + head * c->of_q.head + token * c->of_q.token;
        grad[lane] = c->grad + head * c->of_grad.head + token * c->of_grad.token;
        const uint16_t *out = c->out + head * c->of_out.head + token * c->of_out.token;
        const int there = begin + lane < rows;
        __m512 delta = _mm512_setzero_ps();
        for (int64_t d = 0; there && d < dim; d += LANES)
            delta = _mm512_fmadd_ps((__m512)_mm512_slli_epi32(sixteen(grad[lane] + d), 16),
                                    (__m512)_mm512_slli_epi32(sixteen(out + d), 16), delta);
        g->minus_delta[lane] = -_mm512_reduce_add_ps(delta);
        g->lse[lane] = c->lse[head * c->of_lse.head + token * c->of_lse.token] * (float)M_LOG2E;
        g->last[lane] = (int32_t)token;
        for (int64_t pair = 0; pair < dim / 2; pair++) {
            uint32_t *to = g->grad + pair * GROUP + lane;
            memcpy(g->q + pair * GROUP + lane, q[lane] + 2 * pair, sizeof *to);
            if (there) memcpy(to, grad[lane] + 2 * pair, sizeof *to);
            else *to = 0;
        }
        if (!there) grad[lane] = NULL;
    }
    for (int lane = 0; lane < GROUP; lane += 2) {
        pack_two(q[lane], q[lane + 1], dim, g->q_rows + lane / 2 * dim);
        pack_two(grad[lane], grad[lane + 1], dim, g->grad_rows + lane / 2 * dim);
    }
    memset(g->dq, 0, sizeof(float) * GROUP * dim);
}

static void end_group(const Call *c, const Group *g, int64_t key_head, int64_t begin) {
    const int64_t n = c->heads / c->key_heads;
    for (int lane = 0; lane < GROUP && begin + lane < n * c->tokens; lane++) {
        const int64_t head = key_head * n + (begin + lane) % n, token = (begin + lane) / n;
        uint16_t *dq = c->dq + head * c->of_dq.head + token * c->of_dq.token;
        for (int64_t d = 0; d < c->dim; d += LANES)
            store_rounded(dq + d, _mm512_mul_ps(_mm512_load_ps(g->dq + lane * c->dim + d),
                                                _mm512_set1_ps(c->scale)));
    }
}

static void pass_tile(const Call *c, Scratch *s, Group *g, const uint16_t *k, const uint16_t *v,
                      int64_t first, int keys, float *dk, float *dv) {
    const int padded = (int)round_up(keys, KEYS * WIDE); /* of ROWS too */
    differentiate(c, s, g, k, v, first, keys, padded);
    add_weighted(padded, (uint32_t *)s->p, GROUP / 2, 1, g->grad_rows, GROUP / 2, c->dim, NULL, dv);
    add_weighted(padded, (uint32_t *)s->ds, GROUP / 2, 1, g->q_rows, GROUP / 2, c->dim, NULL, dk);
    add_weighted(GROUP, s->ds_pairs, 1, GROUP, s->keys, padded / 2, c->dim, NULL, g->dq);
}

/* The first group of a piece: work grows with the square of the rows before. */
static int64_t first_group(const Call *c, int64_t piece) {
    return llround((double)c->groups * sqrt((double)piece / (double)c->pieces));
}

/* Keys, whole tiles of them, that the rows of a piece see. */
static int64_t reach(const Call *c, int64_t piece) {
    const int64_t n = c->heads / c->key_heads;
    const int64_t row = smaller(first_group(c, piece + 1) * GROUP, n * c->tokens) - 1;
    return round_up(row / n + 1, TILE);
}

static void pass_piece(const Call *c, Scratch *s, int64_t head, int64_t piece, float *dk) {
    const int64_t stop = first_group(c, piece + 1);
    float *dv = dk + reach(c, piece) * c->dim;
    for (int64_t start = first_group(c, piece); start < stop; start += MOST) {
        const int count = smaller(MOST, stop - start);
        for (int i = 0; i < count; i++) begin_group(c, s->groups + i, head, (start + i) * GROUP);
        const int64_t end = s->groups[count - 1].last[GROUP - 1] + 1;
        for (int64_t first = 0; first < end; first += TILE) {
            const uint16_t *k = c->k + head * c->of_k.head + first * c->of_k.token;
            const uint16_t *v = c->v + head * c->of_v.head + first * c->of_v.token;
            pack_rows(k, c->of_k.token, smaller(end - first, TILE), TILE, c->dim, s->keys);
            for (Group *g = s->groups; g < s->groups + count; g++) {
                const int keys = smaller(g->last[GROUP - 1] + 1 - first, TILE);
                if (keys > 0)
                    pass_tile(c, s, g, k, v, first, keys, dk + first * c->dim, dv + first * c->dim);
            }
        }
        for (int i = 0; i < count; i++) end_group(c, s->groups + i, head, (start + i) * GROUP);
    }
}

/* Adds up what the pieces of a key head found, and frees it. */
static void end_head(const Call *c, int64_t head) {
    float **sums = c->sums + head * c->pieces;
    int64_t reaches[PIECES], nearest = 0; /* the first piece that sees the token */
    for (int64_t i = 0; i < c->pieces; i++) reaches[i] = reach(c, i);
    for (int64_t token = 0; token < c->tokens; token++) {
        while (reaches[nearest] <= token) nearest++;
        uint16_t *dk = c->dk + head * c->of_dk.head + token * c->of_dk.token;
        uint16_t *dv = c->dv + head * c->of_dv.head + token * c->of_dv.token;
        for (int64_t d = 0; d < c->dim; d += LANES) {
            __m512 to_k = _mm512_setzero_ps(), to_v = to_k;
            for (int64_t i = nearest; i < c->pieces; i++) {
                const float *at = sums[i] + token * c->dim + d;
                to_k = _mm512_add_ps(to_k, _mm512_load_ps(at));
                to_v = _mm512_add_ps(to_v, _mm512_load_ps(at + reaches[i] * c->dim));
            }
            store_rounded(dk + d, _mm512_mul_ps(to_k, _mm512_set1_ps(c->scale)));
            store_rounded(dv + d, to_v);
        }
    }
    for (int64_t i = 0; i < c->pieces; i++) {
        free(sums[i]);
        sums[i] = NULL;
    }
}

static void work(void *argument) {
    Call *c = argument;
    Scratch *s = aligned_alloc(64, sizeof *s);
    if (!s) return; /* the other threads do it all */
    for (int64_t item; (item = atomic_fetch_add(&c->next, 1)) < c->pieces * c->key_heads;) {
        const int64_t head = item / c->pieces, piece = item % c->pieces;
        const size_t bytes = sizeof(float) * 2 * reach(c, piece) * c->dim;
        float *sums = aligned_alloc(64, bytes);
        if (!sums) {
            atomic_store(&c->failed, 1);
            break;
        }
        c->sums[item] = memset(sums, 0, bytes);
        pass_piece(c, s, head, piece, sums);
        if (atomic_fetch_sub(c->left + head, 1) == 1) end_head(c, head);
    }
    free(s);
}

/* Gradients of queries (heads, tokens, dim), keys and values (key heads, tokens, dim) from that of
   the output, dim a multiple of 16; sizes and strides as in Call. Not 0 if there is no memory. */
int attend_backward(const void *const inputs[5], const float *lse, void *const outputs[3],
                    const int64_t sizes[4], const Stride strides[9], float scale, Team team,
                    int threads) {
    Call c = {inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], lse,
              outputs[0], outputs[1], outputs[2], sizes[0], sizes[1], sizes[2], sizes[3],
              strides[0], strides[1], strides[2], strides[3], strides[4], strides[5],
              strides[6], strides[7], strides[8], scale, .next = 0};
    c.groups = round_up(c.heads / c.key_heads * c.tokens, GROUP) / GROUP;
    c.pieces = smaller((PIECES + c.key_heads - 1) / c.key_heads, (c.groups + MOST - 1) / MOST);
    const int64_t items = c.pieces * c.key_heads;
    c.sums = calloc(items, sizeof *c.sums);
    c.left = malloc(c.key_heads * sizeof *c.left);
    int failed = !c.sums || !c.left;
    if (!failed) {
        for (int64_t i = 0; i < c.key_heads; i++) atomic_init(c.left + i, (int)c.pieces);
        in_threads(work, &c, team, threads, items);
        failed = c.failed || atomic_load(&c.next) < items;
        for (int64_t i = 0; i < items; i++) free(c.sums[i]);
    }
    free(c.sums);
    free(c.left);
    return failed;
}
