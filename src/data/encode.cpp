#include "data/encode.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "core/console.h"
#include "data/dataset_writer.h"
#include "data/tokenizer.h"
#include "io/file.h"

namespace keen {

namespace fs = std::filesystem;

namespace {

struct EncodedPart {
  std::vector<int32_t> ids;           // with an end-of-text id after each document
  std::vector<size_t> document_ends;  // offsets in `ids`, past the end-of-text id
  int64_t text_bytes = 0, invalid_bytes = 0;
};

// Threads that encode parts, each with an encoder of its own. Results come as futures, so that the caller can
// take them in the order of the corpus.
class EncoderPool {
 public:
  EncoderPool(const Tokenizer& tokenizer, const CorpusOptions& options, int threads) {
    for (int i = 0; i < threads; ++i)
      threads_.emplace_back([this, &tokenizer, &options] { work(tokenizer, options); });
  }
  ~EncoderPool() {
    {
      const std::scoped_lock lock(mutex_);
      closed_ = true;
      tasks_.clear();
    }
    ready_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::future<EncodedPart> submit(RawPart part) {
    Task task{std::move(part), {}};
    auto result = task.result.get_future();
    {
      const std::scoped_lock lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    ready_.notify_one();
    return result;
  }

 private:
  struct Task {
    RawPart part;
    std::promise<EncodedPart> result;
  };

  void work(const Tokenizer& tokenizer, const CorpusOptions& options) {
    Encoder encoder(tokenizer);
    for (;;) {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return closed_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      try {
        task.result.set_value(encode(tokenizer, encoder, parse(std::move(task.part), options)));
      } catch (...) {
        task.result.set_exception(std::current_exception());
      }
    }
  }

  static EncodedPart encode(const Tokenizer& tokenizer, Encoder& encoder, const CorpusPart& part) {
    EncodedPart encoded;
    encoded.text_bytes = static_cast<int64_t>(part.text.size());
    encoded.invalid_bytes = part.invalid_bytes;
    encoded.ids.reserve(part.text.size() / 3);
    const std::string_view text = part.text;
    size_t begin = 0;
    for (const size_t end : part.document_ends) {
      encoder.encode(text.substr(begin, end - begin), encoded.ids);
      encoded.ids.push_back(tokenizer.end_of_text());
      encoded.document_ends.push_back(encoded.ids.size());
      begin = end;
    }
    encoder.encode(text.substr(begin), encoded.ids);
    return encoded;
  }

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Task> tasks_;
  bool closed_ = false;
  std::vector<std::thread> threads_;
};

// Sends each document to the train or the validation shards.
class SplitWriter {
 public:
  SplitWriter(const fs::path& directory, TokenWidth width, int64_t shard_tokens, double share)
      : train_(directory, "train", "train", width, shard_tokens),
        validation_(directory, "val", "validation", width, shard_tokens),
        share_(share) {}

  void write(const EncodedPart& part) {
    const std::span<const int32_t> ids = part.ids;
    size_t begin = 0;
    for (const size_t end : part.document_ends) {
      current().write(ids.subspan(begin, end - begin));
      ++(in_validation() ? validation_documents_ : train_documents_);
      begin = end;
    }
    if (begin < ids.size()) current().write(ids.subspan(begin));
  }

  ShardWriter& train() { return train_; }
  ShardWriter& validation() { return validation_; }
  int64_t train_documents() const { return train_documents_; }
  int64_t validation_documents() const { return validation_documents_; }

 private:
  bool in_validation() const {
    const double document = static_cast<double>(train_documents_ + validation_documents_);
    return std::ceil((document + 1) * share_) > std::ceil(document * share_);
  }
  ShardWriter& current() { return in_validation() ? validation_ : train_; }

  ShardWriter train_, validation_;
  double share_;
  int64_t train_documents_ = 0, validation_documents_ = 0;
};

// Shares the tokens of finished validation shards out anew: the first ones to train, the last ones to
// validation.
void split_tokens(const std::vector<fs::path>& from, ShardWriter& train, ShardWriter& validation,
                  double share) {
  std::vector<Shard> shards;
  int64_t total = 0;
  for (const fs::path& path : from) total += shards.emplace_back(path).tokens();
  const int64_t for_validation = std::clamp<int64_t>(std::llround(static_cast<double>(total) * share), 1,
                                                     std::max<int64_t>(total - 1, 1));
  int64_t for_train = total - for_validation;
  std::vector<int32_t> ids;
  for (const Shard& shard : shards)
    for (int64_t begin = 0; begin < shard.tokens();) {
      const int64_t count =
          std::min<int64_t>({int64_t{1} << 20, shard.tokens() - begin, for_train > 0 ? for_train : total});
      ids.resize(static_cast<size_t>(count));
      shard.copy(begin, ids);
      (for_train > 0 ? train : validation).write(ids);
      if (for_train > 0) for_train -= count;
      begin += count;
    }
  train.finish();
  validation.finish();
}

// Runs the whole corpus through the pool, and writes the parts in their order.
EncodeResult encode_all(const EncodeOptions& options, const Tokenizer& tokenizer, Corpus& corpus,
                        SplitWriter& writer) {
  EncodeResult result;
  const size_t threads = options.threads > 0 ? static_cast<size_t>(options.threads)
                                             : std::max(1u, std::thread::hardware_concurrency());
  EncoderPool pool(tokenizer, options.corpus, static_cast<int>(threads));
  Progress progress("Encoding", corpus.total_bytes(), "bytes");
  std::deque<std::future<EncodedPart>> running;
  const auto write_oldest = [&] {
    const EncodedPart part = running.front().get();
    running.pop_front();
    writer.write(part);
    result.info.text_bytes += part.text_bytes;
    result.invalid_bytes += part.invalid_bytes;
  };
  RawPart part;
  while (corpus.next(part)) {
    running.push_back(pool.submit(std::move(part)));
    if (running.size() >= 3 * threads) write_oldest();
    progress.update(corpus.bytes_read());
  }
  while (!running.empty()) write_oldest();
  progress.update(corpus.bytes_read());
  progress.finish();
  return result;
}

}  // namespace

EncodeResult encode_corpus(const EncodeOptions& options) {
  if (!(options.validation >= 0 && options.validation < 1))
    fail(Exit::usage, "--validation {}: a share of the documents from 0 up to, but not including, 1",
         options.validation);
  if (options.shard_tokens < 1 || options.shard_tokens > kMaxShardTokens)
    fail(Exit::usage, "--shard-tokens {}: between 1 and {}, the most that a header can count",
         options.shard_tokens, kMaxShardTokens);
  const Tokenizer tokenizer(options.model);
  Corpus corpus(options.inputs, options.corpus);
  // Everything is found before the directory is cleared; the model may lie in it.
  const std::string model = read_file(options.model, Exit::data, FileKind::regular);
  clear_dataset(options.directory, options.force);

  const TokenWidth width = width_for(tokenizer.vocab_size());
  SplitWriter writer(options.directory, width, options.shard_tokens, options.validation);
  EncodeResult result = encode_all(options, tokenizer, corpus, writer);
  writer.train().finish();
  writer.validation().finish();
  DatasetInfo& info = result.info;
  info.vocab_size = tokenizer.vocab_size();
  info.tokenizer_hash = tokenizer.hash();
  info.end_of_text = tokenizer.end_of_text();
  info.train_documents = writer.train_documents();
  info.validation_documents = writer.validation_documents();
  if (writer.train().tokens() + writer.validation().tokens() == 0)
    fail(Exit::data, "\"{}\": the input holds no text", options.inputs.front());

  ShardWriter* train = &writer.train();
  ShardWriter* validation = &writer.validation();
  std::unique_ptr<ShardWriter> split_train, split_validation;
  if (train->tokens() == 0) {
    split_train =
        std::make_unique<ShardWriter>(options.directory, "train", "train", width, options.shard_tokens);
    split_validation = std::make_unique<ShardWriter>(options.directory, "val_again", "validation", width,
                                                     options.shard_tokens);
    split_tokens(validation->temporary_paths(), *split_train, *split_validation, options.validation);
    result.split_inside_documents = true;
    train = split_train.get();
    validation = split_validation.get();
  }
  publish_dataset(options.directory, info, *train, *validation, model);
  return result;
}

}  // namespace keen
