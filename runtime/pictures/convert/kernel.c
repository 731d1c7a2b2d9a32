/* Planes of luma and colour -> RGB, and planes made smaller or larger: the quick form of integers.py,
   which says what is computed. Integers only: the same bytes on every processor.

   No Python.h: it is loaded by ctypes, which lets other threads run meanwhile. Values are unsigned
   16 bits, those of fewer bits in the upper ones. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "values of two bytes are read as little-endian"
#endif
#if (-1 >> 1) != -1
#error "shifts of negative numbers must keep their sign"
#endif

/* Loops are written for the compiler to vectorise; with these it makes them for several processors. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define EACH_CPU __attribute__((target_clones("avx2", "ssse3", "default")))
#endif
#endif
#ifndef EACH_CPU
#define EACH_CPU
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAS_AVX2_BY_HAND
#endif

struct samples {
    const uint8_t *data;
    int64_t stride; /* bytes from row to row */
    int32_t step;   /* bytes from value to value */
    int32_t wide;   /* a value has two bytes */
    int32_t shift;  /* to the upper bits of 16 */
    int32_t across; /* columns of the picture to a value: 1 << across */
    int32_t down;   /* rows */
};

struct colors {
    int32_t is_rgb;
    int32_t luma;      /* what the first value is multiplied by */
    int32_t chroma[6]; /* the second and third value, for R, G and B */
    int32_t bias[3];
};

EACH_CPU static void load8(uint16_t *restrict to, const uint8_t *restrict from, int64_t count, int shift)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = (uint16_t)(from[x] << shift);
}

EACH_CPU static void load16(uint16_t *restrict to, const uint16_t *restrict from, int64_t count, int shift)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = (uint16_t)(from[x] << shift);
}

static void load(uint16_t *to, const struct samples *it, int64_t row, int64_t count)
{
    const uint8_t *from = it->data + row * it->stride;
    if (it->wide && it->step == 2 && !((uintptr_t)from & 1))
        load16(to, (const uint16_t *)(const void *)from, count, it->shift);
    else if (it->wide)
        for (int64_t x = 0; x < count; x++) {
            uint16_t value;
            memcpy(&value, from + x * it->step, 2);
            to[x] = (uint16_t)(value << it->shift);
        }
    else if (it->step == 1)
        load8(to, from, count, it->shift);
    else
        for (int64_t x = 0; x < count; x++)
            to[x] = (uint16_t)(from[x * it->step] << it->shift);
}

/* What colour adds to luma, once for each value of it. */
EACH_CPU static void add_of(int16_t *restrict r, int16_t *restrict g, int16_t *restrict b,
                            const uint16_t *restrict u, const uint16_t *restrict v,
                            const struct colors *restrict c, int64_t count)
{
    const int16_t ru = (int16_t)c->chroma[0], rv = (int16_t)c->chroma[1], gu = (int16_t)c->chroma[2];
    const int16_t gv = (int16_t)c->chroma[3], bu = (int16_t)c->chroma[4], bv = (int16_t)c->chroma[5];
    const int16_t r0 = (int16_t)c->bias[0], g0 = (int16_t)c->bias[1], b0 = (int16_t)c->bias[2];
    for (int64_t x = 0; x < count; x++) {
        const int16_t p = (int16_t)(u[x] ^ 0x8000), q = (int16_t)(v[x] ^ 0x8000);
        r[x] = (int16_t)(((p * ru) >> 16) + ((q * rv) >> 16) + r0);
        g[x] = (int16_t)(((p * gu) >> 16) + ((q * gv) >> 16) + g0);
        b[x] = (int16_t)(((p * bu) >> 16) + ((q * bv) >> 16) + b0);
    }
}

EACH_CPU static void twice(int16_t *restrict to, const int16_t *restrict from, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        to[2 * x] = to[2 * x + 1] = from[x];
}

/* Each value stands for `1 << across` columns. */
static void spread(int16_t *to, const int16_t *from, int across, int64_t width)
{
    if (across == 1)
        twice(to, from, (width + 1) / 2);
    else
        for (int64_t x = 0; x < width; x++)
            to[x] = from[x >> across];
}

