#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "io/fields.h"

namespace keen {

namespace {

// Takes what is wrong: the place inside the attention value ("[1].layers"), the value there, what it should
// be.
using Report = std::function<void(const std::string& place, const Json& value, const std::string& what)>;

constexpr std::string_view kAttentionKeys[] = {"kind", "s", "learn_s", "b", "learn_b", "layers"};
constexpr const char* kAttentionForms =
    "softmax, ssmax, ssmax_fixed or ssmax_bias; a list of these, repeated over the layers; an object {kind, "
    "s, "
    "learn_s, b, learn_b}; or a list of such objects, each with layers";

// The defaults of a kind (ssmax: s "auto" and learned; ssmax_fixed: s = 1; ssmax_bias: s "auto", b = 0, both
// learned).
LayerAttention attention_of_kind(std::string_view kind, int64_t context) {
  LayerAttention layer;
  layer.kind = kind;
  layer.scaled = kind != "softmax";
  layer.learn_s = kind == "ssmax" || kind == "ssmax_bias";
  layer.learn_b = kind == "ssmax_bias";
  if (layer.scaled) layer.s = layer.learn_s ? auto_s(context) : 1;
  return layer;
}

std::string kind_of(const LayerAttention& layer) {
  if (!layer.scaled) return "softmax";
  return layer.learn_b ? "ssmax_bias" : layer.learn_s ? "ssmax" : "ssmax_fixed";
}

// Reads one attention value. Where `layers` is 0 the number of layers is not known, because its own key is
// wrong: then the form is checked and nothing comes out.
class AttentionReader {
 public:
  AttentionReader(int64_t layers, int64_t context, Report report)
      : layers_(layers), context_(context), report_(std::move(report)) {}

  std::vector<LayerAttention> read(const Json& value) {
    if (value.is_string())
      read_names(Json::array({value}), false);
    else if (value.is_object())
      read_objects(Json::array({value}), false);
    else if (!value.is_array() || value.empty())
      problem("", value, fmt::format("should be {}", kAttentionForms));
    else if (value.front().is_object())
      read_objects(value, true);
    else
      read_names(value, true);
    if (!ok_) out_.clear();
    return std::move(out_);
  }

 private:
  void problem(const std::string& place, const Json& value, const std::string& what) {
    ok_ = false;
    report_(place, value, what);
  }

  std::optional<LayerAttention> read_kind(const std::string& place, const Json& value) {
    const std::string names = "should be one of " + name_list(kAttentionNames);
    if (!value.is_string()) return problem(place, value, names), std::nullopt;
    const std::string name = value.get<std::string>();
    if (std::find(kAttentionNames.begin(), kAttentionNames.end(), name) != kAttentionNames.end())
      return attention_of_kind(name, context_);
    if (name.starts_with('[') || name.starts_with('{'))
      problem(place, value,
              "is no JSON; the shell takes its quotes unless the whole argument is in others: "
              "--set 'model.attention=[\"softmax\", \"ssmax\"]'");
    else
      problem(place, value, fmt::format("{}; the nearest is {}", names, nearest_name(name, kAttentionNames)));
    return std::nullopt;
  }

  void read_names(const Json& names, bool list) {
    std::vector<LayerAttention> period;
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string place = list ? fmt::format("[{}]", i) : "";
      if (const auto layer = read_kind(place, names[i])) period.push_back(*layer);
    }
    if (layers_ == 0 || !ok_) return;
    if (static_cast<int64_t>(period.size()) > layers_)
      return problem(
          "", names,
          fmt::format("has {} names for {} layers; should have at most {}", period.size(), layers_, layers_));
    for (size_t l = 0; l < static_cast<size_t>(layers_); ++l) out_.push_back(period[l % period.size()]);
  }

