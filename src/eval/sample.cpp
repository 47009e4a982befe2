#include "eval/sample.h"

#include <algorithm>
#include <chrono>

#include "eval/decoder.h"
#include "eval/utf8_pieces.h"

namespace keen {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The tokens of every prompt; of an empty one the end of the document before.
std::vector<std::vector<int32_t>> encode_prompts(const SampleOptions& options, const Tokenizer& tokenizer,
                                                 const ModelConfig& model) {
  std::vector<std::vector<int32_t>> all;
  for (size_t i = 0; i < options.prompts.size(); ++i) {
    std::vector<int32_t>& ids = all.emplace_back(tokenizer.encode(options.prompts[i]));
    if (ids.empty()) ids.push_back(tokenizer.end_of_text());
    if (model.position == PositionKind::learned && std::ssize(ids) > model.context)
      fail(Exit::usage, "sample: prompt {} has {} tokens, and this model learned {} positions; shorten it",
           i + 1, ids.size(), model.context);
  }
  return all;
}

// Draws texts in the slots of a generator: as soon as one is whole, the next one takes its place.
class Sampler {
 public:
  Sampler(Generator& generator, int64_t slots, int64_t capacity, const Tokenizer& tokenizer,
          const SampleOptions& options, const std::vector<std::vector<int32_t>>& prompts,
          const TakePiece& take, SampleReport& report)
      : generator_(generator),
        capacity_(capacity),
        tokenizer_(tokenizer),
        options_(options),
        prompts_(prompts),
        take_(take),
        report_(report),
        random_(options.seed, "sample"),
        slots_(static_cast<size_t>(slots)) {}

  void run() {
    while (go_on_ && (next_ < report_.texts.size() || active() > 0)) {
      const Clock::time_point start = Clock::now();
      begin_texts();
      const Clock::time_point fed = Clock::now();
      continue_texts();
      report_.prefill_s += std::chrono::duration<double>(fed - start).count();
      report_.decode_s += seconds_since(fed);
    }
  }

 private:
  struct Slot {
    std::optional<size_t> text;    // that is being drawn here
    std::optional<size_t> prompt;  // whose tokens the cache begins with, also when its text is whole
    int32_t token = 0;             // drawn, not yet fed
    Utf8Pieces pieces;
  };

