// Weighted sums of weight gradients, shared by conv_outer and by conv_instance's V.
#pragma once
#include "conv.h"

namespace fastrw {
// sum over i of w_i times the weight gradient of example examples[i], as [taps][Op] with zeros behind; w null: ones
template <class E>
std::vector<sum_t<E>> conv_outer_sum(const ConvUse& use, const std::vector<int64_t>& examples, const sum_t<E>* w);

// [taps][Op] as a weight [O, C / groups, *kernel] of its own
template <class T> Tensor conv_weight_tensor(const ConvUse& use, const T* packed, const Ints& kernel, ScalarType sums);
}  // namespace fastrw
