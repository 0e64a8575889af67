// Weighted sums of scores in one pass over memory; sums.py says what they are, __init__.py calls this.
//
// PyTorch would go through all scores once for each operation. Here some rows at a time stay in the processor's first
// cache for all of them. The arithmetic is PyTorch's, in the same order, so results are equal to the last bit.

#include <float.h>
#include <stdint.h>

typedef _Float16 half;

enum {
    BLOCK = 2048,  // voxels that a thread works on at once
    ROWS = 64,     // in at most as many rows
    AHEAD = 8,     // rows that are fetched before they are worked on
    LINE = 16,     // floats that come at once
    MOST_WAITING = 3,
};

// What rounding makes infinite in half precision: halfway from the greatest, 65504, to the next power of two.
static const float TOO_LARGE = 65520;

// Steps count elements; along the width they are one.
typedef struct {
    const half *first;
    int64_t channel, depth, height;   // steps
    int64_t depths, heights, widths;  // lengths, from the first voxel of the box on
} Waiting;

typedef struct {
    const float *scores;
    int64_t score_channel, score_depth, score_height;
    const float *weights;  // null: nothing is weighed
    int64_t weight_depth, weight_height;
    Waiting waiting[MOST_WAITING];
    int64_t waits;
    int64_t outputs;   // channels that have scores
    int64_t channels;  // the same, or one more, whose sums are those of the weights
    int64_t depths, heights, widths;
} Sums;

// Whoever calls has the declarations of the file that this was compiled from, and looks here whether it is this one.
const uint64_t source_digest = SOURCE_DIGEST;

// Where some rows of the box, or the same part of each, lie in all that is added up.
typedef struct {
    int64_t rows, count;
    int64_t depth[ROWS], height[ROWS];
    int64_t scores[ROWS], weights[ROWS];
    int64_t waiting[MOST_WAITING][ROWS];
    int64_t waits[MOST_WAITING][ROWS];  // how many voxels
} Block;

static void add_halves(float *restrict sums, const half *restrict more, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        sums[i] += (float)more[i];
}

// Both return how many sums that are finite are not any more.
static int64_t put_half(half *restrict to, const float *restrict sums, int64_t count)
{
    int32_t lost = 0;
    for (int64_t i = 0; i < count; i++) {
        float size = __builtin_fabsf(sums[i]);
        lost += (size >= TOO_LARGE) & (size <= FLT_MAX);
        to[i] = (half)sums[i];
    }
    return lost;
}

