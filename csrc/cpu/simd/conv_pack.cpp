// Packing by register transposes: channels that are apart in memory are adjacent when packed.
#include "conv_pack.h"

#include "transpose.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
constexpr int FEW = 6;  // channels that are interleaved one by one: a square would be mostly empty

// First columns of squares that cover 0..count; the last one overlaps the one before, so that it is whole.
template <int N, class Body> FASTRW_INLINE void squares(int64_t count, Body body) {
  for (int64_t t = 0; t < count; t += N) body(t + N <= count || count < N ? t : count - N);
}

template <int N> inline bool any_kept(const int32_t* place, int64_t count) {
  int32_t kept = -1;
  for (int j = 0; j < N && j < count; ++j) kept = place[j] > kept ? place[j] : kept;
  return kept >= 0;
}

// Vectors of the channels rows[0..count) go to packed + place * width. One shorter than a vector writes zeros behind
// it, which the positions after it overwrite.
template <class E>
void pack_rows(const E* const* rows, int64_t count, int64_t positions, const int32_t* place, int64_t width,
               sum_t<E>* packed) {
  using T = sum_t<E>;
  constexpr int N = LANES<T>;
  squares<N>(positions, [&](int64_t t) __attribute__((always_inline)) {
    if (!any_kept<N>(place + t, positions - t)) return;
    Vector<T> v[N];
    load_square(rows, count, t, positions - t, v);
    FASTRW_UNROLL for (int j = 0; j < N; ++j) if (t + j < positions && place[t + j] >= 0)
        store(packed + place[t + j] * width, v[j]);
  });
}

// One input channel as every one of `repeat` adjacent numbers.
template <class E>
void scatter(const E* x, int64_t step, int64_t positions, const int32_t* place, int64_t width, sum_t<E>* packed) {
  for (int64_t t = 0; t < positions; ++t)
    if (place[t] >= 0) packed[place[t] * width] = widen_one(x[t * step]);
}

// `count` adjacent numbers, widened
template <class E> FASTRW_INLINE void copy(const E* x, int64_t count, sum_t<E>* to) {
  constexpr int N = LANES<sum_t<E>>;
  if (count < N) {
    for (int64_t j = 0; j < count; ++j) to[j] = widen_one(x[j]);
  } else {
    squares<N>(count, [&](int64_t j) { store(to + j, fetch(x + j)); });
  }
}
}  // namespace

template <class E>
void pack_inputs(const ConvPlan& plan, const E* x, const ConvStrides& at, int64_t b, const int32_t* place,
                 sum_t<E>* packed) {
  using T = sum_t<E>;
  constexpr int N = LANES<T>;
  const int64_t positions = plan.H * plan.W;
  const E* rows[N];
  if (plan.spread) {  // lane l is output channel b N + l; one past the last repeats it, and meets gradients of 0
    int64_t first[N];
    for (int l = 0; l < N; ++l) {
      const int64_t out = b * N + l < plan.O ? b * N + l : plan.O - 1;
      first[l] = out / plan.o * plan.c;
    }
    for (int64_t ch = 0; ch < plan.c; ++ch) {
      if (at.position == 1) {
        for (int l = 0; l < N; ++l) rows[l] = x + (first[l] + ch) * at.channel;
        pack_rows(rows, N, positions, place, plan.width, packed + ch * N);
      } else {
        for (int64_t t = 0; t < positions; ++t)
          if (place[t] >= 0)
            for (int l = 0; l < N; ++l)
              packed[place[t] * plan.width + ch * N + l] = widen_one(x[t * at.position + first[l] + ch]);
      }
    }
    return;
  }
  x += b * plan.c * at.channel;
  if (at.position != 1) {
    for (int64_t t = 0; t < positions; ++t)
      if (place[t] >= 0) copy(x + t * at.position, plan.c, packed + place[t] * plan.width);
  } else if (plan.c <= FEW || positions < N) {
    for (int64_t ch = 0; ch < plan.c; ++ch) scatter(x + ch * at.channel, 1, positions, place, plan.width, packed + ch);
  } else {
    squares<N>(plan.c, [&](int64_t ch) {
      const int64_t count = plan.c - ch < N ? plan.c - ch : N;
      for (int i = 0; i < count; ++i) rows[i] = x + (ch + i) * at.channel;
      pack_rows(rows, count, positions, place, plan.width, packed + ch);
    });
  }
}

template <class E>
void pack_gradients(const ConvPlan& plan, const E* g, const ConvStrides& at, int64_t b, int64_t from, int64_t to,
                    sum_t<E> scale, sum_t<E>* packed) {
  using T = sum_t<E>;
  constexpr int N = LANES<T>;
  const int64_t first = b * plan.block, outs = plan.O - first < plan.block ? plan.O - first : plan.block;
  const int64_t positions = plan.positions;
  for (int64_t v = from; v < to; ++v) {
    const int64_t panel = v / PANEL_VECTORS * PANEL_VECTORS, left = plan.vectors - panel;
    const int64_t step = (left < PANEL_VECTORS ? left : PANEL_VECTORS) * N;
    T* out = packed + panel * positions * N + (v - panel) * N;
    const int64_t count = outs - v * N < N ? outs - v * N : N;
    const E* channels = g + (first + v * N) * at.channel;
    if (at.position == 1) {
      const E* rows[N];
      for (int i = 0; i < count; ++i) rows[i] = channels + i * at.channel;
      squares<N>(positions, [&](int64_t t) __attribute__((always_inline)) {
        Vector<T> square[N];
        load_square(rows, count, t, positions - t, square);
        FASTRW_UNROLL for (int j = 0; j < N; ++j) if (t + j < positions) store(out + (t + j) * step, square[j] * scale);
      });
    } else if (count == N) {
      for (int64_t t = 0; t < positions; ++t) store(out + t * step, fetch(channels + t * at.position) * scale);
    } else {
      for (int64_t t = 0; t < positions; ++t) store(out + t * step, fetch(channels + t * at.position, count) * scale);
    }
  }
}

