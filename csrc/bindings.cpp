// The functions of the extension: NumPy arrays in, plain pointers out, the GIL released while a kernel runs.
#include "bindings.h"

#include <limits>

#include "embedding_gram/embedding_gram.h"
#include "pair_moments/pair_moments.h"
#include "per_sample_grad/per_sample_grad.h"
#include "random_projection/random_projection.h"

namespace twophase {
namespace {

void gram_binding(py::array out, const py::array& x, const std::optional<py::array>& y,
                  const std::string& isa, int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    const GramProblem<T> problem = gram_problem<T>(out, x, y);
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    gram_accumulate(problem, tier, threads);
  });
}

void symmetrize_binding(py::array out, const std::string&, int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    const Batch<T> view = batch_view<T>(out);
    require(out.shape(1) == out.shape(2), "out is not square");
    const int64_t batch = out.shape(0), n = out.shape(1);
    const py::gil_scoped_release unlocked;
    symmetrize(batch, n, view, threads);
  });
}

Element element_of(const py::array& array) {
  const char kind = array.dtype().kind();
  const auto bytes = array.itemsize();
  if (kind == 'f' && bytes == 4) return Element::f32;
  if (kind == 'f' && bytes == 8) return Element::f64;
  if (kind == 'f' && bytes == 2) return Element::f16;
  if (kind == 'u' && bytes == 2) return Element::bf16;  // bfloat16 comes as its bits
  throw std::invalid_argument("expected float32, float64, float16, or uint16 for bfloat16");
}

const void* vector_data(const py::array& array, const MomentsPosition& like) {
  require(array.ndim() == 1 && (array.size() < 2 || array.strides(0) == array.itemsize()),
          "expected contiguous vectors");
  require(array.size() == like.size && element_of(array) == like.element, "vectors differ in size or dtype");
  return array.data();
}

// xs holds `runs` times the vectors of one run; ys one run or nothing.
std::vector<MomentsPosition> positions_of(const std::vector<py::array>& xs, const std::vector<py::array>& ys,
                                          size_t runs) {
  require(runs > 0 && xs.size() % runs == 0, "xs is not a whole number of runs");
  const size_t count = xs.size() / runs;
  require(ys.empty() || ys.size() == count, "xs and ys differ in length");
  std::vector<MomentsPosition> positions;
  for (size_t p = 0; p < count; ++p) {
    MomentsPosition position{element_of(xs[p]), xs[p].size(), {}, nullptr};
    for (size_t run = 0; run < runs; ++run) {
      position.x.push_back(vector_data(xs[run * count + p], position));
    }
    if (!ys.empty()) position.y = vector_data(ys[p], position);
    positions.push_back(position);
  }
  return positions;
}

py::array_t<double> pair_moments_binding(const std::vector<py::array>& xs, const std::vector<py::array>& ys,
                                         int64_t runs, const std::string& isa, int threads) {
  const std::vector<MomentsPosition> positions = positions_of(xs, ys, runs);
  const auto count = static_cast<int64_t>(positions.size());
  py::array_t<double> out({runs, ys.empty() ? runs : 1, count, int64_t{kMomentFields}});
  double* data = out.mutable_data();
  const Isa tier = parse_isa(isa);
  const py::gil_scoped_release unlocked;
  pair_moments(positions, tier, threads, data);
  return out;
}

py::array_t<double> residual_moments_binding(const std::vector<py::array>& xs,
                                             const std::vector<py::array>& ys, double scale,
                                             const std::string& isa, int threads) {
  require(!xs.empty() && !ys.empty(), "expected one run of x and one of y");
  const std::vector<MomentsPosition> positions = positions_of(xs, ys, 1);
  py::array_t<double> out({static_cast<int64_t>(positions.size()), int64_t{kResidualFields}});
  double* data = out.mutable_data();
  const Isa tier = parse_isa(isa);
  const py::gil_scoped_release unlocked;
  residual_moments(positions, scale, tier, threads, data);
  return out;
}

