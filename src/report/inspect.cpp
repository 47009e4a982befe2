#include "report/inspect.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "core/console.h"
#include "data/dataset.h"
#include "data/tokenizer.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "model/gpt.h"
#include "report/run.h"
#include "train/checkpoint.h"
#include "train/run_config.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

// "label    value" lines, aligned.
class Facts {
 public:
  void add(const std::string& label, const std::string& value) { table_.add({label, value}); }
  std::string str() const { return table_.str(); }
  Facts() { table_.left_aligned(1); }

 private:
  Table table_;
};

std::string title(const std::string& kind, const fs::path& path, bool colour) {
  return styled(fmt::format("{}: {}", path.string(), kind), Style::bold, colour) + "\n\n";
}

void add_model_facts(Facts& facts, Json& json, const RunConfig& config) {
  const ModelConfig& model = config.model;
  const Gpt gpt(model, DType::f32);
  facts.add("model", fmt::format("{} layers, width {}, {} heads, {} key/value heads, context {}",
                                 model.layers, model.width, model.heads, model.kv_heads, model.context));
  const std::string attention = json_line(write_attention(model.attention, model.context));
  facts.add("attention", shortened(attention, kConsoleWidth - 14));
  facts.add("parameters", with_commas(gpt.params.count()));
  json["parameters"] = gpt.params.count();
  json["attention"] = write_attention(model.attention, model.context);
}

Inspection inspect_config(const fs::path& path, bool colour) {
  const RunConfig config = load_run_config(path);
  Inspection result{
      .json = {{"kind", "config"}, {"path", path.string()}, {"whole", true}}, .text = {}, .problem = {}};
  Facts facts;
  facts.add("name", config.name);
  add_model_facts(facts, result.json, config);
  const int64_t tokens_per_step = config.batch.sequences * config.model.context;
  facts.add("steps", fmt::format("{} of {} tokens, {} in all", with_commas(config.schedule.steps),
                                 with_commas(tokens_per_step),
                                 short_count(static_cast<double>(tokens_per_step) *
                                             static_cast<double>(config.schedule.steps))));
  result.json["config"] = to_json(config);
  result.text = title("a valid config", path, colour) + facts.str();
  return result;
}

double norm_of(const StoredTensor& tensor) {
  double sum = 0;
  with_float_type(tensor.dtype, [&]<class T>() {
    for (size_t at = 0; at < tensor.data.size(); at += sizeof(T)) {
      T x;
      std::memcpy(&x, tensor.data.data() + at, sizeof(T));
      sum += static_cast<double>(x) * static_cast<double>(x);
    }
  });
  return std::sqrt(sum);
}

std::vector<double> values_of(const StoredTensor& tensor) {
  std::vector<double> values;
  with_float_type(tensor.dtype, [&]<class T>() {
    for (size_t at = 0; at < tensor.data.size(); at += sizeof(T)) {
      T x;
      std::memcpy(&x, tensor.data.data() + at, sizeof(T));
      values.push_back(static_cast<double>(x));
    }
  });
  return values;
}

// A line for every layer that has `which` ("s" or "b"), its heads from left to right, twelve a line.
std::string row_scale_table(const StoredTensors& tensors, const std::string& which, Json& json, bool colour) {
  std::map<int64_t, std::vector<double>> layers;
  for (const auto& [name, tensor] : tensors) {
    const std::string end = ".attn." + which;
    if (name.starts_with("blocks.") && name.ends_with(end))
      layers[std::atoll(name.c_str() + 7)] = values_of(tensor);
  }
  if (layers.empty()) return "";
  std::string text =
      "\n" + styled(fmt::format("{} by layer (rows) and head (columns)", which), Style::bold, colour) + "\n";
  Json by_layer = Json::object();
  for (const auto& [layer, values] : layers) {
    by_layer[fmt::format("{}", layer)] = values;
    for (size_t head = 0; head < values.size(); ++head) {
      if (head % 12 == 0) text += (head == 0 ? fmt::format("{:>3} ", layer) : std::string("    "));
      text += fmt::format(" {:5.3f}", values[head]);
      if (head % 12 == 11 || head + 1 == values.size()) text += "\n";
    }
  }
  json[which] = std::move(by_layer);
  return text;
}

