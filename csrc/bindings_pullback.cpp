// What pulls cotangents back through convolutions, linear layers, normalisations and ReLUs.
#include "bindings.h"

#include "batch_norm_grad/batch_norm_grad.h"
#include "batched_product/batched_product.h"
#include "conv_input_grad/conv_input_grad.h"
#include "layer_norm_grad/layer_norm_grad.h"
#include "linear_input_grad/linear_input_grad.h"

namespace twophase {
namespace {

// geometry: stride, padding and dilation of the two axes, then groups.
template <class T>
ConvInputGrad<T> pull_back(py::array& out, const py::array& g, const py::array& weight,
                           const std::vector<int64_t>& geometry) {
  require(out.ndim() == 4 && g.ndim() == 4 && weight.ndim() == 4 && geometry.size() == 7,
          "expected out [B, Cin, H, W], g [B, Cout, oh, ow], weight [Cout, Cin / groups, kh, kw]");
  require(holds<T>(out) && holds<T>(g) && holds<T>(weight), "arrays differ in dtype");
  ConvInputGrad<T> f{};
  f.images = out.shape(0), f.cin = out.shape(1), f.height = out.shape(2), f.width = out.shape(3);
  f.cout = g.shape(1), f.out_height = g.shape(2), f.out_width = g.shape(3), f.groups = geometry[6];
  require(f.groups > 0 && f.cin % f.groups == 0 && f.cout % f.groups == 0,
          "groups do not divide the channels");
  require(g.shape(0) == f.images && weight.shape(0) == f.cout && weight.shape(1) == f.cin / f.groups,
          "out, g and weight do not fit");
  for (size_t axis = 0; axis < 2; ++axis) {
    f.kernel[axis] = weight.shape(2 + axis), f.stride[axis] = geometry[axis];
    f.padding[axis] = geometry[2 + axis], f.dilation[axis] = geometry[4 + axis];
    const int64_t padded = out.shape(2 + axis) + 2 * f.padding[axis];
    const int64_t expected = (padded - f.dilation[axis] * (f.kernel[axis] - 1) - 1) / f.stride[axis] + 1;
    require(g.shape(2 + axis) == expected, "the positions of out and g do not fit the convolution");
  }
  require(contiguous_images(out) && contiguous_images(g) && contiguous_images(weight) &&
              (f.cout < 2 || stride<T>(weight, 0) == weight.size() / f.cout),
          "an image or the weight is not contiguous");
  f.g = static_cast<const T*>(g.data()), f.g_image = stride<T>(g, 0);
  f.weight = static_cast<const T*>(weight.data());
  f.out = static_cast<T*>(out.mutable_data()), f.out_image = stride<T>(out, 0);
  return f;
}

void conv_input_grad_binding(py::array out, const py::array& g, const py::array& weight,
                             const std::vector<int64_t>& geometry, bool add, bool large_tiles,
                             const std::string& isa, int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    ConvInputGrad<T> problem = pull_back<T>(out, g, weight, geometry);
    problem.add = add, problem.large_tiles = large_tiles;
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    conv_input_grad(problem, tier, threads);
  });
}

// out [B, K, T, I], g [B, K, T, O], weight [O, I] in any strides, scale [B, T, I].
void linear_input_grad_binding(py::array out, const py::array& g, const py::array& weight,
                               const std::optional<py::array>& scale, bool add, const std::string& isa,
                               int threads) {
  require(out.ndim() == 4 && g.ndim() == 4 && weight.ndim() == 2,
          "expected out [B, K, T, I], g [B, K, T, O], weight [O, I]");
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    require(holds<T>(weight), "arrays differ in dtype");
    const int64_t b = out.shape(0), k = out.shape(1), t = out.shape(2), o = weight.shape(0),
                  i = weight.shape(1);
    const LinearInputGrad<T> problem{b,
                                     k,
                                     t,
                                     o,
                                     i,
                                     whole<const T>(g, b * k * t * o),
                                     static_cast<const T*>(weight.data()),
                                     stride<T>(weight, 0),
                                     stride<T>(weight, 1),
                                     scale ? whole<const T>(*scale, b * t * i) : nullptr,
                                     whole<T>(out, b * k * t * i),
                                     add};
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    linear_input_grad(problem, tier, threads);
  });
}

template <class T>
Matrices<T> matrices(const py::array& array) {
  require(array.ndim() == 5 && holds<T>(array), "expected arrays [B, K, H, rows, columns] of one dtype");
  Matrices<T> result{static_cast<T*>(const_cast<void*>(array.data())), {}};
  for (int axis = 0; axis < 5; ++axis) result.strides[axis] = stride<T>(array, axis);
  if (array.shape(1) == 1) result.strides[1] = 0;
  return result;
}

