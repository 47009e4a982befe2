// Forward: a thread takes 16 bytes of a row. Backward: the rows are sorted by token, a block takes kRun of
// them in that order and adds those of one token in registers, a thread 16 bytes of the width; no element has
// two writers.
#include "core/launch.cuh"
#include "ops/embedding.h"
#include "ops/token_order.cuh"
#include "ops/vec.cuh"

namespace keen::ops {

namespace {

constexpr int kThreads = 256;

template <class T> struct Lookup {
  T* y;
  const int32_t* ids;
  const T *tokens, *positions;  // positions: null where there are none
  int64_t items, width, T_, first_position;
};

template <class T, int kVec> __global__ void __launch_bounds__(kThreads) embedding_kernel(Lookup<T> a) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.items) return;
  const int64_t parts = a.width / kVec, row = item / parts, column = (item - row * parts) * kVec;
  float x[kVec];
  load<kVec>(x, a.tokens + a.ids[row] * a.width + column);
  if (a.positions != nullptr) {
    float position[kVec];
    load<kVec>(position, a.positions + (a.first_position + row % a.T_) * a.width + column);
#pragma unroll
    for (int i = 0; i < kVec; ++i) x[i] += position[i];
  }
  store<kVec>(a.y + row * a.width + column, x);
}

// Adds `sum` to kVec elements that no other thread writes.
template <int kVec> __device__ __forceinline__ void add_to(float* to, const float (&sum)[kVec]) {
  float x[kVec];
  load<kVec>(x, static_cast<const float*>(to));
#pragma unroll
  for (int i = 0; i < kVec; ++i) x[i] += sum[i];
  store<kVec>(to, x);
}

template <class T> struct Scatter {
  float *dtokens, *border;  // border (runs, 2, width): see sum_tokens_kernel
  const T* dy;
  const int32_t *ids, *rows;  // sorted by id
  int64_t N, width;
};

// The rows of one token that lie in this block's run are added to its gradient, unless they reach over a
// border of the run: such sums go to `border`, [0] what a token from the run before begins with here, [1]
// what a token that goes on in the next run ends with.
template <class T, int kVec> __global__ void __launch_bounds__(kThreads) sum_tokens_kernel(Scatter<T> a) {
  constexpr int kBatch = 8;  // rows read before the first is used
  static_assert(kRun % kBatch == 0);
  __shared__ int32_t ids[kRun + 2], rows[kRun];  // ids[0] and ids[kRun + 1] are the neighbours', or -1
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRun;
  for (int i = static_cast<int>(threadIdx.x); i < kRun + 2; i += static_cast<int>(blockDim.x)) {
    const int64_t at = first + i - 1;
    ids[i] = at >= 0 && at < a.N ? a.ids[at] : -1;
    if (i < kRun) rows[i] = first + i < a.N ? a.rows[first + i] : -1;
  }
  __syncthreads();
  const int count = static_cast<int>(std::min<int64_t>(kRun, a.N - first));

  for (int64_t c = threadIdx.x * kVec; c < a.width; c += blockDim.x * kVec) {
    float sum[kVec] = {};
    bool from_before = ids[0] == ids[1];
    for (int base = 0; base < count; base += kBatch) {
      float dy[kBatch][kVec];
#pragma unroll
      for (int k = 0; k < kBatch; ++k)
        if (base + k < count) load<kVec>(dy[k], a.dy + rows[base + k] * a.width + c);
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        const int i = base + k;
        if (i >= count) continue;
#pragma unroll
        for (int j = 0; j < kVec; ++j) sum[j] += dy[k][j];
        const bool last = i + 1 == count, goes_on = ids[i + 2] == ids[i + 1];
        if (goes_on && !last) continue;
        if (from_before)
          store<kVec>(a.border + static_cast<int64_t>(blockIdx.x) * 2 * a.width + c, sum);
        else if (goes_on)
          store<kVec>(a.border + (static_cast<int64_t>(blockIdx.x) * 2 + 1) * a.width + c, sum);
        else
          add_to<kVec>(a.dtokens + ids[i + 1] * a.width + c, sum);
        from_before = false;
#pragma unroll
        for (int j = 0; j < kVec; ++j) sum[j] = 0;
      }
    }
  }
}

constexpr int kBorderWarps = 8;