  int64_t active() const {
    return std::count_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.text; });
  }

  // Gives free slots to the texts that come next, and draws the first token of each. The tokens of a prompt
  // go through the model once: its other samples take copies of the cache.
  void begin_texts() {
    std::vector<size_t> begun, fed;
    std::vector<Generator::Feed> feeds;
    for (size_t i = 0; i < slots_.size() && next_ < report_.texts.size(); ++i) {
      if (slots_[i].text) continue;
      const size_t prompt = report_.texts[next_].prompt;
      begun.push_back(i);
      slots_[i].text = next_++;
      slots_[i].pieces = {};
      if (prompt == known_.prompt) {
        take_prefix(i, prompt);  // now: a feed below may take the slot that it lies in
        continue;
      }
      if (!fed.empty() && slots_[fed.back()].prompt == prompt) continue;
      slots_[i].prompt = prompt;
      generator_.truncate(static_cast<int64_t>(i), 0);
      fed.push_back(i);
      feeds.push_back({static_cast<int64_t>(i), prompts_[prompt]});
      report_.prompt_tokens += std::ssize(prompts_[prompt]);
    }
    if (!feeds.empty()) generator_.feed(feeds);
    size_t at = 0;  // of the next feed
    for (const size_t i : begun) {
      const size_t prompt = report_.texts[*slots_[i].text].prompt;
      if (at < fed.size() && fed[at] == i) {
        const auto logits = generator_.logits(at++);
        known_ = {prompt, i, {logits.begin(), logits.end()}};
      } else if (slots_[i].prompt != prompt) {
        take_prefix(i, prompt);
      }
      draw(i, known_.logits);
    }
  }

  // The cache of slot i will begin with the known prompt, as it may from an earlier sample.
  void take_prefix(size_t i, size_t prompt) {
    const auto slot = static_cast<int64_t>(i);
    const int64_t tokens = std::ssize(prompts_[prompt]);
    if (slots_[i].prompt == prompt)
      generator_.truncate(slot, tokens);
    else
      generator_.copy_prefix(static_cast<int64_t>(known_.slot), slot, tokens);
    slots_[i].prompt = prompt;
  }

  void continue_texts() {
    std::vector<size_t> fed;
    std::vector<Generator::Feed> feeds;
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (!slots_[i].text) continue;
      fed.push_back(i);
      feeds.push_back({static_cast<int64_t>(i), {&slots_[i].token, 1}});
    }
    if (feeds.empty() || !go_on_) return;
    generator_.feed(feeds);
    for (size_t at = 0; at < fed.size(); ++at) draw(fed[at], generator_.logits(at));
  }

  // Draws the next token of the text in slot i, and ends the text where it ends.
  void draw(size_t i, std::span<const double> logits) {
    Slot& slot = slots_[i];
    SampledText& text = report_.texts[*slot.text];
    const double uniform =
        random_.uniform(static_cast<uint64_t>(text.tokens.size()), static_cast<uint64_t>(text.sample));
    const ChosenToken chosen =
        choose_token(logits.first(static_cast<size_t>(tokenizer_.vocab_size())), options_.sampling, uniform);
    std::string piece;
    bool whole = true;
    if (chosen.id == tokenizer_.end_of_text()) {
      text.end = TextEnd::end_of_text;
    } else {
      text.tokens.push_back(chosen.id);
      text.logprobs.push_back(chosen.logprob);
      ++report_.tokens;
      slot.token = chosen.id;
      piece = slot.pieces.add(tokenizer_.decode({&chosen.id, 1}));
      whole = std::ssize(text.tokens) == options_.tokens;
      if (!whole && generator_.length(static_cast<int64_t>(i)) == capacity_) {
        text.end = TextEnd::context;  // only learned positions end before the tokens asked for
        whole = true;
      }
    }
    if (whole) piece += slot.pieces.finish();
    text.text += piece;
    go_on_ = take_(*slot.text, piece, whole) && go_on_;
    if (whole) slot.text.reset();
  }

  Generator& generator_;
  int64_t capacity_;
  const Tokenizer& tokenizer_;
  const SampleOptions& options_;
  const std::vector<std::vector<int32_t>>& prompts_;
  const TakePiece& take_;
  SampleReport& report_;
  Philox random_;
  std::vector<Slot> slots_;
  size_t next_ = 0;  // text
  bool go_on_ = true;
  // The prompt that was fed last: where its tokens are cached, and the logits that follow them.
  struct {
    std::optional<size_t> prompt;
    size_t slot = 0;
    std::vector<double> logits;
  } known_;
};

}  // namespace

SampleReport sample_texts(const std::string& checkpoint, const SampleOptions& options,
                          const TakePiece& take) {
  check(!options.prompts.empty() && options.samples >= 1 && options.tokens >= 1 && options.batch >= 1,
        "sample_texts: at least one of everything");
  const LoadedConfig loaded = load_checkpoint_config(checkpoint, options.sets, options.rope_theta);
  const ModelConfig& model = loaded.config.model;
  const Tokenizer tokenizer = open_tokenizer("sample", options.tokenizer, loaded.config);
  const std::vector<std::vector<int32_t>> prompts = encode_prompts(options, tokenizer, model);

  SampleReport report{.step = loaded.checkpoint.step, .texts = {}, .context = model.context};
  int64_t longest = 0;
  for (size_t prompt = 0; prompt < prompts.size(); ++prompt) {
    const int64_t tokens = std::ssize(prompts[prompt]);
    longest = std::max(longest, tokens);
    for (int64_t sample = 0; sample < options.samples; ++sample)
      report.texts.push_back({.prompt = prompt,
                              .sample = sample,
                              .prompt_tokens = tokens,
                              .tokens = {},
                              .logprobs = {},
                              .text = {}});
  }
  int64_t capacity = longest + options.tokens;
  if (model.position == PositionKind::learned) capacity = std::min(capacity, model.context);
  const int64_t slots = std::min(options.batch, std::ssize(report.texts));
  Decoder decoder(loaded, slots, capacity);
  Sampler(*decoder.generator, slots, capacity, tokenizer, options, prompts, take, report).run();
  for (const SampledText& text : report.texts)
    if (text.prompt_tokens + std::ssize(text.tokens) > model.context) report.beyond_context = true;
  return report;
}

}  // namespace keen