  void read_objects(const Json& objects, bool list) {
    out_.resize(static_cast<size_t>(layers_));
    std::vector<int64_t> owner(static_cast<size_t>(layers_), -1);  // the object that covers a layer
    for (size_t i = 0; i < objects.size(); ++i) {
      const std::string place = list ? fmt::format("[{}]", i) : "";
      if (!objects[i].is_object()) {
        problem(place, objects[i],
                "should be an object {\"kind\": ..., \"layers\": ...}, as the first of the list is");
        continue;
      }
      const std::optional<LayerAttention> layer = read_object(place, objects[i]);
      const auto ranges = objects[i].find("layers");
      if (ranges == objects[i].end()) {
        if (list)
          problem(place, objects[i], "layers is missing; should be given, as \"0-5\", \"2\" or \"0-1,4\"");
        else
          for (int64_t l = 0; l < layers_; ++l)
            cover(owner, l, static_cast<int64_t>(i), place, objects[i], layer);
        continue;
      }
      read_ranges(place + ".layers", *ranges, [&](int64_t l) {
        return cover(owner, l, static_cast<int64_t>(i), place + ".layers", *ranges, layer);
      });
    }
    if (!ok_) return;
    std::vector<int64_t> missing;
    for (int64_t l = 0; l < layers_; ++l)
      if (owner[static_cast<size_t>(l)] < 0) missing.push_back(l);
    if (!missing.empty())
      problem("", list ? objects : objects[0],
              fmt::format("layers not covered: {}; every layer from 0 to {} should be covered exactly once",
                          fmt::join(missing, ", "), layers_ - 1));
  }

  // Gives layer l to object i; false when another had it, which ends the range, since one line about it is
  // enough.
  bool cover(std::vector<int64_t>& owner, int64_t l, int64_t i, const std::string& place, const Json& ranges,
             const std::optional<LayerAttention>& layer) {
    int64_t& before = owner[static_cast<size_t>(l)];
    if (before >= 0) {
      problem(place, ranges,
              fmt::format(
                  "layer {} is covered already, by attention[{}]; every layer should be covered exactly once",
                  l, before));
      return false;
    }
    before = i;
    if (layer) out_[static_cast<size_t>(l)] = *layer;
    return true;
  }

  // Calls each(layer) for "0-5", "2", "0-1,4"; zero-based, inclusive.
  void read_ranges(const std::string& place, const Json& value, const std::function<bool(int64_t)>& each) {
    const std::string form =
        "should be layers as in \"0-5\", \"2\" or \"0-1,4\" (from 0, both ends included)";
    if (!value.is_string()) return problem(place, value, form);
    const std::string text = value.get<std::string>();
    size_t at = 0;
    const auto number = [&]() -> int64_t {
      int64_t n = -1;
      for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && n < 100'000'000; ++at)
        n = std::max<int64_t>(n, 0) * 10 + (text[at] - '0');
      return n;
    };
    while (true) {
      while (at < text.size() && text[at] == ' ') ++at;
      const int64_t first = number();
      int64_t last = first;
      if (at < text.size() && text[at] == '-') ++at, last = number();
      const bool end = at == text.size();
      if (first < 0 || last < first || (!end && text[at] != ',')) return problem(place, value, form);
      if (layers_ > 0 && last >= layers_)
        return problem(place, value,
                       fmt::format("there is no layer {}; should be from 0 to {}", last, layers_ - 1));
      for (int64_t l = first; layers_ > 0 && l <= last; ++l)
        if (!each(l)) return;
      if (end) return;
      ++at;
    }
  }

  std::optional<LayerAttention> read_object(const std::string& place, const Json& object) {
    for (auto item = object.begin(); item != object.end(); ++item)
      if (std::find(std::begin(kAttentionKeys), std::end(kAttentionKeys), item.key()) ==
          std::end(kAttentionKeys))
        problem(place + '.' + item.key(), *item,
                fmt::format("unknown key; the nearest known key is {}",
                            nearest_name(item.key(), kAttentionKeys)));
    const auto kind = object.find("kind");
    if (kind == object.end()) {
      problem(place, object, fmt::format("kind is missing; should be one of {}", name_list(kAttentionNames)));
      return std::nullopt;
    }
    std::optional<LayerAttention> layer = read_kind(place + ".kind", *kind);
    if (!layer) return layer;
    if (!layer->scaled) {
      for (const char* key : {"s", "learn_s", "b", "learn_b"})
        if (object.contains(key))
          problem(place + '.' + key, object[key],
                  "softmax has no row scale; should be left out, or kind be ssmax");
      return layer;
    }
    read_number(place, object, "s", layer->s);
    read_number(place, object, "b", layer->b);
    read_flag(place, object, "learn_s", layer->learn_s);
    read_flag(place, object, "learn_b", layer->learn_b);
    layer->kind = kind_of(*layer);
    return layer;
  }

