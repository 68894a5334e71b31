// Register tiles of a product: up to ROWS numbers broadcast against a panel of up to VECTORS vectors, the sums in
// registers from the first term to the last. Only for sources under simd.
#pragma once
#include "rows.h"
#include "wide.h"

namespace fastrw::FASTRW_LEVEL {
// sums, a panel's vectors and a broadcast number fill the registers; without FMA a product needs one too
constexpr int ROWS = FASTRW_BYTES == 64 ? 8 : 4;
constexpr int VECTORS = FASTRW_BYTES >= 32 ? 3 : 2;
template <class T> constexpr int WIDTH = VECTORS * LANES<T>;  // columns of a panel

template <int N> struct Count {
  static constexpr int value = N;
};

// Run with the smallest tile that holds so many rows and columns: the last tile of a matrix is seldom full.
template <class T, class Run> inline void with_tile(int64_t rows, int64_t columns, Run run) {
  const auto with_vectors = [&](auto r) {
    if (columns > 2 * LANES<T>) return run(r, Count<VECTORS>{});
    if (columns > LANES<T>) return run(r, Count<2>{});
    return run(r, Count<1>{});
  };
  rows > ROWS / 2 ? with_vectors(Count<ROWS>{}) : with_vectors(Count<ROWS / 2>{});
}

// Rows to come, asked for a line at a time while the present ones are multiplied.
template <class E> struct Ahead {
  Rows<E> rows[2];
  int64_t first[2], last[2];  // their columns
  int64_t row, end;
  int turn = 0;
  const E *at = nullptr, *stop = nullptr;

  [[gnu::always_inline]] void step() {
    if (at < stop) {
      __builtin_prefetch(at, 0, 2);
      at += 64 / sizeof(E);
    } else if (row < end) {
      const E* line = rows[turn][row];
      at = line + first[turn];
      stop = line + last[turn];
      row += turn;
      turn ^= 1;
    }
  }
};

struct Nothing {
  void step() {}
};

// acc[i] += sum_k x[i][k] y[k]; x[i][k] is at i * ROW_STEP + k * K_STEP, y a packed panel
template <int ROW_STEP, int K_STEP, int R, int V, class T, class Next>
[[gnu::always_inline]] inline void products(const T* x, const T* y, int64_t k, Vector<T> (&acc)[R][V], Next&& ahead) {
  for (; k > 0; --k, x += K_STEP, y += WIDTH<T>) {
    ahead.step();
    Vector<T> ys[V];
    for (int v = 0; v < V; ++v) ys[v] = load(y + v * LANES<T>);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
      for (int v = 0; v < V; ++v) acc[i][v] += x[i * ROW_STEP] * ys[v];
  }
}

// Columns [first, last) of `count` rows as panels of WIDTH columns, one after the other, each `count` rows deep; zero
// beyond the last column.
template <class E, class T>
inline void pack_panels(const Rows<E>& rows, int64_t from, int64_t count, int64_t first, int64_t last, T* panels) {
  constexpr int L = LANES<T>;
  for (int64_t k = 0; k < count; ++k) {
    const E* row = rows[from + k];
    T* to = panels + k * WIDTH<T>;
    int64_t column = first;
    for (; column + WIDTH<T> <= last; column += WIDTH<T>, to += count * WIDTH<T>)
      for (int v = 0; v < VECTORS; ++v) store(to + v * L, fetch(row + column + v * L));
    if (column < last)
      for (int v = 0; v < VECTORS; ++v) store(to + v * L, fetch(row + column + v * L, last - column - v * L));
  }
}

// Columns [first, last) of `count` rows, row k times w[k], as panels of ROWS columns, each `count` deep.
template <class E, class T>
inline void pack_rows(const Rows<E>& rows, const T* w, int64_t from, int64_t count, int64_t first, int64_t last,
                      T* panels) {
  for (int64_t k = 0; k < count; ++k) {
    const E* row = rows[from + k];
    const T weight = w ? w[from + k] : T(1);
    T* to = panels + k * ROWS;
    int64_t column = first;
    for (; column + ROWS <= last; column += ROWS, to += count * ROWS) {
      const auto group = weight * fetch_several<ROWS>(row + column);
      memcpy(to, &group, sizeof group);
    }
    if (column < last) {
      E some[ROWS] = {};
      for (int i = 0; i < last - column; ++i) some[i] = row[column + i];
      const auto group = weight * fetch_several<ROWS>(some);
      memcpy(to, &group, sizeof group);
    }
  }
}
}  // namespace fastrw::FASTRW_LEVEL