void factored_gram_binding(py::array out, const py::array& a, const py::array& g,
                           const std::optional<py::array>& a2, const std::optional<py::array>& g2,
                           const std::string& output, const std::string& method,
                           const std::vector<int64_t>& blocks, const std::string& isa, int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    const FactoredGram<T> problem = factored_problem<T>(out, a, g, a2, g2, output);
    const auto chosen = enumerator<GramMethod>(method, {"tiles", "pointwise", "half"});
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    factored_gram(problem, chosen, block_sizes(blocks), tier, threads);
  });
}

template <class T>
GradRows<T> grad_rows(py::array& out, int64_t samples, int64_t classes, int64_t outputs, int64_t row) {
  require(py::isinstance<py::array_t<T>>(out) && out.ndim() == 4, "expected out [N, C, rows, elements]");
  require(
      out.shape(0) == samples && out.shape(1) == classes && out.shape(2) == outputs && out.shape(3) == row,
      "out has the wrong shape");
  require(out.size() == 0 || row == 1 || stride<T>(out, 3) == 1, "the last axis of out is not contiguous");
  return {static_cast<T*>(out.mutable_data()), stride<T>(out, 0), stride<T>(out, 1), stride<T>(out, 2)};
}

void linear_grad_binding(py::array out, const py::array& a, const py::array& g, const std::string& isa,
                         int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    const FactoredSide<T> s = factored_side<T>(a, g);
    const int64_t inputs = a.shape(2), outputs = g.shape(3);
    const LinearGrad<T> problem{
        s.samples,    s.classes,    s.positions,
        outputs,      inputs,       s.a,
        s.a_sample,   s.a_position, s.a_input,
        s.g,          s.g_sample,   s.g_class,
        s.g_position, s.g_output,   grad_rows<T>(out, s.samples, s.classes, outputs, inputs)};
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    linear_grad(problem, tier, threads);
  });
}

// geometry: kernel, stride, padding and dilation of the two axes, then groups.
template <class T>
ConvGrad<T> conv_problem(const py::array& x, const py::array& g, const std::vector<int64_t>& geometry) {
  require(x.ndim() == 4 && g.ndim() == 5 && geometry.size() == 9,
          "expected x [N, Cin, H, W], g [N, C, Cout, H, W]");
  require(py::isinstance<py::array_t<T>>(x) && py::isinstance<py::array_t<T>>(g), "arrays differ in dtype");
  ConvGrad<T> f{};
  f.samples = g.shape(0), f.classes = g.shape(1), f.cout = g.shape(2), f.cin = x.shape(1),
  f.groups = geometry[8];
  f.height = x.shape(2), f.width = x.shape(3), f.out_height = g.shape(3), f.out_width = g.shape(4);
  require(f.groups > 0 && f.cin % f.groups == 0 && f.cout % f.groups == 0,
          "groups do not divide the channels");
  require(x.shape(0) == f.samples, "x and g differ in samples");
  for (size_t axis = 0; axis < 2; ++axis) {
    f.kernel[axis] = geometry[axis], f.stride[axis] = geometry[2 + axis];
    f.padding[axis] = geometry[4 + axis], f.dilation[axis] = geometry[6 + axis];
  }
  f.x = static_cast<const T*>(x.data());
  f.x_sample = stride<T>(x, 0), f.x_channel = stride<T>(x, 1), f.x_row = stride<T>(x, 2),
  f.x_column = stride<T>(x, 3);
  f.g = static_cast<const T*>(g.data());
  f.g_sample = stride<T>(g, 0), f.g_class = stride<T>(g, 1), f.g_channel = stride<T>(g, 2);
  f.g_row = stride<T>(g, 3), f.g_column = stride<T>(g, 4);
  return f;
}