  void read_number(const std::string& place, const Json& object, const char* key, double& out) {
    const auto value = object.find(key);
    if (value == object.end()) return;
    const bool may_be_auto = key == std::string_view("s");
    if (value->is_number())
      out = value->get<double>();
    else if (may_be_auto && *value == "auto")
      out = auto_s(context_);
    else
      problem(place + '.' + key, *value,
              may_be_auto ? "should be a number or \"auto\"" : "should be a number");
  }

  void read_flag(const std::string& place, const Json& object, const char* key, bool& out) {
    const auto value = object.find(key);
    if (value == object.end()) return;
    if (value->is_boolean())
      out = value->get<bool>();
    else
      problem(place + '.' + key, *value, "should be true or false");
  }

  int64_t layers_, context_;
  Report report_;
  std::vector<LayerAttention> out_;
  bool ok_ = true;
};

// One layer as an object, with only those keys that differ from the defaults of its kind.
Json write_layer(const LayerAttention& layer, int64_t context) {
  const LayerAttention plain = attention_of_kind(layer.kind, context);
  Json out = Json::object({{"kind", layer.kind}});
  if (layer.s != plain.s) out["s"] = layer.s;
  if (layer.learn_s != plain.learn_s) out["learn_s"] = layer.learn_s;
  if (layer.b != plain.b) out["b"] = layer.b;
  if (layer.learn_b != plain.learn_b) out["learn_b"] = layer.learn_b;
  return out;
}

// The layers at which `layers` equals its element l, as "0-1,4".
std::string ranges_of(const std::vector<LayerAttention>& layers, size_t l) {
  std::string out;
  for (size_t first = l; first < layers.size(); ++first) {
    if (!(layers[first] == layers[l])) continue;
    size_t last = first;
    while (last + 1 < layers.size() && layers[last + 1] == layers[l]) ++last;
    if (!out.empty()) out += ',';
    out += first == last ? std::to_string(first) : fmt::format("{}-{}", first, last);
    first = last;
  }
  return out;
}

}  // namespace

double auto_s(int64_t context) {
  const auto n = static_cast<double>(context);
  return context < 2 ? 1 : n / std::lgamma(n + 1);  // the sum of ln n over n = 1..T is ln T!
}

int64_t default_mlp_width(MlpKind mlp, int64_t width) {
  if (mlp == MlpKind::gelu) return 4 * width;
  return (8 * width + 191) / 192 * 64;
}

std::vector<LayerAttention> parse_attention(const std::string& text, int64_t layers, int64_t context) {
  std::string problems;
  Json value;
  try {
    value = parse_json(text, "attention", Exit::usage);
  } catch (const Error&) {
    value = text;
  }
  AttentionReader reader(layers, context,
                         [&](const std::string& place, const Json& found, const std::string& what) {
                           problems += fmt::format("{}attention{} = {}: {}", problems.empty() ? "" : "\n",
                                                   place, json_line(found), what);
                         });
  std::vector<LayerAttention> out = reader.read(value);
  if (!problems.empty()) throw Error(Exit::usage, problems);
  return out;
}

Json write_attention(const std::vector<LayerAttention>& layers, int64_t context) {
  check(!layers.empty(), "write_attention: at least one layer");
  size_t period = 1;
  for (size_t l = 1; l < layers.size(); ++l)
    if (!(layers[l] == layers[l % period])) {
      // A longer period has to be tried from its beginning, since layers before l may break it.
      ++period;
      l = period - 1;
    }
  Json objects = Json::array();
  for (size_t l = 0; l < layers.size(); ++l) {
    if (std::find(layers.begin(), layers.begin() + static_cast<std::ptrdiff_t>(l), layers[l]) !=
        layers.begin() + static_cast<std::ptrdiff_t>(l))
      continue;
    objects.push_back(write_layer(layers[l], context));
    objects.back()["layers"] = ranges_of(layers, l);
  }
  const bool plain = std::all_of(layers.begin(), layers.end(), [&](const LayerAttention& layer) {
    return layer == attention_of_kind(layer.kind, context);
  });
  if (plain && period == 1) return layers[0].kind;
  if (period == 1) return write_layer(layers[0], context);
  if (!plain) return objects;
  Json names = Json::array();
  for (size_t l = 0; l < period; ++l) names.push_back(layers[l].kind);
  return json_line(names).size() <= json_line(objects).size() ? names : objects;
}

