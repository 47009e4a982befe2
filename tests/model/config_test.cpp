#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "io/fields.h"

namespace keen {
namespace {

// Reads a model object; "" or the error.
std::string read(ModelConfig& model, const std::string& text) {
  Fields fields;
  model.fields(fields);
  try {
    fields.read(parse_json(text, "m.json", Exit::usage), "m.json");
    fields.finish();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, Exit::usage);
    return error.what();
  }
  return "";
}
std::string error_of(const std::string& text) {
  ModelConfig model;
  return read(model, text);
}
// The errors of an attention value in a model of six layers.
std::string attention_error(const std::string& value) {
  return error_of("{\"layers\": 6, \"attention\": " + value + "}");
}

std::vector<std::string> kinds(const std::vector<LayerAttention>& layers) {
  std::vector<std::string> out;
  for (const LayerAttention& layer : layers) out.push_back(layer.kind);
  return out;
}
std::string rewritten(const std::string& text, int64_t layers = 6, int64_t context = 1024) {
  const auto parsed = parse_attention(text, layers, context);
  const std::string written = json_line(write_attention(parsed, context));
  EXPECT_EQ(parse_attention(written, layers, context), parsed) << text << " became " << written;
  return written;
}

TEST(AutoS, MakesTheMeanScaleOne) {
  EXPECT_NEAR(auto_s(1024), 0.16847, 5e-6);
  for (const int64_t context : {2, 3, 256, 1024, 20000}) {
    double sum = 0;
    for (int64_t n = 1; n <= context; ++n) sum += std::log(static_cast<double>(n));
    EXPECT_NEAR(auto_s(context) * sum / static_cast<double>(context), 1, 1e-12) << context;
  }
  EXPECT_EQ(auto_s(1), 1);
}

TEST(ModelConfig, DefaultsAreThoseOfTheStruct) {
  ModelConfig model;
  EXPECT_EQ(read(model, "{}"), "");
  EXPECT_EQ(model, ModelConfig{});
}

TEST(ModelConfig, DerivesWhatIsAbsent) {
  ModelConfig model;
  EXPECT_EQ(read(model, R"({"width": 768, "heads": 6, "layers": 2})"), "");
  EXPECT_EQ(model.kv_heads, 6);
  EXPECT_EQ(model.mlp_width, 2048);
  EXPECT_EQ(model.attention.size(), 2u);
  ModelConfig gelu;
  EXPECT_EQ(read(gelu, R"({"width": 768, "mlp": "gelu", "kv_heads": 4})"), "");
  EXPECT_EQ(gelu.mlp_width, 3072);
  EXPECT_EQ(gelu.kv_heads, 4);
  EXPECT_EQ(default_mlp_width(MlpKind::swiglu, 128), 384);
  EXPECT_EQ(default_mlp_width(MlpKind::swiglu, 24), 64);
  EXPECT_EQ(default_mlp_width(MlpKind::swiglu, 25), 128);
}

TEST(ModelConfig, ChecksAcrossKeys) {
  EXPECT_EQ(error_of(R"({"width": 770})"),
            "m.json: width = 770: width (770) should be a multiple of heads (12)");
  EXPECT_NE(error_of(R"({"width": 36})").find("36 / 12 = 3, should be even"), std::string::npos);
  EXPECT_EQ(error_of(R"({"kv_heads": 5})"),
            "m.json: kv_heads = 5: heads (12) should be a multiple of kv_heads (5)");
  EXPECT_NE(error_of(R"({"rope_fraction": 0})"), "");
  EXPECT_NE(error_of(R"({"rope_fraction": 1.5})"), "");
  EXPECT_NE(error_of(R"({"vocab_size": 1})"), "");
  EXPECT_NE(error_of(R"({"layers": 0})"), "");
  EXPECT_NE(error_of(R"({"layers": 1000000000000})"), "");
  EXPECT_NE(error_of(R"({"norm_eps": 0})"), "");
  // Keys that do not apply are ignored.
  EXPECT_EQ(error_of(R"({"position": "learned", "rope_theta": 5})"), "");
}

TEST(Attention, DefaultsOfEveryKind) {
  const double s = auto_s(1024);
  const auto one = [](const char* kind) { return parse_attention(kind, 1, 1024)[0]; };
  EXPECT_EQ(one("softmax"), LayerAttention{});
  EXPECT_EQ(one("ssmax"), (LayerAttention{"ssmax", true, s, 0, true, false}));
  EXPECT_EQ(one("ssmax_fixed"), (LayerAttention{"ssmax_fixed", true, 1, 0, false, false}));
  EXPECT_EQ(one("ssmax_bias"), (LayerAttention{"ssmax_bias", true, s, 0, true, true}));
}

TEST(Attention, FourForms) {
  EXPECT_EQ(kinds(parse_attention("ssmax", 2, 64)), (std::vector<std::string>{"ssmax", "ssmax"}));
  EXPECT_EQ(kinds(parse_attention(R"("ssmax")", 2, 64)), (std::vector<std::string>{"ssmax", "ssmax"}));
  EXPECT_EQ(kinds(parse_attention(R"(["softmax", "ssmax"])", 3, 64)),
            (std::vector<std::string>{"softmax", "ssmax", "softmax"}));
  const auto object =
      parse_attention(R"({"kind": "ssmax", "s": 0.43, "learn_s": true, "b": 0, "learn_b": false})", 2, 64);
  EXPECT_EQ(object[1], (LayerAttention{"ssmax", true, 0.43, 0, true, false}));
  const auto ranges = parse_attention(
      R"([{"kind": "softmax", "layers": "0-1,4"}, {"kind": "ssmax_bias", "s": 0, "b": 1, "layers": "2"}, {"kind": "ssmax_fixed", "s": "auto", "layers": "3, 5"}])",
      6, 64);
  EXPECT_EQ(kinds(ranges), (std::vector<std::string>{"softmax", "softmax", "ssmax_bias", "ssmax_fixed",
                                                     "softmax", "ssmax_fixed"}));
  EXPECT_EQ(ranges[2], (LayerAttention{"ssmax_bias", true, 0, 1, true, true}));
  EXPECT_EQ(ranges[5].s, auto_s(64));
  EXPECT_EQ(kinds(parse_attention(R"({"kind": "ssmax", "layers": "0-1"})", 2, 64)).size(), 2u);
}

TEST(Attention, EveryNameHasDefaultsAndReadsBack) {
  for (const std::string_view name : kAttentionNames)
    EXPECT_EQ(rewritten(std::string(name)), fmt::format("\"{}\"", name));
}

TEST(Attention, IsWrittenInItsShortestForm) {
  EXPECT_EQ(rewritten(R"({"kind": "ssmax", "s": "auto", "learn_s": true, "b": 0, "learn_b": false})"),
            R"("ssmax")");
  EXPECT_EQ(rewritten(R"([{"kind": "ssmax", "layers": "0-2"}, {"kind": "ssmax", "layers": "3-5"}])"),
            R"("ssmax")");
  EXPECT_EQ(rewritten(R"({"kind": "ssmax", "s": 0.43})"), R"({"kind": "ssmax", "s": 0.43})");
  EXPECT_EQ(rewritten(R"({"kind": "ssmax", "s": 1, "learn_s": false})"), R"("ssmax_fixed")");
  EXPECT_EQ(rewritten(R"({"kind": "ssmax_fixed", "learn_s": true, "s": "auto", "learn_b": true})"),
            R"("ssmax_bias")");
  EXPECT_EQ(rewritten(R"({"kind": "ssmax_bias", "s": 0, "b": 1})"),
            R"({"kind": "ssmax_bias", "s": 0.0, "b": 1.0})");
  EXPECT_EQ(rewritten(R"({"kind": "ssmax_bias", "learn_s": false})"),
            R"({"kind": "ssmax_bias", "learn_s": false})");
  EXPECT_EQ(rewritten(R"(["ssmax", "softmax", "ssmax", "softmax"])"), R"(["ssmax", "softmax"])");
  EXPECT_EQ(rewritten(R"(["softmax", "softmax", "ssmax"])"), R"(["softmax", "softmax", "ssmax"])");
  EXPECT_EQ(rewritten(R"(["ssmax", "softmax", "ssmax", "ssmax"])", 6),
            R"(["ssmax", "softmax", "ssmax", "ssmax"])");
  EXPECT_EQ(rewritten(R"([{"kind": "ssmax", "layers": "11"}, {"kind": "softmax", "layers": "0-10"}])", 12),
            R"([{"kind": "softmax", "layers": "0-10"}, {"kind": "ssmax", "layers": "11"}])");
  EXPECT_EQ(
      rewritten(R"([{"kind": "ssmax", "s": 2, "layers": "0,2-3"}, {"kind": "softmax", "layers": "1,4-5"}])"),
      R"([{"kind": "ssmax", "s": 2.0, "layers": "0,2-3"}, {"kind": "softmax", "layers": "1,4-5"}])");
}

TEST(Attention, EveryPatternOfKindsReadsBack) {
  for (int code = 0; code < 4 * 4 * 4 * 4 * 4; ++code) {
    Json names = Json::array();
    for (int l = 0, rest = code; l < 5; ++l, rest /= 4)
      names.push_back(std::string(kAttentionNames[static_cast<size_t>(rest % 4)]));
    rewritten(names.dump(), 5);
  }
}

TEST(Attention, ErrorsNameThePlace) {
  EXPECT_EQ(attention_error(R"("sofmax")"),
            "m.json: attention = \"sofmax\": should be one of softmax, ssmax, ssmax_fixed, ssmax_bias; the "
            "nearest is softmax");
  EXPECT_TRUE(attention_error("3").starts_with("m.json: attention = 3: should be softmax, ssmax"));
  EXPECT_TRUE(attention_error("[]").starts_with("m.json: attention = []: should be softmax, ssmax"));
  EXPECT_TRUE(
      attention_error(R"(["ssmax", 4])").starts_with("m.json: attention[1] = 4: should be one of softmax"));
  EXPECT_TRUE(attention_error(R"([{"kind": "ssmax", "layers": "0-5"}, "ssmax"])")
                  .starts_with("m.json: attention[1] = \"ssmax\": should be an object"));
  EXPECT_NE(attention_error(R"(["ssmax","ssmax","ssmax","ssmax","ssmax","ssmax","ssmax"])")
                .find("has 7 names for 6 layers"),
            std::string::npos);
  EXPECT_EQ(attention_error(R"({"kind": "ssmax", "lern_s": true})"),
            "m.json: attention.lern_s = true: unknown key; the nearest known key is learn_s");
  EXPECT_NE(attention_error(R"({"s": 1})").find("kind is missing"), std::string::npos);
  EXPECT_EQ(attention_error(R"({"kind": "ssmax", "s": "automatic"})"),
            "m.json: attention.s = \"automatic\": should be a number or \"auto\"");
  EXPECT_EQ(attention_error(R"({"kind": "ssmax", "b": "auto"})"),
            "m.json: attention.b = \"auto\": should be a number");
  EXPECT_EQ(attention_error(R"({"kind": "ssmax", "learn_s": 1})"),
            "m.json: attention.learn_s = 1: should be true or false");
  for (const char* key : {"s", "b", "learn_s", "learn_b"})
    EXPECT_NE(attention_error(fmt::format("{{\"kind\": \"softmax\", \"{}\": 1}}", key))
                  .find("softmax has no row scale"),
              std::string::npos);
}

TEST(Attention, EveryLayerIsCoveredExactlyOnce) {
  const auto ranges = [](const char* a, const char* b) {
    return attention_error(
        fmt::format(R"([{{"kind": "softmax", "layers": "{}"}}, {{"kind": "ssmax", "layers": "{}"}}])", a, b));
  };
  EXPECT_EQ(ranges("0-2", "3-5"), "");
  EXPECT_NE(ranges("0-1", "3").find("layers not covered: 2, 4, 5; every layer from 0 to 5"),
            std::string::npos);
  EXPECT_EQ(ranges("0-3", "3-5"),
            "m.json: attention[1].layers = \"3-5\": layer 3 is covered already, by attention[0]; every layer "
            "should be "
            "covered exactly once");
  EXPECT_NE(ranges("0-2", "3-5,3").find("layer 3 is covered already, by attention[1]"), std::string::npos);
  EXPECT_EQ(ranges("0-2", "3-6"),
            "m.json: attention[1].layers = \"3-6\": there is no layer 6; should be from 0 to 5");
  for (const char* bad :
       {"", "a", "3-", "-3", "5-3", "3,,4", "3-4-5", "3 4", "3,", "3.0", "99999999999999999999"})
    EXPECT_NE(ranges("0-2", bad).find(fmt::format("m.json: attention[1].layers = \"{}\": ", bad)),
              std::string::npos)
        << bad;
  EXPECT_NE(attention_error(R"([{"kind": "softmax"}])").find("layers is missing"), std::string::npos);
  EXPECT_NE(attention_error(R"([{"kind": "softmax", "layers": 3}])")
                .find("attention[0].layers = 3: should be layers as in"),
            std::string::npos);
}

TEST(Attention, ManyErrorsAtOnceAndNoneThatFollowsFromAnother) {
  const std::string error = error_of(
      R"({"layers": "6", "attention": [{"kind": "ssmx", "layers": "0-99"}, {"kind": "ssmax", "s": null, "layers": "x"}]})");
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 3) << error;
  EXPECT_EQ(error.find("no layer"), std::string::npos) << error;  // how many there are is not known
  EXPECT_EQ(error.find("not covered"), std::string::npos) << error;
}

TEST(Attention, ParseAttentionRaisesByName) {
  try {
    parse_attention(R"(["ssmax", "x"])", 2, 64);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, Exit::usage);
    EXPECT_TRUE(std::string(error.what()).starts_with("attention[1] = \"x\": should be one of"));
  }
}

}  // namespace
}  // namespace keen
