// Chooses the method, cuts the problem into tasks and drives a vector tier, or calls the scalar oracle.
#include <algorithm>
#include <memory>

#include "common/parallel.h"
#include "common/workspace.h"
#include "common/x86.h"
#include "conv_input_grad/kernels.h"

namespace twophase {
namespace {

#ifdef TWOPHASE_X86
const ConvInputKernels<float>& kernels_of(Isa isa, float) {
  return isa < Isa::avx512 ? conv_input_avx2_f32 : conv_input_avx512_f32;
}
const ConvInputKernels<double>& kernels_of(Isa isa, double) {
  return isa < Isa::avx512 ? conv_input_avx2_f64 : conv_input_avx512_f64;
}
#endif

int64_t ceil_div(int64_t size, int64_t by) { return (size + by - 1) / by; }
int64_t up(int64_t size, int64_t to) { return ceil_div(size, to) * to; }

constexpr int64_t block_bytes = int64_t{512} << 10;  // of the scratch that a task goes through again
constexpr int64_t large_kernels = int64_t{8}
                                  << 20;  // bytes that every task reads from memory, not from a cache
constexpr int64_t tasks_per_thread = 4;

// Planes and rows whose distance is a power of two would fall into the same places of the caches.
template <class T>
constexpr int64_t line_elements = 64 / static_cast<int64_t>(sizeof(T));

// Where few input channels stand against many output channels the transforms of these take longer than the
// products that they save (measured with 1 to 16 and 1 to 64 channels).
template <class T>
bool takes_winograd(const ConvInputGrad<T>& f) {
  for (size_t axis = 0; axis < 2; ++axis) {
    if (f.kernel[axis] != 3 || f.stride[axis] != 1 || f.dilation[axis] != 1 || f.padding[axis] > 2)
      return false;
  }
  return f.groups == 1 && (f.cin > 4 || f.cout < 4 * f.cin);
}

// Work for one pair of channels: products at every place of all tiles, and making and reading the kernel
// there, which takes as long as 400 products (measured with 256 and 512 channels).
template <class T>
int64_t work_of(const ConvInputGrad<T>& f, const WinogradKernels<T>& w) {
  const int64_t tiles = f.images * ceil_div(f.height, w.results) * ceil_div(f.width, w.results);
  return (tiles + 400) * w.points * w.points;
}

template <class T>
const WinogradKernels<T>& winograd_of(const ConvInputGrad<T>& f, const ConvInputKernels<T>& k) {
  const bool less = work_of(f, k.winograd_large) < work_of(f, k.winograd);
  return f.large_tiles && less ? k.winograd_large : k.winograd;
}

template <class T>
class Winograd {
 public:
  Winograd(const ConvInputGrad<T>& f, const ConvInputKernels<T>& k, int threads)
      : f_(f), k_(k), w_(winograd_of(f, k)), threads_(threads), panels_(ceil_div(f.cin, k.width)) {
    plan_.problem = &f_;
    plan_.down = ceil_div(f.height, w_.results), plan_.across = ceil_div(f.width, w_.results);
    plan_.kernel_plane = panels_ * k.width * f.cout + line_elements<T>;
    cut();
  }

  void run() {
    Workspace<T> kernels(plan_.kernel_plane * places());
    transform(kernels.data());
    plan_.kernels = kernels.data();
    const int64_t parts = ceil_div(f_.cin, plan_.channels), all_rows = f_.images * plan_.down;
    parallel_tasks(ceil_div(all_rows, plan_.rows) * parts, threads_, [&] {
      const auto memory = std::make_shared<Scratch>(*this);
      return [&, memory](int64_t task) {
        const int64_t row = task / parts * plan_.rows, channel = task % parts * plan_.channels;
        w_.run(
            plan_,
            {row, std::min(plan_.rows, all_rows - row), channel, std::min(plan_.channels, f_.cin - channel)},
            memory->scratch);
      };
    });
  }