void ModelConfig::fields(Fields& f) {
  // The upper ends keep every product of sizes inside 64 bits; token ids are 32 bits.
  f.integer("vocab_size", vocab_size, between<int64_t>(2, INT32_MAX), "number of token ids")
      .also_called({"n_vocab", "padded_vocab_size"});
  f.integer("context", context, between<int64_t>(1, 1 << 24), "tokens per sequence in training")
      .also_called({"block_size", "seq_len", "sequence_length", "context_length", "max_seq_len", "n_ctx",
                    "n_positions", "max_position_embeddings"});
  f.integer("layers", layers, between<int64_t>(1, 4096), "number of blocks")
      .also_called({"n_layer", "n_layers", "num_layers", "num_hidden_layers", "depth"});
  f.integer("width", width, between<int64_t>(2, 1 << 20), "width of the residual stream")
      .also_called({"n_embd", "d_model", "hidden_size", "embed_dim", "dim"});
  f.integer("heads", heads, between<int64_t>(1, 1 << 16),
            "query heads per layer; width / heads is the head width")
      .also_called({"n_head", "n_heads", "num_heads", "num_attention_heads"});
  f.integer("kv_heads", kv_heads, between<int64_t>(1, 1 << 16),
            "key and value heads per layer; a divisor of heads")
      .when_absent("heads", [this] { kv_heads = heads; })
      .also_called({"n_kv_head", "n_kv_heads", "num_kv_heads", "num_key_value_heads"});
  f.integer("mlp_width", mlp_width, between<int64_t>(1, 1 << 22), "hidden width of the MLP")
      .when_absent("8/3 width rounded up to a multiple of 64 for swiglu, 4 width for gelu",
                   [this] { mlp_width = default_mlp_width(mlp, width); })
      .also_called({"intermediate_size", "d_ff", "ffn_dim", "n_inner"});
  f.choice("norm", norm, kNormNames, "normalization before attention, before the MLP and before the head");
  f.choice("mlp", mlp, kMlpNames, "MLP of a block; swiglu is gated and has three matrices");
  f.choice("position", position, kPositionNames,
           "how positions enter: rotated queries and keys, a table, or not");
  f.number("rope_theta", rope_theta, above(0.0), "base of the RoPE frequencies")
      .also_called({"rope_base", "theta"});
  f.number("rope_fraction", rope_fraction, {.low = 0, .high = 1, .low_open = true},
           "part of the frequencies that rotates, the fastest first (p-RoPE)");
  f.flag("bias", bias, "biases in linear layers and LayerNorm");
  f.flag("tie_embeddings", tie_embeddings, "the head uses the token embedding's weight")
      .also_called({"tie_word_embeddings", "tied", "weight_tying"});
  f.flag("qk_norm", qk_norm, "RMSNorm of queries and keys per head, before RoPE");
  f.number("norm_eps", norm_eps, above(0.0), "added to the variance under the root of a norm")
      .also_called({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"});
  f.custom(
      "attention", "softmax", kAttentionForms, "softmax or SSMax, per layer",
      [this, &f](const Json& value) {
        const bool known = f.clean({"layers", "context"});
        AttentionReader reader(known ? layers : 0, context,
                               [&f](const std::string& place, const Json& found, const std::string& what) {
                                 f.problem("attention" + place, found, what);
                               });
        attention = reader.read(value);
      },
      [this] { return write_attention(attention, context); });

  f.check([this, &f] {
    f.demand(width % heads == 0, {"width", "heads"},
             fmt::format("width ({}) should be a multiple of heads ({})", width, heads));
    f.demand(width % heads != 0 || head_width() % 2 == 0, {"width", "heads"},
             fmt::format("the head width, width / heads = {} / {} = {}, should be even", width, heads,
                         head_width()));
    f.demand(heads % kv_heads == 0, {"kv_heads", "heads"},
             fmt::format("heads ({}) should be a multiple of kv_heads ({})", heads, kv_heads));
  });
}

}  // namespace keen
