/* Vectors of GCC and Clang: eight numbers, four, and eight places. */

#ifndef VECTOR
#define VECTOR

#include <stdint.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef float v8 __attribute__((vector_size(32), aligned(4)));
typedef float v4 __attribute__((vector_size(16), aligned(4)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef int8_t b8 __attribute__((vector_size(8), aligned(1)));

static inline v8 all(float a) { return (v8){a, a, a, a, a, a, a, a}; }

/* Eight numbers of eight bits; GCC makes one instruction of a conversion only if told which. */
static inline v8 widened(const int8_t *from) {
#ifdef __AVX2__
    const i8 wide = (i8)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i_u *)from));
#else
    const i8 wide = __builtin_convertvector(*(const b8 *)from, i8);
#endif
    return __builtin_convertvector(wide, v8);
}

/* The sums of four vectors' numbers, in order. */
static inline v4 sums(v8 a, v8 b, v8 c, v8 d) {
    const v8 ab = __builtin_shuffle(a, b, (i8){0, 8, 2, 10, 4, 12, 6, 14}) +
                  __builtin_shuffle(a, b, (i8){1, 9, 3, 11, 5, 13, 7, 15});
    const v8 cd = __builtin_shuffle(c, d, (i8){0, 8, 2, 10, 4, 12, 6, 14}) +
                  __builtin_shuffle(c, d, (i8){1, 9, 3, 11, 5, 13, 7, 15});
    const v8 abcd = __builtin_shuffle(ab, cd, (i8){0, 1, 8, 9, 4, 5, 12, 13}) +
                   __builtin_shuffle(ab, cd, (i8){2, 3, 10, 11, 6, 7, 14, 15});
    return (v4){abcd[0], abcd[1], abcd[2], abcd[3]} +
           (v4){abcd[4], abcd[5], abcd[6], abcd[7]};
}

#endif
