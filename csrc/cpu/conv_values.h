// A weight and a bias as the kernels of conv_value.h read them.
#pragma once
#include <algorithm>

#include "conv.h"
#include "simd/conv_pack.h"
#include "simd/conv_value.h"

namespace fastrw {
// A weight's panels, block after block.
template <class T> class ConvPanels {
 public:
  ConvPanels(const ConvUse& use, const Tensor& weight, ScalarType sums)
      : block_(use.plan.taps * use.plan.vectors * use.plan.lanes), panels_(use.plan.blocks * block_ + SLACK) {
    const Tensor wide = as_sums(weight, sums);
    std::vector<T> packed(use.plan.taps * use.plan.Op + SLACK);
    FASTRW_SELECT_AT(use.level, pack_weight<T>)(use.plan, pointer<T>(wide), use.tap.data(), packed.data());
    for (int64_t b = 0; b < use.plan.blocks; ++b)
      FASTRW_SELECT_AT(use.level, pack_panels<T>)(use.plan, packed.data(), b, panels_.data() + b * block_);
  }
  const T* get() const { return panels_.data(); }
  int64_t block() const { return block_; }

 private:
  int64_t block_;
  Scratch<T> panels_;
};

// [O] and zeros behind it; empty where there is none
template <class T> std::vector<T> conv_bias(const ConvPlan& plan, const std::optional<Tensor>& b, ScalarType sums) {
  if (!b.has_value()) return {};
  const Tensor wide = as_sums(*b, sums);
  std::vector<T> bias(plan.O + plan.vectors * plan.lanes);
  std::copy_n(pointer<T>(wide), plan.O, bias.begin());
  return bias;
}
}  // namespace fastrw
