// A config in few words: the lines about model and batch that start-up and inspect share.
#pragma once

#include <string>

#include "core/console.h"
#include "model/gpt.h"
#include "train/run_config.h"

namespace keen {

// "4 layers x 128, 4 heads (2 kv), rmsnorm/swiglu/rope, context 256".
std::string model_summary(const ModelConfig& model);
// The kinds in the order of the layers: "softmax" where all are, "(softmax, ssmax x2) x4" where they repeat,
// a last repetition that is cut short behind it, and with the numbers of the layers, "ssmax 0-5, softmax 6,
// ssmax 7-11", where nothing repeats or that is shorter.
std::string attention_summary(const std::vector<LayerAttention>& layers);
// Parameters, batch arithmetic and schedule, a line each.
void add_training_facts(Facts& facts, const RunConfig& config, const Gpt& gpt, int64_t ranks);

// Every parameter with shape and weight decay, those of a name that differ in the layer alone in one row.
Table parameter_table(const Gpt& gpt);
// "blocks.7.attn.s" as "blocks.*.attn.s".
std::string folded_name(const std::string& name);

}  // namespace keen
