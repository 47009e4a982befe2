#include "ops/rotate_and_scale.h"

#include <cmath>

#include "core/prefetch.h"
#include "ops/column_sums.h"

namespace keen::ops {

namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread of their own

// Forward was long ago: its queries come from memory, and no hardware prefetcher follows a row's third.
constexpr int64_t kRowsAhead = 8;

// The width of a head and how many of its pairs rotate.
struct Pairs {
  int64_t D, R;
  int64_t half() const { return D / 2; }
};

Pairs pairs_of(const HeadLayout& layout, const ConstTensor& rotation) {
  return {layout.D, rotation ? rotation.shape[1] : 0};
}

// y = scale * RoPE(x) for one head; `turn` holds cos and sin of each rotating pair. y may be x.
template <class T> void rotate_head(T* y, const T* x, const Wide<T>* turn, Pairs pairs, Wide<T> scale) {
  using W = Wide<T>;
  const int64_t half = pairs.half();
  KEEN_INDEPENDENT
  for (int64_t i = 0; i < pairs.R; ++i) {
    const W a = W(x[i]), b = W(x[i + half]), cosine = turn[2 * i], sine = turn[2 * i + 1];
    y[i] = T(scale * (a * cosine - b * sine));
    y[i + half] = T(scale * (a * sine + b * cosine));
  }
  KEEN_INDEPENDENT
  for (int64_t i = pairs.R; i < half; ++i) y[i] = T(scale * W(x[i]));
  KEEN_INDEPENDENT
  for (int64_t i = half + pairs.R; i < pairs.D; ++i) y[i] = T(scale * W(x[i]));
}

// d = scale * g with g = RoPE^T d, for one head; calls use(i, g_i) with every g_i before it is scaled and
// rounded.
template <class T, class Use>
void rotate_head_back(T* d, const Wide<T>* turn, Pairs pairs, Wide<T> scale, const Use& use) {
  using W = Wide<T>;
  const int64_t half = pairs.half();
  KEEN_INDEPENDENT
  for (int64_t i = 0; i < pairs.R; ++i) {
    const W a = W(d[i]), b = W(d[i + half]), cosine = turn[2 * i], sine = turn[2 * i + 1];
    const W first = a * cosine + b * sine, second = b * cosine - a * sine;
    use(i, first);
    use(i + half, second);
    d[i] = T(scale * first);
    d[i + half] = T(scale * second);
  }
  const auto rest = [&](int64_t begin, int64_t end) {
    KEEN_INDEPENDENT
    for (int64_t i = begin; i < end; ++i) {
      const W g = W(d[i]);
      use(i, g);
      d[i] = T(scale * g);
    }
  };
  rest(pairs.R, half);
  rest(half + pairs.R, pairs.D);
}

// c(h, n) = s_h ln n + b_h.
template <class W> struct RowScale {
  const W *s, *b;  // null: absent
  W operator()(int64_t h, W log_n) const {
    return s == nullptr ? W(1) : s[h] * log_n + (b == nullptr ? W(0) : b[h]);
  }
};

template <class W> RowScale<W> row_scale(const ConstTensor& s, const ConstTensor& b) {
  return {s ? s.as<W>() : nullptr, b ? b.as<W>() : nullptr};
}

// What both directions require of x, the tables, s and b. `positions` is first_position + T.
void check_inputs(const ConstTensor& x, const ConstTensor& rotation, const ConstTensor& log_n,
                  const ConstTensor& s, const ConstTensor& b, const HeadLayout& layout, int64_t T,
                  int64_t positions) {
  const auto [N, columns] = dims<2>(x);
  const DType vectors = wide(x.dtype);
  check(layout.H > 0 && layout.K > 0 && layout.H % layout.K == 0, "rotate_and_scale: H is a multiple of K");
  check(columns >= changed_heads(layout, rotation) * layout.D, "rotate_and_scale: x (N, W) with W >= M D");
  check(T > 0 && N % T == 0, "rotate_and_scale: x holds whole sequences of T tokens");
  if (rotation) {
    const auto [P, R, two] = dims<3>(rotation);
    expect(rotation, {P, R, 2}, vectors, "rotate_and_scale: rotation (P, R, 2)");
    check(layout.D % 2 == 0 && R <= layout.D / 2, "rotate_and_scale: at most D/2 pairs of an even D rotate");
    check(positions <= P, "rotate_and_scale: first_position + T must not exceed the P rows of rotation");
  }
  check(s || !b, "rotate_and_scale: b needs s");
  if (!s) return;
  expect(s, {layout.H}, vectors, "rotate_and_scale: s (H)");
  if (b) expect(b, {layout.H}, vectors, "rotate_and_scale: b (H)");
  expect(log_n, {dims<1>(log_n)[0]}, vectors, "rotate_and_scale: log_n (P)");
  check(positions <= log_n.shape[0],
        "rotate_and_scale: first_position + T must not exceed the P numbers of log_n");
}

}  // namespace

