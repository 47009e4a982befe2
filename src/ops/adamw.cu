// A block takes a chunk of one segment, a thread 16 bytes of each array at a time; all segments in one
// launch.
#include <array>
#include <optional>

#include "core/copy.h"
#include "core/launch.cuh"
#include "core/staging.h"
#include "ops/adamw_segments.h"
#include "ops/vec.cuh"

namespace keen::ops {

namespace {

constexpr int kThreads = 256;

// A segment as kernels read it.
struct Entry {
  int64_t begin = 0, end = 0, first_chunk = 0;  // first_chunk: chunks of all segments before it
  int64_t shift = 0;
  float step = 0, correction2 = 0, decay = 0;
  int32_t chunks = 0;
};
static_assert(sizeof(Entry) == kSegmentWords * sizeof(double));

// Where the host writes tables: pinned, since for a copy of pageable memory the driver may wait until the
// stream is done. Two, since a step has two: each is free again long before its turn comes.
struct TableBuffers : LibraryState {
  std::array<std::optional<StagingBuffer>, 2> buffers;
  size_t turn = 0;

  StagingBuffer& next(int64_t bytes) {
    std::optional<StagingBuffer>& buffer = buffers[turn ^= 1];
    if (!buffer || buffer->size() < bytes) buffer.emplace(Device::cuda, bytes, "a table of segments");
    buffer->wait();
    return *buffer;
  }
};

// Fills the table and returns the number of chunks. The coefficients are zero where `args` is null.
int64_t fill_table(Context& ctx, Tensor table, std::span<const Segment> segments, const AdamW* args) {
  if (segments.empty()) return 0;
  if (!ctx.tables) ctx.tables = std::make_unique<TableBuffers>();
  StagingBuffer& buffer = static_cast<TableBuffers&>(*ctx.tables).next(table.bytes());
  auto* entries = reinterpret_cast<Entry*>(buffer.data());
  int64_t chunks = 0;
  for (const Segment& segment : segments) {
    Entry entry{.begin = segment.begin, .end = segment.end, .first_chunk = chunks, .shift = segment.shift};
    if (args != nullptr && segment.learned) {
      const Coefficients<float> k(*args, segment);
      entry.step = k.step, entry.correction2 = k.correction2, entry.decay = k.decay;
    }
    entry.chunks = static_cast<int32_t>(chunks_of(segment));
    chunks += entry.chunks;
    *entries++ = entry;
  }
  keen::copy(ctx, table, buffer.as_tensor(table.count(), table.dtype).reshape(table.shape));
  buffer.mark(ctx);
  return chunks;
}

// The part of a segment that a block works on.
struct Chunk {
  Entry segment;
  int64_t begin, end;
};

// The segment of chunk blockIdx.x is the last one that does not begin behind it: as many begin at or before
// it as lanes say so. Segments without chunks begin where the next one does, and so are passed over.
__device__ __forceinline__ Chunk chunk_of_block(const Entry* table, int count) {
  const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp;
  int before = 0;
  for (int first = 0; first < count; first += cuda::kWarp) {
    const int i = first + lane;
    before += __popc(__ballot_sync(cuda::kAllLanes, i < count && table[i].first_chunk <= blockIdx.x));
  }
  const Entry segment = table[before - 1];
  const int64_t begin = segment.begin + (blockIdx.x - segment.first_chunk) * kSegmentChunk;
  return {segment, begin, std::min(begin + kSegmentChunk, segment.end)};
}

// Calls each.operator()<kVec>(i) for the chunk's elements, a Pack at a time where they are aligned.
template <class F> __device__ __forceinline__ void for_chunk(const Chunk& chunk, bool packed, const F& each) {
  constexpr int kVec = cuda::Pack<float>::kSize;
  int64_t rest = chunk.begin;
  if (packed && chunk.begin % kVec == 0) {
    rest = chunk.end - (chunk.end - chunk.begin) % kVec;
#pragma unroll 2
    for (int64_t i = chunk.begin + threadIdx.x * kVec; i < rest; i += kThreads * kVec)
      each.template operator()<kVec>(i);
  }
  for (int64_t i = rest + threadIdx.x; i < chunk.end; i += kThreads) each.template operator()<1>(i);
}

struct Update {
  float *value, *m, *v;
  bf16* rounded;  // null: not wanted
  const float* grad;
  const double* clip;  // null: not given
  const Entry* table;
  int segments;
  bool packed, owned_values;
  double grad_scale;
  float beta1, beta2, new1, new2, eps;
};

__global__ void __launch_bounds__(kThreads) adamw_kernel(Update a) {
  if (a.clip != nullptr && !isfinite(a.clip[0])) return;
  const float grad_scale = static_cast<float>(a.grad_scale * (a.clip == nullptr ? 1.0 : a.clip[1]));
  const Chunk chunk = chunk_of_block(a.table, a.segments);
  const Entry& k = chunk.segment;
  for_chunk(chunk, a.packed, [&]<int kVec>(int64_t at) {
    float value[kVec], m[kVec], v[kVec], grad[kVec];
    const int64_t owned = at - k.shift, value_at = a.owned_values ? owned : at;
    load<kVec>(grad, a.grad + at);
    load<kVec>(m, static_cast<const float*>(a.m) + owned);
    load<kVec>(v, static_cast<const float*>(a.v) + owned);
    load<kVec>(value, static_cast<const float*>(a.value) + value_at);
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      const float g = grad_scale * grad[i];
      m[i] = a.beta1 * m[i] + a.new1 * g;
      v[i] = a.beta2 * v[i] + a.new2 * g * g;
      const float root = sqrtf(v[i] * k.correction2) + a.eps;
      value[i] -= k.step * m[i] / root + k.decay * value[i];
    }
    store<kVec>(a.m + owned, m);
    store<kVec>(a.v + owned, v);
    store<kVec>(a.value + value_at, value);
    if (a.rounded == nullptr) return;
    if constexpr (kVec == 4)
      *reinterpret_cast<uint2*>(a.rounded + at) =
          make_uint2(cuda::bf16_pair(value[0], value[1]), cuda::bf16_pair(value[2], value[3]));
    else
      store<kVec>(a.rounded + at, value);
  });
}

__global__ void __launch_bounds__(kThreads)
    square_chunks_kernel(double* partial, const float* x, const Entry* table, int segments, bool packed) {
  const Chunk chunk = chunk_of_block(table, segments);
  double sum = 0;
  for_chunk(chunk, packed, [&]<int kVec>(int64_t at) {
    float v[kVec];
    load<kVec>(v, x + at);
#pragma unroll
    for (int i = 0; i < kVec; ++i) sum += static_cast<double>(v[i]) * static_cast<double>(v[i]);
  });
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// A block adds the chunks of a segment.
__global__ void __launch_bounds__(kThreads)
    add_chunks_kernel(double* sums, const double* partial, const Entry* table) {
  const Entry segment = table[blockIdx.x];
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < segment.chunks; i += kThreads)
    sum += partial[segment.first_chunk + i];
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block.
__global__ void __launch_bounds__(kThreads)
    clip_factor_kernel(double* clip, const double* square_sums, int64_t count, double largest_norm,
                       const double* loss) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += square_sums[i];
  sum = cuda::block_sum(sum);
  if (threadIdx.x != 0) return;
  const bool finite = loss == nullptr || isfinite(*loss);
  const double norm = finite ? sqrt(sum) : static_cast<double>(NAN);
  clip[0] = norm;
  clip[1] = largest_norm > 0 && norm > largest_norm ? largest_norm / norm : 1;
}

}  // namespace

