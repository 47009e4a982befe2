// Column sums: a block takes a chunk of rows and a strip of columns; a lane takes 16 bytes of a row, a warp
// every kWarps-th row of the chunk.
#include "ops/column_sums.cuh"
#include "ops/linear.h"
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

}  // namespace

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
