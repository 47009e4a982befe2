// keen sample CHECKPOINT
#include "eval/sample.h"

#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/console.h"
#include "io/file.h"
#include "io/json.h"

namespace keen {

namespace {

std::string read_standard_input() { return read_file("/dev/stdin", Exit::usage); }

std::string without_last_newline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

// The prompts of a file: a line each; in a file of JSON lines a string, or an object with "prompt", each.
// Empty lines are left out.
std::vector<std::string> read_prompts(const std::string& path) {
  const bool json = path.ends_with(".jsonl") || path.ends_with(".ndjson");
  std::string text = path == "-" ? read_standard_input() : read_file(path, Exit::usage);
  if (!text.ends_with('\n')) text += '\n';
  std::vector<std::string> prompts;
  int64_t number = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    ++number;
    const std::string line = without_last_newline(text.substr(begin, end + 1 - begin));
    if (line.empty()) continue;
    if (!json) {
      prompts.push_back(line);
      continue;
    }
    const std::string source = fmt::format("{}:{}", path, number);
    Json value = parse_json(line, source, Exit::usage);
    if (value.is_object() && value.contains("prompt")) value = Json(value["prompt"]);
    if (!value.is_string())
      fail(Exit::usage, "{}: should be a JSON string, or an object with the string \"prompt\"", source);
    prompts.push_back(value.get<std::string>());
  }
  if (prompts.empty()) fail(Exit::usage, "--prompts {}: no prompt in it", path);
  return prompts;
}

// Shows texts while they are drawn: the first one that is not whole yet as it grows, the ones behind it as
// soon as it is their turn. On a terminal the prompt stands out, and what would control the terminal does
// not.
class Stream {
 public:
  Stream(const std::vector<std::string>& prompts, int64_t samples)
      : prompts_(prompts),
        samples_(static_cast<size_t>(samples)),
        waiting_(prompts.size() * samples_),
        whole_(waiting_.size()),
        terminal_(isatty(STDOUT_FILENO) != 0),
        colour_(colour_wanted(stdout)) {}

  void take(size_t index, std::string_view piece, bool whole) {
    waiting_[index] += piece;
    whole_[index] = whole;
    if (index != front_) return;
    do {
      // The head of a text appears with its first token: an error before it leaves standard output empty.
      if (!begun_) write_out(head());
      begun_ = true;
      show(waiting_[front_], Style::plain);
      waiting_[front_] = {};
      if (!whole_[front_]) break;
      write_out("\n");
      begun_ = false;
    } while (++front_ < whole_.size() && (whole_[front_] || !waiting_[front_].empty()));
    std::fflush(stdout);
  }

 private:
  std::string head() {
    std::string text;
    if (waiting_.size() > 1) {
      const size_t prompt = front_ / samples_, sample = front_ % samples_;
      std::vector<std::string> place;
      if (prompts_.size() > 1) place.push_back(fmt::format("prompt {} of {}", prompt + 1, prompts_.size()));
      if (samples_ > 1) place.push_back(fmt::format("sample {} of {}", sample + 1, samples_));
      text = (front_ > 0 ? "\n" : "") +
             styled(fmt::format("--- {} ---", fmt::join(place, ", ")), Style::dim, colour_) + "\n";
    }
    return text + styled(harmless(prompts_[front_ / samples_]), Style::bold, colour_);
  }
  void show(const std::string& text, Style style) { write_out(styled(harmless(text), style, colour_)); }
  std::string harmless(const std::string& text) const { return terminal_ ? without_controls(text) : text; }

  const std::vector<std::string>& prompts_;
  size_t samples_;
  std::vector<std::string> waiting_;  // what is drawn and not shown yet
  std::vector<bool> whole_;
  size_t front_ = 0;    // the text that is being shown
  bool begun_ = false;  // its head is
  bool terminal_, colour_;
};

class SampleCommand final : public Command {
 public:
  SampleCommand() : Command("Text from a checkpoint, shown as it is drawn", "sample") {
    add_option("CHECKPOINT", checkpoint_, "A checkpoint or run directory (its newest whole checkpoint)")
        ->required();
    add_option(
        "--prompt", prompts_,
        "What the text begins with (nothing: a new document); may be repeated; - reads one prompt from "
        "standard input, without its last newline")
        ->type_name("TEXT")
        ->allow_extra_args(false);
    add_option("--prompts", prompt_file_,
               "Read a prompt from each line of this file (- for standard input); in a .jsonl file each line "
               "is a JSON string or an object with \"prompt\"")
        ->type_name("FILE");
    add_option("--samples", options_.samples, "Texts of each prompt, each drawn with other random numbers")
        ->check(within(1, 1e6))
        ->type_name("N")
        ->capture_default_str();
    add_option("--tokens", options_.tokens, "Tokens to draw at most")
        ->check(within(1, 1e6))
        ->type_name("N")
        ->capture_default_str();
    options_.sampling = {.temperature = 0.8, .top_k = 0, .top_p = 0.95};
    add_option("--temperature", options_.sampling.temperature,
               "Below 1 safer, above 1 wilder, 0 always the likeliest")
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
    add_option(
        "--batch", options_.batch,
        "Texts that are drawn together: more take more memory and, up to 16 on the CPU, less time; no text "
        "depends on it")
        ->check(within(1, 4096))
        ->type_name("N")
        ->capture_default_str();
    add_option("--tokenizer", options_.tokenizer, "A SentencePiece model, instead of the run's")
        ->type_name("FILE");
    model_.add_to(*this, "model.attention=ssmax");
    add_flag("--json", json_, "Print one JSON document instead of text");
    footer(
        "  keen sample runs/quickstart-ssmax --prompt 'Water' --tokens 100\n"
        "  keen sample runs/quickstart-ssmax --prompt 'Whale' --prompt 'To run' --samples 3\n"
        "  head -1000 story.txt | keen sample runs/quickstart-ssmax --prompt -\n"
        "  keen sample runs/quickstart-ssmax --prompts prompts.txt --json > texts.json");
  }

