// The only pybind11 file: NumPy arrays in, plain pointers out, the GIL released while a kernel runs.
// Arguments were validated in Python (ops/<op>/__init__.py); only what would read or write out of bounds is
// checked again.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/cpu.h"
#include "gram/gram.h"

namespace py = pybind11;

namespace twophase {
namespace {

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// Calls body with a value of the array's element type, float or double.
template <class Body>
void with_element_type(const py::array& array, const Body& body) {
  if (py::isinstance<py::array_t<float>>(array)) return body(float());
  if (py::isinstance<py::array_t<double>>(array)) return body(double());
  throw std::invalid_argument("expected float32 or float64");
}

template <class T>
int64_t stride(const py::array& array, int axis) {
  return array.strides(axis) / static_cast<int64_t>(sizeof(T));
}

template <class T>
Batch<T> batch_view(const py::array& array) {
  require(array.ndim() == 3, "expected three axes");
  require(py::isinstance<py::array_t<std::remove_const_t<T>>>(array), "arrays differ in dtype");
  T* data = static_cast<T*>(const_cast<void*>(array.data()));
  return {data, stride<T>(array, 0), stride<T>(array, 1), stride<T>(array, 2)};
}

void gram_binding(py::array out, const py::array& x, const std::optional<py::array>& y,
                  const std::string& isa, int threads) {
  const py::array& other = y ? *y : x;
  with_element_type(out, [&](auto zero) {
    using T = decltype(zero);
    const GramProblem<T> problem{out.shape(0),
                                 out.shape(1),
                                 out.shape(2),
                                 x.shape(2),
                                 !y,
                                 batch_view<const T>(x),
                                 batch_view<const T>(other),
                                 batch_view<T>(out)};
    require(x.shape(0) == problem.batch && x.shape(1) == problem.n, "out and x differ in shape");
    require(other.shape(0) == problem.batch && other.shape(1) == problem.m, "out and y differ in shape");
    require(other.shape(2) == problem.k, "x and y differ in their last axis");
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

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const Isa isa : available_isas()) names.emplace_back(isa_name(isa));
  return names;
}

}  // namespace
}  // namespace twophase

PYBIND11_MODULE(_C, module) {
  using namespace twophase;
  module.doc() = "C++ kernels of twophase_fast; called through twophase_fast._native only.";
  module.def("available_isas", isa_names);
  module.def("gram_", gram_binding);
  module.def("symmetrize_", symmetrize_binding);
}
