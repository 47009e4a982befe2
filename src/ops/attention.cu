// Which CUDA kernels attention takes, and delta: a few lanes a row of a head.
#include "ops/attention_cuda.cuh"
#include "ops/attention_cudnn.h"

namespace keen::ops {

namespace cuda_attention {

namespace {

constexpr int kDeltaThreads = 256;

// delta_i = dout_i out_i, by `lanes` threads a row of a head, a power of 2.
template <class T, bool kVectors>
__global__ void __launch_bounds__(kDeltaThreads)
    delta_kernel(float* delta, const T* out, const T* dout, int tokens, int H, int D, int lanes, int count) {
  using Pack = cuda::Pack<T>;
  const int thread =
      static_cast<int>(blockIdx.x) * (kDeltaThreads / lanes) + static_cast<int>(threadIdx.x) / lanes;
  const int item = thread < count ? thread : count - 1;  // of (B, T, H); every lane takes part in the sums
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const T *x = out + static_cast<int64_t>(item) * D, *y = dout + static_cast<int64_t>(item) * D;
  float sum = 0;
  if constexpr (kVectors) {
    for (int d = lane * Pack::kSize; d < D; d += lanes * Pack::kSize) {
      const Pack a = Pack::load(x + d), b = Pack::load(y + d);
#pragma unroll
      for (int i = 0; i < Pack::kSize; ++i) sum += a.x[i] * b.x[i];
    }
  } else {
    for (int d = lane; d < D; d += lanes) sum += cuda::to_float(x[d]) * cuda::to_float(y[d]);
  }
  for (int offset = lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(cuda::kAllLanes, sum, offset);
  const int h = item % H, row = item / H;
  if (thread < count && lane == 0)
    delta[(static_cast<int64_t>(row / tokens) * H + h) * tokens + row % tokens] = sum;
}

void fill_delta(Context& ctx, const AttentionBackward& args, Tensor delta) {
  const int64_t D = args.q.D, count = args.q.B * args.q.T * args.q.heads;
  check(count < int64_t{1} << 31, "attention_backward: fewer than 2^31 rows of heads");
  cuda::with_device_float_type(args.q.dtype, [&]<class T>() {
    const T *out = args.out.as<T>(), *dout = args.dout.as<T>();
    const bool vectors = cuda::packable<T>(D, out, dout);
    const int64_t units = vectors ? D / cuda::Pack<T>::kSize : D;
    const int lanes = static_cast<int>(std::min<int64_t>(cuda::kWarp, units & -units));
    cuda::launch(ctx, vectors ? delta_kernel<T, true> : delta_kernel<T, false>,
                 cuda::grid_of(cuda::ceil_div(count, kDeltaThreads / lanes)), kDeltaThreads, 0,
                 delta.as<float>(), out, dout, static_cast<int>(args.q.T), static_cast<int>(args.q.heads),
                 static_cast<int>(D), lanes, static_cast<int>(count));
  });
}

// Rows that copies of 16 bytes can read and write.
bool aligned(const ConstHeads& x) {
  return x.dtype == DType::bf16 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.token_stride % 8 == 0 &&
         x.sequence_stride % 8 == 0;
}
bool aligned(const ConstTensor& x) { return reinterpret_cast<uintptr_t>(x.data) % 16 == 0; }

bool has_kernel(int64_t D) { return D == 32 || D == 64 || D == 96 || D == 128; }

}  // namespace

bool flash_takes(const Attention& a) {
  return has_kernel(a.q.D) && aligned(a.q) && aligned(a.k) && aligned(a.v) && aligned(a.out);
}
bool flash_takes(const AttentionBackward& a) {
  return has_kernel(a.q.D) && aligned(a.q) && aligned(a.k) && aligned(a.v) && aligned(a.dout) &&
         aligned(a.dq) && aligned(a.dk) && aligned(a.dv);
}

}  // namespace cuda_attention

template <> void attention_on<Device::cuda>(Context& ctx, const Attention& args, Tensor work) {
  using namespace cuda_attention;
  if constexpr (kCudnnBuilt)
    if (args.path == AttentionPath::cudnn && cudnn_attention_takes(ctx, args))
      return cudnn_attention(ctx, args, work);
  if (args.path != AttentionPath::reference && args.q.T > kFewQueries && flash_takes(args))
    flash_forward(ctx, args);
  else
    rows_forward(ctx, args, work);
}

template <>
void attention_backward_on<Device::cuda>(Context& ctx, const AttentionBackward& args, Tensor delta,
                                         Tensor work) {
  using namespace cuda_attention;
  if constexpr (kCudnnBuilt)
    if (args.path == AttentionPath::cudnn && cudnn_attention_takes(ctx, args))
      return cudnn_attention_backward(ctx, args, delta, work);
  fill_delta(ctx, args, delta);
  if (args.path != AttentionPath::reference && flash_takes(args))
    flash_backward(ctx, args, delta);
  else
    rows_backward(ctx, args, delta);
}

}  // namespace keen::ops
