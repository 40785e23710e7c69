// Drives a vector tier over samples, groups and threads, or calls the scalar oracle.
#include <algorithm>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "common/sizes.h"
#include "common/stream.h"
#include "common/tiers.h"
#include "common/workspace.h"
#include "per_sample_grad/kernels.h"

namespace twophase {
namespace {

constexpr TypedTiers<GradKernels> tiers = {
#ifdef TWOPHASE_X86
    {&grad_avx2_f32, &grad_avx512_f32}, {&grad_avx2_f64, &grad_avx512_f64}
#endif
};

// Cuts the stacked rows of each sample so that a few samples, too, keep all threads busy.
struct RowParts {
  int64_t rows, step, count;

  RowParts(int64_t all_rows, int64_t products, int threads, int64_t width) : rows(all_rows) {
    const int64_t wanted = ceil_div(4 * threads, std::max<int64_t>(products, 1));
    step = std::max(width, up(ceil_div(rows, std::max<int64_t>(wanted, 1)), width));
    count = ceil_div(rows, step);
  }
};

// Whether to write past the caches: a large result with aligned rows.
template <class T>
bool streams_rows(const GradRows<T>& out, int64_t rows, int64_t columns, int64_t lanes) {
  const auto aligned = [&](int64_t stride) { return stride % lanes == 0; };
  return streams(out.data, rows * columns, lanes) && aligned(columns) && aligned(out.sample) &&
         aligned(out.class_) && aligned(out.output);
}

// A thread's packed operands of one product.
template <class T>
struct Packed {
  Packed(const GradKernels<T>& k, int64_t rows, int64_t columns, int64_t terms, int64_t line_size)
      : left(up(rows, k.width) * terms),
        right(up(columns, k.width) * terms),
        line(line_size),
        to(static_cast<size_t>(rows)) {}

  Workspace<T> left, right, line;
  std::vector<T*> to;
};

template <class T>
void linear_grad_vector(const LinearGrad<T>& f, const GradKernels<T>& k, int threads) {
  const RowParts parts(f.classes * f.outputs, f.samples, threads, k.width);
  const int64_t stride = f.positions * k.width;
  const bool stream = streams_rows(f.out, f.samples * f.classes * f.outputs, f.inputs, k.lanes);
  parallel_tasks(f.samples * parts.count, threads, [&] {
    auto packed = std::make_shared<Packed<T>>(k, parts.step, f.inputs, f.positions, 0);
    return [&, packed](int64_t task) {
      const int64_t n = task / parts.count, first = task % parts.count * parts.step;
      const int64_t rows = std::min(parts.step, parts.rows - first);
      const Rows<T> g{f.g + n * f.g_sample, f.outputs, f.g_class, f.g_output, f.g_position};
      const Rows<T> a{f.a + n * f.a_sample, f.inputs, 0, f.a_input, f.a_position};
      k.pack(g, first, rows, f.positions, packed->left.data(), stride, k.width, 0);
      k.pack(a, 0, f.inputs, f.positions, packed->right.data(), stride, k.width, 0);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t row = first + i;
        packed->to[static_cast<size_t>(i)] =
            f.out.data + n * f.out.sample + row / f.outputs * f.out.class_ + row % f.outputs * f.out.output;
      }
      k.multiply({rows, f.inputs, f.positions, packed->left.data(), packed->right.data(), packed->to.data(),
                  stream});
    };
  });
}

template <class T>
class ConvDriver {
 public:
  ConvDriver(const ConvGrad<T>& f, const GradKernels<T>& k, int threads)
      : f_(f),
        k_(k),
        threads_(threads),
        outputs_(f.cout / f.groups),
        columns_(f.cin / f.groups * f.kernel[0] * f.kernel[1]),
        terms_(f.out_height * f.out_width),
        parts_(f.classes * outputs_, f.samples * f.groups, threads, k.width),
        stream_(streams_rows(f.out, f.samples * f.classes * f.cout, columns_, k.lanes)) {}

