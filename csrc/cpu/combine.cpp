// combine on the CPU, of one use and of many. An example is read as one range of memory, in whatever order its
// dimensions lie and with the padding between them; the sums of the padding are left behind when the result is brought
// into order.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../ops.h"
#include "conv.h"
#include "isa.h"
#include "simd/combine.h"

namespace fastrw {
namespace {
constexpr int64_t COLUMNS = 4096;       // of one task
constexpr int64_t EXAMPLES = 1024;      // per split of the sum: a second stage adds up the splits
constexpr int64_t PARTIALS = 64 << 20;  // bytes of partial sums, at most

// Numbers from an example's first to its last; 0 where they are too far apart, or overlap.
int64_t span(const Tensor& G) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t d = 1; d < G.dim(); ++d)
    if (G.size(d) > 1) dims.emplace_back(G.stride(d), G.size(d));
  std::sort(dims.begin(), dims.end());
  int64_t numbers = 1, reach = 1;
  for (const auto& [stride, size] : dims) {
    if (stride < reach) return 0;
    reach += (size - 1) * stride;
    numbers *= size;
  }
  return reach <= 4 * numbers ? reach : 0;
}

template <class E> Tensor run(const Tensor& G, const Tensor& w, ScalarType sums) {
  using T = sum_t<E>;
  Ints shape, strides;
  for (int64_t d = 1; d < G.dim(); ++d) shape.push_back(G.size(d)), strides.push_back(G.stride(d));
  const int64_t size = span(G), step = G.stride(0);
  const auto* numbers = pointer<E>(G);
  const auto* weights = pointer<T>(w);
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < G.size(0); ++i)
    if (weights[i] != 0) kept.push_back(i);
  const int64_t count = kept.size(), most = PARTIALS / int64_t(sizeof(T)) / size;
  const int64_t splits = std::max<int64_t>(1, std::min((count + EXAMPLES - 1) / EXAMPLES, most));
  const int64_t blocks = (size + COLUMNS - 1) / COLUMNS;
  const Scratch<T> partial(splits * size);
  T* sum = partial.data();
  const int64_t* rows = kept.data();
  const auto kernel = FASTRW_SELECT(combine<E>);
  torch::stable::parallel_for(0, splits * blocks, 1, [=](int64_t from, int64_t to) {
    for (int64_t item = from; item < to; ++item) {
      const int64_t split = item / blocks, first = item % blocks * COLUMNS, begin = count * split / splits;
      kernel(numbers, step, rows + begin, count * (split + 1) / splits - begin, weights, first,
             std::min(size, first + COLUMNS), sum + split * size);
    }
  });
  for (int64_t split = 1; split < splits; ++split)
    for (int64_t j = 0; j < size; ++j) sum[j] += sum[split * size + j];
  Tensor out = torch::stable::new_empty(G, shape, sums);
  return torch::stable::copy_(out, torch::stable::from_blob(sum, shape, strides, G.device(), sums));
}
}  // namespace

namespace {
Tensor combined(const Tensor& G, const Tensor& w) {
  const ScalarType type = sums(G.scalar_type());
  if (G.numel() == 0) {
    Ints shape;
    for (int64_t d = 1; d < G.dim(); ++d) shape.push_back(G.size(d));
    return torch::stable::new_zeros(G, shape, type);
  }
  return with_dtype(
      G, [&]<class E>(E) { return run<E>(span(G) > 0 ? G : torch::stable::contiguous(G), as_sums(w, type), type); });
}
}  // namespace

Tensor combine_cpu(const Tensor& G, const Tensor& w) {
  check_tensors("combine", {{"G", "n*", &G}, {"w", "n", &w, Spelled::wide}});
  return combined(G, w);
}

// Small ones, for which a call costs more than the sum: one after the other.
std::vector<Tensor> grouped_combine_cpu(const std::vector<Tensor>& G, const Tensor& w) {
  check_grouped_combine(G, w);
  std::vector<Tensor> found;
  found.reserve(G.size());
  for (const Tensor& one : G) found.push_back(combined(one, w));
  return found;
}
}  // namespace fastrw
