// Runs CUDA kernels on the CPU, for tests: every thread of a block is a fiber and blocks run one after another. Between
// two barriers the warps run in a shuffled order, each as far as it can get, and so do the lanes between two warp
// intrinsics. AddressSanitizer and UBSan see every access.
// Stands in for the CUDA runtime where the compiler is not nvcc; kernels are launched by FASTRW_LAUNCH.
//
// Found beside what the sanitizers find: a barrier that some threads do not reach, or reach at another line; a warp
// intrinsic whose mask names a lane that has returned or stands elsewhere; shared memory read before it is written
// (it starts as NaN in each block).
// Tensor cores are those of mma.sync alone. Not covered: asynchronous copies, textures, blocks running at the same
// time. A race shows only where the shuffled order makes the result differ: run a kernel under several seeds.
#pragma once
#include <cuda_bf16.h>  // CUDA's own headers are plain C++ as far as types go
#include <cuda_fp16.h>
#include <driver_types.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __shared__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ __attribute__((section("emulated_shared"))) static  // one block runs at a time: its own memory

extern "C" {  // the bounds of that section, from the linker
extern char __start_emulated_shared[] __attribute__((weak));
extern char __stop_emulated_shared[] __attribute__((weak));
}

namespace emulator {
enum class State { runs, at_barrier, at_warp, returned };

struct Thread {
  ucontext_t context;
  void* stack;
  uint3 index;
  State state;
  int line;             // of the barrier or intrinsic where it stands
  unsigned mask;        // the lanes it waits for
  unsigned sent[2][6];  // what it gives to its warp; in turns, so that none overwrites what is still to be read
  int turn;
  void* fake_stack;  // AddressSanitizer's
};

constexpr size_t STACK_BYTES = 64 << 10;
constexpr int WARP = 32;

inline std::vector<Thread> threads;
inline int current = 0;
inline dim3 grid_size, block_size;
inline uint3 block_index;
inline unsigned seed = 1;
inline std::function<void()> kernel;
inline std::string error;
inline ucontext_t scheduler;
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_stack_bytes = 0;

inline Thread& self() { return threads[current]; }
inline int lane() { return current % WARP; }

inline std::string place() {
  return " (block " + std::to_string(block_index.x) + ", thread " + std::to_string(current) + ")";
}

// ---- fibers

inline void leave() {  // this thread's fiber -> the scheduler
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(self().state == State::returned ? nullptr : &self().fake_stack, scheduler_stack,
                                 scheduler_stack_bytes);
#endif
  swapcontext(&self().context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self().fake_stack, nullptr, nullptr);
#endif
}

inline void enter(int thread) {  // the scheduler -> a thread's fiber
  current = thread;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, self().stack, STACK_BYTES);
#endif
  swapcontext(&scheduler, &self().context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

inline void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  try {
    kernel();
  } catch (const std::exception& raised) {
    error = raised.what();
  }
  self().state = State::returned;
  leave();
}

inline void wait(State state, unsigned mask, int line) {
  self().state = state;
  self().mask = mask;
  self().line = line;
  leave();
}

// ---- barriers

// Lets a warp go on when all lanes that stand in it wait for one another at one line.
inline bool release_warp(int first, int last) {
  unsigned standing = 0, wanted = 0, returned = 0;
  int line = 0;
  for (int t = first; t < last; ++t) {
    const Thread& thread = threads[t];
    if (thread.state == State::returned) returned |= 1u << (t - first);
    if (thread.state != State::at_warp) continue;
    if (standing && thread.line != line)
      throw std::runtime_error("lanes of one warp meet at different lines, " + std::to_string(line) + " and " +
                               std::to_string(thread.line) + place());
    standing |= 1u << (t - first);
    wanted |= thread.mask;
    line = thread.line;
  }
  if (last - first < WARP) wanted &= (1u << (last - first)) - 1;
  if (standing && (wanted & returned))
    throw std::runtime_error("line " + std::to_string(line) + " waits for a lane that has returned" + place());
  if (!standing || (wanted & ~standing)) return false;
  for (int t = first; t < last; ++t)
    if (threads[t].state == State::at_warp) threads[t].state = State::runs;
  return true;
}

// Lets the block go on when all of it waits at one line; false when all of it has returned.
inline bool release_block() {
  int waiting = 0, returned = 0, line = 0;
  for (const Thread& thread : threads) {
    returned += thread.state == State::returned;
    if (thread.state != State::at_barrier) continue;
    if (waiting++ && thread.line != line)
      throw std::runtime_error("__syncthreads at different lines, " + std::to_string(line) + " and " +
                               std::to_string(thread.line) + place());
    line = thread.line;
  }
  if (returned == static_cast<int>(threads.size())) return false;
  if (waiting < static_cast<int>(threads.size()))
    throw std::runtime_error("deadlock: " + std::to_string(waiting) + " of " + std::to_string(threads.size()) +
                             " threads at __syncthreads" + place());
  for (Thread& thread : threads) thread.state = State::runs;
  return true;
}

// ---- blocks

__attribute__((no_sanitize("address"))) inline void spoil_shared_memory() {
  for (volatile char* byte = __start_emulated_shared; byte != __stop_emulated_shared; ++byte) *byte = char(0xff);
}

// One warp until every lane waits or has returned; whether the warp can go on.
inline bool run_warp(int first, int last, std::mt19937& shuffler) {
  std::vector<int> lanes(last - first);
  std::iota(lanes.begin(), lanes.end(), first);
  std::shuffle(lanes.begin(), lanes.end(), shuffler);
  for (int thread : lanes) {
    if (threads[thread].state != State::runs) continue;
    enter(thread);
    if (!error.empty()) throw std::runtime_error(error);
  }
  return release_warp(first, last);
}

inline void run_block(std::mt19937& shuffler) {
  const int count = static_cast<int>(threads.size());
  for (int t = 0; t < count; ++t) {
    Thread& thread = threads[t];
    thread.index = {t % block_size.x, t / block_size.x % block_size.y, t / (block_size.x * block_size.y)};
    thread.state = State::runs;
    thread.turn = 0;
    thread.fake_stack = nullptr;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack;
    thread.context.uc_stack.ss_size = STACK_BYTES;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, run_thread, 0);
  }
  std::vector<int> warps((count + WARP - 1) / WARP);
  std::iota(warps.begin(), warps.end(), 0);
  do {
    std::shuffle(warps.begin(), warps.end(), shuffler);
    for (int warp : warps)
      while (run_warp(warp * WARP, std::min(warp * WARP + WARP, count), shuffler)) continue;
  } while (release_block());
}

