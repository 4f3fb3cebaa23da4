/* What both directions of attention are made of: products in AVX-512's bfloat16 dot products.

   A GROUP of queries lies in the lanes of WIDE vectors and keys are broadcast, or channels lie in
   the lanes and queries (or keys) are broadcast. Either way, what is summed over lies in pairs. */

#pragma once

#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum {
    LANES = 16,
    WIDE = 3,             /* vectors of queries: WIDE * KEYS sums fill 24 of the 32 registers */
    GROUP = WIDE * LANES, /* queries that a key is read for */
    KEYS = 8,             /* keys multiplied together */
    ROWS = 6,             /* rows whose weighted sums are taken together */
    MOST = 4,             /* groups that share a tile of keys */
    WIDEST = 256,         /* channels */
    THREADS = 256,
};

typedef struct {
    int64_t head, token;
} Stride; /* in elements */

INLINE int smaller(int64_t a, int64_t b) {
    return (int)(a < b ? a : b);
}

INLINE int64_t round_up(int64_t x, int64_t step) {
    return (x + step - 1) / step * step;
}

/* 2^x to 2 parts in 10^7, by the best polynomial of degree 5 on [0, 1]. 0 of -infinity, and NaN
   stays NaN. */
INLINE __m512 exp2_of(__m512 x) {
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), y;
    y = _mm512_fmadd_ps(_mm512_set1_ps(0.00187757670f), f, _mm512_set1_ps(0.00898934002f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.0558263181f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.240153617f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.693153073f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.999999925f));
    return _mm512_scalef_ps(y, x); /* which takes the floor of x */
}

INLINE __m512bh both(const void *two) {
    int32_t bits;
    memcpy(&bits, two, sizeof bits);
    return (__m512bh)_mm512_set1_epi32(bits);
}

/* Adds, to sums of KEYS by GROUP, the products of rows of keys with `lanes`, (pairs, GROUP). */
INLINE void add_products(__m512 sums[KEYS][WIDE], const uint16_t *const row[KEYS],
                         const uint32_t *lanes, int64_t pairs) {
    for (int64_t pair = 0; pair < pairs; pair++) {
        __m512bh q[WIDE];
        UNROLL for (int w = 0; w < WIDE; w++)
            q[w] = (__m512bh)_mm512_load_si512(lanes + pair * GROUP + w * LANES);
        UNROLL for (int i = 0; i < KEYS; i++) {
            __m512bh key = both(row[i] + 2 * pair);
            UNROLL for (int w = 0; w < WIDE; w++)
                sums[i][w] = _mm512_dpbf16_ps(sums[i][w], q[w], key);
        }
    }
}

/* Which of WIDE queries see a key. */
INLINE __mmask16 seeing(const int32_t *last, int64_t key) {
    return _mm512_cmpge_epi32_mask(_mm512_load_si512(last), _mm512_set1_epi32((int32_t)key));
}

/* Two rows of float32 as bfloat16, the numbers of one lane beside each other. */
INLINE __m512i zipped(__m512i rounded) {
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(zip, rounded);
}

/* Sums of ROWS rows, `wide` vectors of channels: shrunk, and weighted values added. The weights of
   row r are at r * of_row, one pair after of_pair more. */
INLINE void add_some(int wide, const uint32_t *weights, int64_t of_row, int64_t of_pair,
                     const uint32_t *values, int pairs, int64_t dim, const float *shrink,
                     float *sums) {
    __m512 o[ROWS][4];
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int w = 0; w < wide; w++) {
        o[r][w] = _mm512_load_ps(sums + r * dim + w * LANES);
        if (shrink) o[r][w] = _mm512_mul_ps(o[r][w], _mm512_set1_ps(shrink[r]));
    }
    for (int pair = 0; pair < pairs; pair++) {
        __m512bh value[4];
        UNROLL for (int w = 0; w < wide; w++)
            value[w] = (__m512bh)_mm512_load_si512(values + pair * dim + w * LANES);
        UNROLL for (int r = 0; r < ROWS; r++) {
            __m512bh weight = both(weights + pair * of_pair + r * of_row);
            UNROLL for (int w = 0; w < wide; w++)
                o[r][w] = _mm512_dpbf16_ps(o[r][w], weight, value[w]);
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int w = 0; w < wide; w++)
        _mm512_store_ps(sums + r * dim + w * LANES, o[r][w]);
}

