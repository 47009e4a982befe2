// A checkpoint's state.json, as a small model with s and b reads it: what is accepted is written back as it
// was.
#include "model/gpt.h"
#include "target.h"
#include "train/checkpoint.h"

using namespace keen;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Gpt gpt(
      parse_run_config(R"({"data": {"train": "x"}, "model": {"layers": 1, "width": 4, "heads": 1,
                           "attention": "ssmax_bias"}})",
                       "config.json")
          .model,
      DType::f32);
  const auto parse = [](std::string_view text) {
    return fuzz::accepted(Exit::checkpoint,
                          "state.json:", [&] { return parse_state(text, "state.json", gpt.params); });
  };
  const auto state = parse(fuzz::text_of(data, size));
  if (!state) return 0;
  for (const int64_t count : {state->step, state->tokens, state->sequences, state->skipped_steps})
    fuzz::require(count >= 0, "counts are counts");
  fuzz::require(parse(state_text(*state, gpt.params)) == state, "read(write(x)) == x");
  return 0;
}