inline void launch(dim3 grid, dim3 block, std::function<void()> body) {
  const size_t count = size_t(block.x) * block.y * block.z;
  if (count == 0 || count > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0)
    throw std::runtime_error("invalid launch: no block, no thread, or more than 1024 threads");
  grid_size = grid, block_size = block, kernel = std::move(body);
  error.clear();
  struct Stacks {
    explicit Stacks(size_t count) {
      threads.assign(count, Thread{});
      for (Thread& thread : threads)
        thread.stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    ~Stacks() {
      for (Thread& thread : threads) munmap(thread.stack, STACK_BYTES);
    }
  } stacks(count);
  std::mt19937 shuffler(seed);
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = {x, y, z};
        spoil_shared_memory();
        run_block(shuffler);
      }
}

// ---- what the lanes of a warp do together

// Gives words to the warp and waits until all have; the turn that words_of() takes.
inline int give(const void* words, size_t bytes, unsigned mask, int line) {
  if (!(mask >> lane() & 1)) throw std::runtime_error("a lane outside its own mask calls a warp intrinsic" + place());
  const int turn = self().turn ^= 1;
  memcpy(self().sent[turn], words, bytes);
  wait(State::at_warp, mask, line);
  return turn;
}

inline const unsigned* words_of(int lane_of_warp, int turn, unsigned mask) {
  const size_t thread = current - lane() + lane_of_warp;
  if (thread >= threads.size() || !(mask >> lane_of_warp & 1))
    throw std::runtime_error("a warp intrinsic reads a lane outside its mask" + place());
  return threads[thread].sent[turn];
}

// What lane `from` gives under this mask.
template <class T> T exchange(T given, unsigned mask, int from, int line) {
  static_assert(sizeof(T) <= sizeof(unsigned[6]));
  const int turn = give(&given, sizeof given, mask, line);
  T got;
  memcpy(&got, words_of(from, turn, mask), sizeof got);
  return got;
}

// Tensor cores: sums += x y^T as mma.sync has it, x [16, columns] and y [8, columns] over the 32 lanes. A row is in the
// words of 4 neighbours, its second half in their second words.
template <class E>
void mma(float (&sums)[4], const unsigned (&x)[4], const unsigned (&y)[2], E) {
  constexpr int OF_WORD = 4 / sizeof(E);
  const unsigned words[6] = {x[0], x[1], x[2], x[3], y[0], y[1]};
  const int turn = give(words, sizeof words, 0xffffffffu, -1);
  for (int i = 0; i < 4; ++i) {
    const int lower = i / 2, column = 2 * (lane() % 4) + i % 2;
    for (int word = 0; word < 8; ++word) {
      E xs[OF_WORD], ys[OF_WORD];
      memcpy(xs, words_of(lane() / 4 * 4 + word % 4, turn, 0xffffffffu) + 2 * (word / 4) + lower, sizeof xs);
      memcpy(ys, words_of(column * 4 + word % 4, turn, 0xffffffffu) + 4 + word / 4, sizeof ys);
      for (int e = 0; e < OF_WORD; ++e) sums[i] += float(xs[e]) * float(ys[e]);
    }
  }
}

inline unsigned nearest_tf32(unsigned x) { return (x & 0x7f800000u) == 0x7f800000u ? x : (x + 0x1000u) & 0xffffe000u; }
}  // namespace emulator

using std::min;

template <class T> T atomicAdd(T* address, T x) {
  const T before = *address;
  *address += x;
  return before;
}

#define threadIdx (emulator::self().index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)
#define __syncthreads() emulator::wait(emulator::State::at_barrier, 0, __LINE__)
#define __threadfence() ((void)0)
#define __ldcg(address) (*(address))
#define __syncwarp() emulator::wait(emulator::State::at_warp, 0xffffffffu, __LINE__)
#define __shfl_xor_sync(mask, value, bits) emulator::exchange(value, mask, emulator::lane() ^ (bits), __LINE__)
#define FASTRW_LAUNCH(kernel, grid, block, stream, ...) \
  ((void)(stream), emulator::launch(grid, block, [&] { kernel(__VA_ARGS__); }))