static inline uint8_t clipped(int16_t value)
{
    value >>= 5;
    value = value < 0 ? 0 : value;
    return (uint8_t)(value > 255 ? 255 : value);
}

EACH_CPU static void mix(uint8_t *restrict out, const uint16_t *restrict luma, const int16_t *restrict r,
                         const int16_t *restrict g, const int16_t *restrict b, uint16_t by, int64_t width)
{
    for (int64_t x = 0; x < width; x++) {
        const int16_t y = (int16_t)(((uint32_t)luma[x] * by) >> 16);
        out[3 * x] = clipped((int16_t)(y + r[x]));
        out[3 * x + 1] = clipped((int16_t)(y + g[x]));
        out[3 * x + 2] = clipped((int16_t)(y + b[x]));
    }
}

/* `mix` of values of 8 bits, without `load8` in between. */
EACH_CPU static void mix8(uint8_t *restrict out, const uint8_t *restrict luma, const int16_t *restrict r,
                          const int16_t *restrict g, const int16_t *restrict b, uint16_t by, int64_t width)
{
    for (int64_t x = 0; x < width; x++) {
        const uint16_t value = (uint16_t)(luma[x] << 8);
        const int16_t y = (int16_t)(((uint32_t)value * by) >> 16);
        out[3 * x] = clipped((int16_t)(y + r[x]));
        out[3 * x + 1] = clipped((int16_t)(y + g[x]));
        out[3 * x + 2] = clipped((int16_t)(y + b[x]));
    }
}

#ifdef HAS_AVX2_BY_HAND
/* Where the bytes of one colour go in the three runs of 16 that hold 16 pixels. */
static const int8_t places[9][16] __attribute__((aligned(16))) = {
    {0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5},
    {-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1},
    {-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1},
    {-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1},
    {5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10},
    {-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1},
    {-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1},
    {-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1},
    {10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15},
};

__attribute__((target("avx2"))) static inline __m256i placed(__m256i r, __m256i g, __m256i b, int run)
{
#define PLACES(it) _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)places[it]))
    return _mm256_or_si256(_mm256_or_si256(_mm256_shuffle_epi8(r, PLACES(run)), _mm256_shuffle_epi8(g, PLACES(3 + run))),
                           _mm256_shuffle_epi8(b, PLACES(6 + run)));
#undef PLACES
}

/* One colour of 32 pixels: luma of 16 bits in `low` and `high`, as unpacking leaves it, and what colour adds to
   each pair. Packing cuts off as `clipped` does. */
__attribute__((target("avx2"))) static inline __m256i mixed(__m256i low, __m256i high, const int16_t *add)
{
    const __m256i pairs = _mm256_loadu_si256((const __m256i *)(const void *)add);
    low = _mm256_add_epi16(low, _mm256_unpacklo_epi16(pairs, pairs));
    high = _mm256_add_epi16(high, _mm256_unpackhi_epi16(pairs, pairs));
    return _mm256_packus_epi16(_mm256_srai_epi16(low, 5), _mm256_srai_epi16(high, 5));
}

/* `mix8` of colours that stand for two columns each, without `spread` in between: compilers take twice as long,
   mostly for putting three colours next to each other. Pixels that it has made, 32 at a time: the rest is left. */
__attribute__((target("avx2"))) static int64_t mix8_of_pairs(uint8_t *out, const uint8_t *luma, const int16_t *r,
                                                             const int16_t *g, const int16_t *b, uint16_t by,
                                                             int64_t width)
{
    const __m256i zero = _mm256_setzero_si256(), times = _mm256_set1_epi16((int16_t)by);
    int64_t x = 0;
    for (; x + 32 <= width; x += 32, out += 96) {
        const __m256i values = _mm256_loadu_si256((const __m256i *)(const void *)(luma + x));
        const __m256i low = _mm256_mulhi_epu16(_mm256_unpacklo_epi8(zero, values), times);
        const __m256i high = _mm256_mulhi_epu16(_mm256_unpackhi_epi8(zero, values), times);
        const __m256i red = mixed(low, high, r + x / 2), green = mixed(low, high, g + x / 2);
        const __m256i blue = mixed(low, high, b + x / 2);
        const __m256i first = placed(red, green, blue, 0), second = placed(red, green, blue, 1);
        const __m256i third = placed(red, green, blue, 2);
        __m256i *const to = (__m256i *)(void *)out;
        _mm256_storeu_si256(to, _mm256_permute2x128_si256(first, second, 0x20));
        _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(third, first, 0x30));
        _mm256_storeu_si256(to + 2, _mm256_permute2x128_si256(second, third, 0x31));
    }
    return x;
}

