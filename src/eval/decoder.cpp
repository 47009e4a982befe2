#include "eval/decoder.h"

#include <algorithm>

#include "train/trainer.h"

namespace keen {

Tokenizer open_tokenizer(std::string_view command, const std::string& path, const RunConfig& config) {
  if (path.empty() && !config.data.tokenizer)
    fail(Exit::data, "{}: the run's config names no data.tokenizer; give one with --tokenizer FILE.model",
         command);
  Tokenizer tokenizer(path.empty() ? *config.data.tokenizer : path);
  if (tokenizer.vocab_size() > config.model.vocab_size)
    fail(Exit::data, "{}: the tokenizer has {} pieces, the model {}; they do not belong together", command,
         tokenizer.vocab_size(), config.model.vocab_size);
  return tokenizer;
}

int64_t texts_together(const RunConfig& config, int64_t context, int64_t most) {
  return std::clamp<int64_t>(config.batch.micro_sequences * config.model.context / context, 1, most);
}

Decoder::Decoder(const LoadedConfig& from, int64_t B, int64_t capacity, bool keep_queries)
    : ctx(resolve_device(from.config.device)),
      gpt(from.config.model, resolve_precision(from.config.precision, ctx.device)),
      arenas(ctx.device) {
  plan_and_allocate(
      ctx, arenas,
      [&] {
        gpt.bind(false, capacity, arenas);
        generator = std::make_unique<Generator>(ctx, gpt, B, capacity, arenas.activations, keep_queries);
      },
      [&] { gpt.params.round_values(ctx); });
  fill_tables(gpt.config, gpt.tables);
  gpt.params.initialize(static_cast<uint64_t>(from.config.seed));
  loaded =
      load_weights(from.checkpoint, gpt.params, Match::by_name, scales_set_anew(from.checkpoint, gpt.config));
  gpt.params.round_values(ctx);
}

}  // namespace keen
