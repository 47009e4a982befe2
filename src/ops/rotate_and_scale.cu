// A thread takes 16 bytes of the first half of a head and the 16 bytes that they are rotated with from the
// second; in backward it keeps its head from row to row, so that ds and db are summed in registers.
#include "ops/column_sums.cuh"
#include "ops/rotate_and_scale.h"
#include "ops/vec.cuh"

namespace keen::ops {

namespace {

constexpr int kThreads = 256;
constexpr int kMostBackwardThreads = 320;  // two such blocks share the registers of a multiprocessor

// What both directions know of a row.
struct Rotation {
  const float *table, *log_n, *s, *b;  // null: absent
  int D, R, H, heads;                  // heads: changed_heads
  int64_t T, first_position;

  __device__ __forceinline__ int64_t position(int64_t row) const {
    return visible_keys(row % T, T, first_position + T) - 1;
  }
  // c(h, n) = s_h ln n + b_h for a query head, 1 for a key head.
  __device__ __forceinline__ float scale(int h, int64_t position) const {
    if (h >= H || s == nullptr) return 1.0f;
    return s[h] * log_n[position] + (b == nullptr ? 0.0f : b[h]);
  }
};

// kVec elements of the first half of a head, from `first` on, and their partners D/2 further. With kVec = 1
// an odd D has one more element in the second half than in the first.
template <int kVec> struct HeadPart {
  float a[kVec] = {}, b[kVec] = {};

  template <class T> __device__ __forceinline__ void read(const T* head, int first, int half) {
    if (kVec > 1 || first < half) load<kVec>(a, head + first);
    load<kVec>(b, head + first + half);
  }
  template <class T> __device__ __forceinline__ void write(T* head, int first, int half) const {
    if (kVec > 1 || first < half) store<kVec>(head + first, a);
    store<kVec>(head + first + half, b);
  }
  // Rotates the pairs below R, or with kBack turns them back.
  template <bool kBack>
  __device__ __forceinline__ void rotate(const Rotation& r, int first, int64_t position) {
    if (first >= r.R) return;
    float turn[2 * kVec];
    const float* at = r.table + (position * r.R + first) * 2;
    if (kVec > 1 && first + kVec <= r.R)
      load<2 * kVec>(turn, at);
    else
#pragma unroll
      for (int i = 0; i < 2 * kVec; ++i) turn[i] = first + i / 2 < r.R ? at[i] : 0.0f;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      if (first + i >= r.R) continue;
      const float cosine = turn[2 * i], sine = kBack ? -turn[2 * i + 1] : turn[2 * i + 1], x = a[i], y = b[i];
      a[i] = x * cosine - y * sine;
      b[i] = x * sine + y * cosine;
    }
  }
  __device__ __forceinline__ void multiply(float scale) {
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      a[i] *= scale;
      b[i] *= scale;
    }
  }
};

template <class T, int kVec>
__global__ void __launch_bounds__(kThreads)
    rotate_and_scale_kernel(T* qk, const T* x, int64_t x_stride, Rotation r, int64_t items) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items) return;
  const int half = r.D / 2, parts = (r.D - half) / kVec, parts_of_row = parts * r.heads;
  const int64_t row = item / parts_of_row, position = r.position(row);
  const int of_row = static_cast<int>(item - row * parts_of_row), h = of_row / parts,
            first = of_row % parts * kVec;
  HeadPart<kVec> part;
  part.read(x + row * x_stride + h * r.D, first, half);
  part.template rotate<false>(r, first, position);
  part.multiply(r.scale(h, position));
  part.write(qk + (row * r.heads + h) * r.D, first, half);
}

// How the threads of a block share out heads: `lanes` (a power of two, at most a warp) take a head together,
// and `slices` rows are under way at a time. blockIdx.y is a tile of heads.
struct Shares {
  int lanes, heads, slices, tiles;  // heads: of a tile
  int threads() const {
    return static_cast<int>(cuda::ceil_div(lanes * heads * slices, cuda::kWarp) * cuda::kWarp);
  }

  Shares(int parts, int all_heads) {
    lanes = static_cast<int>(std::bit_ceil(static_cast<unsigned>(std::min(parts, cuda::kWarp))));
    heads = std::min(all_heads, kMostBackwardThreads / lanes);
    slices = kMostBackwardThreads / (lanes * heads);
    tiles = static_cast<int>(cuda::ceil_div(all_heads, heads));
  }
};

template <class T> struct Backward {
  T* dqkv;
  const T* x;
  float* partial;  // (chunks, 2H): null where neither ds nor db is wanted
  int64_t d_stride, x_stride;
  RowChunks chunks;
};

