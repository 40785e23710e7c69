// What the binding files share: views of NumPy arrays, and the problems that are made of them.
//
// Arguments were validated in Python (ops/<op>/__init__.py); only what would read or write out of bounds is
// checked again.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/cpu.h"
#include "factored_gram/factored_gram.h"
#include "gram/gram.h"

namespace twophase {

namespace py = pybind11;

void bind_pullback(py::module_& module);
void bind_split(py::module_& module);

namespace {

inline void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

template <class T>
bool holds(const py::array& array) {
  return array.dtype().num() == py::dtype::num_of<std::remove_const_t<T>>();
}

// Calls body with a value of the array's element type, float or double.
template <class Body>
void with_element_type(const py::array& array, const Body& body) {
  if (holds<float>(array)) return body(float());
  if (holds<double>(array)) return body(double());
  throw std::invalid_argument("expected float32 or float64");
}

template <class T>
int64_t stride(const py::array& array, int axis) {
  return array.strides(axis) / static_cast<int64_t>(sizeof(T));
}

// The data of a contiguous array of `size` elements of type T.
template <class T>
T* whole(const py::array& array, int64_t size) {
  require(py::isinstance<py::array_t<std::remove_const_t<T>, py::array::c_style>>(array),
          "expected contiguous arrays of one dtype");
  require(array.size() == size, "arrays differ in size");
  return static_cast<T*>(const_cast<void*>(array.data()));
}

// Whether an array is [N, ...] with every element of the first axis contiguous.
inline bool contiguous_images(const py::array& array) {
  if (array.size() == 0) return true;
  py::ssize_t bytes = array.itemsize();
  for (py::ssize_t axis = array.ndim() - 1; axis > 0; --axis) {
    if (array.shape(axis) > 1 && array.strides(axis) != bytes) return false;
    bytes *= array.shape(axis);
  }
  return true;
}

template <class T>
Batch<T> batch_view(const py::array& array) {
  require(array.ndim() == 3, "expected three axes");
  require(holds<T>(array), "arrays differ in dtype");
  T* data = static_cast<T*>(const_cast<void*>(array.data()));
  return {data, stride<T>(array, 0), stride<T>(array, 1), stride<T>(array, 2)};
}

template <class T>
GramProblem<T> gram_problem(const py::array& out, const py::array& x, const std::optional<py::array>& y) {
  const py::array& other = y ? *y : x;
  GramProblem<T> problem{};
  problem.symmetric = !y;
  problem.x = batch_view<const T>(x), problem.y = batch_view<const T>(other),
  problem.out = batch_view<T>(out);
  problem.batch = out.shape(0), problem.n = out.shape(1), problem.m = out.shape(2), problem.k = x.shape(2);
  require(x.shape(0) == problem.batch && x.shape(1) == problem.n, "out and x differ in shape");
  require(other.shape(0) == problem.batch && other.shape(1) == problem.m, "out and y differ in shape");
  require(other.shape(2) == problem.k, "x and y differ in their last axis");
  return problem;
}

template <class T>
FactoredSide<T> factored_side(const py::array& a, const py::array& g) {
  require(a.ndim() == 3 && g.ndim() == 4, "expected a [N, T, d] and g [N, C, T, p]");
  require(py::isinstance<py::array_t<T>>(a) && py::isinstance<py::array_t<T>>(g), "arrays differ in dtype");
  require(a.shape(0) == g.shape(0) && a.shape(1) == g.shape(2), "a and g differ in samples or positions");
  return {static_cast<const T*>(a.data()),
          static_cast<const T*>(g.data()),
          a.shape(0),
          a.shape(1),
          g.shape(1),
          stride<T>(a, 0),
          stride<T>(a, 1),
          stride<T>(a, 2),
          stride<T>(g, 0),
          stride<T>(g, 1),
          stride<T>(g, 2),
          stride<T>(g, 3)};
}

// The place of `name` among `names`, as an enumerator.
template <class Enum>
Enum enumerator(const std::string& name, const std::vector<std::string>& names) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  throw std::invalid_argument("unknown name " + name);
}

// `out` of a Gram block over samples, checked against the sides of the problem, which are set already.
template <class T, class Problem>
void set_out(Problem& f, py::array& out) {
  const bool full = f.output == GramOutput::full, trace = f.output == GramOutput::trace;
  require(py::isinstance<py::array_t<T>>(out), "arrays differ in dtype");
  require(out.ndim() == (full ? 4 : trace ? 2 : 3), "out has the wrong number of axes");
  require(out.shape(0) == f.left.samples && out.shape(1) == f.right.samples, "out has the wrong samples");
  require(trace || out.shape(2) == f.left.classes, "out has the wrong classes");
  require(full ? out.shape(3) == f.right.classes : f.left.classes == f.right.classes, "classes do not fit");
  f.out = static_cast<T*>(out.mutable_data());
  f.out_n = stride<T>(out, 0);
  f.out_m = stride<T>(out, 1);
  f.out_c = trace ? 0 : stride<T>(out, 2);
  f.out_e = full ? stride<T>(out, 3) : 0;
}

inline GramOutput gram_output(const std::string& name) {
  return enumerator<GramOutput>(name, {"full", "trace", "diagonal"});
}

template <class T>
FactoredGram<T> factored_problem(py::array& out, const py::array& a, const py::array& g,
                                 const std::optional<py::array>& a2, const std::optional<py::array>& g2,
                                 const std::string& output) {
  FactoredGram<T> problem{};
  problem.left = factored_side<T>(a, g);
  problem.right = a2 ? factored_side<T>(*a2, *g2) : problem.left;
  problem.symmetric = !a2;
  problem.inputs = a.shape(2);
  problem.outputs = g.shape(3);
  require(!a2 || (a2->shape(2) == a.shape(2) && g2->shape(3) == g.shape(3)),
          "the sides differ in inputs or outputs");
  problem.output = gram_output(output);
  set_out<T>(problem, out);
  return problem;
}

inline FactoredBlocks block_sizes(const std::vector<int64_t>& blocks) {
  require(blocks.size() == 4, "expected four block sizes");
  return {blocks[0], blocks[1], blocks[2], blocks[3]};
}

template <class Kind>
std::vector<std::string> names_of(const std::vector<Kind>& kinds, const char* (*name)(Kind)) {
  std::vector<std::string> names;
  for (const Kind kind : kinds) names.emplace_back(name(kind));
  return names;
}

}  // namespace
}  // namespace twophase
