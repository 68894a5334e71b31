#include "workspace.h"

#include <mutex>
#include <new>
#include <vector>

namespace fastrw {
namespace {
constexpr size_t MOST = size_t(256) << 20;  // bytes kept idle
constexpr size_t LEAST = 256 << 10;         // bytes of a buffer that is worth keeping
constexpr std::align_val_t LINE{64};

struct Header {
  alignas(64) size_t bytes;
};

struct Pool {
  std::mutex lock;
  std::vector<Header*> idle;  // the longest idle first
  size_t bytes = 0;

  Header* remove(size_t at) {
    Header* found = idle[at];
    idle.erase(idle.begin() + at);
    bytes -= found->bytes;
    return found;
  }
};

// never destroyed: a tensor may outlive every static object
Pool& pool() {
  static Pool* const only = new Pool;
  return *only;
}
}  // namespace

void* take_workspace(size_t bytes) {
  if (bytes >= LEAST) {
    Pool& p = pool();
    const std::lock_guard guard(p.lock);
    for (size_t i = p.idle.size(); i-- > 0;)  // the last one given may still be in cache
      if (p.idle[i]->bytes >= bytes && p.idle[i]->bytes <= bytes + bytes / 4) return p.remove(i) + 1;
  }
  return new (::operator new(sizeof(Header) + bytes, LINE)) Header{bytes} + 1;
}

void give_workspace(void* data) {
  Pool& p = pool();
  Header* given = static_cast<Header*>(data) - 1;
  if (given->bytes < LEAST) return ::operator delete(given, LINE);
  const std::lock_guard guard(p.lock);
  p.idle.push_back(given);
  p.bytes += given->bytes;
  while (p.bytes > MOST) ::operator delete(p.remove(0), LINE);
}

size_t free_workspaces() {
  Pool& p = pool();
  const std::lock_guard guard(p.lock);
  const size_t freed = p.bytes;
  while (!p.idle.empty()) ::operator delete(p.remove(0), LINE);
  return freed;
}

size_t idle_workspaces() {
  Pool& p = pool();
  const std::lock_guard guard(p.lock);
  return p.bytes;
}
}  // namespace fastrw
