// Memory asked for during Winograd's products, which leave it idle: turning short planes to positions and
// back touches so many lines at a time that the processor does not see them coming.
#pragma once
#include "conv_input_grad/rows.h"

namespace twophase {
namespace {

// The cache lines of `channels` planes of images that hold some rows of tiles, counted through, to be asked
// for a few at a time.
template <class T>
class Lines {
 public:
  struct Planes {
    const T* data;
    int64_t image, plane, channels;  // elements of an image and of a plane
    int64_t width, height;
  };

  Lines(const Planes& planes, int64_t results, int64_t down, int64_t first, int64_t rows)
      : p_(planes),
        results_(results),
        down_(down),
        row_(first),
        last_(first + rows),
        channel_(planes.channels) {}

  // How many there are, about.
  int64_t count() const {
    const int64_t of_image = (down_ * results_ * p_.width + line - 1) / line + 1;
    return ((last_ - row_) * of_image + down_ - 1) / down_ * p_.channels;
  }

  template <bool written>
  void ask(int64_t count) {
    for (; count > 0; --count, at_ += line) {
      if (at_ >= end_ && !next()) return;
      __builtin_prefetch(at_, written, 2);
    }
  }

 private:
  static constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));

  // The rows in the next plane, or in the first one of the next image.
  bool next() {
    if (channel_ == p_.channels) {
      if (row_ == last_) return false;
      const int64_t row = row_ % down_, rows = smaller(down_ - row, last_ - row_);
      const int64_t top = smaller(p_.height, row * results_);
      from_ = p_.data + row_ / down_ * p_.image + top * p_.width;
      size_ = (smaller(p_.height, (row + rows) * results_) - top) * p_.width;
      row_ += rows;
      channel_ = 0;
    }
    at_ = from_ + channel_++ * p_.plane;
    end_ = at_ + size_;
    return true;
  }

  Planes p_;
  int64_t results_, down_, row_, last_, channel_;
  const T *from_ = nullptr, *at_ = nullptr, *end_ = nullptr;
  int64_t size_ = 0;
};

// What is asked for: first room for the results of these tiles, then the cotangents of the next, each a few
// lines at a time and about `times` times. Nearer to their use fewer have been pushed out of the cache again.
template <class T>
struct Ahead {
  Lines<T> taken, given;
  int64_t times, some_taken = (taken.count() + times - 1) / times,
                 some_given = (given.count() + times - 1) / times;

  __attribute__((noinline)) void ask() {
    if (times-- > 0) {
      given.template ask<true>(some_given);
    } else {
      taken.template ask<false>(some_taken);
    }
  }
};

}  // namespace
}  // namespace twophase
