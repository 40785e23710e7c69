// Chooses the method, cuts the problem into tasks and drives a vector tier, or calls the scalar oracle.
#include <algorithm>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "common/sizes.h"
#include "common/tiers.h"
#include "common/workspace.h"
#include "conv_input_grad/cut.h"
#include "conv_input_grad/direct_driver.h"
#include "conv_input_grad/kernels.h"

namespace twophase {
namespace {

constexpr TypedTiers<ConvInputKernels> tiers = {
#ifdef TWOPHASE_X86
    {&conv_input_avx2_f32, &conv_input_avx512_f32}, {&conv_input_avx2_f64, &conv_input_avx512_f64}
#endif
};

constexpr int64_t short_bytes = int64_t{256} << 10;  // of that scratch where what comes next is asked for
constexpr int64_t short_plane = int64_t{4} << 10;    // bytes from which the processor sees ahead what is read
constexpr int64_t large_kernels = int64_t{2} << 20;  // bytes that do not stay in the cache of a core
constexpr int64_t few_tiles = int64_t{16}
                              << 20;  // bytes of transformed cotangents that stay in the cache of all
constexpr int64_t least_tiles = 48;   // of a task

// With fewer channels the registers of the transforms are half empty and direct sums take less time (measured
// with 4 to 20 channels on either side).
template <class T>
bool takes_winograd(const ConvInputGrad<T>& f) {
  for (size_t axis = 0; axis < 2; ++axis) {
    if (f.kernel[axis] != 3 || f.stride[axis] != 1 || f.dilation[axis] != 1 || f.padding[axis] > 2)
      return false;
  }
  return f.groups == 1 && std::min(f.cin, f.cout) >= 8 && f.cin * f.cout >= 128;
}

// Products at every place of all tiles, for one pair of channels.
template <class T>
int64_t products_of(const ConvInputGrad<T>& f, const WinogradKernels<T>& w) {
  return f.images * ceil_div(f.height, w.results_y) * ceil_div(f.width, w.results_x) * w.places;
}

// Work for one pair of channels: the products, and making and reading the kernel at every place, which takes
// as long as 400 products (measured with 256 and 512 channels).
template <class T>
int64_t work_of(const ConvInputGrad<T>& f, const WinogradKernels<T>& w) {
  return products_of(f, w) + 400 * w.places;
}

// Whether tiles of 4x2 results are allowed. They round at most twice as much as torch where no more than 256
// channels are summed and there are 8 rows and columns; with 4x4 images or 512 channels 2.2 times (measured).
template <class T>
bool takes_mixed(const ConvInputGrad<T>& f, const ConvInputKernels<T>& k) {
  return f.large_tiles || (f.cout <= k.mixed_channels && std::min(f.out_height, f.out_width) >= 8);
}

// The tiles of least work among those allowed; of those of 4x2 and 4x4, which differ little in the work with
// kernels (measured), of least products.
template <class T>
const WinogradKernels<T>& winograd_of(const ConvInputGrad<T>& f, const ConvInputKernels<T>& k) {
  const auto less = [&](const WinogradKernels<T>& w) { return work_of(f, w) < work_of(f, k.winograd); };
  const bool mixed = takes_mixed(f, k) && less(k.winograd_mixed),
             large = f.large_tiles && less(k.winograd_large);
  if (large && !(mixed && products_of(f, k.winograd_mixed) < products_of(f, k.winograd_large))) {
    return k.winograd_large;
  }
  return mixed ? k.winograd_mixed : k.winograd;
}

// Whether results take the place of the cotangents.
template <class T>
bool in_place(const ConvInputGrad<T>& f) {
  return f.out == f.g;
}

template <class T>
class Winograd {
 public:
  Winograd(const ConvInputGrad<T>& f, const ConvInputKernels<T>& k, int threads)
      : f_(f), k_(k), w_(winograd_of(f, k)), threads_(threads), panels_(ceil_div(f.cin, k.width)) {
    plan_.problem = &f_;
    plan_.down = ceil_div(f.height, w_.results_y), plan_.across = ceil_div(f.width, w_.results_x);
    all_rows_ = f.images * plan_.down;
  }