// Fills json["tensors"]; a tensor with a number that is not finite shows by its norm.
std::string tensor_table(const StoredTensors& tensors, Json& json, bool colour) {
  Table table({"tensor", "shape", "type", "norm"});
  table.left_aligned(1);
  table.left_aligned(2);
  Json list = Json::array();
  int64_t elements = 0;
  for (const auto& [name, tensor] : tensors) {
    const double norm = norm_of(tensor);
    table.add(
        {name, to_string(tensor.shape), std::string(name_of(tensor.dtype)), fmt::format("{:.4g}", norm)});
    Json shape = Json::array();
    for (int axis = 0; axis < tensor.shape.rank; ++axis) shape.push_back(tensor.shape[axis]);
    list.push_back({{"name", name},
                    {"shape", shape},
                    {"dtype", name_of(tensor.dtype)},
                    {"norm", std::isfinite(norm) ? Json(norm) : Json(nullptr)}});
    elements += tensor.shape.count();
  }
  json["elements"] = elements;
  json["tensors"] = std::move(list);
  std::string text = table.str(0, colour);
  for (const char* which : {"s", "b"}) text += row_scale_table(tensors, which, json, colour);
  return text;
}

Inspection inspect_checkpoint(const fs::path& path, bool colour) {
  const Checkpoint checkpoint = verify_checkpoint(path);
  Inspection result{
      .json = {{"kind", "checkpoint"}, {"path", path.string()}, {"whole", true}}, .text = {}, .problem = {}};
  Facts facts;
  const Json state = parse_json(read_file(checkpoint.file("state.json"), Exit::checkpoint),
                                checkpoint.file("state.json").string(), Exit::checkpoint);
  int64_t bytes = 0;
  for (const CheckpointFile& file : checkpoint.files) bytes += file.size_bytes;
  facts.add("step", with_commas(checkpoint.step));
  if (state.contains("tokens") && state["tokens"].is_number_integer())
    facts.add("tokens", with_commas(state["tokens"].get<int64_t>()));
  facts.add("size", fmt::format("{}, every hash is right", short_bytes(bytes)));
  facts.add("written by", fmt::format("{} rank{}", checkpoint.ranks, checkpoint.ranks == 1 ? "" : "s"));
  const fs::path config = checkpoint.file("config.json");
  result.json["step"] = checkpoint.step;
  result.json["bytes"] = bytes;
  result.json["hash"] = checkpoint.hash;
  result.json["state"] = state;
  add_model_facts(facts, result.json, load_run_config(config));
  const SafetensorsFile model(checkpoint.file("model.safetensors"));
  result.text = title("a whole checkpoint", path, colour) + facts.str() + "\n" +
                tensor_table(model.tensors(), result.json, colour);
  return result;
}

Inspection inspect_tensors(const fs::path& path, bool colour) {
  const SafetensorsFile file(path);
  Inspection result{
      .json = {{"kind", "tensors"}, {"path", path.string()}, {"whole", true}}, .text = {}, .problem = {}};
  const std::string table = tensor_table(file.tensors(), result.json, colour);
  result.text = title(fmt::format("{} tensors, {} elements", file.tensors().size(),
                                  with_commas(result.json["elements"].get<int64_t>())),
                      path, colour) +
                table;
  return result;
}

std::string loss_text(std::optional<double> loss) { return loss ? fmt::format("{:.4f}", *loss) : "-"; }

