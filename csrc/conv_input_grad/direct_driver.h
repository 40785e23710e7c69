// The direct method over images, rows, groups, panels of channels and threads.
#pragma once
#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "common/parallel.h"
#include "common/sizes.h"
#include "common/workspace.h"
#include "conv_input_grad/cut.h"
#include "conv_input_grad/kernels.h"

namespace twophase {
namespace {

template <class T>
class Direct {
 public:
  Direct(const ConvInputGrad<T>& f, const ConvInputKernels<T>& k, int threads)
      : f_(f),
        k_(k),
        threads_(threads),
        inputs_(f.cin / f.groups),
        outputs_(f.cout / f.groups),
        panels_(ceil_div(inputs_, k.width)) {
    plan_.problem = &f_;
    plan_.positions = ceil_div(f.height, f.stride[0]), plan_.pitch = ceil_div(f.width, f.stride[1]);
    const std::vector<int64_t> down = shifts_of(0);
    shifts_ = shifts_of(1);
    plan_.first_shift = down.front(), plan_.span = down.back() - down.front();
    plan_.copies = static_cast<int64_t>(shifts_.size()), plan_.shifts = shifts_.data();
    cut();
    list_taps();
  }

  void run() {
    plan_.kernel_group = panels_ * k_.width * outputs_ * f_.kernel[0] * f_.kernel[1];
    Workspace<T> kernels(f_.groups * plan_.kernel_group);
    pack_kernels(kernels.data());
    plan_.kernels = kernels.data();
    const int64_t image_parts = ceil_div(f_.images, plan_.images);
    const int64_t row_parts = ceil_div(plan_.positions, plan_.rows);
    const int64_t tasks = image_parts * row_parts * f_.groups;
    const int64_t wanted = threads_ == 1 ? 1 : ceil_div(tasks_per_thread * threads_, tasks);
    const int64_t some = ceil_div(panels_, std::min(panels_, wanted)), panel_parts = ceil_div(panels_, some);
    parallel_tasks(tasks * panel_parts, threads_, [&] {
      const auto memory = std::make_shared<Scratch>(*this);
      return [&, memory](int64_t task) {
        const int64_t panel = task % panel_parts * some, group = task / panel_parts % f_.groups;
        const int64_t part = task / panel_parts / f_.groups;
        const int64_t image = part / row_parts * plan_.images, row = part % row_parts * plan_.rows;
        k_.direct(plan_,
                  {group, image, std::min(plan_.images, f_.images - image), row,
                   std::min(plan_.rows, plan_.positions - row), panel, std::min(some, panels_ - panel)},
                  {memory->cotangents.data(), memory->products.data(), memory->line.data()});
      };
    });
  }

 private:
  struct Scratch {
    explicit Scratch(const Direct& d)
        : cotangents(d.outputs_ * d.plan_.channel + 4 * d.k_.width),
          products(d.f_.stride[1] * d.k_.width * d.plan_.images * up(d.plane(), d.k_.lanes) + d.k_.width),
          line(d.f_.stride[1] * up(d.plan_.pitch, d.k_.lanes) + d.k_.lanes) {}
    Workspace<T> cotangents, products, line;
  };

  // Elements of one copy of one channel of one image of a task.
  int64_t plane() const { return (plan_.rows + plan_.span) * plan_.pitch; }

  // Output position minus input position, in steps of the stride, for a tap that reaches this residue;
  // `reaches` says whether it does.
  int64_t shift(size_t axis, int64_t residue, int64_t tap) const {
    return (residue + f_.padding[axis] - tap * f_.dilation[axis]) / f_.stride[axis];
  }
  bool reaches(size_t axis, int64_t residue, int64_t tap) const {
    return (residue + f_.padding[axis] - tap * f_.dilation[axis]) % f_.stride[axis] == 0;
  }