void conv_grad_binding(py::array out, const py::array& x, const py::array& g,
                       const std::vector<int64_t>& geometry, bool large_tiles, const std::string& isa,
                       int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    ConvGrad<T> problem = conv_problem<T>(x, g, geometry);
    problem.large_tiles = large_tiles;
    const int64_t row = problem.cin / problem.groups * problem.kernel[0] * problem.kernel[1];
    problem.out = grad_rows<T>(out, problem.samples, problem.classes, problem.cout, row);
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    conv_grad(problem, tier, threads);
  });
}

template <class T>
TokenSide<T> token_side(const py::array& tokens, const py::array& g) {
  require(tokens.ndim() == 2 && g.ndim() == 4, "expected tokens [N, T] and g [N, C, T, p]");
  require(py::isinstance<py::array_t<int64_t>>(tokens), "expected tokens of type int64");
  require(py::isinstance<py::array_t<T>>(g), "arrays differ in dtype");
  require(tokens.shape(0) == g.shape(0) && tokens.shape(1) == g.shape(2),
          "tokens and g differ in samples or positions");
  return {static_cast<const int64_t*>(tokens.data()),
          static_cast<const T*>(g.data()),
          g.shape(0),
          g.shape(2),
          g.shape(1),
          stride<int64_t>(tokens, 0),
          stride<int64_t>(tokens, 1),
          stride<T>(g, 0),
          stride<T>(g, 1),
          stride<T>(g, 2),
          stride<T>(g, 3)};
}

void embedding_gram_binding(py::array out, const py::array& tokens, const py::array& g,
                            const std::optional<py::array>& tokens2, const std::optional<py::array>& g2,
                            const std::string& output, const std::optional<int64_t>& padding,
                            int64_t workspace, const std::string& isa, int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    EmbeddingGram<T> problem{};
    problem.left = token_side<T>(tokens, g);
    problem.right = tokens2 ? token_side<T>(*tokens2, *g2) : problem.left;
    problem.symmetric = !tokens2;
    problem.outputs = g.shape(3);
    problem.padding = padding.value_or(std::numeric_limits<int64_t>::min());
    require(!g2 || g2->shape(3) == g.shape(3), "the sides differ in outputs");
    problem.output = gram_output(output);
    set_out<T>(problem, out);
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    embedding_gram(problem, workspace, tier, threads);
  });
}

template <class T>
View<T> matrix_view(const py::array& array) {
  require(array.ndim() == 2 && holds<T>(array), "expected matrices of one dtype");
  return {static_cast<T*>(const_cast<void*>(array.data())), stride<T>(array, 0), stride<T>(array, 1)};
}

void random_projection_binding(py::array out, const py::array& x, uint64_t seed, uint64_t offset,
                               const std::string& isa, int threads) {
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    require(out.ndim() == 2 && x.ndim() == 2 && out.shape(0) == x.shape(0), "out and x differ in rows");
    const RandomProjection<T> problem{
        out.shape(0), x.shape(1), out.shape(1), seed, offset, matrix_view<const T>(x), matrix_view<T>(out)};
    const Isa tier = parse_isa(isa);
    const py::gil_scoped_release unlocked;
    random_projection(problem, tier, threads);
  });
}

}  // namespace
}  // namespace twophase

PYBIND11_MODULE(_C, module) {
  using namespace twophase;
  module.doc() = "C++ kernels of twophase_fast; called through twophase_fast._native only.";
  module.def("available_isas", [] { return names_of(available_isas(), isa_name); });
  module.def("gram_", gram_binding);
  module.def("symmetrize_", symmetrize_binding);
  module.def("factored_gram_", factored_gram_binding);
  module.def("embedding_gram_", embedding_gram_binding);
  module.def("random_projection_", random_projection_binding);
  module.def("linear_grad", linear_grad_binding);
  module.def("conv_grad", conv_grad_binding);
  bind_pullback(module);
  bind_split(module);
  module.def("pair_moments", pair_moments_binding);
  module.def("residual_moments", residual_moments_binding);
}
