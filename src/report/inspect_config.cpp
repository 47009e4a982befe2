// keen inspect CONFIG: what a run of it would need, and whether that is there.
#include "comm/communicator.h"
#include "data/dataset.h"
#include "report/inspect_kinds.h"
#include "train/disk.h"
#include "train/gemm_rate.h"
#include "train/startup.h"
#include "train/summary.h"
#include "train/trainer.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

class ConfigInspector {
 public:
  ConfigInspector(const fs::path& path, const InspectOptions& options)
      : options_(options),
        config_(load_run_config(path)),
        gpt_(config_.model, DType::f32),
        result_(begin_inspection("config", path)) {}

  Inspection run() {
    Json& json = result_.json;
    json["config"] = to_json(config_);
    facts_.add("run", fmt::format("runs/{}", config_.name));
    add_model();
    const std::optional<Dataset> train = open_data("data", "train", config_.data.train);
    const std::optional<Dataset> validation =
        config_.data.validation ? open_data("validation", "validation", *config_.data.validation)
                                : std::nullopt;
    if (!config_.data.validation) facts_.add("validation", "none: nothing is evaluated");
    check_tokenizer();
    check_parent();
    plan(train, validation);
    count_computation();
    const DiskNeed disk = disk_need(config_, gpt_.params, wide(dtype_));
    facts_.add("disk", fmt::format("{} for {} checkpoint{} of {}, and the log", short_bytes(disk.bytes()),
                                   disk.checkpoints, disk.checkpoints == 1 ? "" : "s",
                                   short_bytes(disk.checkpoint_bytes)));
    json["checkpoint_bytes"] = disk.checkpoint_bytes;
    json["disk_bytes"] = disk.bytes();
    json["ready"] = missing_.empty();
    json["missing"] = Json(missing_);

    const fs::path path(json["path"].get<std::string>());
    result_.text = title(path, "a valid config", options_) + facts_.str();
    if (!missing_.empty())
      result_.text += heading("what a run would stumble over", options_) + problems_.str();
    if (options_.all) result_.text += "\n" + parameter_table(gpt_).str(0, options_.colour);
    return std::move(result_);
  }

 private:
  void add_problem(const std::string& key, const std::string& what) {
    problems_.add(key, what);
    missing_.push_back(fmt::format("{}: {}", key, what));
  }

  void add_model() {
    facts_.add("model", model_summary(config_.model));
    facts_.add("attention", attention_summary(config_.model.attention));
    add_training_facts(facts_, config_, gpt_, 1);
    const int64_t per_step = config_.batch.sequences * config_.model.context;
    Json& json = result_.json;
    json["parameters"] = gpt_.params.count();
    json["attention"] = write_attention(config_.model.attention, config_.model.context);
    json["tokens_per_step"] = per_step;
    json["tokens"] = per_step * config_.schedule.steps;
    json["flops_per_token"] = gpt_.flops_per_token(config_.model.context);
  }

  // The shards of a pattern, read and checked; what is wrong with them is told at the end.
  std::optional<Dataset> open_data(const char* label, const char* key, const std::string& pattern) {
    try {
      std::optional<Dataset> data(std::in_place, pattern, config_.model.vocab_size);
      const int64_t windows = SequentialWindows(*data, config_.model.context).count();
      const double epochs = static_cast<double>(config_.schedule.steps) *
                            static_cast<double>(config_.batch.sequences) / static_cast<double>(windows);
      facts_.add(label, fmt::format(
                            "{} tokens in {} shard{}, {} windows{}",
                            short_count(static_cast<double>(data->tokens())), data->shards().size(),
                            data->shards().size() == 1 ? "" : "s", with_commas(windows),
                            std::string_view(key) == "train" ? fmt::format(" ({:.2f} epochs)", epochs) : ""));
      result_.json["data"][key] = {{"tokens", data->tokens()},
                                   {"shards", data->shards().size()},
                                   {"windows", windows},
                                   {"fingerprint", data->fingerprint()}};
      return data;
    } catch (const Error& error) {
      facts_.add(label, "not ready");
      result_.json["data"][key] = nullptr;
      add_problem(fmt::format("data.{}", key), error.what());
      return std::nullopt;
    }
  }

