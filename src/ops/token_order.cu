// A radix sort, eight bits a pass from the lowest. A block takes kTile ids, a warp kItems times 32 neighbours
// of them; an id's place is the number of smaller digits everywhere, of equal ones in the tiles, warps and
// lanes before it.
#include "core/warp.cuh"
#include "ops/token_order.cuh"

namespace keen::ops {

namespace {

constexpr int kDigits = kSortDigits, kThreads = 256, kWarps = kThreads / cuda::kWarp, kItems = 8;
constexpr int kScanThreads = 1024;
static_assert(kThreads * kItems == kSortTile && kThreads == kDigits);

struct Pass {
  int32_t *to_ids, *to_rows;
  const int32_t *ids, *rows;  // rows: null in the first pass, when they are 0, 1, 2, ...
  int32_t* counts;  // (kDigits, tiles): how often a tile has a digit, then where its ids of it begin
  int64_t N, tiles;
  int shift;
};

// What a thread knows of its items. `rank` counts equal digits before it in its warp's part of the tile.
struct Items {
  int32_t id[kItems];
  int digit[kItems], rank[kItems];  // digit: -1 behind the end
};

__device__ __forceinline__ int64_t place_of(int item) {
  const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp,
            warp = static_cast<int>(threadIdx.x) / cuda::kWarp;
  return (static_cast<int64_t>(blockIdx.x) * kWarps + warp) * (kItems * cuda::kWarp) + item * cuda::kWarp +
         lane;
}

// Reads a thread's items and counts the digits of each warp into `counts`, which starts at zero.
__device__ __forceinline__ Items count_digits(const Pass& a, int32_t (&counts)[kWarps][kDigits]) {
  const unsigned lane = threadIdx.x % cuda::kWarp, below = (1u << lane) - 1;
  int32_t* of_warp = counts[threadIdx.x / cuda::kWarp];
  Items items;
#pragma unroll
  for (int k = 0; k < kItems; ++k) {
    const int64_t at = place_of(k);
    items.id[k] = at < a.N ? a.ids[at] : 0;
    items.digit[k] = at < a.N ? (items.id[k] >> a.shift) & (kDigits - 1) : -1;
  }
#pragma unroll
  for (int k = 0; k < kItems; ++k) {
    // Lanes with the same digit: all nine bits, the sign included, agree.
    unsigned peers = cuda::kAllLanes;
#pragma unroll
    for (int bit = 0; bit < 9; ++bit) {
      const bool mine = (items.digit[k] >> bit) & 1;
      const unsigned set = __ballot_sync(cuda::kAllLanes, mine);
      peers &= mine ? set : ~set;
    }
    const bool inside = items.digit[k] >= 0;
    const int before = inside ? of_warp[items.digit[k]] : 0;
    items.rank[k] = before + __popc(peers & below);
    __syncwarp();
    if (inside && (peers & below) == 0) of_warp[items.digit[k]] = before + __popc(peers);
    __syncwarp();
  }
  return items;
}

__device__ __forceinline__ void clear(int32_t (&counts)[kWarps][kDigits]) {
#pragma unroll
  for (int w = 0; w < kWarps; ++w) counts[w][threadIdx.x] = 0;
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) count_kernel(Pass a) {
  __shared__ int32_t counts[kWarps][kDigits];
  clear(counts);
  count_digits(a, counts);
  __syncthreads();
  int32_t sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += counts[w][threadIdx.x];
  a.counts[threadIdx.x * a.tiles + blockIdx.x] = sum;
}

// One block: counts[i] becomes the sum of counts[0 .. i).
__global__ void __launch_bounds__(kScanThreads) scan_kernel(int32_t* counts, int64_t count) {
  __shared__ int32_t sums[2][kScanThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t share = cuda::ceil_div(count, kScanThreads);
  const int64_t begin = std::min(count, thread * share), end = std::min(count, begin + share);
  int32_t sum = 0;
  for (int64_t i = begin; i < end; ++i) sum += counts[i];
  int now = 0;
  sums[now][thread] = sum;
  __syncthreads();
  for (int reach = 1; reach < kScanThreads; reach *= 2) {
    sums[1 - now][thread] = sums[now][thread] + (thread >= reach ? sums[now][thread - reach] : 0);
    now = 1 - now;
    __syncthreads();
  }
  int32_t before = sums[now][thread] - sum;
  for (int64_t i = begin; i < end; ++i) {
    const int32_t here = counts[i];
    counts[i] = before;
    before += here;
  }
}

__global__ void __launch_bounds__(kThreads) place_kernel(Pass a) {
  __shared__ int32_t counts[kWarps][kDigits];
  clear(counts);
  const Items items = count_digits(a, counts);
  __syncthreads();
  int32_t begin = a.counts[threadIdx.x * a.tiles + blockIdx.x];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const int32_t here = counts[w][threadIdx.x];
    counts[w][threadIdx.x] = begin;
    begin += here;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kItems; ++k) {
    if (items.digit[k] < 0) continue;
    const int64_t from = place_of(k);
    const int32_t to = counts[threadIdx.x / cuda::kWarp][items.digit[k]] + items.rank[k];
    a.to_ids[to] = items.id[k];
    a.to_rows[to] = a.rows == nullptr ? static_cast<int32_t>(from) : a.rows[from];
  }
}

}  // namespace

SortedTokens sort_tokens(Context& ctx, const TokenOrder& order, ConstTensor ids, int64_t V) {
  const int64_t N = ids.count(), tiles = cuda::ceil_div(N, kSortTile);
  check(N < (int64_t{1} << 31) && V <= (int64_t{1} << 31), "embedding_backward: rows and ids of 31 bits");
  SortedTokens sorted{ids.as<int32_t>(), nullptr};
  int to = 0;
  // At least one pass, since the order of the rows is wanted of a vocabulary of one too.
  for (int shift = 0; shift == 0 || (V - 1) >> shift > 0; shift += 8, to = 1 - to) {
    const Pass pass{.to_ids = order.ids.as<int32_t>() + to * N,
                    .to_rows = order.rows.as<int32_t>() + to * N,
                    .ids = sorted.ids,
                    .rows = sorted.rows,
                    .counts = order.counts.as<int32_t>(),
                    .N = N,
                    .tiles = tiles,
                    .shift = shift};
    cuda::launch(ctx, count_kernel, cuda::grid_of(tiles), kThreads, 0, pass);
    cuda::launch(ctx, scan_kernel, 1, kScanThreads, 0, pass.counts, kDigits * tiles);
    cuda::launch(ctx, place_kernel, cuda::grid_of(tiles), kThreads, 0, pass);
    sorted = {pass.to_ids, pass.to_rows};
  }
  return sorted;
}

}  // namespace keen::ops
