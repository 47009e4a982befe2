#include "ops/attention.h"

#include <algorithm>

#include "core/parallel.h"
#include "ops/attention_cpu.h"
#include "ops/attention_cuda.h"
#include "ops/attention_cudnn.h"

namespace keen::ops {

namespace {

void expect_heads(const ConstHeads& x, const ConstHeads& like, int64_t tokens, int64_t heads,
                  const char* what) {
  check(x.dtype == like.dtype && x.B == like.B && x.T == tokens && x.heads == heads && x.D == like.D, what);
}

// The most threads that run at once, each with a row of `work`.
int64_t workers(int64_t items) { return std::min<int64_t>(items, omp_get_max_threads()); }

// delta_i = dout_i out_i, the sum over a row of weights times their gradients.
template <class T> void fill_delta(const AttentionBackward& a, Tensor delta) {
  using W = Wide<T>;
  const int64_t H = a.q.heads, tokens = a.q.T, D = a.q.D;
  const T *out = a.out.as<T>(), *dout = a.dout.as<T>();
  W* to = delta.as<W>();
  parallel_for(a.q.B * tokens, 16, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t h = 0; h < H; ++h) {
        const T *x = out + (row * H + h) * D, *y = dout + (row * H + h) * D;
        W sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < D; ++d) sum += W(x[d]) * W(y[d]);
        to[(row / tokens * H + h) * tokens + row % tokens] = sum;
      }
  });
}

// Scratch of cuDNN's kernels, for what they may take. Whether the library is there and does take it is asked
// when it runs: a plan of memory needs no device.
template <class Args> int64_t cudnn_work_bytes(const Args& args) {
  if constexpr (kCudnnBuilt)
    if (args.path == AttentionPath::cudnn && args.q.dtype == DType::bf16 && args.q.T == args.k.T)
      return cudnn_attention_work_bytes(args);
  return 0;
}

Tensor take_bytes(Context& ctx, int64_t bytes) {
  return bytes == 0 ? Tensor{} : ctx.scratch.take({(bytes + 3) / 4}, DType::f32);
}

}  // namespace

void attention(Context& ctx, const Attention& args) {
  const ConstHeads &q = args.q, &k = args.k, &v = args.v;
  check(std::min({q.B, q.T, q.heads, q.D, k.heads}) >= 1, "attention: q, k: at least one of everything");
  check(q.T <= k.T, "attention: the queries are the last T_q of T_k tokens");
  check(q.heads % k.heads == 0, "attention: the query heads must be a multiple of the key heads");
  expect_heads(k, q, k.T, k.heads, "attention: k (B, T_k, K, D)");
  expect_heads(v, q, k.T, k.heads, "attention: v (B, T_k, K, D)");
  expect(args.out, {q.B * q.T, q.heads * q.D}, q.dtype, "attention: out (B * T_q, H D)");
  if (args.lse) expect(args.lse, {q.B, q.heads, q.T}, wide(q.dtype), "attention: lse (B, H, T_q)");

  const ScratchScope scope(ctx);
  Tensor work;
  if (ctx.device == Device::cpu) {
    const bool fused = args.path != AttentionPath::reference;
    const int64_t items =
        q.B * q.heads * (fused ? tile::round_up(q.T, tile::kQueries) / tile::kQueries : q.T);
    work =
        ctx.scratch.take({workers(items), fused ? fused_work(q.D) : reference_work(k.T, q.D)}, wide(q.dtype));
  } else if (args.path != AttentionPath::reference) {
    work = take_bytes(ctx, std::max(cuda_attention::forward_work_bytes(args), cudnn_work_bytes(args)));
  }
  on_device(ctx, [&]<Device D>() { attention_on<D>(ctx, args, work); });
}

void attention_backward(Context& ctx, const AttentionBackward& args) {
  const ConstHeads &q = args.q, &k = args.k;
  check(std::min({q.B, q.T, q.heads, q.D, k.heads}) >= 1,
        "attention_backward: q, k: at least one of everything");
  check(q.heads % k.heads == 0, "attention_backward: the query heads must be a multiple of the key heads");
  expect_heads(k, q, q.T, k.heads, "attention_backward: k (B, T, K, D)");
  expect_heads(args.v, q, q.T, k.heads, "attention_backward: v (B, T, K, D)");
  expect_heads(args.dq, q, q.T, q.heads, "attention_backward: dq (B, T, H, D)");
  expect_heads(args.dk, q, q.T, k.heads, "attention_backward: dk (B, T, K, D)");
  expect_heads(args.dv, q, q.T, k.heads, "attention_backward: dv (B, T, K, D)");
  expect(args.dout, {q.B * q.T, q.heads * q.D}, q.dtype, "attention_backward: dout (B * T, H D)");
  expect(args.out, {q.B * q.T, q.heads * q.D}, q.dtype, "attention_backward: out (B * T, H D)");
  expect(args.lse, {q.B, q.heads, q.T}, wide(q.dtype), "attention_backward: lse (B, H, T)");

  const ScratchScope scope(ctx);
  const Tensor delta = ctx.scratch.take({q.B, q.heads, q.T}, wide(q.dtype));
  Tensor work;
  if (ctx.device == Device::cpu) {
    const bool split = backward_is_split(q.B * k.heads, omp_get_max_threads());
    if (args.path == AttentionPath::reference)
      work = ctx.scratch.take({workers(q.B * q.heads * q.T), reference_work(q.T, q.D)}, wide(q.dtype));
    else
      work = ctx.scratch.take(
          {split ? omp_get_max_threads() : workers(q.B * k.heads), fused_backward_work(q.T, q.D, split)},
          wide(q.dtype));
  } else {
    work = take_bytes(ctx, cudnn_work_bytes(args));
  }
  on_device(ctx, [&]<Device D>() { attention_backward_on<D>(ctx, args, delta, work); });
}

std::string cudnn_refusal(Device device, DType dtype, int64_t D) {
  if (device != Device::cuda) return "it needs a CUDA device";
  if (dtype != DType::bf16) return fmt::format("it computes in bf16, not in {}", name_of(dtype));
  if (D % 8 != 0) return fmt::format("the head width {} is no multiple of 8", D);
  if constexpr (kCudnnBuilt) return cudnn_library_refusal();
  return kCudaBuilt ? "this build of keen has no cuDNN, whose headers were not found"
                    : "this build of keen has no CUDA backend";
}

template <> void attention_on<Device::cpu>(Context&, const Attention& args, Tensor work) {
  if (args.path == AttentionPath::reference)
    attention_reference(args, work);
  else
    attention_fused(args, work);
}

template <>
void attention_backward_on<Device::cpu>(Context&, const AttentionBackward& args, Tensor delta, Tensor work) {
  with_float_type(args.q.dtype, [&]<class T>() { fill_delta<T>(args, delta); });
  if (args.path == AttentionPath::reference)
    attention_backward_reference(args, delta, work);
  else
    attention_backward_fused(args, delta, work);
}

}  // namespace keen::ops
