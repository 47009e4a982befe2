// keen inspect DATASET, SHARD or TOKENIZER.
#include <algorithm>

#include "data/dataset.h"
#include "report/inspect_kinds.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

// What is left of a line beside the longest label.
constexpr size_t kTextWidth = kConsoleWidth - 16;

// The tokenizer beside the shards of a dataset, when it is the one that encoded them.
std::optional<Tokenizer> tokenizer_of(const fs::path& directory, const std::optional<DatasetInfo>& info) {
  std::error_code ignored;
  const fs::path model = directory / "tokenizer.model";
  if (!info || !fs::exists(model, ignored)) return std::nullopt;
  try {
    Tokenizer tokenizer(model);
    if (tokenizer.hash() == info->tokenizer_hash) return tokenizer;
  } catch (const Error&) {
    // Damaged: the shards can be told without it.
  }
  return std::nullopt;
}

// How a shard begins: its first tokens, as ids and as text where the tokenizer is there.
void add_beginning(Facts& facts, Json& json, const Shard& shard, const std::optional<Tokenizer>& tokenizer) {
  constexpr int64_t kTokens = 64;
  std::vector<int32_t> ids(static_cast<size_t>(std::min(kTokens, shard.tokens())));
  shard.copy(0, ids);
  json["first_tokens"] = ids;
  if (!tokenizer) {
    facts.add("begins", shortened(fmt::format("{}", fmt::join(ids, " ")), kTextWidth));
    return;
  }
  const bool known = std::all_of(ids.begin(), ids.end(),
                                 [&](int32_t id) { return 0 <= id && id < tokenizer->vocab_size(); });
  if (!known) return;
  const std::string text = tokenizer->decode(ids);
  facts.add("begins", one_line(text, kTextWidth));
  json["first_text"] = text;
}

int64_t count_of(const Shard& shard, int32_t id) {
  int64_t count = 0;
  for (int64_t i = 0; i < shard.tokens(); ++i) count += shard.token(i) == static_cast<uint32_t>(id);
  return count;
}

// What is wrong with a shard that a dataset records; empty when nothing is.
std::string problem_of(const fs::path& directory, const ShardRecord& record, int64_t vocab_size) {
  try {
    const Shard shard(directory / record.file);
    const ShardScan found = scan(shard, vocab_size);
    if (found.checksum != record.checksum)
      return fmt::format("{}: its checksum is {}, {} records {}", shard.path().string(), found.checksum,
                         kDatasetFile, record.checksum);
    if (found.bad_index >= 0)
      return fmt::format("{}: the token at offset {} is not below the vocabulary of {}",
                         shard.path().string(), shard.offset_of(found.bad_index), vocab_size);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

struct CheckedShard {
  const ShardRecord* record;
  std::string problem;
};

// Damaged shards are always shown, of many whole ones the first.
std::string shard_table(const std::vector<CheckedShard>& shards, const InspectOptions& options) {
  Table table({"shard", "split", "tokens", "size", "state"});
  table.left_aligned(1);
  table.left_aligned(4);
  size_t hidden = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const auto& [record, problem] = shards[i];
    if (!options.all && i >= kMostRows && problem.empty()) {
      ++hidden;
      continue;
    }
    table.add({record->file, record->split, with_commas(record->tokens), short_bytes(record->bytes),
               problem.empty() ? "whole" : styled("damaged", Style::red, options.colour)});
  }
  const std::string more = hidden == 0 ? "" : fmt::format("and {} more, whole (--all shows them)\n", hidden);
  return table.str(0, options.colour) + more;
}

void add_dataset_facts(Facts& facts, Json& json, const DatasetInfo& info) {
  facts.add("vocabulary", with_commas(info.vocab_size));
  const int64_t train = info.tokens("train"), validation = info.tokens("validation");
  std::string documents =
                  fmt::format("{} documents to train on, {} to validate", with_commas(info.train_documents),
                              with_commas(info.validation_documents)),
              bytes_each;
  if (info.text_bytes > 0) {  // windows of a task may have none
    documents = fmt::format("{}, {}", short_bytes(info.text_bytes), documents);
    bytes_each = fmt::format(
        " ({:.2f} bytes each)",
        static_cast<double>(info.text_bytes) / static_cast<double>(std::max<int64_t>(1, train + validation)));
  }
  facts.add("text", documents);
  facts.add("tokens", fmt::format("{} to train on, {} to validate{}", with_commas(train),
                                  with_commas(validation), bytes_each));
  if (info.unigram_loss && info.bigram_loss)
    facts.add("counting", fmt::format("unigram {:.4f}, bigram {:.4f} nats a token, on the validation tokens",
                                      *info.unigram_loss, *info.bigram_loss));
  json["vocab_size"] = info.vocab_size;
  json["tokenizer_hash"] = info.tokenizer_hash;
  json["text_bytes"] = info.text_bytes;
  json["train_documents"] = info.train_documents;
  json["validation_documents"] = info.validation_documents;
  json["train_tokens"] = train;
  json["validation_tokens"] = validation;
  json["unigram_loss"] = number_or_null(info.unigram_loss);
  json["bigram_loss"] = number_or_null(info.bigram_loss);
}

}  // namespace

