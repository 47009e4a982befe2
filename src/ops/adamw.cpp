#include "ops/adamw.h"

#include <cmath>
#include <limits>

#include "core/parallel.h"
#include "ops/adamw_segments.h"

namespace keen::ops {

namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread of their own

void check_segments(std::span<const Segment> segments, int64_t count) {
  for (const Segment& segment : segments) {
    check(segment.begin >= 0 && segment.end >= segment.begin && segment.end <= count,
          "segments must lie inside the array");
    check(!segment.learned || segment.updates >= 1, "segments: updates must be at least 1");
  }
}

Tensor take_table(Context& ctx, std::span<const Segment> segments) {
  if (ctx.device == Device::cpu) return {};
  return ctx.scratch.take({static_cast<int64_t>(segments.size()), kSegmentWords}, DType::f64);
}

template <class W, bool kRounded>
inline void update(const Coefficients<W>& k, W grad_scale, W* __restrict value, bf16* __restrict rounded,
                   W* __restrict m, W* __restrict v, const W* __restrict grad, int64_t n) {
  KEEN_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    const W g = grad_scale * grad[i];
    const W mean = k.beta1 * m[i] + k.new1 * g;
    const W square = k.beta2 * v[i] + k.new2 * g * g;
    const W root = std::sqrt(square * k.correction2) + k.eps;
    const W next = value[i] - (k.step * mean / root + k.decay * value[i]);
    m[i] = mean;
    v[i] = square;
    value[i] = next;
    if constexpr (kRounded) rounded[i] = bf16(static_cast<float>(next));
  }
}

