#include "cli/tokenize.h"

#include "cli/commands.h"
#include "core/console.h"
#include "data/encode.h"
#include "data/tokenizer.h"

namespace keen {

namespace {

// The options that say what a document is, shared by both commands.
class TextOptions {
 public:
  void add_to(CLI::App& app) {
    app.add_option(
           "INPUT", inputs_,
           "Text: files, directories (their .txt, .jsonl and .ndjson files, sorted), quoted patterns, or - "
           "for "
           "standard input. A .jsonl or .ndjson file holds one JSON object a line, any other plain text")
        ->required();
    app.add_option("--documents", documents_,
                   "Where a document of plain text ends: \"file\" (each file is one) or \"blank-line\" "
                   "(blank lines lie "
                   "between them)")
        ->type_name("KIND")
        ->check(CLI::IsMember({"file", "blank-line"}))
        ->capture_default_str();
    field_ = app.add_option(
                    "--field", corpus_.field,
                    "The member of each JSON line that holds the text. When given, standard input is read as "
                    "JSON lines")
                 ->type_name("NAME")
                 ->capture_default_str();
  }
  // For VocabularyOptions and EncodeOptions, which name these members alike.
  template <class Options> void write_to(Options& options) const {
    options.inputs = inputs_;
    options.corpus = corpus_;
    options.corpus.documents =
        documents_ == "file" ? CorpusOptions::Documents::file : CorpusOptions::Documents::blank_line;
    options.corpus.json_stdin = field_->count() > 0;
  }

 private:
  std::vector<std::string> inputs_;
  std::string documents_ = "file";
  CorpusOptions corpus_;
  CLI::Option* field_ = nullptr;
};

class VocabCommand final : public Command {
 public:
  VocabCommand() : Command("Train a SentencePiece BPE vocabulary with byte fallback", "vocab") {
    text_.add_to(*this);
    add_option("--size", options_.size,
               "Pieces in the vocabulary, more than 258: end-of-text, <unk> and the 256 bytes are among them")
        ->type_name("N")
        ->required();
    add_option("--out", model_, "The model file to write")->type_name("FILE.model")->required();
    add_option("--sample-bytes", options_.sample_bytes,
               "Use at most this much text; of a larger corpus, lines spread evenly over it. Training takes "
               "about 20 "
               "times as much memory")
        ->type_name("N")
        ->check(positive())
        ->capture_default_str();
    add_flag("--verbose", options_.verbose, "Show what SentencePiece says while it trains");
    footer(
        "The text is not normalized and spaces are kept, so decoding gives back exactly\n"
        "what was encoded. The same text gives the same model. Sizes that suit: 2048 for\n"
        "10 MB of text, 8192 for 100 MB, 32768 or 50257 for many GB.\n\n"
        "  keen tokenize vocab corpus.txt --size 8192 --out corpus.model\n"
        "  zcat web.jsonl.gz | keen tokenize vocab - --field text --size 32768 \\\n"
        "      --out web.model");
  }

  void run() override {
    text_.write_to(options_);
    options_.model = model_;
    train_vocabulary(options_);
    write_err(fmt::format("Wrote {}: {} pieces. Next: keen tokenize encode INPUT... --model {} --out DIR\n",
                          model_, with_commas(options_.size), model_));
  }

 private:
  TextOptions text_;
  VocabularyOptions options_;
  std::string model_;
};

class EncodeCommand final : public Command {
 public:
  EncodeCommand() : Command("Encode text into the token shards that training reads", "encode") {
    text_.add_to(*this);
    add_option("--model", model_,
               "The SentencePiece model: from \"keen tokenize vocab\", or any other with byte pieces")
        ->type_name("FILE.model")
        ->required();
    add_option(
        "--out", directory_,
        "The directory for train_000000.bin, ..., val_000000.bin, ..., tokenizer.model and dataset.json")
        ->type_name("DIR")
        ->required();
    add_option("--validation", options_.validation,
               "The share of the documents kept for validation, spread evenly over the text; at least one "
               "document when "
               "above 0. A single document is split: its end is kept")
        ->type_name("FRACTION")
        ->capture_default_str();
    add_option("--shard-tokens", options_.shard_tokens, "Tokens in a shard, at most 2147483647")
        ->type_name("N")
        ->capture_default_str();
    add_option("--threads", options_.threads,
               "Threads; 0: one per processor. The output does not depend on it")
        ->type_name("N")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    add_flag("--force", options_.force, "Replace a dataset that is already in DIR");
    footer(
        "Each document is followed by the end-of-text id. Tokens take 2 bytes, or 4 for\n"
        "vocabularies over 65,536. Nothing in DIR looks like data before all of it is there.\n\n"
        "  keen tokenize encode corpus.txt --documents blank-line --model corpus.model \\\n"
        "      --out data/corpus --validation 0.01");
  }

  void run() override {
    text_.write_to(options_);
    options_.model = model_;
    options_.directory = directory_;
    const EncodeResult result = encode_corpus(options_);
    write_err(summary(result));
  }

 private:
  std::string summary(const EncodeResult& result) const {
    const DatasetInfo& info = result.info;
    const int64_t train = info.tokens("train"), validation = info.tokens("validation");
    std::string text = fmt::format(
        "Wrote {}: {} train and {} validation tokens of {} documents in {} shard(s), {:.2f} bytes a token\n",
        directory_, with_commas(train), with_commas(validation),
        with_commas(info.train_documents + info.validation_documents), info.shards.size(),
        static_cast<double>(info.text_bytes) / static_cast<double>(train + validation));
    if (info.bigram_loss)
      text += fmt::format(
          "Loss of counting on the validation tokens: unigram {:.4f}, bigram {:.4f} nats per token\n",
          *info.unigram_loss, *info.bigram_loss);
    if (result.split_inside_documents)
      text += fmt::format(
          "Too few documents to split by document: the last {:g} % of the tokens are for validation\n",
          100 * options_.validation);
    if (result.invalid_bytes > 0)
      text += fmt::format("{} bytes were not UTF-8; they became byte tokens and decode to themselves\n",
                          with_commas(result.invalid_bytes));
    if (!Tokenizer(model_).lossless())
      text += "This model changes text before it encodes it, so decoding may not give back the same text\n";
    return text;
  }

  TextOptions text_;
  EncodeOptions options_;
  std::string model_, directory_;
};

class TokenizeCommand final : public Command {
 public:
  TokenizeCommand() : Command("Train a vocabulary; encode text into token shards; make tasks", "tokenize") {
    require_subcommand(1);
    add_command<VocabCommand>(*this);
    add_command<EncodeCommand>(*this);
    add_task_commands(*this);
  }
  void run() override {}
};

}  // namespace

void add_tokenize_command(CLI::App& app) { add_command<TokenizeCommand>(app); }

}  // namespace keen
