#include "pool.h"

#include <torch/csrc/stable/ops.h>

#include <set>
#include <thread>
#include <vector>

namespace fastrw {
size_t pool_threads() {
  const int64_t threads = torch::stable::get_num_threads();
  std::vector<std::thread::id> seen(threads);
  std::thread::id* ids = seen.data();
  torch::stable::parallel_for(0, threads, 1, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) ids[i] = std::this_thread::get_id();
  });
  return std::set<std::thread::id>(seen.begin(), seen.end()).size();
}
}  // namespace fastrw