 private:
  struct Scratch {
    explicit Scratch(const Winograd& w)
        : tiles(up(w.plan_.rows * w.plan_.across, w.k_.width)),
          line(tiles * w.w_.results + 3 * w.k_.lanes),
          place_plane(tiles * w.f_.cout + line_elements<T>),
          product_plane(tiles * w.plan_.channels + line_elements<T>),
          lines(2 * w.w_.points * line),
          places_(w.places() * place_plane),
          products(w.places() * product_plane),
          scratch{lines.data(), places_.data(), products.data(), line, place_plane, product_plane} {}
    const int64_t tiles, line, place_plane, product_plane;
    Workspace<T> lines, places_, products;
    const WinogradScratch<T> scratch;
  };

  int64_t places() const { return w_.points * w_.points; }

  // Rows of tiles by the size of their scratch, about equally many for every task; where these are fewer
  // tasks than threads, parts of the input channels.
  void cut() {
    const int64_t bytes = places() * (f_.cin + f_.cout) * static_cast<int64_t>(sizeof(T));
    const int64_t kernel_bytes = places() * plan_.kernel_plane * static_cast<int64_t>(sizeof(T));
    const int64_t least_tiles = kernel_bytes > large_kernels ? 160 : 32, all_rows = f_.images * plan_.down;
    const int64_t tiles = std::max(least_tiles, block_bytes / bytes);
    const int64_t most = std::max<int64_t>(1, tiles / plan_.across),
                  least = ceil_div(least_tiles, plan_.across);
    const int64_t even = up(ceil_div(all_rows, most), threads_);
    plan_.rows = std::max(ceil_div(all_rows, even), std::min(least, all_rows));
    const int64_t parts = ceil_div(threads_, ceil_div(all_rows, plan_.rows));
    plan_.channels = std::min(f_.cin, ceil_div(panels_, parts) * k_.width);
  }

  void transform(T* kernels) const {
    constexpr int64_t some = 32;  // output channels of a task
    const int64_t parts = ceil_div(f_.cout, some);
    parallel_tasks(panels_ * parts, threads_, [&] {
      return [&](int64_t task) {
        const int64_t from = task % parts * some;
        w_.transform(plan_, task / parts, from, std::min(from + some, f_.cout), kernels);
      };
    });
  }

  const ConvInputGrad<T>& f_;
  const ConvInputKernels<T>& k_;
  const WinogradKernels<T>& w_;
  const int threads_;
  const int64_t panels_;
  WinogradPlan<T> plan_{};
};

template <class T>
class Direct {
 public:
  Direct(const ConvInputGrad<T>& f, const ConvInputKernels<T>& k, int threads)
      : f_(f),
        k_(k),
        threads_(threads),
        inputs_(f.cin / f.groups),
        outputs_(f.cout / f.groups),
        taps_(f.kernel[0] * f.kernel[1]) {
    plan_.problem = &f_;
    cut();
    blocks_ = ceil_div(inputs_, plan_.channels);
    plan_.kernel_block = up(plan_.channels * taps_, k.width) * outputs_;
    plan_.products_line = line_length();
  }

  void run() {
    Workspace<T> kernels(f_.groups * blocks_ * plan_.kernel_block);
    pack_kernels(kernels.data());
    plan_.kernels = kernels.data();
    const int64_t image_parts = ceil_div(f_.images, plan_.images),
                  row_parts = ceil_div(f_.height, plan_.rows);
    const int64_t tasks = image_parts * row_parts * f_.groups;
    const int64_t wanted = threads_ == 1 ? 1 : ceil_div(tasks_per_thread * threads_, tasks);
    const int64_t some = ceil_div(blocks_, std::min(blocks_, wanted)), block_parts = ceil_div(blocks_, some);
    parallel_tasks(tasks * block_parts, threads_, [&] {
      const auto memory = std::make_shared<Scratch>(*this);
      return [&, memory](int64_t task) {
        const int64_t block = task % block_parts * some, group = task / block_parts % f_.groups;
        const int64_t part = task / block_parts / f_.groups;
        const int64_t image = part / row_parts * plan_.images, row = part % row_parts * plan_.rows;
        k_.direct(plan_,
                  {group, image, std::min(plan_.images, f_.images - image), row,
                   std::min(plan_.rows, f_.height - row), block, std::min(some, blocks_ - block)},
                  {memory->cotangents.data(), memory->products.data(), memory->lines.data()});
      };
    });
  }

