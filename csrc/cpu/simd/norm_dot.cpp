// s_i = sum g (x_hat V_gamma + V_beta) in one pass over x and g, x_hat = (x - mean) rstd formed in registers.
#include "norm.h"
#include "norm_groups.h"
#include "walk.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
constexpr int CHANNELS = FASTRW_REGISTERS == 32 ? 4 : 2;  // rows of positions: each has its own three constants
constexpr int POSITIONS = 4;                              // rows of channels: they share V

template <class T> inline T sum(Vector<T> v) {
  const Four<T> f = fold<T>(v);
  return (f[0] + f[2]) + (f[1] + f[3]);
}

// rows of positions, statistics constant along them: R channels from c on
template <int R, bool GAMMA, class E, class T>
inline void add_channels(const Norm<E>& use, Groups<E>& groups, const T* V_gamma, const T* V_beta, int64_t i, int64_t c,
                         Vector<T> (&acc)[CHANNELS]) {
  const E* x = use.x + i * use.x_n + c * use.x_row;
  const E* g = use.g + i * use.g_n + c * use.g_row;
  T mean[R], scale[R], shift[R];
  for (int j = 0; j < R; ++j) {
    groups.next(mean[j], scale[j]);
    if (GAMMA) scale[j] *= V_gamma[c + j];
    shift[j] = V_beta[c + j];
  }
  walk<T>(use.S, [&](int64_t at, auto read, auto once, auto) __attribute__((always_inline)) {
    for (int j = 0; j < R; ++j) {
      const Vector<T> gj = once(g + j * use.g_row + at);
      if constexpr (GAMMA) {
        acc[j] += gj * ((read(x + j * use.x_row + at) - mean[j]) * scale[j] + shift[j]);
      } else {
        acc[j] += gj * shift[j];
      }
    }
  });
}

// the same, statistics along the row: one channel
template <class E, class T>
inline void add_channel(const Norm<E>& use, T V_gamma, T V_beta, int64_t i, int64_t c, Vector<T>& acc) {
  const int64_t group = c / (use.C / use.G);
  const E* x = use.x + i * use.x_n + c * use.x_row;
  const E* g = use.g + i * use.g_n + c * use.g_row;
  const T* mean = use.mean + i * use.mean_n + group * use.mean_group;
  const T* rstd = use.rstd + i * use.rstd_n + group * use.rstd_group;
  walk<T>(use.S, [&](int64_t at, auto read, auto once, auto) __attribute__((always_inline)) {
    const Vector<T> mean_here = use.mean_s ? read(mean + at) : Vector<T>{} + *mean;
    const Vector<T> rstd_here = use.rstd_s ? read(rstd + at) : Vector<T>{} + *rstd;
    acc += once(g + at) * ((read(x + at) - mean_here) * (rstd_here * V_gamma) + V_beta);
  });
}

// four rows of channels: their sums. PER_CHANNEL: mean and scale are given per channel, else mean and rstd per row
template <bool GAMMA, bool PER_CHANNEL, class E, class T>
inline Four<T> row_sums(const E* const (&x)[POSITIONS], const E* const (&g)[POSITIONS], const T (&mean_of)[POSITIONS],
                        const T (&rstd_of)[POSITIONS], const T* mean, const T* scale, const T* shift, int64_t width) {
  Vector<T> acc[POSITIONS] = {};
  walk<T>(width, [&](int64_t at, auto read, auto once, auto) __attribute__((always_inline)) {
    const Vector<T> shift_here = read(shift + at);
    Vector<T> scale_here, mean_here;
    if constexpr (GAMMA) scale_here = read(scale + at);
    if constexpr (GAMMA && PER_CHANNEL) mean_here = read(mean + at);
    for (int j = 0; j < POSITIONS; ++j) {
      const Vector<T> gj = once(g[j] + at);
      if constexpr (!GAMMA) {
        acc[j] += gj * shift_here;
      } else if constexpr (PER_CHANNEL) {
        acc[j] += gj * ((read(x[j] + at) - mean_here) * scale_here + shift_here);
      } else {
        acc[j] += gj * ((read(x[j] + at) - mean_of[j]) * rstd_of[j] * scale_here + shift_here);
      }
    }
  });
  return totals<T>(acc);
}

