// The whole model: embeddings, blocks, final norm and head, forward and backward.
#pragma once

#include <functional>
#include <vector>

#include "model/block.h"

namespace keen {

struct Gpt {
  ModelConfig config;
  DType dtype;  // of activations: f32, bf16 or f64
  Params params;
  Param* tokens = nullptr;     // (V, C)
  Param* positions = nullptr;  // (T, C)  learned positions only
  std::vector<Block> blocks;
  Norm norm;
  Param* head = nullptr;  // (V, C)  the tokens' embedding when tied
  Tables tables;

  // Lists the parameters; they have no memory until `bind`.
  Gpt(const ModelConfig& config, DType dtype);
  Gpt(const Gpt&) = delete;

  // Takes parameters and tables from the arenas; P is the longest sequence in use.
  struct Arenas;
  void bind(bool training, int64_t P, Arenas& arenas, const Sharing& sharing = {});

  int64_t buckets() const { return config.layers + 2; }
  // Parameters that take part in matrix products: all but the embedding tables, unless the head is tied to
  // them.
  int64_t matmul_params() const;
  // Of training, counted as 6 n + 6 L C T: n = matmul_params(), and causal attention at its half of T x T.
  double flops_per_token(int64_t T) const;
};

// Memory by category, each one allocation. A planning pass measures them.
struct Gpt::Arenas {
  Arena weights, gradients, moments, activations;
  explicit Arenas(Device device) : weights(device), gradients(device), moments(device), activations(device) {}
};

// Plans, allocates exactly once, and binds for use: `bind` takes every tensor from the arenas, `run` calls
// everything that will run later. Both are called without memory first, with ctx.planning set; then `bind`
// again. With `allocate` false it stops after measuring (--dry-run). On CUDA it raises Exit::device, saying
// what each category needs, where all of it does not fit.
void plan_and_allocate(Context& ctx, Gpt::Arenas& arenas, const std::function<void()>& bind,
                       const std::function<void()>& run, bool allocate = true);

// What forward leaves for backward.
enum class Keep : uint8_t {
  everything,  // activations of every block
  inputs,  // the residual stream before every block; backward runs block_forward again ("recompute": "block")
  nothing,  // forward only: evaluation, sampling
};

struct GptActs {
  Keep keep;
  std::vector<BlockActs> blocks;  // L; with Keep::inputs or nothing they share one memory, but for x
  Tensor last;                    // (N, C)  output of the last block
  NormStats stats;
  Tensor norm;    // (N, C)  norm(last), what the head reads
  Tensor losses;  // (N)     wide; nats, one a row
};
GptActs take_gpt_acts(const Gpt& gpt, const Pass& pass, Keep keep, Arena& arena);

// Fills acts up to acts.norm from ids (N). `caches`: one a layer, or empty.
void gpt_forward(Context& ctx, const Gpt& gpt, const Pass& pass, GptActs& acts, ConstTensor ids,
                 std::vector<KvCache>* caches = nullptr);

// logits (rows, V), wide, of these rows of acts.norm.
void gpt_logits(Context& ctx, const Gpt& gpt, Tensor logits, ConstTensor norm_rows);

// acts.losses from acts.norm and targets (N). Logits exist in chunks of rows only.
void gpt_losses(Context& ctx, const Gpt& gpt, GptActs& acts, ConstTensor targets);

// After gpt_forward: acts.losses, and the gradients of scale * sum of losses, added to those of the
// parameters. `bucket_done(bucket)` is called as soon as the gradients of a bucket are complete, last bucket
// first.
void gpt_backward(Context& ctx, const Gpt& gpt, const Pass& pass, GptActs& acts, ConstTensor ids,
                  ConstTensor targets, double scale, const std::function<void(int64_t)>& bucket_done = {});

}  // namespace keen
