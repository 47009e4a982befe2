// keen sample CHECKPOINT
#include "eval/sample.h"

#include <cstdio>

#include "cli/commands.h"
#include "core/console.h"

namespace keen {

namespace {

class SampleCommand final : public Command {
 public:
  SampleCommand() : Command("Text from a checkpoint, shown as it is drawn", "sample") {
    add_option("CHECKPOINT", checkpoint_, "A checkpoint or run directory (its newest whole checkpoint)")
        ->required();
    add_option("--prompt", options_.prompt, "What the text begins with (nothing: a new document)")
        ->type_name("TEXT");
    add_option("--tokens", options_.tokens, "Tokens to draw at most")
        ->check(within(1, 1e6))
        ->type_name("N")
        ->capture_default_str();
    options_.sampling = {.temperature = 0.8, .top_k = 0, .top_p = 0.95};
    add_option("--temperature", options_.sampling.temperature,
               "Below 1 bolder, above 1 wilder, 0 always the likeliest")
        ->check(within(0, 1e6))
        ->type_name("T")
        ->capture_default_str();
    add_option("--top-k", options_.sampling.top_k, "Draw from the K likeliest tokens only; 0: all")
        ->check(within(0, 1e9))
        ->type_name("K")
        ->capture_default_str();
    add_option("--top-p", options_.sampling.top_p,
               "Draw from the fewest tokens that have this probability together")
        ->check(within(0, 1))
        ->type_name("P")
        ->capture_default_str();
    add_option("--seed", options_.seed, "Equal seeds draw equal text")->type_name("N")->capture_default_str();
    add_option("--tokenizer", options_.tokenizer, "A SentencePiece model, instead of the run's")
        ->type_name("FILE");
    add_option("--device", device_, "cpu or cuda, instead of the run's")->type_name("DEVICE");
    add_option("--precision", precision_, "fp32, bf16 or fp64, instead of the run's")->type_name("TYPE");
    add_option("--set", options_.sets, "Change the config, for example model.attention=ssmax")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    footer("  keen sample runs/quickstart-ssmax --prompt 'Water' --tokens 100");
  }

  void run() override {
    for (const auto& [key, value] : {std::pair{"device", device_}, std::pair{"precision", precision_}})
      if (!value.empty()) options_.sets.push_back(fmt::format("{}={}", key, value));
    bool shown = false;
    const SampleReport report = sample_text(checkpoint_, options_, [&](std::string_view text) {
      // The prompt appears when the first token is there: an error before it leaves standard output empty.
      if (!shown) write_out(options_.prompt);
      shown = true;
      write_out(text);
      std::fflush(stdout);
    });
    write_out("\n");
    if (report.reached_context)
      write_warning("the model has learned no more positions: the text ends at its training context");
    write_err(fmt::format("{} prompt tokens in {:.2f} s, {} tokens in {:.2f} s ({} tokens/s)\n",
                          report.prompt_tokens, report.prefill_s, report.tokens, report.decode_s,
                          short_count(static_cast<double>(report.tokens) / report.decode_s)));
  }

 private:
  std::string checkpoint_, device_, precision_;
  SampleOptions options_;
};

}  // namespace

void add_sample_command(CLI::App& app) { add_command<SampleCommand>(app); }

}  // namespace keen