  void run() {
    parallel_tasks(f_.samples * f_.groups * parts_.count, threads_, [&] {
      auto packed = std::make_shared<Packed<T>>(k_, parts_.step, columns_, terms_, terms_ * k_.lanes);
      return [&, packed](int64_t task) {
        const int64_t product = task / parts_.count;
        run_part(product / f_.groups, product % f_.groups, task % parts_.count * parts_.step, *packed);
      };
    });
  }

 private:
  void run_part(int64_t n, int64_t group, int64_t first, Packed<T>& packed) const {
    const int64_t rows = std::min(parts_.step, parts_.rows - first);
    pack_cotangents(n, group, first, rows, packed.left.data());
    const T* x = f_.x + n * f_.x_sample + group * (f_.cin / f_.groups) * f_.x_channel;
    k_.pack_patches({&f_, x}, columns_, packed.right.data(), k_.width, packed.line.data());
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t c = (first + i) / outputs_, o = group * outputs_ + (first + i) % outputs_;
      packed.to[static_cast<size_t>(i)] =
          f_.out.data + n * f_.out.sample + c * f_.out.class_ + o * f_.out.output;
    }
    k_.multiply({rows, columns_, terms_, packed.left.data(), packed.right.data(), packed.to.data(), stream_});
  }

  // Rows (c, o) of a group; all positions at once where they are evenly spaced, else row by row of the image.
  void pack_cotangents(int64_t n, int64_t group, int64_t first, int64_t rows, T* left) const {
    const T* g = f_.g + n * f_.g_sample + group * outputs_ * f_.g_channel;
    const bool even = f_.g_row == f_.out_width * f_.g_column || f_.out_height == 1;
    const int64_t lines = even ? 1 : f_.out_height, length = terms_ / lines;
    for (int64_t y = 0; y < lines; ++y) {
      const Rows<T> source{g + y * f_.g_row, outputs_, f_.g_class, f_.g_channel, f_.g_column};
      k_.pack(source, first, rows, length, left + y * length * k_.width, terms_ * k_.width, k_.width, 0);
    }
  }

  const ConvGrad<T>& f_;
  const GradKernels<T>& k_;
  const int threads_;
  const int64_t outputs_, columns_, terms_;
  const RowParts parts_;
  const bool stream_;
};

// Multiplications of one row (c, o) and channel by tiles, in units of those that a product does in its inner
// loop: turning the sum at a place to taps takes as long as 7 more tiles (measured with 8x8 to 32x32
// positions).
template <class T>
int64_t work_of(const ConvGrad<T>& f, const WinogradGrad<T>& w) {
  return w.places * (ceil_div(f.out_height, w.tile_height) * ceil_div(f.out_width, w.tile_width) + 7);
}

// The tiles of least work.
template <class T>
const WinogradGrad<T>& winograd_of(const ConvGrad<T>& f, const GradKernels<T>& k) {
  const WinogradGrad<T>* best = &k.winograd;
  const auto try_other = [&](const WinogradGrad<T>& w) {
    if (work_of(f, w) < work_of(f, *best)) best = &w;
  };
  try_other(k.winograd_mixed);
  if (f.large_tiles) try_other(k.winograd_large);
  return *best;
}

// See winograd_tier.h.
template <class T>
class WinogradDriver {
 public:
  WinogradDriver(const ConvGrad<T>& f, const GradKernels<T>& k, int threads)
      : f_(f),
        k_(k),
        w_(winograd_of(f, k)),
        threads_(threads),
        sizes_(sizes_of(f, k, w_)),
        parts_(f.classes * f.cout, f.samples, threads, k.width),
        stream_(f.cin % 16 == 0 && streams_rows(f.out, f.samples * f.classes * f.cout, f.cin * 9, k.lanes)) {}

  void run() {
    parallel_tasks(f_.samples * parts_.count, threads_, [&] {
      auto scratch = std::make_shared<Scratch>(f_, w_, sizes_, parts_.step, k_.width);
      return [&, scratch](int64_t task) {
        run_part(task / parts_.count, task % parts_.count * parts_.step, *scratch);
      };
    });
  }

