// Element types as the kernels read them, and the type in which each is summed.
// Sources under simd include no standard template: one compiled for AVX-512 could be linked in everyone's place.
#pragma once
#include <stdint.h>
#include <string.h>

namespace fastrw {
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class E> struct Sum {
  using type = float;
};
template <> struct Sum<double> {
  using type = double;
};
template <class E> using sum_t = typename Sum<E>::type;
}  // namespace fastrw
