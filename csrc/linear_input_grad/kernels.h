// What a vector tier provides to the driver (dispatch.cpp), single-threaded.
#pragma once
#include <cstdint>

#include "common/active.h"
#include "common/pack.h"
#include "linear_input_grad/linear_input_grad.h"

namespace twophase {

// Some rows and columns of the result. The operands are panels (common/pack.h) terms * width apart.
template <class T>
struct LinearInputBlock {
  int64_t rows, columns, terms;
  const T *left, *right;
  const T* const* scale;  // of each row, at the first of the columns; or null
  T* out;
  int64_t out_row;  // elements from row to row
  bool add;
  T* partial;  // rows * partial_columns
};

// Whole samples of it, whose rows are fed by their active terms (common/active.h) instead of `left`.
template <class T>
struct LinearInputGroups {
  LinearInputBlock<T> block;
  const ActiveGroup<T>* groups;
  int64_t group_rows;
};

template <class T>
struct LinearInputKernels {
  int64_t width;            // rows of a packed panel
  int64_t rows;             // of a register tile
  int64_t partial_columns;  // held back at once until all terms are summed
  void (*pack)(const Rows<T>& source, int64_t first, int64_t count, int64_t depth, T* panels,
               int64_t panel_stride, int64_t width, int64_t start);
  void (*multiply)(const LinearInputBlock<T>& block);
  ActiveKernels<T> active;
  void (*multiply_groups)(const LinearInputGroups<T>& groups);
};

extern const LinearInputKernels<float> linear_input_avx2_f32;
extern const LinearInputKernels<double> linear_input_avx2_f64;
extern const LinearInputKernels<float> linear_input_avx512_f32;
extern const LinearInputKernels<double> linear_input_avx512_f64;

template <class T>
void linear_input_grad_scalar(const LinearInputGrad<T>& problem, int threads);

}  // namespace twophase
