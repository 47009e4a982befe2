// One thread takes the elements of 16 bytes of the narrowest type.
#include "ops/elementwise.h"
#include "ops/map.cuh"

namespace keen::ops {

namespace {

struct Sum {
  __device__ float operator()(const float (&x)[2]) const { return x[0] + x[1]; }
};

struct Same {
  __device__ float operator()(const float (&x)[1]) const { return x[0]; }
};

}  // namespace

template <> void add_on<Device::cuda>(Context& ctx, Tensor y, ConstTensor a, ConstTensor b) {
  cuda::with_device_float_type(
      y.dtype, [&]<class T>() { map(ctx, Sum{}, y.count(), y.as<T>(), a.as<T>(), b.as<T>()); });
}

template <> void convert_on<Device::cuda>(Context& ctx, Tensor y, ConstTensor x) {
  cuda::with_device_float_type(y.dtype, [&]<class To>() {
    cuda::with_device_float_type(
        x.dtype, [&]<class From>() { map(ctx, Same{}, y.count(), y.as<To>(), x.as<From>()); });
  });
}

template <> void zero_on<Device::cuda>(Context& ctx, Tensor y) {
  cuda::check_cuda(cudaMemsetAsync(y.data, 0, static_cast<size_t>(y.bytes()), cuda::stream_of(ctx)),
                   "zeroing a tensor");
}

}  // namespace keen::ops