  void run() {
    const int64_t kernels = places() * panels_ * k_.width * f_.cout, cotangents = places_size(all_rows_);
    if (bytes(kernels) > large_kernels && bytes(cotangents) < few_tiles) {
      run_by_panels();
    } else {
      run_by_tiles();
    }
  }

 private:
  struct Scratch {
    Scratch(const Winograd& w, int64_t places_size, int64_t rows)
        : positions(w.positions_size(rows)),
          places(places_size),
          products(w.places() * w.plan_.product_plane) {}
    Workspace<T> positions, places, products;
  };

  // Tasks of some rows of tiles, for all channels.
  void run_by_tiles() {
    cut();
    const int64_t kernel_plane = panels_ * k_.width * f_.cout + line_elements<T>;
    Workspace<T> kernels(places() * kernel_plane);
    transform(kernels.data(), kernel_plane);
    const int64_t blocks = ceil_div(all_rows_, rows_), tasks = ceil_div(blocks, blocks_of_task(blocks));
    parallel_tasks(tasks, threads_, [&] {
      const auto memory = std::make_shared<Scratch>(*this, places_size(rows_), rows_);
      return [&, memory](int64_t task) {
        const int64_t step = blocks_of_task(blocks) * rows_, last = std::min(all_rows_, (task + 1) * step);
        for (int64_t row = task * step; row < last; row += rows_) {
          const int64_t rows = std::min(rows_, last - row);
          run_block({row, rows, std::min(rows_, last - row - rows)}, kernels.data(), kernel_plane, *memory);
        }
      };
    });
  }

  // Adjacent blocks, so that one can ask for the cotangents of the next.
  int64_t blocks_of_task(int64_t blocks) const {
    return std::max<int64_t>(1, blocks / (2 * tasks_per_thread * threads_));
  }

  void run_block(const WinogradRows& rows, const T* kernels, int64_t kernel_plane, Scratch& memory) const {
    w_.forward(plan_, rows.first, rows.count, memory.positions.data(), memory.places.data());
    for (int64_t panel = 0; panel < panels_; ++panel) {
      const T* own = kernels + panel * f_.cout * k_.width;
      w_.multiply(plan_, {panel, 0, f_.cout, rows.count * plan_.across, memory.places.data(), own,
                          kernel_plane, memory.products.data(), asks() ? rows : WinogradRows{}});
      w_.back(plan_, rows.first, rows.count, panel, memory.products.data(), memory.positions.data());
    }
  }

  // Few tiles, many kernels: a task makes the kernels of one panel, a part at a time, and uses them at once.
  void run_by_panels() {
    rows_ = all_rows_;
    set_planes();
    Workspace<T> places(places_size(all_rows_));
    transform_cotangents(places.data());
    const int64_t kernel_plane = product_depth * k_.width + line_elements<T>;
    parallel_tasks(panels_, threads_, [&] {
      const auto memory = std::make_shared<Scratch>(*this, this->places() * kernel_plane, all_rows_);
      return [&, memory](int64_t panel) {
        T* kernels = memory->places.data();
        for (int64_t from = 0; from < f_.cout; from += product_depth) {
          const int64_t last = std::min(from + product_depth, f_.cout);
          w_.transform(plan_, panel, from, last, kernels, kernel_plane);
          w_.multiply(plan_, {panel,
                              from,
                              last,
                              all_rows_ * plan_.across,
                              places.data(),
                              kernels,
                              kernel_plane,
                              memory->products.data(),
                              {}});
        }
        w_.back(plan_, 0, all_rows_, panel, memory->products.data(), memory->positions.data());
      };
    });
  }

  // Whether the next cotangents are asked for during products.
  bool asks() const { return bytes(f_.out_height * f_.out_width) < short_plane; }

