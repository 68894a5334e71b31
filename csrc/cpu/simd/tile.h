// Register tiles of a product: up to ROWS numbers broadcast against a panel of two vectors, the sums in registers from
// the first term to the last. Only for sources under simd.
#pragma once
#include "rows.h"
#include "wide.h"

namespace fastrw::FASTRW_LEVEL {
// sums, a panel's two vectors and a broadcast number fill the registers; without FMA a product needs one too
constexpr int ROWS = FASTRW_BYTES == 64 ? 12 : FASTRW_BYTES == 32 ? 6 : 4;
template <class T> constexpr int WIDTH = 2 * LANES<T>;  // columns of a panel

template <int N> struct Count {
  static constexpr int value = N;
};

// Run with the smallest tile that holds so many rows and columns: the last tile of a matrix is seldom full.
template <class T, class Run> inline void with_tile(int64_t rows, int64_t columns, Run run) {
  const auto with_rows = [&](auto vectors) {
    if (rows > ROWS * 2 / 3) return run(Count<ROWS>{}, vectors);
    if (rows > ROWS / 3) return run(Count<ROWS * 2 / 3>{}, vectors);
    return run(Count<ROWS / 3>{}, vectors);
  };
  columns > LANES<T> ? with_rows(Count<2>{}) : with_rows(Count<1>{});
}

// acc[i] += sum_k x[i][k] y[k]; x[i][k] is at i * ROW_STEP + k * K_STEP, y a packed panel
template <int ROW_STEP, int K_STEP, int R, int V, class T>
[[gnu::always_inline]] inline void products(const T* x, const T* y, int64_t k, Vector<T> (&acc)[R][V]) {
  for (; k > 0; --k, x += K_STEP, y += WIDTH<T>) {
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
    for (; column + WIDTH<T> <= last; column += WIDTH<T>, to += count * WIDTH<T>) {
      store(to, fetch(row + column));
      store(to + L, fetch(row + column + L));
    }
    if (column < last) {
      store(to, fetch(row + column, last - column));
      store(to + L, fetch(row + column + L, last - column - L));
    }
  }
}

constexpr int ROOM = 16;  // behind a panel of rows: each row is written as whole vectors, and the next one over its end

// Columns [first, last) of `count` rows, row k times w[k], as panels of ROWS columns, each `count` deep. A row goes on
// to column `end`.
template <class E, class T>
inline void pack_rows(const Rows<E>& rows, const T* w, int64_t from, int64_t count, int64_t first, int64_t last,
                      int64_t end, T* panels) {
  constexpr int L = LANES<T>;
  for (int64_t k = 0; k < count; ++k) {
    const E* row = rows[from + k];
    const T weight = w ? w[from + k] : T(1);
    T* to = panels + k * ROWS;
    for (int64_t column = first; column < last; column += ROWS, to += count * ROWS + ROOM)
      for (int c = 0; c < ROWS; c += L) {
        const int64_t at = column + c;
        store(to + c, weight * (at + L <= end ? fetch(row + at) : fetch(row + at, end - at)));
      }
  }
}
}  // namespace fastrw::FASTRW_LEVEL
