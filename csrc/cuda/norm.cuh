// An affine norm's use as the kernels read it, and its normalized inputs, made again in registers.
#pragma once
#include <algorithm>

#include "packs.cuh"
#include "reduce.cuh"

namespace fastrw::gpu {
struct Statistic {  // mean or rstd [n, S, G] by its strides
  const float* data;
  int64_t example, position, group;
};

// x and g [n, rows, columns], adjacent columns adjacent in memory. Rows are positions and columns
// channels, or the other way round: then statistics do not vary over positions.
template <class E> struct Norm {
  const E *x, *g;
  int64_t x_example, x_row, g_example, g_row;  // strides
  Statistic mean, rstd;                        // mean.data is null where nothing is subtracted
  int64_t n;
  int rows, columns;
  int of_group;  // channels
  bool channels, wide;
  int lanes;  // that share a row, a power of 2
};

// The statistics of one channel at one position.
struct Stats {
  float mean, rstd;
  __device__ __forceinline__ float normalized(float x) const { return (x - mean) * rstd; }
};

template <class E>
__device__ __forceinline__ Stats stats(const Norm<E>& use, int64_t example, int64_t position, int channel) {
  const int64_t group = channel / use.of_group;
  const auto at = [&](const Statistic& s) {
    return s.data[example * s.example + position * s.position + group * s.group];
  };
  return {use.mean.data ? at(use.mean) : 0.f, at(use.rstd)};
}

// f(row, e, x, g, stats) for the elements of column step `start` in the rows of this thread: one in every `stride` from
// `first`. Past the last column g is 0. A WIDE pack lies in one group of channels.
template <bool WIDE, bool CHANNELS, class E, class F>
__device__ __forceinline__ void walk(const Norm<E>& use, int64_t example, int start, int64_t first, int64_t stride,
                                     F f) {
  constexpr int GROUPS = CHANNELS && !WIDE ? PACK<E> : 1;
  const int lane = threadIdx.x % use.lanes;
  const bool full = start + use.lanes * PACK<E> <= use.columns;
  for (int64_t row = first; row < use.rows; row += stride) {
    const auto load = [&](const E* from) {
      return full ? load_pack<WIDE, true>(from, start, use.columns, lane, use.lanes)
                  : load_pack<WIDE, false>(from, start, use.columns, lane, use.lanes);
    };
    const Pack<E> xs = load(use.x + example * use.x_example + row * use.x_row);
    const Pack<E> gs = load(use.g + example * use.g_example + row * use.g_row);
    Stats of[GROUPS];
#pragma unroll
    for (int e = 0; e < GROUPS; ++e) {
      const int column_of = static_cast<int>(column<WIDE, PACK<E>>(start, lane, use.lanes, e));
      const int channel = min(column_of, use.columns - 1);
      of[e] = CHANNELS ? stats(use, example, row, channel) : stats(use, example, 0, static_cast<int>(row));
    }
#pragma unroll
    for (int e = 0; e < PACK<E>; ++e) f(row, e, widen(xs.at[e]), widen(gs.at[e]), of[GROUPS == 1 ? 0 : e]);
  }
}

// Calls kernel(wide, channels) with both as constants.
template <class E, class F> void with_layout(const Norm<E>& use, F kernel) {
  const auto layout = [&](auto wide) {
    use.channels ? kernel(wide, std::true_type()) : kernel(wide, std::false_type());
  };
  use.wide ? layout(std::true_type()) : layout(std::false_type());
}

// Rows that a block takes at once.
template <class E> int slots(const Norm<E>& use) { return THREADS / use.lanes; }
}  // namespace fastrw::gpu
