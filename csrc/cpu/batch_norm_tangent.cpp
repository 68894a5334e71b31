// batch_norm_tangent on the CPU: the sums of each channel where they are not given, then one pass for all the rest.
// Memory is read as it lies: planes [S] of a channel, or rows [C] of channels-last. Partial sums are cut by the data
// alone, not by the threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../ops.h"
#include "dense.h"
#include "dtypes.h"
#include "isa.h"
#include "simd/batch_norm_tangent.h"

namespace fastrw {
namespace {
constexpr int64_t GRAIN = 1 << 14;  // elements per thread, at least
constexpr int64_t RUN = 256;        // rows are read so many elements at a time, or more
constexpr int64_t CHUNK = 1 << 15;  // elements of rows that one partial sum covers

int64_t up(int64_t x, int64_t y) { return (x + y - 1) / y; }

// the sums of t and of t (x - mean) over examples and positions: [2, C]
template <class E> std::vector<double> sums(const BatchNormTangent<E>& use, int64_t C) {
  using T = sum_t<E>;
  const auto kernel = FASTRW_SELECT(batch_norm_sums<E>);
  const int64_t runs = up(use.size, use.length);
  const int64_t chunk = use.channels ? 1 : up(CHUNK, use.length), chunks = up(runs, chunk);
  const int64_t width = use.channels ? 2 : 2 * use.length;
  std::vector<T> partial(chunks * width);
  T* found = partial.data();
  torch::stable::parallel_for(0, chunks, up(GRAIN, chunk * use.length), [=](int64_t first, int64_t last) {
    if (use.channels)
      kernel(use, first, last, found);
    else
      for (int64_t i = first; i < last; ++i) kernel(use, i * chunk, std::min((i + 1) * chunk, runs), found + i * width);
  });
  std::vector<double> total(2 * C);
  for (int64_t i = 0; i < chunks; ++i)
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t j = 0; j < width / 2; ++j)
        total[half * C + (use.channels ? i : j) % C] += partial[i * width + half * (width / 2) + j];
  return total;
}

template <class E>
Tensor run(const Tensor& given, const Maybe& t, const Tensor& mean, const Tensor& rstd, const Maybe& weight,
           const Maybe& d_weight, const Maybe& d_bias, const Maybe& residual, const Maybe& output,
           const Maybe& known_sums) {
  using T = sum_t<E>;
  const Tensor x = dense(given);
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() == 0) return out;
  const auto wide = [&](const Maybe& c) {
    return c ? Maybe(torch::stable::contiguous(torch::stable::to(*c, fastrw::sums(x.scalar_type())))) : c;
  };
  const Maybe t_like = laid_out_as(x, t), residual_like = laid_out_as(x, residual),
              output_like = laid_out_as(x, output);
  const Maybe mean_wide = wide(mean), rstd_wide = wide(rstd), weight_wide = wide(weight), sums_wide = wide(known_sums),
              d_weight_wide = wide(d_weight), d_bias_wide = wide(d_bias);
  const int64_t C = x.size(1), count = x.numel() / C;
  const bool rows = channels_last(x);
  const int64_t length = rows ? up(RUN, C) * C : count / x.size(0);
  const int64_t entries = rows ? length : C;
  std::vector<T> table(4 * entries);
  T *means = table.data(), *slope = means + entries, *scale = slope + entries, *shift = scale + entries;
  const T *mu = pointer<T>(mean_wide), *r = pointer<T>(rstd_wide), *w = pointer<T>(weight_wide),
          *dw = pointer<T>(d_weight_wide), *db = pointer<T>(d_bias_wide), *known = pointer<T>(sums_wide);
  for (int64_t i = 0; i < entries; ++i) means[i] = mu[i % C];
  const BatchNormTangent<E> use{pointer<E>(x),
                                pointer<E>(t_like),
                                pointer<E>(residual_like),
                                pointer<E>(output_like),
                                mutable_pointer<E>(out),
                                x.numel(),
                                length,
                                rows ? 0 : C,
                                means,
                                slope,
                                scale,
                                shift};
  const std::vector<double> found = use.t && !known ? sums(use, C) : std::vector<double>();
  for (int64_t i = 0; i < entries; ++i) {
    const int64_t c = i % C;
    slope[i] = dw ? dw[c] * r[c] : T(0);
    shift[i] = db ? db[c] : T(0);
    if (use.t == nullptr) continue;
    scale[i] = w ? r[c] * w[c] : r[c];
    const double t_sum = known ? known[c] : found[c];
    const double cross = known ? known[C + c] - mu[c] * t_sum : found[C + c];
    slope[i] -= T(scale[i] * (cross / count) * r[c] * r[c]);
    shift[i] -= T(scale[i] * (t_sum / count));
  }
  const auto kernel = FASTRW_SELECT(batch_norm_tangent<E>);
  torch::stable::parallel_for(0, up(use.size, length), up(GRAIN, length),
                              [=](int64_t first, int64_t last) { kernel(use, first, last); });
  return out;
}

void check_arguments(const Tensor& x, const Maybe& t, const Tensor& mean, const Tensor& rstd, const Maybe& weight,
                     const Maybe& d_weight, const Maybe& d_bias, const Maybe& residual, const Maybe& output,
                     const Maybe& sums) {
  constexpr auto OP = "batch_norm_tangent";
  const Spelled like_x[] = {
      {"t", "nC*", maybe(t)}, {"residual", "nC*", maybe(residual)}, {"output", "nC*", maybe(output)}};
  check_tensors(OP, {{"x", "nC*", &x},
                     like_x[0],
                     {"mean", "C", &mean, Spelled::wide},
                     {"rstd", "C", &rstd, Spelled::wide},
                     {"weight", "C", maybe(weight), Spelled::wide},
                     {"d_weight", "C", maybe(d_weight), Spelled::wide},
                     {"d_bias", "C", maybe(d_bias), Spelled::wide},
                     like_x[1],
                     like_x[2],
                     {"sums", "2C", maybe(sums), Spelled::wide}});
  check_alike(OP, "x", x, {like_x[0], like_x[1], like_x[2]});
  check(!sums || sums->size(0) == 2, OP, ": sums must be [2, C], got shape ", sums ? shape(*sums) : "");
}
}  // namespace

Tensor batch_norm_tangent_cpu(const Tensor& x, const Maybe& t, const Tensor& mean, const Tensor& rstd,
                              const Maybe& weight, const Maybe& d_weight, const Maybe& d_bias, const Maybe& residual,
                              const Maybe& output, const Maybe& sums) {
  check_arguments(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums);
  return with_dtype(
      x, [&]<class E>(E) { return run<E>(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums); });
}
}  // namespace fastrw
