#pragma once
#include <cstddef>

namespace fastrw {
// Threads that a parallel_for really runs on: a serial stand-in gives right results at half the speed, and no error.
size_t pool_threads();
}  // namespace fastrw