static int is_by_hand(void)
{
    return __builtin_cpu_supports("avx2");
}
#else
static int64_t mix8_of_pairs(uint8_t *out, const uint8_t *luma, const int16_t *r, const int16_t *g, const int16_t *b,
                             uint16_t by, int64_t width)
{
    (void)out, (void)luma, (void)r, (void)g, (void)b, (void)by, (void)width;
    return 0;
}

static int is_by_hand(void)
{
    return 0;
}
#endif

EACH_CPU static void join(uint8_t *restrict out, const uint16_t *restrict r, const uint16_t *restrict g,
                          const uint16_t *restrict b, uint16_t by, int16_t bias, int64_t width)
{
    for (int64_t x = 0; x < width; x++) {
        out[3 * x] = clipped((int16_t)((int16_t)(((uint32_t)r[x] * by) >> 16) + bias));
        out[3 * x + 1] = clipped((int16_t)((int16_t)(((uint32_t)g[x] * by) >> 16) + bias));
        out[3 * x + 2] = clipped((int16_t)((int16_t)(((uint32_t)b[x] * by) >> 16) + bias));
    }
}

/* RGB, row after row without gaps. -1 where there is no memory. */
int flowrun_rgb_1(const struct samples *planes, const struct colors *c, uint8_t *out, int64_t width,
                  int64_t height)
{
    const struct samples *luma = planes, *u = planes + 1, *v = planes + 2;
    const int64_t room = width + 2;
    uint16_t *lines = malloc((size_t)room * 9 * sizeof *lines);
    if (!lines)
        return -1;
    uint16_t *const one = lines, *const two = lines + room, *const three = lines + 2 * room;
    int16_t *const few = (int16_t *)(lines + 3 * room), *const many = (int16_t *)(lines + 6 * room);
    const uint16_t by = (uint16_t)c->luma;
    const int64_t colored = (width + (1 << u->across) - 1) >> u->across;
    const int16_t *const add = u->across ? many : few;
    const int is_plain = !luma->wide && luma->step == 1 && luma->shift == 8;
    const int64_t made = is_plain && u->across == 1 && is_by_hand() ? width & ~(int64_t)31 : 0;

    for (int64_t row = 0; row < height; row++, out += 3 * width) {
        if (c->is_rgb) {
            load(one, luma, row, width);
            load(two, u, row, width);
            load(three, v, row, width);
            join(out, one, two, three, by, (int16_t)c->bias[0], width);
            continue;
        }
        if (!(row & ((1 << u->down) - 1))) {
            load(two, u, row >> u->down, colored);
            load(three, v, row >> v->down, colored);
            add_of(few, few + room, few + 2 * room, two, three, c, colored);
            for (int it = 0; it < 3 && u->across; it++)
                spread(many + it * room + made, few + it * room + (made >> u->across), u->across, width - made);
        }
        if (is_plain) {
            const uint8_t *const values = luma->data + row * luma->stride;
            if (made)
                mix8_of_pairs(out, values, few, few + room, few + 2 * room, by, made);
            mix8(out + 3 * made, values + made, add + made, add + room + made, add + 2 * room + made, by,
                 width - made);
            continue;
        }
        load(one, luma, row, width);
        mix(out, one, add, add + room, add + 2 * room, by, width);
    }
    free(lines);
    return 0;
}

