// Which CUDA kernels attention takes, and delta: a warp a row and head.
#include "ops/attention_cuda.cuh"
#include "ops/attention_cudnn.h"

namespace keen::ops {

namespace cuda_attention {

namespace {

constexpr int kDeltaThreads = 256;

// delta_i = dout_i out_i.
template <class T>
__global__ void __launch_bounds__(kDeltaThreads)
    delta_kernel(float* delta, DeviceHeads<const T> out, DeviceHeads<const T> dout, int tokens, int H,
                 int64_t count) {
  const int64_t item = (static_cast<int64_t>(blockIdx.x) * kDeltaThreads + threadIdx.x) / cuda::kWarp;
  if (item >= count) return;  // a whole warp, and no barrier follows
  const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp, h = static_cast<int>(item % H);
  const int64_t row = item / H;
  const int t = static_cast<int>(row % tokens), b = static_cast<int>(row / tokens);
  const T *x = out.row(b, t, h), *y = dout.row(b, t, h);
  float sum = 0;
  for (int d = lane; d < out.D; d += cuda::kWarp) sum += cuda::to_float(x[d]) * cuda::to_float(y[d]);
  sum = cuda::warp_sum(sum);
  if (lane == 0) delta[(static_cast<int64_t>(b) * H + h) * tokens + t] = sum;
}

void fill_delta(Context& ctx, const AttentionBackward& args, Tensor delta) {
  const int64_t tokens = args.q.T, D = args.q.D, count = args.q.B * tokens * args.q.heads;
  cuda::with_device_float_type(args.q.dtype, [&]<class T>() {
    cuda::launch(ctx, delta_kernel<T>, cuda::grid_of(cuda::ceil_div(count, kDeltaThreads / cuda::kWarp)),
                 kDeltaThreads, 0, delta.as<float>(), packed_heads<const T>(args.out, tokens, D),
                 packed_heads<const T>(args.dout, tokens, D), static_cast<int>(tokens),
                 static_cast<int>(args.q.heads), count);
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