template <class T> void pack_weight(const ConvPlan& plan, const T* V, const int32_t* tap, T* packed) {
  constexpr int N = LANES<T>;
  const T* rows[N];
  for (int64_t o = 0; o < plan.O; o += N) {
    const int64_t count = plan.O - o < N ? plan.O - o : N;
    for (int i = 0; i < count; ++i) rows[i] = V + (o + i) * plan.taps;
    pack_rows(rows, count, plan.taps, tap, plan.Op, packed + o);
  }
}

template <class T> void unpack_weight(const ConvPlan& plan, const T* packed, const int32_t* tap, T* V) {
  constexpr int N = LANES<T>;
  const T* rows[N];
  squares<N>(plan.taps, [&](int64_t t) {
    const int64_t count = plan.taps - t < N ? plan.taps - t : N;
    for (int i = 0; i < count; ++i) rows[i] = packed + tap[t + i] * plan.Op;
    for (int64_t o = 0; o < plan.O; o += N) {
      Vector<T> square[N];
      load_square(rows, count, o, N, square);  // Op is O rounded up: never cut
      for (int j = 0; j < N && o + j < plan.O; ++j) store(V + (o + j) * plan.taps + t, square[j], count);
    }
  });
}

template <class E>
void unpack_values(const ConvPlan& plan, const sum_t<E>* packed, int64_t b, const E* y, const ConvStrides& y_at,
                   sum_t<E>* t, const ConvStrides& t_at, sum_t<E>* sums) {
  using T = sum_t<E>;
  constexpr int N = LANES<T>;
  const int64_t first = b * plan.block, outs = plan.O - first < plan.block ? plan.O - first : plan.block;
  const int64_t positions = plan.positions;
  for (int64_t v = 0; v < plan.vectors; ++v) {
    const int64_t panel = v / PANEL_VECTORS * PANEL_VECTORS, left = plan.vectors - panel;
    const int64_t step = (left < PANEL_VECTORS ? left : PANEL_VECTORS) * N;
    const T* from = packed + panel * positions * N + (v - panel) * N;
    const int64_t o = first + v * N, count = outs - v * N < N ? outs - v * N : N;
    if (t_at.position != 1) {
      Vector<T> plain = {}, product = {};
      for (int64_t at = 0; at < positions; ++at) {
        const Vector<T> value = load(from + at * step);
        const E* of_y = y + at * y_at.position + o;
        plain += value;
        product += value * (count == N ? fetch(of_y) : fetch(of_y, count));
        store(t + at * t_at.position + o, value, count);
      }
      for (int j = 0; j < count; ++j) {
        sums[o + j] += plain[j];
        sums[plan.O + o + j] += product[j];
      }
      continue;
    }
    Vector<T> plain[N] = {}, product[N] = {};
    const T* rows[N];
    for (int64_t at = 0; at < positions; at += N) {
      const int64_t width = positions - at < N ? positions - at : N;
      for (int i = 0; i < width; ++i) rows[i] = from + (at + i) * step;
      Vector<T> square[N];
      load_square(rows, width, 0, N, square);
      for (int j = 0; j < count; ++j) {
        const E* y_row = y + (o + j) * y_at.channel + at;
        plain[j] += square[j];
        product[j] += square[j] * (width == N ? fetch(y_row) : fetch(y_row, width));
        store(t + (o + j) * t_at.channel + at, square[j], width);
      }
    }
    for (int j = 0; j < count; ++j) {
      sums[o + j] += total<T>(plain[j]);
      sums[plan.O + o + j] += total<T>(product[j]);
    }
  }
}

#define FASTRW_INSTANCE(E)                                                                                         \
  template void pack_inputs(const ConvPlan&, const E*, const ConvStrides&, int64_t, const int32_t*, sum_t<E>*);    \
  template void pack_gradients(const ConvPlan&, const E*, const ConvStrides&, int64_t, int64_t, int64_t, sum_t<E>, \
                               sum_t<E>*);                                                                         \
  template void unpack_values(const ConvPlan&, const sum_t<E>*, int64_t, const E*, const ConvStrides&, sum_t<E>*,  \
                              const ConvStrides&, sum_t<E>*);
FASTRW_INSTANCE(float)
FASTRW_INSTANCE(double)
FASTRW_INSTANCE(Half)
FASTRW_INSTANCE(BFloat16)
template void pack_weight(const ConvPlan&, const float*, const int32_t*, float*);
template void pack_weight(const ConvPlan&, const double*, const int32_t*, double*);
template void unpack_weight(const ConvPlan&, const float*, const int32_t*, float*);
template void unpack_weight(const ConvPlan&, const double*, const int32_t*, double*);
}  // namespace fastrw::FASTRW_LEVEL