  // All shifts along an axis, ascending; one residue of each tap has one.
  std::vector<int64_t> shifts_of(size_t axis) const {
    std::set<int64_t> found;
    for (int64_t tap = 0; tap < f_.kernel[axis]; ++tap) {
      for (int64_t residue = 0; residue < f_.stride[axis]; ++residue) {
        if (reaches(axis, residue, tap)) found.insert(shift(axis, residue, tap));
      }
    }
    return {found.begin(), found.end()};
  }

  // Whole images up to some number of positions, or else rows of one by the size of the cotangents.
  void cut() {
    constexpr int64_t positions = 256;
    plan_.rows = plan_.positions;
    plan_.images = std::clamp<int64_t>(positions / plane(), 1, f_.images);
    const int64_t row_bytes = outputs_ * plan_.copies * plan_.pitch * static_cast<int64_t>(sizeof(T));
    if (plan_.rows * row_bytes > block_bytes) {
      plan_.rows = std::clamp(block_bytes / row_bytes, std::min(plan_.rows, plan_.span + 1), plan_.rows);
    }
    plan_.copy = up(plan_.images * plane(), line_elements<T>) + line_elements<T>;
    plan_.channel = plan_.copies * plan_.copy;
  }

  // The taps of every residue, in the order of the kernel.
  void list_taps() {
    const int64_t of_tap = panels_ * k_.width * outputs_;
    for (int64_t vertical = 0; vertical < f_.stride[0]; ++vertical) {
      for (int64_t horizontal = 0; horizontal < f_.stride[1]; ++horizontal) {
        const int64_t before = static_cast<int64_t>(taps_.size());
        for (int64_t tap = 0; tap < f_.kernel[0] * f_.kernel[1]; ++tap) {
          add_tap(vertical, horizontal, tap / f_.kernel[1], tap % f_.kernel[1]);
        }
        residues_.push_back({static_cast<int64_t>(taps_.size()) - before, nullptr, before * of_tap});
      }
    }
    const int64_t* next = offsets_.data();
    for (DirectTaps& taps : residues_) {
      taps.offsets = next;
      next += taps.count;
    }
    plan_.taps = residues_.data();
  }

  void add_tap(int64_t vertical, int64_t horizontal, int64_t u, int64_t v) {
    if (!reaches(0, vertical, u) || !reaches(1, horizontal, v)) return;
    const auto copy =
        std::lower_bound(shifts_.begin(), shifts_.end(), shift(1, horizontal, v)) - shifts_.begin();
    taps_.push_back(u * f_.kernel[1] + v);
    offsets_.push_back(copy * plan_.copy + (shift(0, vertical, u) - plan_.first_shift) * plan_.pitch);
  }

  void pack_kernels(T* kernels) const {
    parallel_tasks(f_.groups * panels_, threads_, [&] {
      return [&](int64_t task) {
        const int64_t group = task / panels_, panel = task % panels_;
        const int64_t* tap = taps_.data();
        for (const DirectTaps& taps : residues_) {
          T* to =
              kernels + group * plan_.kernel_group + taps.kernels + panel * outputs_ * taps.count * k_.width;
          for (int64_t o = 0; o < outputs_; ++o) {
            for (int64_t t = 0; t < taps.count; ++t, to += k_.width) {
              pack_channels(group * outputs_ + o, panel * k_.width, tap[t], to);
            }
          }
          tap += taps.count;
        }
      };
    });
  }

  // One tap of an output channel for a panel of input channels; zero beyond the last.
  void pack_channels(int64_t output, int64_t first, int64_t tap, T* to) const {
    const int64_t taps = f_.kernel[0] * f_.kernel[1];
    const T* from = f_.weight + (output * inputs_ + first) * taps + tap;
    for (int64_t i = 0; i < k_.width; ++i) to[i] = first + i < inputs_ ? from[i * taps] : 0;
  }

  const ConvInputGrad<T>& f_;
  const ConvInputKernels<T>& k_;
  const int threads_;
  const int64_t inputs_, outputs_, panels_;
  std::vector<int64_t> shifts_, taps_, offsets_;
  std::vector<DirectTaps> residues_;
  DirectPlan<T> plan_{};
};

}  // namespace
}  // namespace twophase