  static WinogradSizes sizes_of(const ConvGrad<T>& f, const GradKernels<T>& k, const WinogradGrad<T>& w) {
    const int64_t across = ceil_div(f.out_width, w.tile_width), down = ceil_div(f.out_height, w.tile_height);
    const int64_t channels = up(f.cin, k.lanes);
    const int64_t block = across * std::clamp<int64_t>(tiles_at_once / across, 1, down);
    const int64_t channel_block = std::min(f.cin, channels_at_once);
    return {channels,
            across,
            across * down,
            block,
            channel_block,
            (across * down + 1) * channels,
            (block + 1) * k.width,
            (channel_block + 1) * k.width};
  }

 private:
  // The blocks of all products stay in L2; longer sums over tiles round more.
  static constexpr int64_t tiles_at_once = 32, channels_at_once = 64;

  struct Scratch {
    Scratch(const ConvGrad<T>& f, const WinogradGrad<T>& w, const WinogradSizes& z, int64_t rows,
            int64_t width)
        : x_packed(f.height * f.width * z.channels),
          x_tiles(w.places * z.x_step),
          g_packed(w.tile_height * w.tile_width * z.tile_block * width),
          g_tiles(w.places * z.g_step),
          sums(w.places * z.sum_step),
          to(static_cast<size_t>(rows)) {}

    Workspace<T> x_packed, x_tiles, g_packed, g_tiles, sums;
    std::vector<T*> to;
  };

  void run_part(int64_t n, int64_t first, Scratch& s) const {
    const int64_t rows = std::min(parts_.step, parts_.rows - first);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t c = (first + i) / f_.cout, o = (first + i) % f_.cout;
      s.to[static_cast<size_t>(i)] = f_.out.data + n * f_.out.sample + c * f_.out.class_ + o * f_.out.output;
    }
    w_.run({&f_, sizes_, f_.x + n * f_.x_sample, f_.g + n * f_.g_sample, first, rows, s.to.data(), stream_,
            s.x_packed.data(), s.x_tiles.data(), s.g_packed.data(), s.g_tiles.data(), s.sums.data()});
  }

  const ConvGrad<T>& f_;
  const GradKernels<T>& k_;
  const WinogradGrad<T>& w_;
  const int threads_;
  const WinogradSizes sizes_;
  const RowParts parts_;
  const bool stream_;
};

// Whether it takes less work than products with patches (measured with 4x4 to 112x112 positions and 1 to 512
// channels). It follows from the shape alone.
template <class T>
bool suits_winograd(const ConvGrad<T>& f, const GradKernels<T>& k) {
  const auto both = [](const int64_t(&axes)[2], int64_t value) {
    return axes[0] == value && axes[1] == value;
  };
  return both(f.kernel, 3) && both(f.stride, 1) && both(f.dilation, 1) && f.groups == 1 &&
         f.classes * f.cout >= 16 && work_of(f, winograd_of(f, k)) < 9 * f.out_height * f.out_width;
}

}  // namespace

template <class T>
void linear_grad(const LinearGrad<T>& problem, Isa isa, int threads) {
  if (const auto* kernels = tiers.of<T>(isa)) return linear_grad_vector(problem, *kernels, threads);
  linear_grad_scalar(problem, threads);
}

template <class T>
void conv_grad(const ConvGrad<T>& problem, Isa isa, int threads) {
  if (const auto* kernels = tiers.of<T>(isa)) {
    if (suits_winograd(problem, *kernels)) return WinogradDriver<T>(problem, *kernels, threads).run();
    return ConvDriver<T>(problem, *kernels, threads).run();
  }
  conv_grad_scalar(problem, threads);
}

template void linear_grad(const LinearGrad<float>&, Isa, int);
template void linear_grad(const LinearGrad<double>&, Isa, int);
template void conv_grad(const ConvGrad<float>&, Isa, int);
template void conv_grad(const ConvGrad<double>&, Isa, int);

}  // namespace twophase
