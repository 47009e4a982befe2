#include "model/block.h"

#include <cmath>

#include "core/copy.h"
#include "ops/copy_heads.h"
#include "ops/qk_norm.h"
#include "ops/rotate_and_scale.h"
#include "ops/swiglu.h"

namespace keen {

using ops::heads;

namespace {

// What the row scale and RoPE read: the queries and keys as they come out of the projection or of QK-norm.
ConstTensor before_rotation(const BlockActs& a) { return a.qk_normed ? a.qk_normed : a.qkv; }

// The heads that attention reads, forward and backward.
struct AttentionInputs {
  ops::ConstHeads q, k, v;
};
AttentionInputs attention_inputs(const Block& block, int64_t B, const BlockActs& a) {
  const auto [H, K, D] = block.heads;
  const ConstTensor raw = before_rotation(a), q = a.qk ? ConstTensor(a.qk) : raw, v = a.qkv;
  const ConstTensor k = q.shape[1] > H * D ? q : raw;  // without RoPE a.qk has no keys
  return {.q = heads(q, B, 0, H, D), .k = heads(k, B, H, K, D), .v = heads(v, B, H + K, K, D)};
}

// Heads of the tokens [first, first + T) of each sequence.
template <class View> View tokens_of(View view, int64_t first, int64_t T) {
  if (view.data != nullptr) view.data += first * view.token_stride * size_of(view.dtype);
  view.T = T;
  return view;
}

// The rows of those activations that a span of the pass owns; others are left empty.
BlockActs rows_of(const BlockActs& a, int64_t begin, int64_t end) {
  BlockActs part;
  part.qkv = a.qkv.rows(begin, end);
  if (a.qk_normed) part.qk_normed = a.qk_normed.rows(begin, end);
  if (a.qk) part.qk = a.qk.rows(begin, end);
  part.attn = a.attn.rows(begin, end);
  return part;
}

// Writes the keys and values of a span behind its past ones, and lets its queries see all of them.
void append_to_cache(Context& ctx, const Block& block, const Span& span, const KvCache& cache,
                     AttentionInputs& inputs) {
  const auto [H, K, D] = block.heads;
  const Tensor kv = cache.kv.rows(span.first * cache.P, (span.first + span.count) * cache.P);
  const ops::Heads keys = heads(kv, span.count, 0, K, D), values = heads(kv, span.count, K, K, D);
  ops::copy_heads(ctx, tokens_of(keys, span.past, span.T), inputs.k);
  ops::copy_heads(ctx, tokens_of(values, span.past, span.T), inputs.v);
  if (cache.last_queries)
    ops::copy_heads(ctx,
                    heads(cache.last_queries.rows(span.first, span.first + span.count), span.count, 0, H, D),
                    tokens_of(inputs.q, span.T - 1, 1));
  inputs.k = tokens_of(keys, 0, span.past + span.T);
  inputs.v = tokens_of(values, 0, span.past + span.T);
}

void attention_forward(Context& ctx, const Block& block, const Pass& pass, BlockActs& a, KvCache* cache) {
  if (block.q_norm != nullptr)
    ops::qk_norm(ctx, {.qk = a.qk_normed,
                       .rstd = a.qk_rstd,
                       .qkv = a.qkv,
                       .q_weight = block.q_norm->value,
                       .k_weight = block.k_norm->value,
                       .layout = block.heads,
                       .eps = block.norm_eps});
  for_each_span(pass, [&](const Span& span, int64_t row) {
    const BlockActs part = rows_of(a, row, row + span.rows());
    if (part.qk)
      ops::rotate_and_scale(ctx, {.qk = part.qk,
                                  .x = before_rotation(part),
                                  .rotation = pass.tables->rotation,
                                  .log_n = pass.tables->log_n,
                                  .s = value_of(block.s),
                                  .b = value_of(block.b),
                                  .layout = block.heads,
                                  .T = span.T,
                                  .first_position = span.past});
    AttentionInputs inputs = attention_inputs(block, span.count, part);
    if (cache != nullptr) append_to_cache(ctx, block, span, *cache, inputs);
    ops::attention(ctx, {.out = part.attn,
                         .lse = cache == nullptr ? a.lse : Tensor(),
                         .q = inputs.q,
                         .k = inputs.k,
                         .v = inputs.v,
                         .path = pass.path});
  });
}

// dqkv (N, (H+2K)D) is overwritten.
void attention_backward(Context& ctx, const Block& block, const Pass& pass, const BlockActs& a, Tensor dqkv,
                        ConstTensor dattn) {
  const auto [H, K, D] = block.heads;
  const auto [q, k, v] = attention_inputs(block, pass.B, a);
  ops::attention_backward(ctx, {.dq = heads(dqkv, pass.B, 0, H, D),
                                .dk = heads(dqkv, pass.B, H, K, D),
                                .dv = heads(dqkv, pass.B, H + K, K, D),
                                .dout = dattn,
                                .out = a.attn,
                                .lse = a.lse,
                                .q = q,
                                .k = k,
                                .v = v,
                                .path = pass.path,
                                .deterministic = pass.deterministic});
  if (a.qk)
    ops::rotate_and_scale_backward(ctx, {.dqkv = dqkv,
                                         .ds = grad_of(block.s),
                                         .db = grad_of(block.b),
                                         .x = before_rotation(a),
                                         .rotation = pass.tables->rotation,
                                         .log_n = pass.tables->log_n,
                                         .s = value_of(block.s),
                                         .b = value_of(block.b),
                                         .layout = block.heads,
                                         .T = pass.T});
  if (block.q_norm != nullptr)
    ops::qk_norm_backward(ctx, {.dqkv = dqkv,
                                .dq_weight = block.q_norm->grad,
                                .dk_weight = block.k_norm->grad,
                                .rstd = a.qk_rstd,
                                .qkv = a.qkv,
                                .q_weight = block.q_norm->value,
                                .k_weight = block.k_norm->value,
                                .layout = block.heads});
}

// a.act = the activation of a.up, which comes from a.norm2.
void mlp_forward(Context& ctx, const Block& block, BlockActs& a) {
  if (block.mlp == MlpKind::gelu) return dense_gelu_forward(ctx, block.up, a.act, a.up, a.norm2);
  dense_forward(ctx, block.up, a.up, a.norm2);
  ops::swiglu(ctx, a.act, a.up);
}

// dnorm2 (N, C) is overwritten; dy (N, C) is the gradient of what `down` gives.
void mlp_backward(Context& ctx, const Block& block, const BlockActs& a, Tensor dnorm2, ConstTensor dy) {
  ScratchScope scope(ctx);
  const Tensor dup = ctx.scratch.take(a.up.shape, dy.dtype);
  if (block.mlp == MlpKind::gelu) {
    dense_backward(ctx, block.down, dup, dy, a.act, a.up);
  } else {
    const Tensor dact = ctx.scratch.take(a.act.shape, dy.dtype);
    dense_backward(ctx, block.down, dact, dy, a.act);
    ops::swiglu_backward(ctx, dup, dact, a.up);
  }
  dense_backward(ctx, block.up, dnorm2, dup, a.norm2);
}

}  // namespace

Tables take_tables(const ModelConfig& config, int64_t P, DType dtype, Arena& arena) {
  Tables tables;
  const int64_t D = config.head_width();
  // The fastest pairs, i < p D/2.
  const auto pairs =
      static_cast<int64_t>(std::ceil(config.rope_fraction * static_cast<double>(D / 2) - 1e-9));
  if (config.position == PositionKind::rope) tables.rotation = arena.take({P, pairs, 2}, wide(dtype));
  tables.log_n = arena.take({P}, wide(dtype));
  return tables;
}

void fill_tables(const ModelConfig& config, const Tables& tables) {
  const auto fill = [](const Tensor& table, auto&& compute) {
    if (table.device == Device::cpu) return compute(table);
    Arena on_host(Device::cpu);
    on_host.take(table.shape, table.dtype);
    on_host.allocate("tables of positions");
    const Tensor copy = on_host.take(table.shape, table.dtype);
    compute(copy);
    copy_now(table, copy);
  };
  if (tables.rotation)
    fill(tables.rotation,
         [&](const Tensor& table) { ops::fill_rotation(table, config.rope_theta, config.head_width()); });
  fill(tables.log_n, [](const Tensor& table) { ops::fill_log_n(table); });
}

Block make_block(Params& params, const ModelConfig& config, int64_t layer) {
  const std::string at = fmt::format("blocks.{}.", layer);
  const int64_t bucket = 1 + layer, C = config.width, F = config.mlp_width;
  const ops::HeadLayout layout{config.heads, config.kv_heads, config.head_width()};
  const LayerAttention& attention = config.attention[static_cast<size_t>(layer)];
  // GPT-2: 0.02, and the 2L projections that add to the residual stream smaller by 1 / sqrt(2L).
  const double stddev = 0.02, residual_stddev = stddev / std::sqrt(2.0 * static_cast<double>(config.layers));

  Block block;
  block.heads = layout;
  block.norm_eps = config.norm_eps;
  block.mlp = config.mlp;
  block.norm1 = make_norm(params, config, at + "norm1", bucket);
  block.qkv = make_dense(params, config, at + "attn.qkv", layout.qkv_columns(), C, stddev, bucket);
  if (config.qk_norm) {
    block.q_norm = &params.add(at + "attn.q_norm.weight", {layout.D}, constant(1), true, bucket);
    block.k_norm = &params.add(at + "attn.k_norm.weight", {layout.D}, constant(1), true, bucket);
  }
  if (attention.scaled)
    block.s = &params.add(at + "attn.s", {layout.H}, constant(attention.s), attention.learn_s, bucket);
  if (attention.has_b())
    block.b = &params.add(at + "attn.b", {layout.H}, constant(attention.b), attention.learn_b, bucket);
  block.proj = make_dense(params, config, at + "attn.proj", C, layout.H * layout.D, residual_stddev, bucket);
  block.norm2 = make_norm(params, config, at + "norm2", bucket);
  const bool gated = config.mlp == MlpKind::swiglu;
  block.up = make_dense(params, config, at + (gated ? "mlp.gate_up" : "mlp.up"), gated ? 2 * F : F, C, stddev,
                        bucket);
  block.down = make_dense(params, config, at + "mlp.down", C, F, residual_stddev, bucket);
  return block;
}

BlockActs take_block_acts(const Block& block, const Pass& pass, DType dtype, Arena& arena) {
  const auto [H, K, D] = block.heads;
  const int64_t N = pass.N(), C = block.proj.weight->shape[0];
  BlockActs a;
  a.stats1 = take_norm_stats(block.norm1, N, dtype, arena);
  a.norm1 = arena.take({N, C}, dtype);
  a.qkv = arena.take({N, block.heads.qkv_columns()}, dtype);
  if (block.q_norm != nullptr) {
    a.qk_rstd = arena.take({N, H + K}, wide(dtype));
    a.qk_normed = arena.take({N, block.heads.qk_columns()}, dtype);
  }
  const ConstTensor rotation = pass.tables->rotation;
  if (block.s != nullptr || rotation)
    a.qk = arena.take({N, ops::changed_heads(block.heads, rotation) * D}, dtype);
  a.attn = arena.take({N, H * D}, dtype);
  a.lse = arena.take({pass.B, H, pass.T}, wide(dtype));
  a.mid = arena.take({N, C}, dtype);
  a.stats2 = take_norm_stats(block.norm2, N, dtype, arena);
  a.norm2 = arena.take({N, C}, dtype);
  a.up = arena.take({N, block.up.weight->shape[0]}, dtype);
  a.act = arena.take({N, block.down.weight->shape[1]}, dtype);
  return a;
}

void block_forward(Context& ctx, const Block& block, const Pass& pass, BlockActs& a, Tensor branch,
                   ConstTensor mid_before, KvCache* cache) {
  ScratchScope scope(ctx);
  const Tensor out = branch ? branch : ctx.scratch.take(a.x.shape, a.x.dtype);

  if (mid_before)
    norm_forward(ctx, block.norm1, a.norm1, a.stats1, {.x = mid_before, .branch = branch, .sum = a.x});
  else
    norm_forward(ctx, block.norm1, a.norm1, a.stats1, {.x = a.x});
  dense_forward(ctx, block.qkv, a.qkv, a.norm1);
  attention_forward(ctx, block, pass, a, cache);
  dense_forward(ctx, block.proj, out, a.attn);

  norm_forward(ctx, block.norm2, a.norm2, a.stats2, {.x = a.x, .branch = out, .sum = a.mid});
  mlp_forward(ctx, block, a);
  if (branch) dense_forward(ctx, block.down, branch, a.act);
}

void block_backward(Context& ctx, const Block& block, const Pass& pass, const BlockActs& a, Tensor dx) {
  ScratchScope scope(ctx);
  Tensor dattn = ctx.scratch.take(a.attn.shape, dx.dtype);
  Tensor dqkv = ctx.scratch.take(a.qkv.shape, dx.dtype);
  Tensor dbranch = ctx.scratch.take(dx.shape, dx.dtype);

  mlp_backward(ctx, block, a, dbranch, dx);
  norm_backward(ctx, block.norm2, dx, a.stats2, dbranch, a.mid, dx);

  dense_backward(ctx, block.proj, dattn, dx, a.attn);
  attention_backward(ctx, block, pass, a, dqkv, dattn);
  dense_backward(ctx, block.qkv, dbranch, dqkv, a.norm1);
  norm_backward(ctx, block.norm1, dx, a.stats1, dbranch, a.x, dx);
}

}  // namespace keen