void rotate_and_scale(Context& ctx, const RotateAndScale& args) {
  check(args.first_position >= 0, "rotate_and_scale: first_position is not negative");
  check_inputs(args.x, args.rotation, args.log_n, args.s, args.b, args.layout, args.T,
               args.first_position + args.T);
  expect(args.qk, {args.x.shape[0], changed_heads(args.layout, args.rotation) * args.layout.D}, args.x.dtype,
         "rotate_and_scale: qk (N, M D)");
  check(args.qk.data == nullptr || args.qk.data != args.x.data || args.x.shape == args.qk.shape,
        "rotate_and_scale: qk may be x only if x is (N, M D)");
  on_device(ctx, [&]<Device D>() { rotate_and_scale_on<D>(ctx, args); });
}

void rotate_and_scale_backward(Context& ctx, const RotateAndScaleBackward& args) {
  const HeadLayout& layout = args.layout;
  const auto [N, columns] = dims<2>(args.dqkv);
  check_inputs(args.x, args.rotation, args.log_n, args.s, args.b, layout, args.T, args.T);
  check(columns >= changed_heads(layout, args.rotation) * layout.D,
        "rotate_and_scale_backward: dqkv (N, W) with W >= M D");
  expect(args.dqkv, {args.x.shape[0], columns}, args.x.dtype, "rotate_and_scale_backward: dqkv (N, W)");
  check(args.s || !(args.ds || args.db), "rotate_and_scale_backward: ds and db need s");
  if (args.ds) expect(args.ds, {layout.H}, wide(args.x.dtype), "rotate_and_scale_backward: ds (H)");
  if (args.db) expect(args.db, {layout.H}, wide(args.x.dtype), "rotate_and_scale_backward: db (H)");
  ScratchScope scope(ctx);
  const int64_t sums = args.ds || args.db ? 2 * layout.H : 0;
  const Tensor partial =
      take_partial_sums(ctx, N, ctx.device == Device::cpu ? sums * layout.D : sums, wide(args.x.dtype));
  on_device(ctx, [&]<Device D>() { rotate_and_scale_backward_on<D>(ctx, args, partial); });
}

template <> void rotate_and_scale_on<Device::cpu>(Context&, const RotateAndScale& args) {
  with_float_type(args.x.dtype, [&]<class E>() {
    using W = Wide<E>;
    const HeadLayout layout = args.layout;
    const Pairs pairs = pairs_of(layout, args.rotation);
    const RowScale<W> scale = row_scale<W>(args.s, args.b);
    const int64_t heads = changed_heads(layout, args.rotation), columns = heads * layout.D;
    const int64_t stride = args.x.shape[1], T = args.T, T_k = args.first_position + args.T;
    E* qk = args.qk.as<E>();
    const E* x = args.x.as<E>();
    const W* rotation = args.rotation ? args.rotation.as<W>() : nullptr;
    const W* log_n = args.s ? args.log_n.as<W>() : nullptr;
    parallel_for(args.x.shape[0], kGrain / columns + 1, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = visible_keys(row % T, T, T_k);
        const W* turn = rotation + (n - 1) * pairs.R * 2;
        const W ln = log_n == nullptr ? W(0) : log_n[n - 1];
        E* to = qk + row * columns;
        const E* from = x + row * stride;
        int64_t h = 0;
        for (; h < layout.H; ++h)
          rotate_head<E>(to + h * pairs.D, from + h * pairs.D, turn, pairs, scale(h, ln));
        for (; h < heads; ++h) rotate_head<E>(to + h * pairs.D, from + h * pairs.D, turn, pairs, W(1));
      }
    });
  });
}