 private:
  struct Scratch {
    explicit Scratch(const Direct& d)
        : cotangents(up(d.columns(), d.k_.width) * d.outputs_),
          products(up(d.columns(), d.k_.lanes) * d.plan_.channels * d.taps_),
          lines(2 * d.f_.stride[1] * d.plan_.products_line) {}
    Workspace<T> cotangents, products, lines;
  };

  // Rows of cotangents that `rows` rows of the input can be reached from, at most.
  int64_t reach(int64_t rows) const {
    const int64_t span = rows - 1 + (f_.kernel[0] - 1) * f_.dilation[0];
    return std::min(f_.out_height, span / f_.stride[0] + 1);
  }

  // Positions of a task, at most.
  int64_t columns() const { return plan_.images * reach(plan_.rows) * f_.out_width; }

  // Whole images up to some number of positions, or else rows of one; then channels by the size of their
  // products.
  void cut() {
    constexpr int64_t positions = 256, most_positions = 2048;
    plan_.images = 1, plan_.rows = f_.height;
    const int64_t whole = columns();
    plan_.images = std::min(f_.images, std::max<int64_t>(1, positions / whole));
    if (whole > most_positions)
      plan_.rows = std::max<int64_t>(1, ceil_div(f_.height * most_positions, whole));
    const int64_t bytes = columns() * taps_ * static_cast<int64_t>(sizeof(T));
    plan_.channels = std::clamp<int64_t>(block_bytes / bytes, 1, inputs_);
  }

  int64_t line_length() const {
    const int64_t stride = f_.stride[1], shift = (f_.kernel[1] - 1) * f_.dilation[1] / stride;
    const int64_t read = ceil_div(f_.padding[1] + up(f_.width, k_.lanes), stride);
    return up(std::max(f_.out_width + shift + k_.lanes, read), k_.lanes);
  }

  // Rows (input channel, tap) of every product, k-major.
  void pack_kernels(T* kernels) const {
    const int64_t row = inputs_ * taps_;
    parallel_tasks(f_.groups * blocks_, threads_, [&] {
      return [&](int64_t task) {
        const int64_t first = task % blocks_ * plan_.channels;
        const int64_t count = std::min(plan_.channels, inputs_ - first) * taps_;
        const T* from = f_.weight + task / blocks_ * outputs_ * row + first * taps_;
        k_.pack({from, count, 0, 1, row}, 0, count, outputs_, kernels + task * plan_.kernel_block,
                outputs_ * k_.width, k_.width, 0);
      };
    });
  }

  const ConvInputGrad<T>& f_;
  const ConvInputKernels<T>& k_;
  const int threads_;
  const int64_t inputs_, outputs_, taps_;
  int64_t blocks_ = 0;
  DirectPlan<T> plan_{};
};

}  // namespace

template <class T>
void conv_input_grad(const ConvInputGrad<T>& problem, Isa isa, int threads) {
  if (problem.images * problem.cin * problem.height * problem.width == 0) return;
#ifdef TWOPHASE_X86
  if (isa != Isa::scalar) {
    const ConvInputKernels<T>& kernels = kernels_of(isa, T());
    if (takes_winograd(problem)) return Winograd<T>(problem, kernels, threads).run();
    return Direct<T>(problem, kernels, threads).run();
  }
#endif
  conv_input_grad_scalar(problem, threads);
}

template void conv_input_grad(const ConvInputGrad<float>&, Isa, int);
template void conv_input_grad(const ConvInputGrad<double>&, Isa, int);

}  // namespace twophase
