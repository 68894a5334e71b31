// Values of a convolution: a tile of positions times vectors of output channels stays in registers over all taps,
// acc[position][o] += x[position + tap] V[tap][o].
#include "conv_value.h"

#include "conv_pack.h"
#include "transpose.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
constexpr int MOST = FASTRW_REGISTERS == 32 ? 8 : 5;  // positions of a tile
static_assert(PANEL_VECTORS == 2);

template <int POSITIONS, int VECTORS, bool SPREAD, class T>
FASTRW_INLINE void add(const ConvPlan& plan, const T* x, const T* V, const int64_t* starts,
                       Vector<T> (&acc)[POSITIONS][VECTORS]) {
  constexpr int N = LANES<T>;
  const T* from[POSITIONS];
  FASTRW_UNROLL for (int i = 0; i < POSITIONS; ++i) from[i] = x + starts[i];
  const int64_t run = plan.run * plan.unit;
  for (int64_t band = 0; band < plan.bands; ++band)
    for (int64_t r = 0; r < plan.runs; ++r) {
      const int64_t first = band * plan.band_step + r * plan.step;
      for (int64_t j = first; j < first + run; j += SPREAD ? N : 1, V += VECTORS * N) {
        Vector<T> w[VECTORS];
        FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) w[v] = load(V + v * N);
        FASTRW_UNROLL for (int i = 0; i < POSITIONS; ++i) FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) {
          if constexpr (SPREAD)
            acc[i][v] += load(from[i] + j) * w[v];
          else
            acc[i][v] += from[i][j] * w[v];
        }
      }
    }
}

template <class T> struct Panel {
  ConvTerm<T> x, t;
  const T* v_b;
  const int64_t* starts;
  const T* g;  // of the panel: dotted with
  T* values;   // or written here
};

template <int POSITIONS, int VECTORS, bool SPREAD, class T>
Vector<T> tile(const ConvPlan& plan, const Panel<T>& panel, int64_t position) {
  constexpr int N = LANES<T>;
  Vector<T> acc[POSITIONS][VECTORS] = {};
  if (panel.v_b != nullptr) FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) {
      const Vector<T> b = load(panel.v_b + v * N);
      FASTRW_UNROLL for (int i = 0; i < POSITIONS; ++i) acc[i][v] = b;
    }
  add<POSITIONS, VECTORS, SPREAD>(plan, panel.x.x, panel.x.V, panel.starts + position, acc);
  if (panel.t.x != nullptr) add<POSITIONS, VECTORS, SPREAD>(plan, panel.t.x, panel.t.V, panel.starts + position, acc);
  Vector<T> dot = {};
  if (panel.g != nullptr) {
    const T* g = panel.g + position * VECTORS * N;
    FASTRW_UNROLL for (int i = 0; i < POSITIONS; ++i) FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) dot +=
        acc[i][v] * load(g + (i * VECTORS + v) * N);
  } else {
    T* to = panel.values + position * VECTORS * N;
    FASTRW_UNROLL for (int i = 0; i < POSITIONS; ++i) FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v)
        store(to + (i * VECTORS + v) * N, acc[i][v]);
  }
  return dot;
}

template <class T> using Run = Vector<T> (*)(const ConvPlan&, const Panel<T>&, int64_t);

template <int POSITIONS, int VECTORS, bool SPREAD, class T> Run<T> choose(int64_t positions) {
  if constexpr (POSITIONS > 1)
    if (positions < POSITIONS) return choose<POSITIONS - 1, VECTORS, SPREAD, T>(positions);
  return tile<POSITIONS, VECTORS, SPREAD, T>;
}

// all positions of a block; a panel of the weight follows the other, and so in g and values
template <class T> T block(const ConvPlan& plan, int64_t b, Panel<T> panel) {
  constexpr int N = LANES<T>;
  Vector<T> dot = {};
  if (panel.v_b != nullptr) panel.v_b += b * plan.block;
  for (int64_t v = 0; v < plan.vectors; v += PANEL_VECTORS) {
    const int64_t vectors = plan.vectors - v < PANEL_VECTORS ? plan.vectors - v : PANEL_VECTORS;
    const auto positions = [&](auto choice) {
      for (int64_t at = 0; at < plan.positions;) {
        const int64_t left = plan.positions - at, tiles = (left + MOST - 1) / MOST, count = (left + tiles - 1) / tiles;
        dot += choice(count)(plan, panel, at);
        at += count;
      }
    };
    if (plan.spread)
      positions(choose<MOST, 1, true, T>);
    else if (vectors == 2)
      positions(choose<MOST, 2, false, T>);
    else
      positions(choose<MOST, 1, false, T>);
    const int64_t weight = plan.taps * vectors * N, values = plan.positions * vectors * N;
    panel.x.V += weight;
    if (panel.t.x != nullptr) panel.t.V += weight;
    if (panel.v_b != nullptr) panel.v_b += vectors * N;
    if (panel.g != nullptr)
      panel.g += values;
    else
      panel.values += values;
  }
  return total<T>(dot);
}
}  // namespace

template <class T> void pack_panels(const ConvPlan& plan, const T* weight, int64_t b, T* panels) {
  constexpr int N = LANES<T>;
  const int64_t first = b * plan.block, outs = plan.O - first < plan.block ? plan.O - first : plan.block;
  for (int64_t v = 0; v < plan.vectors; v += PANEL_VECTORS) {
    const int64_t width = (plan.vectors - v < PANEL_VECTORS ? plan.vectors - v : PANEL_VECTORS) * N;
    for (int64_t tap = 0; tap < plan.taps; ++tap, panels += width)
      for (int64_t l = 0; l < width; ++l)
        panels[l] = v * N + l < outs ? weight[tap * plan.Op + first + v * N + l] : T(0);
  }
}

template <class T>
T conv_dot(const ConvPlan& plan, ConvTerm<T> x, int64_t b, const T* v_b, const int64_t* starts, const T* g) {
  return block<T>(plan, b, {x, {nullptr, nullptr}, v_b, starts, g, nullptr});
}

template <class T>
void conv_values(const ConvPlan& plan, ConvTerm<T> x, ConvTerm<T> t, int64_t b, const T* v_b, const int64_t* starts,
                 T* values) {
  block<T>(plan, b, {x, t, v_b, starts, nullptr, values});
}

#define FASTRW_INSTANCE(T)                                                                        \
  template void pack_panels(const ConvPlan&, const T*, int64_t, T*);                              \
  template T conv_dot(const ConvPlan&, ConvTerm<T>, int64_t, const T*, const int64_t*, const T*); \
  template void conv_values(const ConvPlan&, ConvTerm<T>, ConvTerm<T>, int64_t, const T*, const int64_t*, T*);
FASTRW_INSTANCE(float)
FASTRW_INSTANCE(double)
}  // namespace fastrw::FASTRW_LEVEL
