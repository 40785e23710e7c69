// Checks of NumPy arrays for bindings.cpp.
#pragma once
#include <pybind11/numpy.h>

#include <stdexcept>
#include <type_traits>

namespace twophase {

namespace py = pybind11;

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

}  // namespace twophase
