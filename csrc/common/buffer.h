// Uninitialised, 64-byte aligned memory of one owner.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>

namespace twophase {

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : data_(allocate(size)) {}
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() { return data_; }

 private:
  static T* allocate(int64_t size) {
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) / 64 + 1) * 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }
  T* data_;
};

}  // namespace twophase
