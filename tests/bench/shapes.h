// The models that are timed. tests/bench/side_by_side.py says which of scripts/bench_pytorch.py's they are.
#pragma once

#include <cstdint>

namespace keen {

struct BenchShape {
  const char* name;
  const char* model;  // the "model" object without vocabulary, context and attention
  int64_t vocab_size, B, T;
};

inline constexpr const char* kQuickstart = R"("layers": 4, "width": 128, "heads": 4, "mlp_width": 384)";
// What the models of GPT-2's kind share.
#define KEEN_BENCH_GPT2 \
  R"(, "norm": "layernorm", "mlp": "gelu", "position": "learned", "bias": true, "tie_embeddings": true)"
inline constexpr const char* kGpt2Mini =
    R"("layers": 6, "width": 256, "heads": 8, "mlp_width": 1024)" KEEN_BENCH_GPT2;
inline constexpr const char* kGpt2Tiny =
    R"("layers": 6, "width": 384, "heads": 6, "mlp_width": 1536)" KEEN_BENCH_GPT2;
inline constexpr const char* kGpt2Small =
    R"("layers": 12, "width": 768, "heads": 12, "mlp_width": 3072)" KEEN_BENCH_GPT2;
inline constexpr const char* kGpt2Large =
    R"("layers": 48, "width": 1600, "heads": 25, "mlp_width": 6400)" KEEN_BENCH_GPT2;
// The SSMax paper's model, with heads of 64 and of 128.
inline constexpr const char* kRope64 = R"("layers": 12, "width": 768, "heads": 12, "mlp_width": 2048)";
inline constexpr const char* kRope128 = R"("layers": 12, "width": 768, "heads": 6, "mlp_width": 2048)";

inline constexpr BenchShape kCpuShapes[] = {
    {"quickstart", kQuickstart, 2048, 16, 256},
    {"6x256", kGpt2Mini, 8192, 8, 256},
    {"6x384", kGpt2Tiny, 8192, 8, 256},
    {"124m_b4_t64", kGpt2Small, 50257, 4, 64},
    {"124m_b1_t1024", kGpt2Small, 50257, 1, 1024},
};

// What says most comes first: there may be no time for all.
inline constexpr BenchShape kCudaShapes[] = {
    {"124m_b64_t1024", kGpt2Small, 50257, 64, 1024},        {"1558m_b16_t1024", kGpt2Large, 50257, 16, 1024},
    {"rope162m_b64_t1024", kRope64, 50257, 64, 1024},       {"124m_b128_t1024", kGpt2Small, 50257, 128, 1024},
    {"1558m_b32_t1024", kGpt2Large, 50257, 32, 1024},       {"124m_b32_t1024", kGpt2Small, 50257, 32, 1024},
    {"rope162m_d128_b64_t1024", kRope128, 50257, 64, 1024}, {"1558m_b8_t1024", kGpt2Large, 50257, 8, 1024}};

}  // namespace keen
