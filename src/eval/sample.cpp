#include "eval/sample.h"

#include <chrono>
#include <memory>

#include "data/tokenizer.h"
#include "eval/checkpoint_config.h"
#include "train/trainer.h"

namespace keen {

namespace {

using Clock = std::chrono::steady_clock;

Tokenizer open_tokenizer(const SampleOptions& options, const RunConfig& config) {
  if (!options.tokenizer.empty()) return Tokenizer(options.tokenizer);
  if (!config.data.tokenizer)
    fail(Exit::data,
         "sample: the run's config names no data.tokenizer; give one with --tokenizer FILE.model");
  return Tokenizer(*config.data.tokenizer);
}

}  // namespace

SampleReport sample_text(const std::string& checkpoint, const SampleOptions& options,
                         const std::function<void(std::string_view)>& write) {
  const LoadedConfig loaded = load_checkpoint_config(checkpoint, options.sets);
  const RunConfig& config = loaded.config;
  const Tokenizer tokenizer = open_tokenizer(options, config);
  if (tokenizer.vocab_size() > config.model.vocab_size)
    fail(Exit::data, "sample: the tokenizer has {} pieces, the model {}; they do not belong together",
         tokenizer.vocab_size(), config.model.vocab_size);
  std::vector<int32_t> ids = tokenizer.encode(options.prompt);
  if (ids.empty()) ids.push_back(tokenizer.end_of_text());

  const int64_t wanted = std::ssize(ids) + options.tokens;
  const bool limited = config.model.position == PositionKind::learned && wanted > config.model.context;
  const int64_t capacity = limited ? config.model.context : wanted;
  if (std::ssize(ids) > capacity)
    fail(Exit::usage,
         "sample: the prompt has {} tokens, and this model learned {} positions; shorten the prompt",
         ids.size(), capacity);
  const Device device = resolve_device(config.device);
  Context ctx(device);
  Gpt gpt(config.model, resolve_precision(config.precision, device));
  Gpt::Arenas arenas(device);
  std::unique_ptr<Generator> generator;
  plan_and_allocate(
      ctx, arenas,
      [&] {
        gpt.bind(false, capacity, arenas);
        generator = std::make_unique<Generator>(ctx, gpt, capacity, arenas.activations);
      },
      [&] { gpt.params.round_values(ctx); });
  fill_tables(config.model, gpt.tables);
  gpt.params.initialize(static_cast<uint64_t>(config.seed));
  load_weights(loaded.checkpoint, gpt.params, Match::by_name, scales_set_anew(loaded.checkpoint, gpt.config));
  gpt.params.round_values(ctx);

  const Philox random(options.seed, "sample");
  SampleReport report{.prompt_tokens = std::ssize(ids)};
  const Clock::time_point start = Clock::now();
  std::span<const double> logits = generator->feed(ids);
  const Clock::time_point fed = Clock::now();
  while (report.tokens < options.tokens) {
    const int32_t id = choose_token(logits.first(static_cast<size_t>(tokenizer.vocab_size())),
                                    options.sampling, random.uniform(static_cast<uint64_t>(report.tokens)));
    if (id == tokenizer.end_of_text()) break;
    ++report.tokens;
    write(tokenizer.decode({&id, 1}));
    if (generator->length() == capacity) {  // only learned positions end before the tokens asked for
      report.reached_context = true;
      break;
    }
    if (report.tokens < options.tokens) logits = generator->feed({&id, 1});
  }
  report.prefill_s = std::chrono::duration<double>(fed - start).count();
  report.decode_s = std::chrono::duration<double>(Clock::now() - fed).count();
  return report;
}

}  // namespace keen
