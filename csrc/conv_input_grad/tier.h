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

template <class S>
constexpr ConvInputKernels<typename S::T> conv_input_kernels() {
  return {panel_width<S>,
          S::lanes,
          winograd_kernels<S, Tile<F2<S>, F2<S>>>(),
          winograd_kernels<S, Tile<F4<S>, F2<S>>>(),
          winograd_kernels<S, Tile<F4<S>, F4<S>>>(),
          run_direct<S>};
}

}  // namespace
}  // namespace twophase