  void check_tokenizer() {
    if (!config_.data.tokenizer) return;
    try {
      const Tokenizer tokenizer(*config_.data.tokenizer);
      if (tokenizer.vocab_size() > config_.model.vocab_size)
        fail(Exit::data, "{}: has {} pieces, model.vocab_size is {}", *config_.data.tokenizer,
             tokenizer.vocab_size(), config_.model.vocab_size);
    } catch (const Error& error) {
      add_problem("data.tokenizer", error.what());
    }
  }

  void check_parent() {
    if (!config_.init.from) return;
    try {
      const Checkpoint parent = resolve_checkpoint(*config_.init.from, [](const std::string&) {});
      facts_.add("fork of", fmt::format("{} (optimizer: {}, step: {})", parent.directory.string(),
                                        name_of(config_.init.optimizer), name_of(config_.init.step)));
      result_.json["parent"] = {{"path", parent.directory.string()}, {"step", parent.step}};
      check_match(compare_tensors(parent, gpt_.params, scales_set_anew(parent, config_.model)),
                  Match::by_name, parent);
    } catch (const Error& error) {
      add_problem("init.from", error.what());
    }
  }

  // Memory by category. The real plan needs the data; without it the model's own state is what is known.
  void plan(const std::optional<Dataset>& train, const std::optional<Dataset>& validation) {
    std::vector<MemoryUse> uses;
    try {
      device_ = resolve_device(config_.device);
      dtype_ = resolve_precision(config_.precision, *device_);
      facts_.add("device", fmt::format("{}, {}", name_of(*device_), name_of(dtype_)));
      if (train) {
        const std::unique_ptr<Communicator> comm = make_one_rank();
        uses = Trainer(config_, *train, validation ? &*validation : nullptr, *comm, true).memory();
      }
    } catch (const Error& error) {
      device_.reset();
      add_problem("memory", error.what());
    }
    for (const MemoryUse& use : uses) result_.json["memory_bytes"][use.category] = use.bytes;
    const int64_t state = 4 * gpt_.params.count() * size_of(wide(dtype_));
    if (uses.empty())
      facts_.add("memory", fmt::format("{} for weights, gradients and moments; activations are planned when "
                                       "the data is there",
                                       short_bytes(state)));
    else
      facts_.add("memory", memory_summary(uses));
  }

  // The computation of all steps, and its time at the rate at which the GEMM library multiplies here and now,
  // which is what MFU is a share of. How far below it a run stays, only a run can tell.
  void count_computation() {
    const double flops = result_.json["tokens"].get<double>() * gpt_.flops_per_token(config_.model.context);
    result_.json["flops"] = flops;
    std::string text = fmt::format("{:.3g} FLOPs", flops);
    if (device_) {
      const double rate = measure_gemm_flops_per_s(*device_, dtype_);
      text += fmt::format(": {} at 100% MFU, the {} GFLOP/s that matrix products reach here now",
                          duration(flops / rate), short_count(rate / 1e9));
      result_.json["gemm_flops_per_s"] = rate;
      result_.json["seconds_at_full_mfu"] = flops / rate;
    }
    facts_.add("computation", text);
  }

  const InspectOptions& options_;
  RunConfig config_;
  Gpt gpt_;
  Inspection result_;
  Facts facts_, problems_;
  std::vector<std::string> missing_;  // each names its key
  std::optional<Device> device_;      // none where this machine has it not
  DType dtype_ = DType::f32;
};

}  // namespace

Inspection inspect_config(const fs::path& path, const InspectOptions& options) {
  return ConfigInspector(path, options).run();
}

}  // namespace keen
