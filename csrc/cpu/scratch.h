#pragma once
#include <cstddef>
#include <memory>
#include <new>

namespace fastrw {
// Memory of one call, not filled, at a cache line: a register loaded across two lines costs two loads.
template <class T> class Scratch {
 public:
  explicit Scratch(size_t count) : data_(static_cast<T*>(::operator new(count * sizeof(T), LINE))) {}
  T* data() const { return data_.get(); }

 private:
  static constexpr std::align_val_t LINE{64};
  struct Free {
    void operator()(T* data) const { ::operator delete(data, LINE); }
  };
  std::unique_ptr<T, Free> data_;
};
}  // namespace fastrw