Inspection inspect_run(const fs::path& path, bool colour) {
  const RunRecord run = read_run(path);
  Inspection result{.json = {{"kind", "run"}, {"path", path.string()}}, .text = {}, .problem = {}};
  Facts facts;
  if (fs::exists(path / "config.json"))
    add_model_facts(facts, result.json, load_run_config(path / "config.json"));
  facts.add("steps", fmt::format("{} of {}", with_commas(run.steps.value_or(0)),
                                 run.planned_steps ? with_commas(*run.planned_steps) : "-"));
  facts.add("tokens", run.tokens ? short_count(static_cast<double>(*run.tokens)) : "-");
  facts.add("time", run.elapsed_s ? duration(*run.elapsed_s) : "-");
  facts.add("validation loss", fmt::format("{} last, {} best", loss_text(run.final_validation()),
                                           loss_text(run.best_validation())));
  if (!run.last_event.empty()) facts.add("last event", run.last_event);
  if (run.parent) facts.add("fork of", *run.parent);
  for (const std::string& problem : run.problems) facts.add("note", problem);

  std::vector<fs::path> directories;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path / "checkpoints", ignored))
    if (step_of_name(entry.path().filename().string()) >= 0) directories.push_back(entry.path());
  std::sort(directories.begin(), directories.end());
  Table table({"checkpoint", "step", "size", "state"});
  table.left_aligned(3);
  Json checkpoints = Json::array();
  std::string damaged;
  for (const fs::path& directory : directories) {
    const std::string name = directory.filename().string();
    int64_t bytes = 0;
    std::string problem;
    try {
      for (const CheckpointFile& file : verify_checkpoint(directory).files) bytes += file.size_bytes;
    } catch (const Error& error) {
      problem = error.what();
      damaged += "\n  " + problem;
    }
    table.add({name, with_commas(step_of_name(name)), bytes > 0 ? short_bytes(bytes) : "-",
               problem.empty() ? "whole" : styled("damaged", Style::red, colour)});
    checkpoints.push_back({{"name", name}, {"whole", problem.empty()}, {"bytes", bytes}});
  }
  result.json["whole"] = damaged.empty();
  result.json["steps"] = run.steps ? Json(*run.steps) : Json(nullptr);
  result.json["final_validation_loss"] =
      run.final_validation() ? Json(*run.final_validation()) : Json(nullptr);
  result.json["checkpoints"] = std::move(checkpoints);
  result.text = title("a run", path, colour) + facts.str() + "\n" +
                (table.empty() ? std::string("No checkpoints yet.\n") : table.str(0, colour));
  if (!damaged.empty())
    result.problem =
        Error(Exit::checkpoint, fmt::format("{}: not every checkpoint is whole:{}", path.string(), damaged));
  return result;
}

Inspection inspect_shard(const fs::path& path, bool colour) {
  const Shard shard(path);
  const ShardScan found = scan(shard, 0);
  Inspection result{.json = {{"kind", "shard"},
                             {"path", path.string()},
                             {"whole", true},
                             {"tokens", shard.tokens()},
                             {"bytes_per_token", static_cast<int>(shard.width())},
                             {"max_id", found.max_id},
                             {"checksum", found.checksum}},
                    .text = {},
                    .problem = {}};
  Facts facts;
  facts.add("tokens", with_commas(shard.tokens()));
  facts.add("bits a token", fmt::format("{}", 8 * static_cast<int>(shard.width())));
  facts.add("largest id", with_commas(found.max_id));
  facts.add("size", short_bytes(shard.file_bytes()));
  facts.add("checksum", found.checksum);
  result.text = title("a whole shard", path, colour) + facts.str();
  return result;
}

