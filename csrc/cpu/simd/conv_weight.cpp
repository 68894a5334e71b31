// The weight gradient of a convolution: a tile of taps times vectors of output channels stays in registers over all
// positions of all examples, acc[tap][o] += x[position + tap] g[position][o].
#include "conv_weight.h"

#include "conv_pack.h"
#include "transpose.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
constexpr int LONG = FASTRW_REGISTERS == 32 ? 24 : 12;  // taps of one run against one vector of outputs
constexpr int WIDE = LONG / 2;                          // against two
constexpr int MANY = FASTRW_REGISTERS == 32 ? 27 : 12;  // taps of several runs: small filters, all at once
static_assert(PANEL_VECTORS == 2);

template <class T> struct Tile {
  const T *x, *g;
  int64_t g_step;  // from one position of g to the next
  T* G;            // the tile's first tap and output
  const T* V;
  int64_t run;       // taps from one run of the tile to the next
  int64_t lanes[2];  // of each vector that belong to this block
};

// RUNS runs of TAPS adjacent taps, VECTORS vectors of outputs; SPREAD inputs have a number for each lane
template <int RUNS, int TAPS, int VECTORS, bool SPREAD, class T>
Vector<T> tile(const ConvPlan& plan, const ConvWeight<T>& use, const Tile<T>& at) {
  constexpr int N = LANES<T>;
  const auto row = [&](int r, int j) { return (r * at.run + j) * plan.Op; };
  Vector<T> acc[RUNS][TAPS][VECTORS] = {};
  if (use.add)
    FASTRW_UNROLL for (int r = 0; r < RUNS; ++r) FASTRW_UNROLL for (int j = 0; j < TAPS; ++j)
        FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) acc[r][j][v] = load(at.G + row(r, j) + v * N);
  const int64_t columns = plan.columns, column_step = plan.column_step, step = plan.step, g_step = at.g_step;
  for (int64_t e = 0; e < use.examples; ++e) {
    const T* g = at.g + e * plan.g_size;
    for (int64_t y = 0; y < plan.rows; ++y) {
      const T* x = at.x + e * plan.x_size + y * plan.row_step;
      for (int64_t i = 0; i < columns; ++i, x += column_step, g += g_step) {
        Vector<T> gs[VECTORS];
        FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) gs[v] = load(g + v * N);
        FASTRW_UNROLL for (int r = 0; r < RUNS; ++r) FASTRW_UNROLL for (int j = 0; j < TAPS; ++j)
            FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) {
          if constexpr (SPREAD)
            acc[r][j][v] += load(x + r * step + j * N) * gs[v];
          else
            acc[r][j][v] += x[r * step + j] * gs[v];
        }
      }
    }
  }
  Vector<T> dot = {};
  if (at.V != nullptr)
    FASTRW_UNROLL for (int r = 0; r < RUNS; ++r) FASTRW_UNROLL for (int j = 0; j < TAPS; ++j)
        FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) dot += acc[r][j][v] * load(at.V + row(r, j) + v * N);
  if (at.lanes[VECTORS - 1] >= N) {
    FASTRW_UNROLL for (int r = 0; r < RUNS; ++r) FASTRW_UNROLL for (int j = 0; j < TAPS; ++j)
        FASTRW_UNROLL for (int v = 0; v < VECTORS; ++v) store(at.G + row(r, j) + v * N, acc[r][j][v]);
  } else {
    T cut[RUNS][TAPS][VECTORS][N];
    memcpy(cut, acc, sizeof cut);
    for (int r = 0; r < RUNS; ++r)
      for (int j = 0; j < TAPS; ++j)
        for (int v = 0; v < VECTORS; ++v)
          for (int l = 0; l < N && l < at.lanes[v]; ++l) at.G[row(r, j) + v * N + l] = cut[r][j][v][l];
  }
  return dot;
}

template <class T> using Run = Vector<T> (*)(const ConvPlan&, const ConvWeight<T>&, const Tile<T>&);

