// Parts of a matrix as the kernels read them.
#pragma once
#include "elements.h"

namespace fastrw {
// Every row of a matrix, or those of a list.
template <class E> struct Rows {
  const E* data;
  int64_t stride;                   // from a row to the next; elements of a row are adjacent
  const int64_t* listed = nullptr;  // the rows that count, where not all do

  const E* operator[](int64_t r) const { return data + (listed ? listed[r] : r) * stride; }
};

// Rows [q0, q1) and columns [p0, p1) of a matrix [q, p].
struct Block {
  int64_t q0, q1, p0, p1;
};

inline int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }
}  // namespace fastrw
