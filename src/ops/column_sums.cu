// Of each chunk: a block takes it and a strip of columns; a lane takes 16 bytes of a row, a warp every
// kWarps-th row. Then of the chunks: a block takes 32 columns, a lane one of them; its warps share them out.
#include "ops/column_sums.cuh"
#include "ops/vec.cuh"

namespace keen::ops {

namespace {

constexpr int kWarps = 8;

template <class T, int kVec>
__global__ void __launch_bounds__(kWarps* cuda::kWarp)
    column_sums_kernel(float* partial, const T* x, RowChunks chunks, int64_t columns) {
  constexpr int kStrip = cuda::kWarp * kVec;
  __shared__ float of_warp[kWarps][kStrip];
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const int64_t chunk = blockIdx.x, first = static_cast<int64_t>(blockIdx.y) * kStrip,
                column = first + lane * kVec;
  const int64_t end = std::min((chunk + 1) * chunks.length, chunks.N);
  float sum[kVec] = {};
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = chunk * chunks.length + warp; row < end; row += kWarps) {
      float at_row[kVec];
      load<kVec>(at_row, x + row * columns + column);
#pragma unroll
      for (int i = 0; i < kVec; ++i) sum[i] += at_row[i];
    }
  }
  // Lanes side by side in shared memory: no two lanes of a warp meet in a bank.
#pragma unroll
  for (int i = 0; i < kVec; ++i) of_warp[warp][i * cuda::kWarp + lane] = sum[i];
  __syncthreads();
  for (int i = warp * cuda::kWarp + lane; i < kStrip; i += kWarps * cuda::kWarp) {
    const int64_t at = first + i;
    if (at >= columns) break;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += of_warp[w][i % kVec * cuda::kWarp + i / kVec];
    partial[chunk * columns + at] = total;
  }
}

constexpr int kMostWarps = 16;

__global__ void __launch_bounds__(kMostWarps* cuda::kWarp)
    add_partial_sums_kernel(float* gradient, int64_t count, const float* partial, int64_t chunks,
                            int64_t columns) {
  __shared__ float of_warp[kMostWarps][cuda::kWarp];
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const int warps = static_cast<int>(blockDim.y);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * cuda::kWarp + lane;
  float sum = 0;
  if (column < count) {
#pragma unroll 8
    for (int64_t chunk = warp; chunk < chunks; chunk += warps) sum += partial[chunk * columns + column];
  }
  of_warp[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= count) return;
  // The chunks are summed first, so that a large gradient of earlier micro-batches does not swallow small
  // ones.
  float total = 0;
  for (int w = 0; w < warps; ++w) total += of_warp[w][lane];
  gradient[column] += total;
}

}  // namespace

void add_partial_sums(Context& ctx, Tensor gradient, ConstTensor partial, int64_t first_column) {
  const auto [chunks, columns] = dims<2>(partial);
  const int64_t count = gradient.count();
  check(first_column + count <= columns, "add_partial_sums: columns inside the partial sums");
  if (chunks == 0 || count == 0) return;
  const auto warps = static_cast<unsigned>(std::min<int64_t>(chunks, kMostWarps));
  cuda::launch(ctx, add_partial_sums_kernel, cuda::grid_of(cuda::ceil_div(count, cuda::kWarp)),
               dim3(cuda::kWarp, warps), 0, gradient.as<float>(), count, partial.as<float>() + first_column,
               chunks, columns);
}

template <> void add_column_sums_on<Device::cuda>(Context& ctx, Tensor sums, ConstTensor x, Tensor partial) {
  cuda::with_device_float_type(x.dtype, [&]<class T>() {
    const auto [rows, width] = dims<2>(x);
    const int64_t columns = width;
    const RowChunks chunks(rows, Device::cuda);
    if (chunks.count == 0 || columns == 0) return;
    with_vec<T>(cuda::packable<T>(columns, x.data), [&]<int kVec>() {
      cuda::launch(ctx, column_sums_kernel<T, kVec>,
                   cuda::grid_of(chunks.count, cuda::ceil_div(columns, cuda::kWarp * kVec)),
                   dim3(cuda::kWarp, kWarps), 0, partial.as<float>(), x.as<T>(), chunks, columns);
    });
    add_partial_sums(ctx, sums, partial, 0);
  });
}

}  // namespace keen::ops