Inspection inspect_dataset(const fs::path& path, const InspectOptions& options) {
  const auto info = read_dataset_info(path);
  if (!info) fail(Exit::data, "{}: no {} in it", path.string(), kDatasetFile);
  Inspection result = begin_inspection("dataset", path);
  Facts facts;
  add_dataset_facts(facts, result.json, *info);
  const std::optional<Tokenizer> tokenizer = tokenizer_of(path, info);
  facts.add("tokenizer", tokenizer ? "tokenizer.model, the one that encoded it"
                                   : "not here: no tokenizer.model, or another one than encoded it");
  result.json["tokenizer"] = tokenizer.has_value();

  std::vector<CheckedShard> shards;
  Json list = Json::array();
  std::string damaged;
  for (const ShardRecord& record : info->shards) {
    const CheckedShard& shard =
        shards.emplace_back(CheckedShard{&record, problem_of(path, record, info->vocab_size)});
    if (!shard.problem.empty()) damaged += "\n  " + shard.problem;
    list.push_back({{"file", record.file},
                    {"split", record.split},
                    {"tokens", record.tokens},
                    {"bytes", record.bytes},
                    {"checksum", record.checksum},
                    {"whole", shard.problem.empty()}});
  }
  result.json["whole"] = damaged.empty();
  result.json["shards"] = std::move(list);
  if (!shards.empty() && shards[0].problem.empty())
    add_beginning(facts, result.json, Shard(path / shards[0].record->file), tokenizer);
  result.text = title(path, "a dataset", options) + facts.str() + "\n" + shard_table(shards, options);
  if (!damaged.empty())
    result.problem =
        Error(Exit::data, fmt::format("{}: not every shard is whole:{}", path.string(), damaged));
  return result;
}

Inspection inspect_shard(const fs::path& path, const InspectOptions& options) {
  const Shard shard(path);
  const ShardScan found = scan(shard, 0);
  const fs::path directory = path.parent_path().empty() ? "." : path.parent_path();
  const std::optional<DatasetInfo> info = read_dataset_info(directory);
  Inspection result = begin_inspection("shard", path);
  Json& json = result.json;
  json["tokens"] = shard.tokens();
  json["bytes_per_token"] = static_cast<int>(shard.width());
  json["max_id"] = found.max_id;
  json["checksum"] = found.checksum;
  Facts facts;
  facts.add("tokens", fmt::format("{}, {} bits each", with_commas(shard.tokens()),
                                  8 * static_cast<int>(shard.width())));
  facts.add("largest id", with_commas(found.max_id));
  facts.add("size", short_bytes(shard.file_bytes()));
  std::string known;
  if (info) {
    const auto record = std::find_if(info->shards.begin(), info->shards.end(), [&](const ShardRecord& r) {
      return r.file == path.filename().string();
    });
    const bool recorded = record != info->shards.end();
    const std::string problem = recorded ? problem_of(directory, *record, info->vocab_size) : "";
    known = !recorded         ? fmt::format(", not in {}", kDatasetFile)
            : problem.empty() ? fmt::format(", as {} records", kDatasetFile)
                              : fmt::format(", not what {} records", kDatasetFile);
    json["whole"] = problem.empty();
    json["recorded"] = recorded;
    if (!problem.empty()) result.problem = Error(Exit::data, problem);
    const int64_t ends = count_of(shard, info->end_of_text);
    facts.add("documents", with_commas(ends));
    json["documents"] = ends;
  }
  facts.add("checksum", found.checksum + known);
  add_beginning(facts, json, shard, tokenizer_of(directory, info));
  result.text = title(path, result.problem ? "a damaged shard" : "a whole shard", options) + facts.str();
  return result;
}

Inspection inspect_tokenizer(const fs::path& path, const InspectOptions& options) {
  const Tokenizer tokenizer(path);
  std::vector<std::string> pieces;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string piece = tokenizer.decode({&id, 1});
    pieces.push_back(piece == "\xef\xbf\xbd" ? "" : piece);  // the unknown piece is none
  }
  // Long pieces show best what the vocabulary was trained on.
  std::vector<size_t> order(pieces.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return pieces[a].size() > pieces[b].size(); });
  std::string longest;
  Json examples = Json::array();
  for (size_t i = 0; i < std::min<size_t>(8, order.size()); ++i) {
    const std::string& piece = pieces[order[i]];
    examples.push_back(piece);
    longest += (i > 0 ? ", " : "") + one_line(piece, 32);
  }
  Facts facts;
  facts.add("vocabulary", with_commas(tokenizer.vocab_size()));
  facts.add("end of text", fmt::format("id {}", tokenizer.end_of_text()));
  facts.add("lossless", tokenizer.lossless() ? "yes" : "no: it changes text before cutting it into pieces");
  facts.add("longest", longest);
  facts.add("hash", tokenizer.hash());
  Inspection result = begin_inspection("tokenizer", path);
  result.json["vocab_size"] = tokenizer.vocab_size();
  result.json["end_of_text"] = tokenizer.end_of_text();
  result.json["lossless"] = tokenizer.lossless();
  result.json["longest_pieces"] = std::move(examples);
  result.json["hash"] = tokenizer.hash();
  result.text = title(path, "a tokenizer", options) + facts.str();
  return result;
}

}  // namespace keen
