// The kernels of one vector tier, written once; included once by each tier's file.
#pragma once
#include "conv_input_grad/direct.h"
#include "conv_input_grad/winograd.h"

namespace twophase {
namespace {

template <class S>
constexpr ConvInputKernels<typename S::T> conv_input_kernels() {
  return {panel_width<S>,
          S::lanes,
          {F2<S>::results, F2<S>::points, transform_kernels<S, F2>, run_winograd<S, F2>},
          pack_rows<S>,
          run_direct<S>};
}

}  // namespace
}  // namespace twophase
