// What bindings.cpp asks of NumPy arrays; included there only.
#pragma once
#include <pybind11/numpy.h>

#include <cstdint>
#include <stdexcept>
#include <type_traits>

namespace py = pybind11;

namespace twophase {
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

}  // namespace
}  // namespace twophase