Inspection inspect_dataset(const fs::path& path, bool colour) {
  const auto info = read_dataset_info(path);
  if (!info) fail(Exit::data, "{}: no {} in it", path.string(), kDatasetFile);
  Inspection result{.json = {{"kind", "dataset"}, {"path", path.string()}}, .text = {}, .problem = {}};
  Facts facts;
  facts.add("vocabulary", with_commas(info->vocab_size));
  facts.add("text", fmt::format("{}, {} documents to train on, {} to validate", short_bytes(info->text_bytes),
                                with_commas(info->train_documents), with_commas(info->validation_documents)));
  facts.add("tokens", fmt::format("{} to train on, {} to validate", with_commas(info->tokens("train")),
                                  with_commas(info->tokens("validation"))));
  if (info->unigram_loss) facts.add("unigram loss", loss_text(info->unigram_loss) + " nats a token");
  if (info->bigram_loss) facts.add("bigram loss", loss_text(info->bigram_loss) + " nats a token");
  Table table({"shard", "split", "tokens", "size", "state"});
  table.left_aligned(1);
  table.left_aligned(4);
  Json shards = Json::array();
  std::string damaged;
  for (const ShardRecord& record : info->shards) {
    std::string problem;
    try {
      const Shard shard(path / record.file);
      const ShardScan found = scan(shard, info->vocab_size);
      if (found.checksum != record.checksum)
        problem = fmt::format("{}: its checksum is {}, {} records {}", shard.path().string(), found.checksum,
                              kDatasetFile, record.checksum);
      else if (found.bad_index >= 0)
        problem = fmt::format("{}: the token at offset {} is not below the vocabulary of {}",
                              shard.path().string(), shard.offset_of(found.bad_index), info->vocab_size);
    } catch (const Error& error) {
      problem = error.what();
    }
    if (!problem.empty()) damaged += "\n  " + problem;
    table.add({record.file, record.split, with_commas(record.tokens), short_bytes(record.bytes),
               problem.empty() ? "whole" : styled("damaged", Style::red, colour)});
    shards.push_back({{"file", record.file},
                      {"split", record.split},
                      {"tokens", record.tokens},
                      {"whole", problem.empty()}});
  }
  const auto or_null = [](const std::optional<double>& x) { return x ? Json(*x) : Json(nullptr); };
  result.json["whole"] = damaged.empty();
  result.json["vocab_size"] = info->vocab_size;
  result.json["train_tokens"] = info->tokens("train");
  result.json["validation_tokens"] = info->tokens("validation");
  result.json["unigram_loss"] = or_null(info->unigram_loss);
  result.json["bigram_loss"] = or_null(info->bigram_loss);
  result.json["shards"] = std::move(shards);
  result.text = title("a dataset", path, colour) + facts.str() + "\n" + table.str(0, colour);
  if (!damaged.empty())
    result.problem =
        Error(Exit::data, fmt::format("{}: not every shard is whole:{}", path.string(), damaged));
  return result;
}

Inspection inspect_tokenizer(const fs::path& path, bool colour) {
  const Tokenizer tokenizer(path);
  Facts facts;
  facts.add("vocabulary", with_commas(tokenizer.vocab_size()));
  facts.add("end of text", fmt::format("id {}", tokenizer.end_of_text()));
  facts.add("lossless", tokenizer.lossless() ? "yes" : "no: it changes text before cutting it into pieces");
  facts.add("hash", tokenizer.hash());
  return {.json = {{"kind", "tokenizer"},
                   {"path", path.string()},
                   {"whole", true},
                   {"vocab_size", tokenizer.vocab_size()},
                   {"end_of_text", tokenizer.end_of_text()},
                   {"lossless", tokenizer.lossless()},
                   {"hash", tokenizer.hash()}},
          .text = title("a tokenizer", path, colour) + facts.str(),
          .problem = {}};
}

}  // namespace

Inspection inspect(const fs::path& path, bool colour) {
  std::error_code ignored;
  const auto has = [&](std::string_view name) { return fs::exists(path / name, ignored); };
  if (!fs::exists(path, ignored)) fail(Exit::usage, "{}: no such file or directory", path.string());
  if (fs::is_directory(path, ignored)) {
    const fs::path clean = fs::absolute(path).lexically_normal();
    const fs::path name = clean.has_filename() ? clean.filename() : clean.parent_path().filename();
    if (has(kManifestFile) || step_of_name(name.string()) >= 0) return inspect_checkpoint(path, colour);
    if (has(kDatasetFile)) return inspect_dataset(path, colour);
    if (has("metrics.jsonl") || has("config.json")) return inspect_run(path, colour);
    fail(Exit::usage,
         "{}: a directory without manifest.json (a checkpoint), dataset.json (a dataset), metrics.jsonl or "
         "config.json (a run)",
         path.string());
  }
  const std::string extension = path.extension().string();
  if (extension == ".json") return inspect_config(path, colour);
  if (extension == ".bin") return inspect_shard(path, colour);
  if (extension == ".safetensors") return inspect_tensors(path, colour);
  if (extension == ".model") return inspect_tokenizer(path, colour);
  fail(Exit::usage,
       "{}: not a config (.json), shard (.bin), file of tensors (.safetensors) or tokenizer (.model)",
       path.string());
}

}  // namespace keen
