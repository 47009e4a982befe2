// A small model with memory, ready to run: shared by the tests of the model.
#pragma once

#include "model/gpt.h"
#include "op_test.h"

namespace keen::testing {

// 3 layers, 6 columns a head, 4 query heads over 2 key heads: nothing divides a tile.
inline ModelConfig tiny_config() {
  ModelConfig config;
  config.vocab_size = 19;
  config.context = 9;
  config.layers = 2;
  config.width = 24;
  config.heads = 4;
  config.kv_heads = 2;
  config.mlp_width = 20;
  config.attention.assign(2, LayerAttention{});
  return config;
}

inline LayerAttention ssmax(double s = 0.4) {
  return {.kind = "ssmax", .scaled = true, .s = s, .b = 0, .learn_s = true, .learn_b = false};
}
inline LayerAttention ssmax_fixed() {
  return {.kind = "ssmax_fixed", .scaled = true, .s = 1, .b = 0, .learn_s = false, .learn_b = false};
}
inline LayerAttention ssmax_bias(double s = 0.4, double b = 0.3) {
  return {.kind = "ssmax_bias", .scaled = true, .s = s, .b = b, .learn_s = true, .learn_b = true};
}

class TinyGpt {
 public:
  TinyGpt(const ModelConfig& config, DType dtype, int64_t B, int64_t T, Keep keep = Keep::everything)
      : gpt(config, dtype), pass{.B = B, .T = T, .tables = &gpt.tables} {
    plan_and_allocate(
        ctx, arenas,
        [&] {
          gpt.bind(keep != Keep::nothing, T, arenas);
          acts = take_gpt_acts(gpt, pass, keep, arenas.activations);
          ids = arenas.activations.take({B * T}, DType::i32);
          targets = arenas.activations.take({B * T}, DType::i32);
        },
        [&] {
          gpt_forward(ctx, gpt, pass, acts, ids);
          if (keep == Keep::nothing)
            gpt_losses(ctx, gpt, acts, targets);
          else
            gpt_backward(ctx, gpt, pass, acts, ids, targets, 1);
        });
    fill_tables(config, gpt.tables);
    gpt.params.initialize(7);
    gpt.params.round_values(ctx);
    const Philox random(99);
    for (int64_t i = 0; i < B * T; ++i) {
      const auto draw = [&](uint64_t lane) {
        return static_cast<int32_t>(random.uniform(static_cast<uint64_t>(i), lane) *
                                    static_cast<double>(config.vocab_size));
      };
      ids.as<int32_t>()[i] = draw(0);
      targets.as<int32_t>()[i] = draw(1);
    }
  }

  // Moves every parameter off its initial value, so that norms, biases and attention all matter.
  void perturb(double scale) {
    for (Param& p : gpt.params.all()) {
      const Philox random(5, p.name);
      if (p.name.ends_with("attn.s") || p.name.ends_with("attn.b")) continue;
      with_float_type(p.master.dtype, [&]<class T>() {
        for (int64_t i = 0; i < p.count(); ++i)
          p.master.as<T>()[i] =
              T(p.master.as<T>()[i] + static_cast<Wide<T>>(scale * random.normal(static_cast<uint64_t>(i))));
      });
    }
    gpt.params.round_values(ctx);
  }

  // Mean loss of a forward pass.
  double loss() {
    gpt_forward(ctx, gpt, pass, acts, ids);
    gpt_losses(ctx, gpt, acts, targets);
    return mean_of_losses();
  }
  // The same, with the gradients of the mean added.
  double loss_and_gradients() {
    gpt_forward(ctx, gpt, pass, acts, ids);
    gpt_backward(ctx, gpt, pass, acts, ids, targets, 1.0 / static_cast<double>(pass.N()));
    return mean_of_losses();
  }

  std::vector<double> logits() {
    gpt_forward(ctx, gpt, pass, acts, ids);
    Tensors t;
    Tensor all = t.poisoned({pass.N(), gpt.config.vocab_size}, wide(gpt.dtype));
    Context own;
    prepare(own, [&] { gpt_logits(own, gpt, all, acts.norm); });
    gpt_logits(own, gpt, all, acts.norm);
    return Tensors::to_doubles(all);
  }

  Context ctx;
  Gpt gpt;
  Gpt::Arenas arenas{Device::cpu};
  Pass pass;
  GptActs acts;
  Tensor ids, targets;

 private:
  double mean_of_losses() {
    double sum = 0;
    for (const double loss : Tensors::to_doubles(acts.losses)) sum += loss;
    return sum / static_cast<double>(pass.N());
  }
};

}  // namespace keen::testing