template <class T, int kVec>
__global__ void __launch_bounds__(kMostBackwardThreads, 2)
    rotate_and_scale_backward_kernel(Backward<T> a, Rotation r, Shares shares) {
  __shared__ float sums[2]
                       [kMostBackwardThreads];  // (slices, heads of the tile), of ln n <g, q> and of <g, q>
  const int half = r.D / 2, parts = (r.D - half) / kVec, team = static_cast<int>(threadIdx.x) / shares.lanes;
  const int lane = static_cast<int>(threadIdx.x) % shares.lanes, slice = team / shares.heads;
  const int h_in_tile = team % shares.heads, h = static_cast<int>(blockIdx.y) * shares.heads + h_in_tile;
  const int64_t begin = blockIdx.x * a.chunks.length, end = std::min(begin + a.chunks.length, a.chunks.N);
  const bool works = slice < shares.slices && h < r.heads, learns = works && a.partial != nullptr && h < r.H;

  float with_log = 0, plain = 0;
  if (works)
    for (int64_t row = begin + slice; row < end; row += shares.slices) {
      const int64_t position = r.position(row);
      const float scale = r.scale(h, position), log_n = learns ? r.log_n[position] : 0.0f;
      T* d = a.dqkv + row * a.d_stride + h * r.D;
      for (int part = lane; part < parts; part += shares.lanes) {
        HeadPart<kVec> g, q;
        g.read(static_cast<const T*>(d), part * kVec, half);
        if (learns) q.read(a.x + row * a.x_stride + h * r.D, part * kVec, half);
        g.template rotate<true>(r, part * kVec, position);
        float product = 0;
#pragma unroll
        for (int i = 0; i < kVec; ++i) product += g.a[i] * q.a[i] + g.b[i] * q.b[i];
        with_log += log_n * product;
        plain += product;
        g.multiply(scale);
        g.write(d, part * kVec, half);
      }
    }
  if (a.partial == nullptr) return;

  for (int offset = shares.lanes / 2; offset > 0; offset /= 2) {
    with_log += __shfl_xor_sync(cuda::kAllLanes, with_log, offset);
    plain += __shfl_xor_sync(cuda::kAllLanes, plain, offset);
  }
  if (lane == 0 && slice < shares.slices) {
    sums[0][team] = with_log;
    sums[1][team] = plain;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 2 * shares.heads; i += static_cast<int>(blockDim.x)) {
    const int which = i / shares.heads, head = i % shares.heads;
    const int column = static_cast<int>(blockIdx.y) * shares.heads + head;
    if (column >= r.H) continue;
    float total = 0;
    for (int s = 0; s < shares.slices; ++s) total += sums[which][s * shares.heads + head];
    a.partial[static_cast<int64_t>(blockIdx.x) * 2 * r.H + which * r.H + column] = total;
  }
}

// `Args` is RotateAndScale or its backward's.
template <class Args> Rotation rotation_of(const Args& args, int64_t first_position) {
  const HeadLayout& layout = args.layout;
  return {.table = args.rotation ? args.rotation.template as<float>() : nullptr,
          .log_n = args.s ? args.log_n.template as<float>() : nullptr,
          .s = args.s ? args.s.template as<float>() : nullptr,
          .b = args.b ? args.b.template as<float>() : nullptr,
          .D = static_cast<int>(layout.D),
          .R = args.rotation ? static_cast<int>(args.rotation.shape[1]) : 0,
          .H = static_cast<int>(layout.H),
          .heads = static_cast<int>(changed_heads(layout, args.rotation)),
          .T = args.T,
          .first_position = first_position};
}

// Whether heads, their halves, and rows `stride` elements apart are made of Packs, and the table's rows too.
template <class T> bool packed(const Rotation& r, std::initializer_list<ConstTensor> rows) {
  const auto aligned = [&](const ConstTensor& x) { return cuda::packable<T>(x.shape[1], x.data); };
  return r.D % (2 * cuda::Pack<T>::kSize) == 0 && cuda::packable<float>(2 * r.R, r.table) &&
         std::all_of(rows.begin(), rows.end(), aligned);
}

}  // namespace

template <> void rotate_and_scale_on<Device::cuda>(Context& ctx, const RotateAndScale& args) {
  cuda::with_device_float_type(args.x.dtype, [&]<class T>() {
    const Rotation r = rotation_of(args, args.first_position);
    with_vec<T>(packed<T>(r, {args.qk, args.x}), [&]<int kVec>() {
      const int64_t items = args.x.shape[0] * r.heads * ((r.D - r.D / 2) / kVec);
      if (items == 0) return;
      cuda::launch(ctx, rotate_and_scale_kernel<T, kVec>, cuda::grid_of(cuda::ceil_div(items, kThreads)),
                   kThreads, 0, args.qk.as<T>(), args.x.as<T>(), args.x.shape[1], r, items);
    });
  });
}

template <>
void rotate_and_scale_backward_on<Device::cuda>(Context& ctx, const RotateAndScaleBackward& args,
                                                Tensor partial) {
  cuda::with_device_float_type(args.x.dtype, [&]<class T>() {
    const Rotation r = rotation_of(args, 0);
    const Backward<T> kernel_args{.dqkv = args.dqkv.as<T>(),
                                  .x = args.x.as<T>(),
                                  .partial = args.ds || args.db ? partial.as<float>() : nullptr,
                                  .d_stride = args.dqkv.shape[1],
                                  .x_stride = args.x.shape[1],
                                  .chunks = RowChunks(args.x.shape[0], Device::cuda)};
    if (kernel_args.chunks.count == 0) return;
    with_vec<T>(packed<T>(r, {args.dqkv, args.x}), [&]<int kVec>() {
      const Shares shares((r.D - r.D / 2) / kVec, r.heads);
      cuda::launch(ctx, rotate_and_scale_backward_kernel<T, kVec>,
                   cuda::grid_of(kernel_args.chunks.count, shares.tiles), shares.threads(), 0, kernel_args, r,
                   shares);
    });
  });
  if (args.ds) add_partial_sums(ctx, args.ds, partial, 0);
  if (args.db) add_partial_sums(ctx, args.db, partial, args.layout.H);
}

}  // namespace keen::ops