/* How a line of values becomes one of another length, see scaling.py. */
struct windows {
    int64_t size;
    const int32_t *firsts;
    const uint16_t *shares;
};

EACH_CPU static void stack8(uint16_t *restrict sum, const uint8_t *restrict one, const uint8_t *restrict other,
                            int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        sum[x] = (uint16_t)(sum[x] + one[x] + other[x]);
}

/* The whole lines' sum, and shares of the first line and the one after the last; shifted down. */
static inline uint16_t settled8(uint16_t sum, uint8_t first, uint8_t last, uint16_t share, int down)
{
    const uint16_t ends = (uint16_t)(first * (uint16_t)(256 - share) + last * share);
    return (uint16_t)((uint16_t)(sum << (8 - down)) + (uint16_t)(ends >> down));
}

EACH_CPU static void settle8(uint16_t *restrict to, const uint16_t *restrict sum, const uint8_t *restrict first,
                             const uint8_t *restrict last, uint16_t share, int down, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = settled8(sum[x], first[x], last[x], share, down);
}

EACH_CPU static void settle8_of2(uint16_t *restrict to, const uint8_t *restrict first, const uint8_t *restrict second,
                                 const uint8_t *restrict last, uint16_t share, int down, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = settled8(second[x], first[x], last[x], share, down);
}

EACH_CPU static void settle8_of3(uint16_t *restrict to, const uint8_t *restrict first, const uint8_t *restrict second,
                                 const uint8_t *restrict third, const uint8_t *restrict last, uint16_t share, int down,
                                 int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = settled8((uint16_t)(second[x] + third[x]), first[x], last[x], share, down);
}

EACH_CPU static void weigh(uint32_t *restrict sum, const uint16_t *restrict line, uint32_t weight, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        sum[x] += weight * line[x];
}

EACH_CPU static void cut_off(uint32_t *restrict sum, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        sum[x] >>= 8;
}

EACH_CPU static void settle(uint16_t *restrict to, const uint32_t *restrict sum, int down, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = (uint16_t)(sum[x] >> down);
}

/* A row of the new size that is as wide as the plane, in `line`: sums shifted down. */
static void stack(uint16_t *line, uint32_t *sum, const struct samples *plane, const struct windows *rows, int64_t y,
                  int down, int64_t count)
{
    const int64_t first = rows->firsts[y], end = first + rows->size;
    const uint16_t share = rows->shares[y] >> 8;
    const int64_t last = share ? end : first;
    if (!plane->wide && plane->step == 1 && plane->shift == 8 && down <= 8) {
        const int64_t stride = plane->stride;
        const uint8_t *const data = plane->data, *const from = data + first * stride, *const to = data + last * stride;
        uint16_t *const few = (uint16_t *)sum;
        int64_t row = first + 1;
        if (rows->size == 2) {
            settle8_of2(line, from, from + stride, to, share, down, count);
            return;
        }
        if (rows->size == 3) {
            settle8_of3(line, from, from + stride, from + 2 * stride, to, share, down, count);
            return;
        }
        if ((end - row) & 1)
            load8(few, data + row++ * stride, count, 0);
        else
            memset(few, 0, (size_t)count * sizeof *few);
        for (; row < end; row += 2)
            stack8(few, data + row * stride, data + (row + 1) * stride, count);
        settle8(line, few, from, to, share, down, count);
        return;
    }
    memset(sum, 0, (size_t)count * sizeof *sum);
    load(line, plane, first, count);
    weigh(sum, line, 256u - share, count);
    if (share) {
        load(line, plane, last, count);
        weigh(sum, line, share, count);
    }
    cut_off(sum, count);
    for (int64_t row = first + 1; row < end; row++) {
        load(line, plane, row, count);
        weigh(sum, line, 1, count);
    }
    settle(line, sum, down, count);
}

EACH_CPU static void add2(uint16_t *restrict to, const uint16_t *restrict line, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = (uint16_t)(line[x] + line[x + 1]);
}

EACH_CPU static void add3(uint16_t *restrict to, const uint16_t *restrict line, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = (uint16_t)(line[x] + line[x + 1] + line[x + 2]);
}