// the tile of `taps` <= TAPS taps a run
template <int RUNS, int TAPS, int VECTORS, bool SPREAD, class T> Run<T> choose(int64_t taps) {
  if constexpr (TAPS > 1)
    if (taps < TAPS) return choose<RUNS, TAPS - 1, VECTORS, SPREAD, T>(taps);
  return tile<RUNS, TAPS, VECTORS, SPREAD, T>;
}

// all the taps of `vectors` vectors of outputs
template <bool SPREAD, class T>
Vector<T> tiles(const ConvPlan& plan, const ConvWeight<T>& use, const T* g, int64_t g_step, int64_t vectors,
                int64_t out, const int64_t (&lanes)[2]) {
  Vector<T> dot = {};
  for (int64_t band = 0; band < plan.bands; ++band) {
    for (int64_t r = 0; r < plan.runs;) {
      const int64_t left = plan.runs - r, run = plan.run;
      const int64_t many = left >= 5 && 5 * run <= MANY   ? 5
                           : left >= 3 && 3 * run <= MANY ? 3
                           : left >= 2 && 2 * run <= MANY ? 2
                                                          : 1;
      const int64_t at_once = many > 1 ? 1 : vectors, most = many > 1 ? run : at_once == 2 ? WIDE : LONG;
      const int64_t splits = (run + most - 1) / most;
      for (int64_t v = 0; v < vectors; v += at_once) {
        for (int64_t split = 0, j = 0; split < splits; ++split) {
          const int64_t taps = (run - j + splits - split - 1) / (splits - split);
          const int64_t from = ((band * plan.runs + r) * run + j) * plan.Op + out + v * LANES<T>;
          const Tile<T> at = {use.x + band * plan.band_step + r * plan.step + j * plan.unit,
                              g + v * LANES<T>,
                              g_step,
                              use.G + from,
                              use.V == nullptr ? nullptr : use.V + from,
                              run,
                              {lanes[v], lanes[1]}};
          const Run<T> f = many == 5      ? choose<5, MANY / 5, 1, SPREAD, T>(taps)
                           : many == 3    ? choose<3, MANY / 3, 1, SPREAD, T>(taps)
                           : many == 2    ? choose<2, MANY / 2, 1, SPREAD, T>(taps)
                           : at_once == 2 ? choose<1, WIDE, 2, SPREAD, T>(taps)
                                          : choose<1, LONG, 1, SPREAD, T>(taps);
          dot += f(plan, use, at);
          j += taps;
        }
      }
      r += many;
    }
  }
  return dot;
}
}  // namespace

template <class T> T conv_weight(const ConvPlan& plan, const ConvWeight<T>& use) {
  constexpr int N = LANES<T>;
  const int64_t first = use.b * plan.block, outs = plan.O - first < plan.block ? plan.O - first : plan.block;
  const bool last = use.b == plan.blocks - 1;
  Vector<T> dot = {};
  for (int64_t v = use.first; v < use.last; v += PANEL_VECTORS) {
    const int64_t vectors = plan.vectors - v < PANEL_VECTORS ? plan.vectors - v : PANEL_VECTORS;
    int64_t lanes[2];  // a later block's outputs are not to be touched; past the last one there is room up to Op
    for (int i = 0; i < 2; ++i) lanes[i] = last ? plan.Op - first - (v + i) * N : outs - (v + i) * N;
    const T* g = use.g + v * plan.positions * N;
    dot += plan.spread ? tiles<true>(plan, use, g, vectors * N, 1, first + v * N, lanes)
                       : tiles<false>(plan, use, g, vectors * N, vectors, first + v * N, lanes);
  }
  return total<T>(dot);
}

template float conv_weight(const ConvPlan&, const ConvWeight<float>&);
template double conv_weight(const ConvPlan&, const ConvWeight<double>&);
}  // namespace fastrw::FASTRW_LEVEL
