// project_dot on the CPU: checks, then V block by block, packed by all threads, then rows over the threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "../checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "isa.h"
#include "rows.h"
#include "scratch.h"
#include "simd/project_dot.h"

namespace fastrw {
namespace {
constexpr int64_t GRAIN = 1 << 16;        // multiply-adds per thread, at least
constexpr int64_t BLOCK_BYTES = 1 << 20;  // of V, packed: it stays in L2 while the rows pass

// E of a and g, F of V [q, p]: that of E or of its sums. s [r] need not be filled.
template <class E, class F> void project(const ProjectDot<E>& use, const Rows<F>& V, int64_t r, int64_t p, int64_t q) {
  using T = sum_t<E>;
  const auto pack = FASTRW_SELECT(pack_block<F>);
  const auto add = FASTRW_SELECT(project_dot<E>);
  const int64_t depth = part(q, PROJECT_DEPTH, 1);
  const int64_t width = part(p, BLOCK_BYTES / int64_t(sizeof(T)) / std::max<int64_t>(depth, 1), PROJECT_PANEL);
  const Scratch<T> room(depth * width);
  T* const packed = room.data();
  std::fill_n(use.s, r, T(0));
  for (int64_t q0 = 0; q0 == 0 || q0 < q; q0 += depth) {
    for (int64_t p0 = 0; p0 == 0 || p0 < p; p0 += width) {
      const Block block{q0, std::min(q0 + depth, q), p0, std::min(p0 + width, p)};
      const auto panels = [=](int64_t first, int64_t last) {
        pack(V, block, p0 + first * PROJECT_PANEL, std::min(p0 + last * PROJECT_PANEL, block.p1), packed);
      };
      const auto tiles = [=](int64_t first, int64_t last) {
        const Scratch<T> scratch(PROJECT_SCRATCH);
        add(use, block, packed, first * PROJECT_TILE, std::min(last * PROJECT_TILE, r), scratch.data());
      };
      using torch::stable::parallel_for;
      parallel_for(0, parts(block.p1 - p0, PROJECT_PANEL), parts(GRAIN, PROJECT_PANEL * depth), panels);
      parallel_for(0, parts(r, PROJECT_TILE), parts(GRAIN, PROJECT_TILE * depth * width), tiles);
    }
  }
}
}  // namespace

Tensor project_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& V, const std::optional<Tensor>& v_b) {
  check_tensors(
      "project_dot",
      {{"a", "rp", &a}, {"g", "rq", &g}, {"V", "qp", &V, Spelled::wide}, {"v_b", "q", maybe(v_b), Spelled::wide}});
  const ScalarType type = sums(a.scalar_type());
  const Tensor s = torch::stable::new_empty(a, {a.size(0)}, type);
  const Tensor a_rows = rows(a), g_rows = rows(g), V_rows = rows(V);
  const std::optional<Tensor> bias = v_b ? std::optional(vector(*v_b, type)) : v_b;
  const int64_t r = a.size(0), p = a.size(1), q = g.size(1);
  if (r == 0) return s;
  with_dtype(a, [&]<class E>(E) {
    using T = sum_t<E>;
    const ProjectDot<E> use{matrix<E>(a_rows), matrix<E>(g_rows), bias ? pointer<T>(*bias) : nullptr,
                            mutable_pointer<T>(s)};
    V.scalar_type() == type ? project(use, matrix<T>(V_rows), r, p, q) : project(use, matrix<E>(V_rows), r, p, q);
  });
  return s;
}
}  // namespace fastrw