EACH_CPU static void add4(uint16_t *restrict to, const uint16_t *restrict line, int64_t count)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = (uint16_t)(line[x] + line[x + 1] + line[x + 2] + line[x + 3]);
}

/* The sum of the values before each. */
static void add_up(uint32_t *restrict so_far, const uint16_t *restrict line, int64_t count)
{
    uint32_t total = 0;
    for (int64_t x = 0; x < count; x++) {
        so_far[x] = total;
        total += line[x];
    }
    so_far[count] = so_far[count + 1] = total;
}

/* Of each new value, its sum and the next one: two values of 16 bits each. Not all sums are looked at, but those
   of few values are quicker made all at once; `across` is 0 then. */
static void choose(uint16_t *both, uint16_t *sums, uint32_t *so_far, const uint16_t *line,
                   const struct windows *columns, int across, int64_t count, int64_t width)
{
    const int64_t size = columns->size, all = count - size + 1;
    const int32_t *const firsts = columns->firsts;
    if (size > 4) {
        add_up(so_far, line, count);
        for (int64_t x = 0; x < width; x++) {
            const uint32_t *const from = so_far + firsts[x], *const to = from + size;
            both[2 * x] = (uint16_t)((to[0] - from[0]) >> across);
            both[2 * x + 1] = (uint16_t)((to[1] - from[1]) >> across);
        }
        return;
    }
    if (size == 1)
        memcpy(sums, line, (size_t)all * sizeof *sums);
    else
        (size == 2 ? add2 : size == 3 ? add3 : add4)(sums, line, all);
    sums[all] = 0; /* looked at with a share of 0 */
    for (int64_t x = 0; x < width; x++)
        memcpy(both + 2 * x, sums + firsts[x], 2 * sizeof *both);
}

EACH_CPU static void mean(uint16_t *restrict out, const uint16_t *restrict both, const uint16_t *restrict shares,
                          uint16_t more, int64_t width)
{
    for (int64_t x = 0; x < width; x++) {
        const uint16_t one = both[2 * x], other = both[2 * x + 1];
        const uint16_t less = (uint16_t)(((uint32_t)one * shares[x]) >> 16);
        const uint16_t plus = (uint16_t)(((uint32_t)other * shares[x]) >> 16);
        const uint16_t level = (uint16_t)(one - less + plus);
        out[x] = (uint16_t)(level + (uint16_t)(((uint32_t)level * more) >> 16));
    }
}

/* A plane of `count` columns scaled to width x height values of 16 bits. -1 where there is no memory. */
int flowrun_scale_2(const struct samples *plane, int64_t count, uint16_t *out, int64_t width, int64_t height,
                    const struct windows *rows, const struct windows *columns, int32_t down, int32_t across,
                    int32_t more)
{
    const size_t room = (size_t)count + 2;
    uint32_t *const sum = malloc(room * sizeof *sum + 2 * (room + (size_t)width) * sizeof(uint16_t));
    if (!sum)
        return -1;
    uint16_t *const line = (uint16_t *)(sum + room), *const sums = line + room, *const both = sums + room;

    for (int64_t y = 0; y < height; y++, out += width) {
        stack(line, sum, plane, rows, y, down, count);
        choose(both, sums, sum, line, columns, across, count, width);
        mean(out, both, columns->shares, (uint16_t)more, width);
    }
    free(sum);
    return 0;
}

/* Pixels of 3 bytes that lie `down` and `across` bytes apart, in squares: of the rows and the columns, one
   then stays in the cache while the other is walked. */
void flowrun_copy_1(const uint8_t *from, int64_t down, int64_t across, uint8_t *out, int64_t width, int64_t height)
{
    enum { SIDE = 32 };
    for (int64_t top = 0; top < height; top += SIDE)
        for (int64_t left = 0; left < width; left += SIDE)
            for (int64_t y = top; y < height && y < top + SIDE; y++)
                for (int64_t x = left; x < width && x < left + SIDE; x++)
                    memcpy(out + 3 * (y * width + x), from + y * down + x * across, 3);
}