// every row of channels of the examples first <= i < last, four at a time, whichever examples they are of
template <bool GAMMA, bool PER_CHANNEL, class E, class T>
void add_rows(const Norm<E>& use, const T* mean, const T* scale, const T* shift, T* s, int64_t first, int64_t last) {
  const int64_t groups = PER_CHANNEL ? 1 : use.G, width = use.C / groups;
  for (int64_t group = 0; group < groups; ++group) {
    int64_t i = first, position = 0;
    for (int64_t left = (last - first) * use.S; left > 0; left -= POSITIONS) {
      const E *x[POSITIONS], *g[POSITIONS];
      T mean_of[POSITIONS] = {}, rstd_of[POSITIONS] = {};
      int64_t owner[POSITIONS];
      for (int j = 0; j < POSITIONS; ++j) {  // the last tile repeats the last row
        owner[j] = i;
        x[j] = use.x + i * use.x_n + position * use.x_row + group * width;
        g[j] = use.g + i * use.g_n + position * use.g_row + group * width;
        if (GAMMA && !PER_CHANNEL) {
          mean_of[j] = use.mean[i * use.mean_n + position * use.mean_s + group * use.mean_group];
          rstd_of[j] = use.rstd[i * use.rstd_n + position * use.rstd_s + group * use.rstd_group];
        }
        if (j + 1 < left && ++position == use.S) position = 0, ++i;
      }
      const Four<T> found = row_sums<GAMMA, PER_CHANNEL>(
          x, g, mean_of, rstd_of, mean, GAMMA ? scale + group * width : scale, shift + group * width, width);
      for (int j = 0; j < POSITIONS && j < left; ++j) s[owner[j]] += found[j];
    }
  }
}

template <bool GAMMA, class E, class T>
void run(const Norm<E>& use, const T* V_gamma, const T* V_beta, T* s, int64_t first, int64_t last, T* room) {
  for (int64_t i = first; i < last; ++i) s[i] = 0;
  if (!use.positions && (!GAMMA || use.varies || use.G == 1))
    return add_rows<GAMMA, false>(use, V_gamma, V_gamma, V_beta, s, first, last);
  for (int64_t i = first; i < last; ++i) {
    Groups<E> groups(use, i);
    if (!use.positions) {
      T *mean = room, *scale = room + use.C;
      for (int64_t c = 0; c < use.C; ++c) groups.next(mean[c], scale[c]);
      for (int64_t c = 0; c < use.C; ++c) scale[c] *= V_gamma[c];
      add_rows<GAMMA, true>(use, mean, scale, V_beta, s, i, i + 1);
      continue;
    }
    Vector<T> acc[CHANNELS] = {};
    int64_t c = 0;
    if (GAMMA && use.varies)
      for (; c < use.C; ++c) add_channel(use, V_gamma[c], V_beta[c], i, c, acc[c % CHANNELS]);
    for (; c + CHANNELS <= use.C; c += CHANNELS) add_channels<CHANNELS, GAMMA>(use, groups, V_gamma, V_beta, i, c, acc);
    for (; c < use.C; ++c) add_channels<1, GAMMA>(use, groups, V_gamma, V_beta, i, c, acc);
    for (int j = 1; j < CHANNELS; ++j) acc[0] += acc[j];
    s[i] = sum<T>(acc[0]);
  }
}
}  // namespace

template <class E>
void norm_dot(const Norm<E>& use, const sum_t<E>* V_gamma, const sum_t<E>* V_beta, sum_t<E>* s, int64_t first,
              int64_t last, sum_t<E>* room) {
  if (V_gamma) {
    run<true>(use, V_gamma, V_beta, s, first, last, room);
  } else {
    run<false>(use, V_gamma, V_beta, s, first, last, room);
  }
}

#define FASTRW_INSTANTIATE(E, T) template void norm_dot(const Norm<E>&, const T*, const T*, T*, int64_t, int64_t, T*);
FASTRW_INSTANTIATE(float, float)
FASTRW_INSTANTIATE(double, double)
FASTRW_INSTANTIATE(Half, float)
FASTRW_INSTANTIATE(BFloat16, float)
}  // namespace fastrw::FASTRW_LEVEL
