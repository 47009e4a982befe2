// What a model is: the "model" object of the run config.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace keen {

class Fields;

enum class NormKind : uint8_t { rmsnorm, layernorm };
enum class MlpKind : uint8_t { swiglu, gelu };
enum class PositionKind : uint8_t { rope, learned, none };

inline constexpr std::array<std::string_view, 2> kNormNames = {"rmsnorm", "layernorm"};
inline constexpr std::array<std::string_view, 2> kMlpNames = {"swiglu", "gelu"};
inline constexpr std::array<std::string_view, 3> kPositionNames = {"rope", "learned", "none"};
inline constexpr std::array<std::string_view, 4> kAttentionNames = {"softmax", "ssmax", "ssmax_fixed",
                                                                    "ssmax_bias"};

// The attention of one layer, resolved: the row scale is c(h, n) = s_h ln n + b_h, or 1 where `scaled` is
// false. The kind of a scaled layer follows from what it learns (s and b: ssmax_bias, s: ssmax, nothing:
// ssmax_fixed; b alone: ssmax_bias with learn_s false), so that equal layers compare equal however they were
// written.
struct LayerAttention {
  std::string kind = "softmax";  // one of kAttentionNames
  bool scaled = false;           // has s (and perhaps b); false for softmax
  double s = 0, b = 0;           // initial values
  bool learn_s = false, learn_b = false;
  // b exists as a parameter whenever it is learned or not zero.
  bool has_b() const { return scaled && (learn_b || b != 0); }
  bool operator==(const LayerAttention&) const = default;
};

struct ModelConfig {
  int64_t vocab_size = 50257, context = 1024, layers = 12, width = 768, heads = 12, kv_heads = 12,
          mlp_width = 2048;
  NormKind norm = NormKind::rmsnorm;
  MlpKind mlp = MlpKind::swiglu;
  PositionKind position = PositionKind::rope;
  double rope_theta = 10000, rope_fraction = 1;
  bool bias = false, tie_embeddings = false, qk_norm = false;
  double norm_eps = 1e-5;
  std::vector<LayerAttention> attention = std::vector<LayerAttention>(12);  // one per layer

  int64_t head_width() const { return width / heads; }
  bool operator==(const ModelConfig&) const = default;

  // The list of fields (io/fields.h). Reading leaves `attention` resolved: as many elements as there are
  // layers.
  void fields(Fields& f);
};

// 1 / mean over n = 1..context of ln n, so that the mean row scale of s = "auto" is 1; 0.16847 for 1024. A
// context of one token has no ln n above 0: there s has no effect, and is 1.
double auto_s(int64_t context);

// The default of mlp_width: 4 width for gelu; for swiglu, which has three matrices instead of two, 8/3 width
// rounded up to a multiple of 64.
int64_t default_mlp_width(MlpKind mlp, int64_t width);

// The attention of every layer, from any form that "attention" may have: a name, a list of names, an object,
// or a list of objects; as JSON, or a bare name. Raises Exit::usage with a line for every problem.
std::vector<LayerAttention> parse_attention(const std::string& text, int64_t layers, int64_t context);

// The shortest form that reads back to the same layers.
nlohmann::ordered_json write_attention(const std::vector<LayerAttention>& layers, int64_t context);

}  // namespace keen
