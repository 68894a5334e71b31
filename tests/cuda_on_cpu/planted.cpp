// A block-wide sum with a bug planted in it, to see that emulator and sanitizers find it. Run with the bug's number:
// 0 none, 1 no test of the tail, 2 a barrier missing, 3 a barrier in a branch, 4 a shared array too short, 5 a shuffle
// in a branch, 6 a row past the last, 7 shared memory never written, 8 a store past the end.
#include <cstdio>
#include <cstdlib>

#include "emulator.h"

constexpr int THREADS = 64, WARPS = THREADS / 32;
constexpr unsigned ALL = 0xffffffffu;

template <int BUG> __global__ void row_sums(const float* x, float* sums, int64_t rows, int64_t columns) {
  __shared__ float parts[WARPS - (BUG == 4)];
  float* part = parts;
  const int64_t row = int64_t(blockIdx.x) + (BUG == 6);
  float sum = 0.f;
  for (int64_t c = threadIdx.x; c < columns || (BUG == 1 && c < columns + THREADS); c += THREADS)
    sum += x[row * columns + c];
  if (BUG == 5 && threadIdx.x < 16) sum += __shfl_xor_sync(ALL, sum, 16);
  for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(ALL, sum, bits);
  if (threadIdx.x % 32 == 0 && !(BUG == 7 && threadIdx.x)) part[threadIdx.x / 32] = sum;
  if (BUG != 2) __syncthreads();
  if (threadIdx.x == 0) {
    if (BUG == 3) __syncthreads();
    float total = 0.f;
    for (int w = 0; w < WARPS - (BUG == 4); ++w) total += part[w];
    sums[blockIdx.x + (BUG == 8 ? rows : 0)] = total;
  }
}

template <int BUG> int run() {
  const int64_t rows = 3, columns = 101;
  std::vector<float> x(rows * columns);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i % 7);
  bool right = true;
  for (emulator::seed = 1; emulator::seed <= 4; ++emulator::seed) {
    std::vector<float> sums(rows, NAN);
    FASTRW_LAUNCH(row_sums<BUG>, dim3(rows), dim3(THREADS), nullptr, x.data(), sums.data(), rows, columns);
    for (int64_t r = 0; r < rows; ++r) {
      float expected = 0.f;
      for (int64_t c = 0; c < columns; ++c) expected += x[r * columns + c];
      right &= sums[r] == expected;
    }
  }
  std::puts(right ? "right" : "wrong");
  return right ? 0 : 1;
}

int main(int, char** arguments) try {
  int (*const runs[])() = {run<0>, run<1>, run<2>, run<3>, run<4>, run<5>, run<6>, run<7>, run<8>};
  return runs[std::atoi(arguments[1])]();
} catch (const std::exception& raised) {
  std::puts(raised.what());
  return 2;
}
