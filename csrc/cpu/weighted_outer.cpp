// weighted_outer on the CPU, of one use and of many: checks, the list of rows that count, then blocks of W over the
// threads. Every element of W is summed in the same order whatever the threads: a long sum is split (split-K) into as
// many parts as its shape alone says.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "../checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "isa.h"
#include "rows.h"
#include "scratch.h"
#include "simd/weighted_outer.h"

namespace fastrw {
namespace {
constexpr int64_t GRAIN = 1 << 16;  // multiply-adds per thread, at least
constexpr int64_t LONG = 1024;      // rows per split of the sum, at least
constexpr int64_t LEAST_Q = 48;     // a smaller block is mostly packing
constexpr int64_t LEAST_P = 144;
constexpr int64_t ENOUGH = 16;  // blocks of W with which no sum need be cut

// The rows of examples whose weight is not 0, `each` an example, and their weights.
template <class T> struct Listed {
  std::vector<int64_t> rows;
  std::vector<T> w;

  Listed(const T* weights, int64_t n, int64_t each) {
    rows.reserve(n * each), w.reserve(n * each);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t row = i * each; weights[i] != 0 && row < (i + 1) * each; ++row)
        rows.push_back(row), w.push_back(weights[i]);
  }
};

// parts[0] += parts[1] + ... in that order, `size` sums each
template <class T> void add_up(T* parts, int64_t count, int64_t size, T* sum) {
  torch::stable::parallel_for(0, size, GRAIN, [=](int64_t first, int64_t last) {
    for (int64_t part = 0; part < count; ++part)
      for (int64_t i = first; i < last; ++i) sum[i] += parts[part * size + i];
  });
}

template <class E> void run(const WeightedOuter<E>& use, int64_t r, sum_t<E>* W, sum_t<E>* b) {
  using T = sum_t<E>;
  const int64_t p = use.p, q = use.q, threads = torch::stable::get_num_threads();
  const int64_t cuts = std::max<int64_t>(1, std::min(r / LONG, ENOUGH / (parts(q, LEAST_Q) * parts(p, LEAST_P))));
  int64_t most_q = OUTER_Q, most_p = OUTER_P;
  while (cuts * parts(q, most_q) * parts(p, most_p) < threads && (most_q > LEAST_Q || most_p > LEAST_P))
    (most_p > LEAST_P ? most_p : most_q) /= 2;
  const int64_t high = part(q, most_q, 8), wide = part(p, most_p, 48);
  const int64_t q_blocks = parts(q, high), p_blocks = parts(p, wide), tasks = cuts * q_blocks * p_blocks;
  const int64_t room = outer_scratch(std::min(high, q), std::min(wide, p), std::min(OUTER_DEPTH, r));
  const Scratch<T> others((cuts - 1) * (p + 1) * q);
  T *const W_others = others.data(), *const b_others = W_others + (cuts - 1) * p * q;
  const auto kernel = FASTRW_SELECT(weighted_outer<E>);
  torch::stable::parallel_for(0, tasks, parts(GRAIN, r * p * q / tasks + 1), [=](int64_t first, int64_t last) {
    const Scratch<T> scratch(room);
    for (int64_t task = first; task < last; ++task) {
      const int64_t cut = task / (q_blocks * p_blocks), q0 = task / p_blocks % q_blocks * high,
                    p0 = task % p_blocks * wide;
      const Block block{q0, std::min(q0 + high, q), p0, std::min(p0 + wide, p)};
      kernel(use, block, r * cut / cuts, r * (cut + 1) / cuts, cut ? W_others + (cut - 1) * p * q : W,
             cut ? b_others + (cut - 1) * q : b, scratch.data());
    }
  });
  if (cuts > 1) add_up(W_others, cuts - 1, p * q, W), add_up(b_others, cuts - 1, q, b);
}
}  // namespace

std::tuple<Tensor, Tensor> weighted_outer_cpu(const Tensor& a, const Tensor& g, const std::optional<Tensor>& w) {
  check_tensors("weighted_outer", {{"a", "rp", &a}, {"g", "rq", &g}, {"w", "r", maybe(w), Spelled::wide}});
  const ScalarType type = sums(a.scalar_type());
  const int64_t r = a.size(0), p = a.size(1), q = g.size(1);
  const Tensor W = torch::stable::new_empty(a, {q, p}, type), b = torch::stable::new_empty(a, {q}, type);
  const Tensor a_rows = rows(a), g_rows = rows(g);
  with_dtype(a, [&]<class E>(E) {
    using T = sum_t<E>;
    WeightedOuter<E> use{matrix<E>(a_rows), matrix<E>(g_rows), nullptr, p, q};
    T *const to_W = mutable_pointer<T>(W), *const to_b = mutable_pointer<T>(b);
    if (!w) return run(use, r, to_W, to_b);
    const Tensor weights = vector(*w, type);
    const Listed<T> listed(pointer<T>(weights), r, 1);
    use.a.listed = use.g.listed = listed.rows.data();
    use.w = listed.w.data();
    run(use, int64_t(listed.rows.size()), to_W, to_b);
  });
  return {W, b};
}

std::vector<Tensor> grouped_weighted_outer_cpu(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                                               const Tensor& w) {
  check_grouped_weighted_outer(a, g, w);
  const ScalarType type = sums(a[0].scalar_type());
  const int64_t uses = a.size(), n = w.size(0);
  std::vector<Tensor> a_rows, g_rows, found;
  int64_t work = 0;  // multiply-adds
  for (int64_t i = 0; i < uses; ++i) {
    a_rows.push_back(rows(a[i])), g_rows.push_back(rows(g[i]));
    found.push_back(torch::stable::new_empty(a[i], {g[i].size(1), a[i].size(1)}, type));
    work += a[i].numel() * g[i].size(1);
  }
  for (const Tensor& one : g) found.push_back(torch::stable::new_empty(one, {one.size(1)}, type));
  const Tensor weights = vector(w, type);
  with_dtype(a[0], [&]<class E>(E) {
    using T = sum_t<E>;
    std::map<int64_t, Listed<T>> listed;  // by rows of an example
    std::vector<WeightedOuter<E>> each;
    std::vector<std::pair<T*, T*>> to;
    std::vector<int64_t> counts;
    for (int64_t i = 0; i < uses; ++i) {
      const int64_t rows = n ? a[i].size(0) / n : 0;
      const Listed<T>& mine = listed.try_emplace(rows, pointer<T>(weights), n, rows).first->second;
      WeightedOuter<E> use{matrix<E>(a_rows[i]), matrix<E>(g_rows[i]), mine.w.data(), a[i].size(1), g[i].size(1)};
      use.a.listed = use.g.listed = mine.rows.data();
      each.push_back(use), counts.push_back(mine.rows.size());
      to.emplace_back(mutable_pointer<T>(found[i]), mutable_pointer<T>(found[uses + i]));
    }
    torch::stable::parallel_for(0, uses, parts(GRAIN, work / uses + 1), [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) run(each[i], counts[i], to[i].first, to[i].second);
    });
  });
  return found;
}
}  // namespace fastrw
