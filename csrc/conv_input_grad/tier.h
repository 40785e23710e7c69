// The kernels of one vector tier, written once; included once by each tier's file.
#pragma once
#include "conv_input_grad/direct.h"
#include "conv_input_grad/winograd.h"

namespace twophase {
namespace {

template <class S, template <class> class F>
constexpr WinogradKernels<typename S::T> winograd_kernels() {
  return {F<S>::results, F<S>::points, transform_kernels<S, F>, forward<S, F>, multiply<S, F>, back<S, F>};
}

template <class S>
constexpr ConvInputKernels<typename S::T> conv_input_kernels() {
  return {panel_width<S>, S::lanes, winograd_kernels<S, F2>(), winograd_kernels<S, F4>(), run_direct<S>};
}

}  // namespace
}  // namespace twophase
