// The kernels of one vector tier, written once; included once by each tier's file.
#pragma once
#include "conv_input_grad/direct.h"
#include "conv_input_grad/winograd.h"
#include "conv_input_grad/winograd_products.h"

namespace twophase {
namespace {

template <class S, class F>
constexpr WinogradKernels<typename S::T> winograd_kernels() {
  return {F::results_y,  F::results_x,   F::places, transform_kernels<S, F>,
          forward<S, F>, multiply<S, F>, back<S, F>};
}

// Short sums bring tiles of 4x2 within twice the error of torch. Longer ones suffice for the others, as
// additions to totals take time: up to a tenth of it, and with 16 registers so much that from 64 channels on
// tiles of 4x2 would be slower.
template <class S>
constexpr ConvInputKernels<typename S::T> conv_input_kernels() {
  return {panel_width<S>,
          S::lanes,
          two_sums<S> ? 256 : 32,
          winograd_kernels<S, Tile<F2<S>, F2<S>, 32>>(),
          winograd_kernels<S, Tile<F4<S>, F2<S>, 8>>(),
          winograd_kernels<S, Tile<F4<S>, F4<S>, 32>>(),
          run_direct<S>};
}

}  // namespace
}  // namespace twophase
