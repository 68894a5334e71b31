// relu_tangent on the CPU: one pass over memory as it lies.
#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "../ops.h"
#include "dense.h"
#include "isa.h"
#include "simd/relu_tangent.h"

namespace fastrw {
namespace {
constexpr int64_t GRAIN = 1 << 15;

template <class E> Tensor run(const Tensor& given, const Tensor& given_output) {
  const Tensor t = given.dim() >= 2 ? dense(given) : torch::stable::contiguous(given);
  const Tensor output = laid_out_as(t, given_output);
  Tensor out = torch::stable::empty_like(t);
  const E *from = pointer<E>(t), *seen = pointer<E>(output);
  E* to = static_cast<E*>(out.mutable_data_ptr());
  const auto kernel = FASTRW_SELECT(relu_tangent<E>);
  torch::stable::parallel_for(0, t.numel(), GRAIN, [=](int64_t first, int64_t last) {
    kernel(from + first, seen + first, to + first, last - first);
  });
  return out;
}
}  // namespace

Tensor relu_tangent_cpu(const Tensor& t, const Tensor& output) {
  const Spelled given[] = {{"t", "*", &t}, {"output", "*", &output}};
  check_tensors("relu_tangent", {given[0], given[1]});
  check_alike("relu_tangent", "t", t, {given[1]});
  switch (t.scalar_type()) {
    case ScalarType::Float: return run<float>(t, output);
    case ScalarType::Double: return run<double>(t, output);
    case ScalarType::Half: return run<Half>(t, output);
    default: return run<BFloat16>(t, output);
  }
}
}  // namespace fastrw