template <>
void rotate_and_scale_backward_on<Device::cpu>(Context&, const RotateAndScaleBackward& args, Tensor partial) {
  with_float_type(args.x.dtype, [&]<class E>() {
    using W = Wide<E>;
    const HeadLayout layout = args.layout;
    const Pairs pairs = pairs_of(layout, args.rotation);
    const RowScale<W> scale = row_scale<W>(args.s, args.b);
    const int64_t heads = changed_heads(layout, args.rotation);
    const int64_t N = args.x.shape[0], T = args.T, stride = args.x.shape[1], d_stride = args.dqkv.shape[1];
    const bool learned = args.ds || args.db;
    const auto ignore = [](int64_t, W) {};
    E* dqkv = args.dqkv.as<E>();
    const E* x = args.x.as<E>();
    const W* rotation = args.rotation ? args.rotation.as<W>() : nullptr;
    const W* log_n = args.s ? args.log_n.as<W>() : nullptr;
    sum_rows<W>(partial, N, [=](int64_t begin, int64_t end, W* sums) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = visible_keys(row % T, T, T);
        const W* turn = rotation + (n - 1) * pairs.R * 2;
        const W ln = log_n == nullptr ? W(0) : log_n[n - 1];
        E* d = dqkv + row * d_stride;
        const E* raw = x + row * stride;
        if (learned && row + kRowsAhead < N) prefetch(raw + kRowsAhead * stride, layout.H * layout.D);
        for (int64_t h = 0; h < heads; ++h) {
          E* head = d + h * pairs.D;
          const bool query = h < layout.H;
          const W c = query ? scale(h, ln) : W(1);
          if (!query || !learned) {
            rotate_head_back<E>(head, turn, pairs, c, ignore);
            continue;
          }
          const E* q = raw + h * pairs.D;
          W *by_ln = sums + h * pairs.D, *plain = by_ln + layout.H * pairs.D;
          rotate_head_back<E>(head, turn, pairs, c, [=](int64_t i, W g) {
            const W product = g * W(q[i]);
            by_ln[i] += ln * product;
            plain[i] += product;
          });
        }
      }
      if (!learned) return;
      // Each head's D sums become one, the first 2H columns: what is written was read before.
      for (int64_t h = 0; h < 2 * layout.H; ++h) {
        W sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = h * pairs.D; i < (h + 1) * pairs.D; ++i) sum += sums[i];
        sums[h] = sum;
      }
    });
    if (args.ds) add_partial_sums<W>(args.ds, partial, 0);
    if (args.db) add_partial_sums<W>(args.db, partial, layout.H);
  });
}

void fill_rotation(Tensor rotation, double theta, int64_t D) {
  const auto [P, R, two] = dims<3>(rotation);
  check(two == 2 && 0 < D && 2 * R <= D, "fill_rotation: rotation (P, R, 2) with R <= D/2");
  check(rotation.device == Device::cpu, "fill_rotation: rotation lies in host memory");
  with_float_type(rotation.dtype, [&, pairs = R, positions = P]<class W>() {
    W* table = rotation.as<W>();
    parallel_for(positions, 64, [=](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < pairs; ++i) {
        const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
        for (int64_t p = begin; p < end; ++p) {
          const double angle = static_cast<double>(p) * frequency;
          table[(p * pairs + i) * 2] = W(static_cast<Wide<W>>(std::cos(angle)));
          table[(p * pairs + i) * 2 + 1] = W(static_cast<Wide<W>>(std::sin(angle)));
        }
      }
    });
  });
}

void fill_log_n(Tensor log_n) {
  check(log_n.device == Device::cpu, "fill_log_n: log_n lies in host memory");
  with_float_type(log_n.dtype, [&]<class W>() {
    W* table = log_n.as<W>();
    for (int64_t i = 0; i < dims<1>(log_n)[0]; ++i)
      table[i] = W(static_cast<Wide<W>>(std::log(static_cast<double>(i + 1))));
  });
}

}  // namespace keen::ops
