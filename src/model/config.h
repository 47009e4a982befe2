// What a model is: the "model" object of the run config.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace keen {

enum class NormKind : uint8_t { rmsnorm, layernorm };
enum class MlpKind : uint8_t { swiglu, gelu };
enum class PositionKind : uint8_t { rope, learned, none };

// The attention of one layer, resolved: the row scale is c(h, n) = s_h ln n + b_h, or 1 where `scaled` is false.
struct LayerAttention {
  std::string kind = "softmax";  // softmax | ssmax | ssmax_fixed | ssmax_bias
  bool scaled = false;           // has s (and perhaps b); false for softmax
  double s = 0, b = 0;           // initial values
  bool learn_s = false, learn_b = false;
  // b exists as a parameter whenever it is learned or not zero.
  bool has_b() const { return scaled && (learn_b || b != 0); }
  bool operator==(const LayerAttention&) const = default;
};

struct ModelConfig {
  int64_t vocab_size = 50257, context = 1024, layers = 12, width = 768, heads = 12, kv_heads = 12, mlp_width = 2048;
  NormKind norm = NormKind::rmsnorm;
  MlpKind mlp = MlpKind::swiglu;
  PositionKind position = PositionKind::rope;
  double rope_theta = 10000, rope_fraction = 1;
  bool bias = false, tie_embeddings = false, qk_norm = false;
  double norm_eps = 1e-5;
  std::vector<LayerAttention> attention = std::vector<LayerAttention>(12);  // one per layer

  int64_t head_width() const { return width / heads; }
};

}  // namespace keen