static int64_t put_float(float *restrict to, const float *restrict sums, int64_t count)
{
    __builtin_memcpy(to, sums, count * sizeof *to);
    return 0;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// Rows from `row` on, counted depth by depth, before `stop`; of each the voxels from `x` on.
static void find(Block *block, const Sums *sums, int64_t row, int64_t stop, int64_t x)
{
    block->count = smaller(sums->widths - x, BLOCK);
    block->rows = sums->widths < BLOCK ? smaller(smaller(stop - row, ROWS), BLOCK / sums->widths) : 1;
    int64_t z = row / sums->heights, y = row % sums->heights;
    for (int64_t k = 0; k < block->rows; k++) {
        block->depth[k] = z;
        block->height[k] = y;
        block->scores[k] = z * sums->score_depth + y * sums->score_height + x;
        block->weights[k] = z * sums->weight_depth + y * sums->weight_height + x;
        for (int64_t w = 0; w < sums->waits; w++) {
            const Waiting *waiting = &sums->waiting[w];
            int within = z < waiting->depths && y < waiting->heights && x < waiting->widths;
            block->waiting[w][k] = z * waiting->depth + y * waiting->height + x;
            block->waits[w][k] = within ? smaller(waiting->widths - x, block->count) : 0;
        }
        if (++y == sums->heights) {
            y = 0;
            z++;
        }
    }
}

// Has the scores of a row that comes soon brought into the cache, be it of the next channel: rows are too short, and too
// far from each other, for the processor to see what will be wanted.
static void fetch(const Sums *sums, const Block *block, int64_t channel, int64_t k)
{
    if (k >= block->rows) {
        channel++;
        k -= block->rows;
    }
    if (channel >= sums->outputs || k >= block->rows)
        return;
    const float *scores = sums->scores + channel * sums->score_channel + block->scores[k];
    for (int64_t i = 0; i < block->count; i += LINE)
        __builtin_prefetch(scores + i);
}

// The sums of one channel there, row after row.
static void work_out(float *restrict values, const Block *block, const Sums *sums, int64_t channel)
{
    int64_t count = block->count;
    const float *all_scores = sums->scores + channel * sums->score_channel;
    for (int64_t k = 0; k < block->rows; k++) {
        float *restrict to = values + k * count;
        const float *restrict weights = sums->weights ? sums->weights + block->weights[k] : 0;
        const float *restrict scores = all_scores + block->scores[k];
        fetch(sums, block, channel, k + AHEAD);
        if (channel >= sums->outputs)
            __builtin_memcpy(to, weights, count * sizeof *to);
        else if (!weights)
            __builtin_memcpy(to, scores, count * sizeof *to);
        else
            for (int64_t i = 0; i < count; i++)
                to[i] = scores[i] * weights[i];
        for (int64_t w = 0; w < sums->waits; w++)
            if (block->waits[w][k])
                add_halves(to, sums->waiting[w].first + channel * sums->waiting[w].channel + block->waiting[w][k],
                           block->waits[w][k]);
    }
}

// Which rows of the box a thread has.
static void share(const Sums *sums, int64_t part, int64_t parts, int64_t *first, int64_t *stop)
{
    int64_t rows = sums->depths * sums->heights;
    *first = rows * part / parts;
    *stop = rows * (part + 1) / parts;
}

// All sums, to (channels, depth, height, width) with those steps. Returns how many that are
// finite are not any more.
#define WRITER(NAME, TYPE, PUT)                                                                                        \
    int64_t NAME(const Sums *sums, TYPE *to, int64_t channel, int64_t depth, int64_t height, int64_t part,             \
                 int64_t parts)                                                                                        \
    {                                                                                                                  \
        float values[BLOCK];                                                                                           \
        Block block;                                                                                                   \
        int64_t row, stop, lost = 0;                                                                                   \
        for (share(sums, part, parts, &row, &stop); row < stop; row += block.rows)                                     \
            for (int64_t x = 0; x < sums->widths; x += BLOCK) {                                                        \
                find(&block, sums, row, stop, x);                                                                      \
                for (int64_t c = 0; c < sums->channels; c++) {                                                         \
                    work_out(values, &block, sums, c);                                                                 \
                    for (int64_t k = 0; k < block.rows; k++)                                                           \
                        lost += PUT(to + c * channel + block.depth[k] * depth + block.height[k] * height + x,          \
                                    values + k * block.count, block.count);                                            \
                }                                                                                                      \
            }                                                                                                          \
        return lost;                                                                                                   \
    }

WRITER(write_half, half, put_half)
WRITER(write_float, float, put_float)

// The bits of each voxel's greatest output, the first of equals, by tables (planes, labels); to (planes, voxels).
// Returns how many voxels have a greatest that is not finite.
int64_t write_bits(const Sums *sums, uint8_t *to, const uint8_t *tables, int64_t planes, int64_t labels_of_table,
                   int64_t part, int64_t parts)
{
    float values[BLOCK], greatest[BLOCK];
    int32_t labels[BLOCK];
    Block block;
    int64_t row, stop, lost = 0;
    int64_t voxels = sums->depths * sums->heights * sums->widths;
    for (share(sums, part, parts, &row, &stop); row < stop; row += block.rows)
        for (int64_t x = 0; x < sums->widths; x += BLOCK) {
            find(&block, sums, row, stop, x);
            int64_t count = block.rows * block.count;
            work_out(greatest, &block, sums, 0);
            __builtin_memset(labels, 0, count * sizeof *labels);
            for (int32_t c = 1; c < sums->outputs; c++) {
                work_out(values, &block, sums, c);
                for (int64_t i = 0; i < count; i++) {
                    // A NaN is the greatest, as for PyTorch, and stays it: nothing is greater than a NaN.
                    int more = (values[i] > greatest[i]) | (values[i] != values[i]);
                    greatest[i] = more ? values[i] : greatest[i];
                    labels[i] = more ? c : labels[i];
                }
            }
            int32_t not_finite = 0;
            for (int64_t i = 0; i < count; i++)
                not_finite += !(__builtin_fabsf(greatest[i]) <= FLT_MAX);
            lost += not_finite;
            for (int64_t p = 0; p < planes; p++)
                for (int64_t k = 0; k < block.rows; k++) {
                    uint8_t *target = to + p * voxels + (row + k) * sums->widths + x;
                    for (int64_t i = 0; i < block.count; i++)
                        target[i] = tables[p * labels_of_table + labels[k * block.count + i]];
                }
        }
    return lost;
}