template <> void adamw_on<Device::cuda>(Context& ctx, const AdamW& args, Tensor table) {
  const int64_t chunks = fill_table(ctx, table, args.segments, &args);
  if (chunks == 0) return;
  Update a{.value = args.value.as<float>(),
           .m = args.m.as<float>(),
           .v = args.v.as<float>(),
           .rounded = args.rounded ? args.rounded.as<bf16>() : nullptr,
           .grad = args.grad.as<float>(),
           .clip = args.clip ? args.clip.as<double>() : nullptr,
           .table = reinterpret_cast<const Entry*>(table.data),
           .segments = static_cast<int>(args.segments.size()),
           .packed = false,
           .owned_values = false,
           .grad_scale = args.grad_scale,
           .beta1 = static_cast<float>(args.beta1),
           .beta2 = static_cast<float>(args.beta2),
           .new1 = static_cast<float>(1 - args.beta1),
           .new2 = static_cast<float>(1 - args.beta2),
           .eps = static_cast<float>(args.eps)};
  a.packed = cuda::packable<float>(0, a.value, a.m, a.v, a.grad, a.rounded);
  a.owned_values = args.value.count() == args.m.count();
  cuda::launch(ctx, adamw_kernel, cuda::grid_of(chunks), kThreads, 0, a);
}

template <>
void sum_of_squares_on<Device::cuda>(Context& ctx, Tensor sums, ConstTensor x,
                                     std::span<const Segment> segments, Tensor partial, Tensor table) {
  if (segments.empty()) return;
  const int64_t chunks = fill_table(ctx, table, segments, nullptr);
  const auto* entries = reinterpret_cast<const Entry*>(table.data);
  const auto count = static_cast<int>(segments.size());
  if (chunks > 0)
    cuda::launch(ctx, square_chunks_kernel, cuda::grid_of(chunks), kThreads, 0, partial.as<double>(),
                 x.as<float>(), entries, count, cuda::packable<float>(0, x.data));
  cuda::launch(ctx, add_chunks_kernel, cuda::grid_of(count), kThreads, 0, sums.as<double>(),
               partial.as<double>(), entries);
}

template <>
void clip_factor_on<Device::cuda>(Context& ctx, Tensor clip, ConstTensor square_sums, double largest_norm,
                                  ConstTensor loss) {
  cuda::launch(ctx, clip_factor_kernel, 1, kThreads, 0, clip.as<double>(), square_sums.as<double>(),
               square_sums.count(), largest_norm, loss ? loss.as<double>() : nullptr);
}

}  // namespace keen::ops