// out [B, K, H, n, q], left [B, K or 1, H, n, p], right [B, K or 1, H, p, q], all in any strides.
void batched_product_binding(py::array out, const py::array& left, const py::array& right,
                             const std::string& isa, int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    BatchedProduct<T> problem{};
    problem.out = matrices<T>(out);
    problem.left = matrices<const T>(left), problem.right = matrices<const T>(right);
    problem.samples = out.shape(0), problem.classes = out.shape(1), problem.heads = out.shape(2);
    problem.rows = out.shape(3), problem.columns = out.shape(4), problem.terms = left.shape(4);
    for (const py::array& operand : {left, right}) {
      require(operand.shape(0) == out.shape(0) && operand.shape(2) == out.shape(2), "arrays do not fit");
      require(operand.shape(1) == 1 || operand.shape(1) == out.shape(1), "arrays do not fit");
    }
    require(
        left.shape(3) == problem.rows && right.shape(4) == problem.columns && right.shape(3) == problem.terms,
        "matrices do not fit");
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    batched_product(problem, tier, threads);
  });
}

// g [B, K, T, D], x [B, T, D], mean and rstd [B, T], weight [D], the sums [B, K, D].
void layer_norm_grad_binding(py::array out, py::array weight_grad, py::array bias_grad, const py::array& g,
                             const py::array& x, const py::array& mean, const py::array& rstd,
                             const std::optional<py::array>& weight, const std::string& isa, int threads) {
  require(g.ndim() == 4, "expected g [B, K, T, D]");
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    const int64_t b = g.shape(0), k = g.shape(1), t = g.shape(2), d = g.shape(3);
    const LayerNormGrad<T> problem{b,
                                   k,
                                   t,
                                   d,
                                   whole<const T>(g, b * k * t * d),
                                   whole<const T>(x, b * t * d),
                                   whole<const T>(mean, b * t),
                                   whole<const T>(rstd, b * t),
                                   weight ? whole<const T>(*weight, d) : nullptr,
                                   whole<T>(out, b * k * t * d),
                                   whole<T>(weight_grad, b * k * d),
                                   whole<T>(bias_grad, b * k * d)};
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    layer_norm_grad(problem, tier, threads);
  });
}

// g [N, C, K, T], x and relu [N, K, T], the others [K] or [N, C, K].
void batch_norm_grad_binding(py::array out, py::array weight_grad, py::array bias_grad, const py::array& g,
                             const py::array& x, const py::array& mean, const py::array& rstd,
                             const std::optional<py::array>& weight, const std::optional<py::array>& relu,
                             const std::string& isa, int threads) {
  require(g.ndim() == 4, "expected g [N, C, K, T]");
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = g.shape(0), c = g.shape(1), k = g.shape(2), t = g.shape(3), rows = n * c * k;
    const BatchNormGrad<T> problem{n,
                                   c,
                                   k,
                                   t,
                                   whole<const T>(g, rows * t),
                                   whole<const T>(x, n * k * t),
                                   relu ? whole<const T>(*relu, n * k * t) : nullptr,
                                   whole<const T>(mean, k),
                                   whole<const T>(rstd, k),
                                   weight ? whole<const T>(*weight, k) : nullptr,
                                   whole<T>(out, rows * t),
                                   whole<T>(weight_grad, rows),
                                   whole<T>(bias_grad, rows)};
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    batch_norm_grad(problem, tier, threads);
  });
}

void relu_grad_binding(py::array g, const py::array& relu, const std::string& isa, int threads) {
  require(g.ndim() == 3, "expected g [N, C, elements]");
  with_element_type(g, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = g.shape(0), c = g.shape(1), size = g.shape(2);
    const ReluGrad<T> problem{n, c, size, whole<T>(g, n * c * size), whole<const T>(relu, n * size)};
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    relu_grad(problem, tier, threads);
  });
}

}  // namespace

void bind_pullback(py::module_& module) {
  module.def("batch_norm_grad", batch_norm_grad_binding);
  module.def("batched_product_", batched_product_binding);
  module.def("relu_grad_", relu_grad_binding);
  module.def("conv_input_grad_", conv_input_grad_binding);
  module.def("linear_input_grad_", linear_input_grad_binding);
  module.def("layer_norm_grad", layer_norm_grad_binding);
}

}  // namespace twophase
