// A block takes 32 columns, a lane one of them; its warps share out the chunks.
#include "core/warp.cuh"
#include "ops/column_sums.cuh"

namespace keen::ops {

namespace {

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

}  // namespace keen::ops
