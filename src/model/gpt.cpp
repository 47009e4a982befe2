#include "model/gpt.h"

#include <utility>

#include "core/console.h"
#include "core/cuda.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/linear.h"

namespace keen {

namespace {

// Rows of logits that exist at a time: enough for the GEMM to run at full rate and for the head's weight
// gradient, which each chunk reads and writes, to weigh little (8 V C bytes beside 6 V C operations a row: a
// GPU wants thousands of rows); few enough for V columns to stay small beside the model.
int64_t head_chunk_rows(const Context& ctx, const Gpt& gpt, int64_t N) {
  const int64_t chunk_bytes = int64_t{ctx.device == Device::cuda ? 1024 : 128} << 20;
  const int64_t rows = chunk_bytes / (gpt.config.vocab_size * size_of(wide(gpt.dtype)));
  return std::min(N, std::max<int64_t>(64, rows / 64 * 64));
}

// Spare rows of the head: on CUDA its products have a multiple of 128 columns, so that every row of logits is
// aligned, as the library's fast kernels want it: one of 50,257 is not.
int64_t spare_head_rows(int64_t V) { return (128 - V % 128) % 128; }

// Losses of all rows, chunk by chunk. With dnorm (N, C) also its gradient (overwritten) and the head's.
void head(Context& ctx, const Gpt& gpt, GptActs& acts, ConstTensor targets, double scale, Tensor dnorm) {
  ScratchScope scope(ctx);
  const auto [N, C] = dims<2>(acts.norm);
  const bool spare = ctx.device == Device::cuda;
  const auto rows_of_head = [&](const Tensor& view) {
    return spare ? with_spare_rows(*gpt.head, view) : view;
  };
  const Tensor w = rows_of_head(gpt.head->value);
  const int64_t V = w.shape[0], chunk = head_chunk_rows(ctx, gpt, N);
  const Tensor all_logits = ctx.scratch.take({chunk, V}, wide(gpt.dtype));
  // Logits are overwritten by their gradient where both have one type.
  Tensor all_dlogits;
  if (dnorm)
    all_dlogits = gpt.dtype == wide(gpt.dtype) ? all_logits : ctx.scratch.take({chunk, V}, gpt.dtype);

  for (int64_t begin = 0; begin < N; begin += chunk) {
    const int64_t end = std::min(N, begin + chunk), rows = end - begin;
    const Tensor logits = all_logits.rows(0, rows), dlogits = dnorm ? all_dlogits.rows(0, rows) : Tensor();
    ops::linear(ctx, logits, acts.norm.rows(begin, end), w);
    ops::cross_entropy(ctx, {.losses = acts.losses.rows(begin, end),
                             .dlogits = dlogits,
                             .logits = logits,
                             .targets = targets.rows(begin, end),
                             .columns = gpt.config.vocab_size,
                             .scale = scale});
    if (dnorm)
      ops::linear_backward(ctx, {.dx = dnorm.rows(begin, end),
                                 .dw = rows_of_head(gpt.head->grad),
                                 .dbias = {},
                                 .dy = dlogits,
                                 .x = acts.norm.rows(begin, end),
                                 .w = w});
  }
}

}  // namespace

Gpt::Gpt(const ModelConfig& config, DType dtype) : config(config), dtype(dtype) {
  const int64_t V = config.vocab_size, C = config.width, head_bucket = config.layers + 1;
  const int64_t spare = spare_head_rows(V);
  tokens =
      &params.add("embed.tokens.weight", {V, C}, normal(0.02), true, 0, config.tie_embeddings ? spare : 0);
  if (config.position == PositionKind::learned)
    positions = &params.add("embed.positions.weight", {config.context, C}, normal(0.02), true, 0);
  for (int64_t layer = 0; layer < config.layers; ++layer) blocks.push_back(make_block(params, config, layer));
  norm = make_norm(params, config, "norm", head_bucket);
  head = config.tie_embeddings ? tokens
                               : &params.add("head.weight", {V, C}, normal(0.02), true, head_bucket, spare);
}

void Gpt::bind(bool training, int64_t P, Arenas& arenas, const Sharing& sharing) {
  params.bind(dtype, training, arenas.weights, arenas.gradients, arenas.moments, sharing);
  tables = take_tables(config, P, dtype, arenas.weights);
}

int64_t Gpt::matmul_params() const {
  int64_t n = params.count();
  if (positions != nullptr) n -= positions->count();
  if (head != tokens) n -= tokens->count();
  return n;
}

double Gpt::flops_per_token(int64_t T) const {
  return 6.0 * static_cast<double>(matmul_params()) + 6.0 * static_cast<double>(config.layers) *
                                                          static_cast<double>(config.width) *
                                                          static_cast<double>(T);
}

namespace {

// On a GPU, before anything is taken: where not everything fits, what needs how much helps more than the name
// of the first category that did not.
void expect_to_fit(const Context& ctx, const Gpt::Arenas& arenas) {
  if constexpr (kCudaBuilt) {
    if (ctx.device != Device::cuda) return;
    const std::pair<const char*, const Arena&> categories[] = {{"weights", arenas.weights},
                                                               {"gradients", arenas.gradients},
                                                               {"optimizer moments", arenas.moments},
                                                               {"activations", arenas.activations},
                                                               {"scratch", ctx.scratch}};
    const cuda::DeviceFacts device = cuda::device_facts();
    int64_t bytes = 0;
    std::vector<std::string> parts;
    for (const auto& [name, arena] : categories) {
      bytes += arena.peak();
      if (arena.peak() > 0) parts.push_back(fmt::format("{} {}", name, short_bytes(arena.peak())));
    }
    if (bytes > device.free_bytes)
      fail(Exit::device,
           "out of device memory: {} ({} bytes) are needed, and {} of {} are free: {}; use fewer "
           "batch.micro_sequences or \"recompute\": \"block\" (activations), or a smaller model",
           short_bytes(bytes), bytes, short_bytes(device.free_bytes), short_bytes(device.memory_bytes),
           fmt::join(parts, ", "));
  }
}

}  // namespace

void plan_and_allocate(Context& ctx, Gpt::Arenas& arenas, const std::function<void()>& bind,
                       const std::function<void()>& run, bool allocate) {
  ctx.planning = true;
  bind();
  run();
  if (!allocate) return;
  ctx.planning = false;
  expect_to_fit(ctx, arenas);
  arenas.weights.allocate("weights");
  arenas.gradients.allocate("gradients");
  arenas.moments.allocate("optimizer moments");
  arenas.activations.allocate("activations");
  ctx.scratch.allocate("scratch");
  bind();
}

GptActs take_gpt_acts(const Gpt& gpt, const Pass& pass, Keep keep, Arena& arena) {
  const Shape stream{pass.N(), gpt.config.width};
  const size_t L = gpt.blocks.size();
  GptActs acts;
  acts.keep = keep;
  // Layers that share memory must fit the largest of them: those with a row scale keep scaled queries. A
  // block's first norm still reads `mid` of the one before; what it writes lies in front of that in every
  // layer.
  std::vector<Tensor> inputs;
  for (size_t layer = 0; layer <= L; ++layer)
    inputs.push_back(keep == Keep::nothing && layer >= 2 ? inputs[layer - 2] : arena.take(stream, gpt.dtype));
  const int64_t mark = arena.mark();
  int64_t top = mark;
  for (size_t layer = 0; layer < L; ++layer) {
    if (keep != Keep::everything) arena.release(mark);
    acts.blocks.push_back(take_block_acts(gpt.blocks[layer], pass, gpt.dtype, arena));
    acts.blocks.back().x = inputs[layer];
    top = std::max(top, arena.mark());
  }
  arena.release(top);
  acts.last = inputs[L];
  acts.stats = take_norm_stats(gpt.norm, pass.N(), gpt.dtype, arena);
  acts.norm = arena.take(stream, gpt.dtype);
  acts.losses = arena.take({pass.N()}, wide(gpt.dtype));
  return acts;
}

void gpt_forward(Context& ctx, const Gpt& gpt, const Pass& pass, GptActs& acts, ConstTensor ids,
                 std::vector<KvCache>* caches) {
  const size_t L = gpt.blocks.size();
  for_each_span(pass, [&](const Span& span, int64_t row) {
    ops::embedding(ctx, {.y = acts.blocks[0].x.rows(row, row + span.rows()),
                         .ids = ids.rows(row, row + span.rows()),
                         .tokens = gpt.tokens->value,
                         .positions = value_of(gpt.positions),
                         .T = span.T,
                         .first_position = span.past});
  });
  ScratchScope scope(ctx);
  const Tensor branch = ctx.scratch.take(acts.last.shape, gpt.dtype);
  ConstTensor mid;
  for (size_t l = 0; l < L; ++l) {
    block_forward(ctx, gpt.blocks[l], pass, acts.blocks[l], branch, mid,
                  caches == nullptr ? nullptr : &(*caches)[l]);
    mid = acts.blocks[l].mid;
  }
  norm_forward(ctx, gpt.norm, acts.norm, acts.stats, {.x = mid, .branch = branch, .sum = acts.last});
}

void gpt_logits(Context& ctx, const Gpt& gpt, Tensor logits, ConstTensor norm_rows) {
  ops::linear(ctx, logits, norm_rows, gpt.head->value);
}

void gpt_losses(Context& ctx, const Gpt& gpt, GptActs& acts, ConstTensor targets) {
  head(ctx, gpt, acts, targets, 1, {});
}

void gpt_backward(Context& ctx, const Gpt& gpt, const Pass& pass, GptActs& acts, ConstTensor ids,
                  ConstTensor targets, double scale, const std::function<void(int64_t)>& bucket_done) {
  check(acts.keep != Keep::nothing, "gpt_backward: activations that were kept");
  const auto done = [&](int64_t bucket) {
    if (bucket_done && !ctx.planning) bucket_done(bucket);
  };
  ScratchScope scope(ctx);
  Tensor dx = ctx.scratch.take(acts.last.shape, gpt.dtype);
  head(ctx, gpt, acts, targets, scale, dx);
  norm_backward(ctx, gpt.norm, dx, acts.stats, dx, acts.last);
  done(gpt.buckets() - 1);
  for (size_t l = gpt.blocks.size(); l-- > 0;) {
    // The last block's activations are still those of the forward pass.
    if (acts.keep == Keep::inputs && l + 1 < gpt.blocks.size())
      block_forward(ctx, gpt.blocks[l], pass, acts.blocks[l], {});
    block_backward(ctx, gpt.blocks[l], pass, acts.blocks[l], dx);
    done(static_cast<int64_t>(l) + 1);
  }
  ops::embedding_backward(
      ctx,
      {.dtokens = gpt.tokens->grad, .dpositions = grad_of(gpt.positions), .dy = dx, .ids = ids, .T = pass.T});
  done(0);
}

}  // namespace keen