/* The same for all channels of a multiple of ROWS rows; values are (pairs, dim). */
INLINE void add_weighted(int rows, const uint32_t *weights, int64_t of_row, int64_t of_pair,
                         const uint32_t *values, int pairs, int64_t dim, const float *shrink,
                         float *sums) {
    const int64_t vectors = dim / LANES, chunks = (vectors + 3) / 4;
    for (int64_t chunk = 0, at = 0; chunk < chunks; chunk++) {
        int64_t wide = (vectors - at + chunks - chunk - 1) / (chunks - chunk); /* 5 is 3 + 2 */
        for (int r = 0; r < rows; r += ROWS) {
            const uint32_t *p = weights + r * of_row, *v = values + at * LANES;
            const float *less = shrink ? shrink + r : NULL;
            float *o = sums + r * dim + at * LANES;
            switch (wide) {
            case 1: add_some(1, p, of_row, of_pair, v, pairs, dim, less, o); break;
            case 2: add_some(2, p, of_row, of_pair, v, pairs, dim, less, o); break;
            case 3: add_some(3, p, of_row, of_pair, v, pairs, dim, less, o); break;
            case 4: add_some(4, p, of_row, of_pair, v, pairs, dim, less, o); break;
            }
        }
        at += wide;
    }
}

INLINE __m512i sixteen(const uint16_t *v) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)v));
}

/* Two rows beside each other, (channels); NULL is a row of zeros. */
INLINE void pack_two(const uint16_t *even, const uint16_t *odd, int64_t dim, uint32_t *packed) {
    for (int64_t d = 0; d < dim; d += LANES) {
        __m512i low = even ? sixteen(even + d) : _mm512_setzero_si512();
        __m512i high = odd ? sixteen(odd + d) : _mm512_setzero_si512();
        _mm512_store_si512(packed + d, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

/* So many rows as pairs, (pairs, channels), zero past their end. */
INLINE void pack_rows(const uint16_t *rows, int64_t stride, int count, int padded, int64_t dim,
                      uint32_t *packed) {
    for (int i = 0; i < padded; i += 2)
        pack_two(i < count ? rows + i * stride : NULL,
                 i + 1 < count ? rows + (i + 1) * stride : NULL, dim, packed + i / 2 * dim);
}

INLINE void store_rounded(uint16_t *out, __m512 x) {
    _mm256_storeu_si256((void *)out, (__m256i)_mm512_cvtneps_pbh(x));
}

/* Runs work(call) in so many threads: GOMP_parallel, of the OpenMP that the caller's other work runs
   on. Its threads are there already; others would share the processor with them while they wait. */
typedef void (*Team)(void (*work)(void *), void *call, unsigned threads, unsigned flags);

typedef struct {
    void (*work)(void *);
    void *call;
} Thread;

static inline void *in_thread(void *argument) {
    const Thread *thread = argument;
    thread->work(thread->call);
    return NULL;
}

/* `work` in at most so many threads, this one among them; each takes items of `call` until none is
   left, so that one thread too few is only slower. Without a team, in threads begun for it. */
static inline void in_threads(void (*work)(void *), void *call, Team team, int threads,
                              int64_t items) {
    if (team && threads > 1) {
        team(work, call, threads, 0);
        return;
    }
    pthread_t others[THREADS];
    Thread thread = {work, call};
    int started = 0;
    while (started < threads - 1 && started < THREADS && started < items - 1 &&
           !pthread_create(others + started, NULL, in_thread, &thread))
        started++;
    work(call);
    for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
}