// A function of its own: inside the lambda that walks the segments g++ 12 leaves this loop scalar.
template <class W> inline double square_sum(const W* __restrict x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace

void adamw(Context& ctx, const AdamW& args) {
  const DType type = args.value.dtype;
  check(type == DType::f32 || type == DType::f64, "adamw: value must be float32 or float64");
  check(args.value.shape.rank == 1, "adamw: value must be a flat array");
  expect(args.grad, {args.grad.count()}, type, "adamw: grad (n)");
  expect(args.m, {args.m.count()}, type, "adamw: m (k)");
  expect(args.v, args.m.shape, type, "adamw: v (k)");
  check(args.value.shape == args.grad.shape || args.value.shape == args.m.shape, "adamw: value (n) or (k)");
  if (args.rounded) expect(args.rounded, args.grad.shape, DType::bf16, "adamw: rounded (n)");
  if (args.clip) expect(args.clip, {2}, DType::f64, "adamw: clip (2)");
  check_segments(args.segments, args.grad.count());
  for (const Segment& segment : args.segments)
    check(segment.begin == segment.end || !segment.learned ||
              (segment.begin >= segment.shift && segment.end - segment.shift <= args.m.count()),
          "adamw: segments must lie inside of what is owned");
  ScratchScope scope(ctx);
  const Tensor table = take_table(ctx, args.segments);
  on_device(ctx, [&]<Device D>() { adamw_on<D>(ctx, args, table); });
}

void sum_of_squares(Context& ctx, Tensor sums, ConstTensor x, std::span<const Segment> segments) {
  check(x.dtype == DType::f32 || x.dtype == DType::f64, "sum_of_squares: x must be float32 or float64");
  check(x.shape.rank == 1, "sum_of_squares: x must be a flat array");
  expect(sums, {static_cast<int64_t>(segments.size())}, DType::f64, "sum_of_squares: sums (segments)");
  check_segments(segments, x.count());
  int64_t chunks = 0;
  for (const Segment& segment : segments) chunks += chunks_of(segment);
  ScratchScope scope(ctx);
  const Tensor partial = ctx.scratch.take({chunks}, DType::f64);
  const Tensor table = take_table(ctx, segments);
  on_device(ctx, [&]<Device D>() { sum_of_squares_on<D>(ctx, sums, x, segments, partial, table); });
}

void clip_factor(Context& ctx, Tensor clip, ConstTensor square_sums, double largest_norm, ConstTensor loss) {
  expect(clip, {2}, DType::f64, "clip_factor: clip (2)");
  check(square_sums.dtype == DType::f64 && square_sums.count() > 0,
        "clip_factor: square_sums (n) are float64");
  if (loss) expect(loss, {1}, DType::f64, "clip_factor: loss (1)");
  on_device(ctx, [&]<Device D>() { clip_factor_on<D>(ctx, clip, square_sums, largest_norm, loss); });
}

// Threads divide the elements, not the segments, so a thousand small tensors and one huge one take as long.
template <> void adamw_on<Device::cpu>(Context&, const AdamW& args, Tensor) {
  const double* clip = args.clip ? args.clip.as<double>() : nullptr;
  if (clip != nullptr && !std::isfinite(clip[0])) return;
  const double grad_scale = args.grad_scale * (clip == nullptr ? 1 : clip[1]);
  const auto run = [&]<class W, bool kRounded>() {
    W *value = args.value.as<W>(), *m = args.m.as<W>(), *v = args.v.as<W>();
    bf16* rounded = kRounded ? args.rounded.as<bf16>() : nullptr;
    const W* grad = args.grad.as<W>();
    const bool owned_values = args.value.count() == args.m.count();
    parallel_for(args.m.count(), kGrain, [&](int64_t begin, int64_t end) {
      for (const Segment& segment : args.segments) {
        const int64_t shift = segment.shift;
        const int64_t from = std::max(begin, segment.begin - shift), to = std::min(end, segment.end - shift);
        if (!segment.learned || from >= to) continue;
        const int64_t at = from + shift;
        update<W, kRounded>(Coefficients<W>(args, segment), static_cast<W>(grad_scale),
                            value + (owned_values ? from : at), kRounded ? rounded + at : nullptr, m + from,
                            v + from, grad + at, to - from);
      }
    });
  };
  const auto run_type = [&]<class W>() {
    if (args.rounded)
      run.template operator()<W, true>();
    else
      run.template operator()<W, false>();
  };
  if (args.value.dtype == DType::f64)
    run_type.operator()<double>();
  else
    run_type.operator()<float>();
}

template <>
void sum_of_squares_on<Device::cpu>(Context&, Tensor sums, ConstTensor x, std::span<const Segment> segments,
                                    Tensor partial, Tensor) {
  double *parts = partial.as<double>(), *totals = sums.as<double>();
  const auto run = [&]<class W>() {
    const W* px = x.as<W>();
    parallel_for(partial.count(), 1, [&](int64_t begin, int64_t end) {
      int64_t first = 0;  // number of the first chunk of the segment, counted over all segments
      for (const Segment& segment : segments) {
        const int64_t chunks = chunks_of(segment);
        for (int64_t chunk = std::max(begin, first); chunk < std::min(end, first + chunks); ++chunk) {
          const int64_t from = segment.begin + (chunk - first) * kSegmentChunk;
          const int64_t to = std::min(from + kSegmentChunk, segment.end);
          parts[chunk] = square_sum(px + from, to - from);
        }
        first += chunks;
      }
    });
  };
  if (x.dtype == DType::f64)
    run.operator()<double>();
  else
    run.operator()<float>();
  for (const Segment& segment : segments) {
    *totals = 0;
    for (int64_t chunk = 0; chunk < chunks_of(segment); ++chunk) *totals += *parts++;
    ++totals;
  }
}

template <>
void clip_factor_on<Device::cpu>(Context&, Tensor clip, ConstTensor square_sums, double largest_norm,
                                 ConstTensor loss) {
  const double* sums = square_sums.as<double>();
  double sum = 0;
  for (int64_t i = 0; i < square_sums.count(); ++i) sum += sums[i];
  const bool finite = !loss || std::isfinite(loss.as<double>()[0]);
  const double norm = finite ? std::sqrt(sum) : std::numeric_limits<double>::quiet_NaN();
  clip.as<double>()[0] = norm;
  clip.as<double>()[1] = largest_norm > 0 && norm > largest_norm ? largest_norm / norm : 1;
}

}  // namespace keen::ops