  void run() override {
    options_.rope_theta = model_.rope_theta();
    options_.sets = model_.sets();
    options_.prompts = all_prompts();
    for (const std::string& prompt : options_.prompts)
      if (prompt.ends_with(' ')) {
        write_warning("a prompt ends in a space; the space belongs to the next word's token, leave it out");
        break;
      }
    const SampleReport report = json_ ? draw_silently() : draw_aloud();
    if (json_) write_out(json_pages(json(report)) + "\n");
    tell(report);
  }

 private:
  std::vector<std::string> all_prompts() {
    std::vector<std::string> all;
    bool read = prompt_file_ == "-";
    for (const std::string& prompt : prompts_) {
      if (prompt == "-" && std::exchange(read, true))
        fail(Exit::usage, "sample: standard input can be read once: give - once");
      all.push_back(prompt == "-" ? without_last_newline(read_standard_input()) : prompt);
    }
    if (!prompt_file_.empty())
      for (std::string& prompt : read_prompts(prompt_file_)) all.push_back(std::move(prompt));
    if (all.empty()) all.emplace_back();
    return all;
  }

  SampleReport draw_aloud() {
    Stream stream(options_.prompts, options_.samples);
    return sample_texts(checkpoint_, options_, [&](size_t index, std::string_view piece, bool whole) {
      stream.take(index, piece, whole);
      return std::ferror(stdout) == 0;  // nobody reads any more
    });
  }

  SampleReport draw_silently() {
    int64_t done = 0;
    Progress progress("sampling", std::ssize(options_.prompts) * options_.samples, "texts");
    return sample_texts(checkpoint_, options_, [&](size_t, std::string_view, bool whole) {
      if (whole) progress.update(++done);
      return true;
    });
  }

  Json json(const SampleReport& report) const {
    Json texts = Json::array();
    for (const SampledText& text : report.texts)
      texts.push_back({{"prompt", options_.prompts[text.prompt]},
                       {"sample", text.sample},
                       {"text", text.text},
                       {"end", name_of(text.end)},
                       {"prompt_tokens", text.prompt_tokens},
                       {"tokens", text.tokens},
                       {"logprobs", text.logprobs}});
    return {{"checkpoint", checkpoint_},
            {"step", report.step},
            {"seed", options_.seed},
            {"temperature", options_.sampling.temperature},
            {"top_k", options_.sampling.top_k},
            {"top_p", options_.sampling.top_p},
            {"prompt_tokens", report.prompt_tokens},
            {"tokens", report.tokens},
            {"prefill_s", report.prefill_s},
            {"decode_s", report.decode_s},
            {"texts", texts}};
  }

  static void tell(const SampleReport& report) {
    const bool ended = std::any_of(report.texts.begin(), report.texts.end(),
                                   [](const SampledText& text) { return text.end == TextEnd::context; });
    if (ended)
      write_warning("the model has learned no more positions: text ends at its training context");
    else if (report.beyond_context)
      write_err(fmt::format("beyond the training context of {} tokens; --rope-theta may help there\n",
                            report.context));
    const double seconds = report.prefill_s + report.decode_s;
    write_err(fmt::format("{}{} in {:.2f} s, {} in {:.2f} s ({} tokens/s)\n",
                          report.texts.size() > 1 ? fmt::format("{} texts: ", report.texts.size()) : "",
                          counted(report.prompt_tokens, "prompt token"), report.prefill_s,
                          counted(report.tokens, "token"), report.decode_s,
                          short_count(static_cast<double>(report.tokens) / seconds)));
  }

  std::string checkpoint_, prompt_file_;
  ModelOptions model_;
  std::vector<std::string> prompts_;
  SampleOptions options_;
  bool json_ = false;
};

}  // namespace

void add_sample_command(CLI::App& app) { add_command<SampleCommand>(app); }

}  // namespace keen