  static int64_t bytes(int64_t elements) { return elements * static_cast<int64_t>(sizeof(T)); }
  int64_t places() const { return w_.places; }
  int64_t places_size(int64_t rows) const {
    return places() * (rows * plan_.across * up(f_.cout, k_.lanes) + line_elements<T>);
  }
  int64_t positions_size(int64_t rows) const {
    const int64_t some = std::min(rows, plan_.down) * w_.results_y;
    return k_.lanes * std::max((some + 3) * f_.out_width, some * f_.width);
  }

  void set_planes() {
    plan_.group = rows_ * plan_.across * k_.lanes;
    plan_.place_plane = rows_ * plan_.across * up(f_.cout, k_.lanes) + line_elements<T>;
    plan_.product_plane = rows_ * plan_.across * k_.width + line_elements<T>;
  }

  // Rows of tiles by the size of their scratch, about equally many for every task; whole images where the
  // result takes the place of the cotangents, which are all read before anything is written.
  void cut() {
    const int64_t tiles =
        std::max(least_tiles, (asks() ? short_bytes : block_bytes) / bytes(places() * (f_.cout + k_.width)));
    const int64_t tasks = ceil_div(all_rows_, std::max<int64_t>(1, tiles / plan_.across));
    rows_ = ceil_div(all_rows_, up(tasks, threads_));
    if (in_place(f_)) rows_ = up(rows_, plan_.down);
    set_planes();
  }

  void transform(T* kernels, int64_t plane) const {
    constexpr int64_t some = 32;  // output channels of a task
    const int64_t parts = ceil_div(f_.cout, some);
    parallel_tasks(panels_ * parts, threads_, [&] {
      return [&](int64_t task) {
        const int64_t panel = task / parts, from = task % parts * some;
        w_.transform(plan_, panel, from, std::min(from + some, f_.cout),
                     kernels + (panel * f_.cout + from) * k_.width, plane);
      };
    });
  }

  void transform_cotangents(T* places) const {
    const int64_t some = ceil_div(all_rows_, tasks_per_thread * threads_);
    parallel_tasks(ceil_div(all_rows_, some), threads_, [&] {
      const auto positions = std::make_shared<Workspace<T>>(positions_size(some));
      return [&, positions](int64_t task) {
        const int64_t row = task * some;
        w_.forward(plan_, row, std::min(some, all_rows_ - row), positions->data(),
                   places + row * plan_.across * k_.lanes);
      };
    });
  }

  const ConvInputGrad<T>& f_;
  const ConvInputKernels<T>& k_;
  const WinogradKernels<T>& w_;
  const int threads_;
  const int64_t panels_;
  int64_t all_rows_, rows_ = 0;
  WinogradPlan<T> plan_{};
};

template <class T>
void from_copy(const ConvInputGrad<T>& problem, Isa isa, int threads) {
  const int64_t image = problem.cout * problem.out_height * problem.out_width;
  Workspace<T> copy(problem.images * image);
  for (int64_t b = 0; b < problem.images; ++b) {
    std::copy_n(problem.g + b * problem.g_image, image, copy.data() + b * image);
  }
  ConvInputGrad<T> apart = problem;
  apart.g = copy.data(), apart.g_image = image;
  conv_input_grad(apart, isa, threads);
}

}  // namespace

template <class T>
void conv_input_grad(const ConvInputGrad<T>& problem, Isa isa, int threads) {
  if (problem.images * problem.cin * problem.height * problem.width == 0) return;
  const auto* kernels = tiers.of<T>(isa);
  const bool winograd = kernels != nullptr && takes_winograd(problem);
  if (in_place(problem) && (!winograd || problem.g_image != problem.out_image)) {
    return from_copy(problem, isa, threads);
  }
  if (kernels != nullptr) {
    if (winograd) return Winograd<T>(problem, *kernels, threads).run();
    return Direct<T>(problem, *kernels, threads).run();
  }
  conv_input_grad_scalar(problem, threads);
}

template void conv_input_grad(const ConvInputGrad<float>&, Isa, int);
template void conv_input_grad(const ConvInputGrad<double>&, Isa, int);

}  // namespace twophase
