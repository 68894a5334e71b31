// gamma_i = sum_S g x_hat and beta_i = sum_S g in one pass over x and g, x_hat = (x - mean) rstd formed in registers.
#include "norm.h"
#include "norm_groups.h"
#include "walk.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
constexpr int CHANNELS = 4;                                // rows of positions at a time: two sums each
constexpr int POSITIONS = FASTRW_REGISTERS == 32 ? 8 : 4;  // rows of channels at a time: two constants each

// rows of positions, statistics constant along them: R channels from c on
template <int R, class E, class T>
inline void sum_channels(const Norm<E>& use, Groups<E>& groups, int64_t i, int64_t c, T* gamma, T* beta) {
  const E* x = use.x + i * use.x_n + c * use.x_row;
  const E* g = use.g + i * use.g_n + c * use.g_row;
  T mean[4], rstd[4];
  for (int j = 0; j < R; ++j) groups.next(mean[j], rstd[j]);
  Vector<T> gx[4] = {}, gs[4] = {};
  walk<T>(use.S, [&](int64_t at, auto read, auto once, auto) __attribute__((always_inline)) {
    for (int j = 0; j < R; ++j) {
      Vector<T> gj = once(g + j * use.g_row + at);
      hold<T>(gj);
      gx[j] += gj * (read(x + j * use.x_row + at) - mean[j]);
      gs[j] += gj;
    }
  });
  const Four<T> gx_sums = totals<T>(gx), gs_sums = totals<T>(gs);
  for (int j = 0; j < R; ++j) mean[j] = gx_sums[j] * rstd[j];
  memcpy(gamma + c, mean, R * sizeof(T));
  memcpy(beta + c, &gs_sums, R * sizeof(T));
}

// the same, statistics along the row: one channel
template <class E, class T>
inline void sum_channel(const Norm<E>& use, int64_t i, int64_t c, T* gamma, T* beta) {
  const int64_t group = c / (use.C / use.G);
  const E* x = use.x + i * use.x_n + c * use.x_row;
  const E* g = use.g + i * use.g_n + c * use.g_row;
  const T* mean = use.mean + i * use.mean_n + group * use.mean_group;
  const T* rstd = use.rstd + i * use.rstd_n + group * use.rstd_group;
  Vector<T> sums_of[4] = {};
  walk<T>(use.S, [&](int64_t at, auto read, auto once, auto) __attribute__((always_inline)) {
    const Vector<T> mean_here = use.mean_s ? read(mean + at) : Vector<T>{} + *mean;
    const Vector<T> rstd_here = use.rstd_s ? read(rstd + at) : Vector<T>{} + *rstd;
    Vector<T> g_here = once(g + at);
    hold<T>(g_here);
    sums_of[0] += g_here * ((read(x + at) - mean_here) * rstd_here);
    sums_of[1] += g_here;
  });
  const Four<T> found = totals<T>(sums_of);
  gamma[c] = found[0], beta[c] = found[1];
}

// R rows of `width` channels, added to gamma and beta. PER_CHANNEL: mean is given per channel,
// and rstd is left to the end; else they are mean and rstd of each row.
template <int R, bool PER_CHANNEL, class E, class T>
inline void add_rows(const Norm<E>& use, const E* x, const E* g, const T* mean, const T* rstd, int64_t width, T* gamma,
                     T* beta) {
  T mean_of[R], rstd_of[R];
  for (int j = 0; j < R && !PER_CHANNEL; ++j) mean_of[j] = mean[j * use.mean_s], rstd_of[j] = rstd[j * use.rstd_s];
  walk<T>(width, [&](int64_t at, auto read, auto once, auto write) __attribute__((always_inline)) {
    Vector<T> gx = read(gamma + at), gs = read(beta + at), mean_here;
    if constexpr (PER_CHANNEL) mean_here = read(mean + at);
    for (int j = 0; j < R; ++j) {
      Vector<T> gj = once(g + j * use.g_row + at);
      hold<T>(gj);
      const Vector<T> xj = read(x + j * use.x_row + at);
      if constexpr (PER_CHANNEL) {
        gx += gj * (xj - mean_here);
      } else {
        gx += gj * ((xj - mean_of[j]) * rstd_of[j]);
      }
      gs += gj;
    }
    write(gamma + at, gx), write(beta + at, gs);
  });
}

// every row of `width` channels of an example
template <bool PER_CHANNEL, class E, class T>
void sum_rows(const Norm<E>& use, const E* x, const E* g, const T* mean, const T* rstd, int64_t width, T* gamma,
              T* beta) {
  for (int64_t c = 0; c < width; ++c) gamma[c] = beta[c] = 0;
  int64_t position = 0;
  const auto add = [&]<int R>() {
    const E *x_at = x + position * use.x_row, *g_at = g + position * use.g_row;
    const T* mean_at = PER_CHANNEL ? mean : mean + position * use.mean_s;
    add_rows<R, PER_CHANNEL>(use, x_at, g_at, mean_at, rstd + position * use.rstd_s, width, gamma, beta);
    position += R;
  };
  while (position + POSITIONS <= use.S) add.template operator()<POSITIONS>();
  while (position < use.S) add.template operator()<1>();
}
}  // namespace

template <class E>
void norm_instance(const Norm<E>& use, sum_t<E>* gamma, sum_t<E>* beta, int64_t first, int64_t last, sum_t<E>* room) {
  using T = sum_t<E>;
  const int64_t C = use.C, width = C / use.G;
  for (int64_t i = first; i < last; ++i) {
    T *to_gamma = gamma + i * C, *to_beta = beta + i * C;
    if (use.positions && use.varies) {
      for (int64_t c = 0; c < C; ++c) sum_channel(use, i, c, to_gamma, to_beta);
    } else if (use.positions) {
      Groups<E> groups(use, i);
      int64_t c = 0;
      for (; c + CHANNELS <= C; c += CHANNELS) sum_channels<CHANNELS>(use, groups, i, c, to_gamma, to_beta);
      for (; c < C; ++c) sum_channels<1>(use, groups, i, c, to_gamma, to_beta);
    } else if (!use.varies && use.G > 1) {
      T *mean = room, *rstd = room + C;
      Groups<E> groups(use, i);
      for (int64_t c = 0; c < C; ++c) groups.next(mean[c], rstd[c]);
      const E *x = use.x + i * use.x_n, *g = use.g + i * use.g_n;
      sum_rows<true>(use, x, g, mean, rstd, C, to_gamma, to_beta);
      for (int64_t c = 0; c < C; ++c) to_gamma[c] *= rstd[c];
    } else {
      for (int64_t group = 0; group < use.G; ++group) {
        const E *x = use.x + i * use.x_n + group * width, *g = use.g + i * use.g_n + group * width;
        const T* mean = use.mean + i * use.mean_n + group * use.mean_group;
        const T* rstd = use.rstd + i * use.rstd_n + group * use.rstd_group;
        sum_rows<false>(use, x, g, mean, rstd, width, to_gamma + group * width, to_beta + group * width);
      }
    }
  }
}

#define FASTRW_INSTANTIATE(E, T) template void norm_instance(const Norm<E>&, T*, T*, int64_t, int64_t, T*);
FASTRW_INSTANTIATE(float, float)
FASTRW_INSTANTIATE(double, double)
FASTRW_INSTANTIATE(Half, float)
FASTRW_INSTANTIATE(BFloat16, float)
}  // namespace fastrw::FASTRW_LEVEL