// A block looks at one run: if a token begins in it and goes on, its sums in all the runs are added here. A
// lane has a column of the tile blockIdx.y; the warps share out the runs.
__global__ void __launch_bounds__(kBorderWarps* cuda::kWarp)
    join_borders_kernel(float* dtokens, const float* border, const int32_t* ids, int64_t N, int64_t width) {
  const int64_t run = blockIdx.x, runs = cuda::ceil_div(N, kRun);
  const int32_t id = ids[std::min(N, (run + 1) * kRun) - 1];
  const bool begins = run == 0 || ids[run * kRun - 1] != id;
  if (!begins || run + 1 == runs || ids[(run + 1) * kRun] != id) return;  // the whole block

  __shared__ float of_warp[kBorderWarps][cuda::kWarp];
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const int64_t column = static_cast<int64_t>(blockIdx.y) * cuda::kWarp + lane;
  float sum = 0;
  if (column < width)
    for (int64_t next = run + 1 + warp; next < runs && ids[next * kRun] == id; next += kBorderWarps)
      sum += border[next * 2 * width + column];
  of_warp[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= width) return;
  float total = border[(run * 2 + 1) * width + column];
#pragma unroll
  for (int w = 0; w < kBorderWarps; ++w) total += of_warp[w][lane];
  dtokens[id * width + column] += total;
}

// A thread takes 16 bytes of a position and adds it over all sequences.
template <class T, int kVec>
__global__ void __launch_bounds__(kThreads)
    sum_positions_kernel(float* dpositions, const T* dy, int64_t N, int64_t width, int64_t length) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, parts = width / kVec;
  if (item >= std::min(length, N) * parts) return;
  const int64_t t = item / parts, column = (item - t * parts) * kVec;
  float sum[kVec] = {};
#pragma unroll 4
  for (int64_t row = t; row < N; row += length) {
    float x[kVec];
    load<kVec>(x, dy + row * width + column);
#pragma unroll
    for (int i = 0; i < kVec; ++i) sum[i] += x[i];
  }
  add_to<kVec>(dpositions + t * width + column, sum);
}

}  // namespace

template <> void embedding_on<Device::cuda>(Context& ctx, const Embedding& args) {
  cuda::with_device_float_type(args.y.dtype, [&]<class T>() {
    const auto [N, width] = dims<2>(args.y);
    const Lookup<T> lookup{.y = args.y.as<T>(),
                           .ids = args.ids.as<int32_t>(),
                           .tokens = args.tokens.as<T>(),
                           .positions = args.positions ? args.positions.as<T>() : nullptr,
                           .items = N * width,
                           .width = width,
                           .T_ = args.T,
                           .first_position = args.first_position};
    with_vec<T>(cuda::packable<T>(width, lookup.y, lookup.tokens, lookup.positions), [&]<int kVec>() {
      Lookup<T> a = lookup;
      a.items /= kVec;
      if (a.items == 0) return;
      cuda::launch(ctx, embedding_kernel<T, kVec>, cuda::grid_of(cuda::ceil_div(a.items, kThreads)), kThreads,
                   0, a);
    });
  });
}

template <>
void embedding_backward_on<Device::cuda>(Context& ctx, const EmbeddingBackward& args,
                                         const TokenOrder& order) {
  const auto [rows, columns] = dims<2>(args.dy);
  const int64_t N = rows, width = columns;
  if (N == 0 || width == 0) return;
  const SortedTokens sorted = sort_tokens(ctx, order, args.ids, args.dtokens.shape[0]);
  cuda::with_device_float_type(args.dy.dtype, [&]<class T>() {
    const Scatter<T> scatter{.dtokens = args.dtokens.as<float>(),
                             .border = order.border.as<float>(),
                             .dy = args.dy.as<T>(),
                             .ids = sorted.ids,
                             .rows = sorted.rows,
                             .N = N,
                             .width = width};
    float* dpositions = args.dpositions ? args.dpositions.as<float>() : nullptr;
    with_vec<T>(cuda::packable<T>(width, scatter.dy, scatter.dtokens, dpositions), [&]<int kVec>() {
      const int64_t threads =
          std::min<int64_t>(kThreads, cuda::ceil_div(width, cuda::kWarp * kVec) * cuda::kWarp);
      cuda::launch(ctx, sum_tokens_kernel<T, kVec>, cuda::grid_of(cuda::ceil_div(N, kRun)),
                   static_cast<unsigned>(threads), 0, scatter);
      if (dpositions == nullptr) return;
      const int64_t items = std::min(args.T, N) * (width / kVec);
      cuda::launch(ctx, sum_positions_kernel<T, kVec>, cuda::grid_of(cuda::ceil_div(items, kThreads)),
                   kThreads, 0, dpositions, scatter.dy, N, width, args.T);
    });
  });
  cuda::launch(ctx, join_borders_kernel,
               cuda::grid_of(cuda::ceil_div(N, kRun), cuda::ceil_div(width, cuda::kWarp)),
               dim3(cuda::kWarp, kBorderWarps), 0, args.dtokens.as<float>(), order.border.as<float>(),
               sorted.ids, N, width);
}

}  // namespace keen::ops
