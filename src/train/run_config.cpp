#include "train/run_config.h"

#include <algorithm>

#include "io/fields.h"

namespace keen {

namespace {

constexpr int64_t kMostSteps = 1'000'000'000;

std::string divisors_of(int64_t n) {
  std::vector<int64_t> low, high;
  for (int64_t d = 1; d * d <= n; ++d)
    if (n % d == 0) {
      low.push_back(d);
      if (d != n / d) high.push_back(n / d);
    }
  low.insert(low.end(), high.rbegin(), high.rend());
  return fmt::format("{}", fmt::join(low, ", "));
}

// The multiples of `unit` around n, as "384 or 512".
std::string multiples_near(int64_t n, int64_t unit) {
  const int64_t below = n / unit * unit;
  return below == 0 ? fmt::format("{}", unit) : fmt::format("{} or {}", below, below + unit);
}

}  // namespace

void DataConfig::fields(Fields& f) {
  f.text("train", train, "a path or glob", "training shards (.bin)").require();
  f.text("validation", validation, "a path or glob",
         "validation shards (.bin); without them nothing is evaluated");
  f.text("tokenizer", tokenizer, "a path", "SentencePiece model of the shards, for sampling and retrieval");
}

void BatchConfig::fields(Fields& f) {
  const auto size = between<int64_t>(1, 1 << 24);
  f.integer("sequences", sequences, size,
            "sequences per update over all ranks; a multiple of micro_sequences x ranks")
      .fix()
      .also_called({"batch_size", "global_batch_size", "total_batch_size"});
  f.integer("micro_sequences", micro_sequences, size,
            "sequences per forward and backward on one rank; sets memory")
      .also_called({"micro_batch_size", "micro_batch", "device_batch_size", "batch_size"});
  f.check([this, &f] {
    f.demand(
        sequences % micro_sequences == 0, {"micro_sequences", "sequences"},
        fmt::format(
            "sequences ({}) should be a multiple of micro_sequences ({}): valid micro_sequences are {}; "
            "or sequences {}",
            sequences, micro_sequences, divisors_of(sequences), multiples_near(sequences, micro_sequences)));
  });
}

void OptimizerConfig::fields(Fields& f) {
  const Range<double> decay = {.low = 0, .high = 1, .high_open = true};
  f.number("lr", lr, at_least(0.0), "peak learning rate of AdamW")
      .also_called({"learning_rate", "max_lr", "peak_lr"});
  f.number("beta1", beta1, decay, "decay of the average of gradients");
  f.number("beta2", beta2, decay, "decay of the average of squared gradients");
  f.number("eps", eps, above(0.0), "added to the root of the second average");
  f.number("weight_decay", weight_decay, at_least(0.0), "decoupled, on matrices and embeddings only")
      .also_called({"wd"});
  f.number("grad_clip", grad_clip, at_least(0.0), "limit of the global gradient norm; 0: no clipping")
      .also_called({"max_grad_norm", "gradient_clip", "gradient_clipping", "clip"});
}

void ScheduleConfig::fields(Fields& f) {
  const auto steps_range = between<int64_t>(1, kMostSteps);
  f.choice("kind", kind, kScheduleNames, "learning rate after the warm-up").fix();
  f.integer("steps", steps, steps_range, "updates of the whole run")
      .also_called({"max_steps", "total_steps", "num_steps", "max_iters", "num_iterations", "iterations"});
  f.integer("warmup_steps", warmup_steps, between<int64_t>(0, kMostSteps),
            "updates until lr is reached, linearly")
      .fix()
      .also_called({"warmup", "warmup_iters", "num_warmup_steps"});
  f.number("final_lr_fraction", final_lr_fraction, between(0.0, 1.0), "lr at the last step, as a part of lr")
      .fix();
  f.number("decay_fraction", decay_fraction, between(0.0, 1.0), "part of steps in which wsd decays").fix();
  f.integer("stop_after", stop_after, steps_range,
            "ends the run at this step and leaves the schedule as it is");
}

void EvaluateConfig::fields(Fields& f) {
  f.integer("every", every, between<int64_t>(0, kMostSteps), "steps between evaluations; 0: never")
      .also_called({"eval_every", "eval_interval", "eval_steps", "val_every"});
  f.integer("batches", batches, between<int64_t>(1, kMostSteps),
            "groups of micro_sequences windows per evaluation");
}

void CheckpointConfig::fields(Fields& f) {
  f.integer("every", every, between<int64_t>(0, kMostSteps), "steps between checkpoints; 0: only at the end")
      .also_called({"save_every", "save_interval", "save_steps", "checkpoint_every"});
  f.integer("keep", keep, between<int64_t>(1, kMostSteps), "newest checkpoints that pruning leaves");
  f.integers("keep_steps", keep_steps, between<int64_t>(1, kMostSteps),
             "steps whose checkpoints are never pruned");
  f.flag("background", background,
         "write checkpoints while training goes on, from a copy in host memory; false: no copy")
      .also_called({"async_save", "async_checkpoint"});
}

void LogConfig::fields(Fields& f) {
  f.integer("every", every, between<int64_t>(1, kMostSteps),
            "steps between console lines; metrics.jsonl has a row for every step")
      .also_called({"log_every", "log_interval", "logging_steps"});
  f.flag("tensorboard", tensorboard,
         "also write event files into the run directory: tensorboard --logdir runs");
}

void InitConfig::fields(Fields& f) {
  f.text("from", from, "a checkpoint or run directory", "parent: the run starts as a fork of it")
      .also_called({"init_from", "load_from", "pretrained"});
  f.choice("optimizer", optimizer, kKeepOrResetNames, "the parent's optimizer state");
  f.choice("step", step, kKeepOrResetNames, "keep: schedule and data order go on where the parent stood");
}

void ParallelConfig::fields(Fields& f) {
  f.integer("zero", zero, between<int64_t>(0, 1),
            "1: optimizer state divided over the ranks (ZeRO-1); 0: whole on each");
  f.integer("timeout_s", timeout_s, between<int64_t>(1, 1'000'000),
            "seconds until a silent rank ends the job");
}

void RunConfig::fields(Fields& f) {
  f.text("name", name, "a name for a directory (no /, no leading dot)", "the run directory is runs/NAME")
      .when_absent("the name of the file without .json", [] {});
  f.integer("seed", seed, at_least<int64_t>(0), "of initial weights and data order")
      .fix()
      .also_called({"random_seed"});
  f.choice("device", device, kDeviceNames, "auto: CUDA where it is built and present");
  f.choice("precision", precision, kPrecisionNames,
           "of activations; auto: bf16 where the device is fast at it")
      .also_called({"dtype", "mixed_precision"});
  f.section("model", model, true);
  f.section("data", data);
  f.section("batch", batch);
  f.section("optimizer", optimizer, true);
  f.section("schedule", schedule);
  f.section("evaluate", evaluate);
  f.section("checkpoint", checkpoint);
  f.section("log", log);
  f.section("init", init);
  f.section("parallel", parallel);
  f.choice("non_finite", non_finite, kNonFiniteNames,
           "what a loss or gradient that is not finite does: ends, or skips");
  f.flag("deterministic", deterministic,
         "bit-identical repetition on CUDA, which costs speed; the CPU always is");
  f.choice("recompute", recompute, kRecomputeNames,
           "block: activations are computed again in backward, to save memory")
      .also_called({"activation_checkpointing", "gradient_checkpointing"});
  f.choice("attention_path", attention_path, kAttentionPathNames, "attention kernel; cudnn needs CUDA");
  f.flag("time_gemms", time_gemms,
         "on CUDA, time the matrix library's algorithms once a shape, and remember the fastest");
  f.check([this, &f] {
    const bool directory = name.find('/') == std::string::npos && name.front() != '.' && name.size() <= 200;
    f.demand(directory, {"name"},
             "should be a name for a directory: no /, no leading dot, at most 200 bytes");
    f.demand(device != DeviceChoice::cpu || attention_path != AttentionPath::cudnn,
             {"attention_path", "device"},
             "attention_path cudnn needs a CUDA device; with device cpu it should be one of auto, flash, "
             "reference");
    f.demand(device != DeviceChoice::cuda || precision != Precision::fp64, {"precision", "device"},
             "precision fp64 runs on the CPU only; with device cuda it should be one of auto, fp32, bf16");
  });
}

RunConfig parse_run_config(std::string_view text, const std::string& source,
                           const std::vector<std::string>& sets, const std::string& name) {
  const Json document = parse_json(text, source, Exit::usage);
  RunConfig config;
  config.name = name;
  Fields fields;
  config.fields(fields);
  fields.read(document, source);
  for (const std::string& assignment : sets) fields.set(assignment);
  fields.finish();
  return config;
}

RunConfig load_run_config(const std::filesystem::path& path, const std::vector<std::string>& sets,
                          FileKind kind) {
  return parse_run_config(read_file(path, Exit::usage, kind), path.string(), sets, path.stem().string());
}

Json to_json(const RunConfig& config) {
  RunConfig copy = config;  // a list of fields is bound to a struct that it may write
  Fields fields;
  copy.fields(fields);
  return fields.write();
}

std::string effective_config(const RunConfig& config) { return json_pages(to_json(config)) + '\n'; }

void check_batch(const RunConfig& config, int64_t ranks) {
  const int64_t sequences = config.batch.sequences, micro = config.batch.micro_sequences;
  if (sequences % (micro * ranks) == 0) return;
  const std::string remedy =
      sequences % ranks == 0
          ? fmt::format("batch.micro_sequences to one of {}", divisors_of(sequences / ranks))
          : fmt::format("the number of ranks to one of {}",
                        divisors_of(std::max<int64_t>(1, sequences / micro)));
  fail(Exit::usage,
       "batch.sequences = {}: should be a multiple of batch.micro_sequences x ranks = {} x {}; set "
       "batch.sequences to "
       "{}, or {}",
       sequences, micro, ranks, multiples_near(sequences, micro * ranks), remedy);
}

int64_t accumulation(const RunConfig& config, int64_t ranks) {
  check_batch(config, ranks);
  return config.batch.sequences / (config.batch.micro_sequences * ranks);
}

std::vector<Difference> differences(const RunConfig& left, const RunConfig& right) {
  RunConfig a = left, b = right;
  Fields x, y;
  a.fields(x);
  b.fields(y);
  return differences(x, y);
}

namespace {

// Whether two spellings name one place; neither has to exist.
bool same_path(const std::filesystem::path& a, const std::filesystem::path& b) {
  const auto clean = [](const std::filesystem::path& path) {
    std::error_code failed;
    const std::filesystem::path whole =
        std::filesystem::weakly_canonical(std::filesystem::absolute(path), failed);
    return ((failed ? path : whole) / "").lexically_normal();
  };
  return clean(a) == clean(b);
}

}  // namespace

std::vector<Difference> fixed_differences(const RunConfig& before, const RunConfig& now) {
  std::vector<Difference> found = differences(before, now);
  const bool other_parent =
      now.init.from && !(before.init.from && same_path(*before.init.from, *now.init.from));
  std::erase_if(found, [&](const Difference& difference) {
    return !difference.fixed && !(other_parent && difference.key == "init.from");
  });
  return found;
}

std::string help_config() {
  RunConfig config;
  Fields fields;
  config.fields(fields);
  return fields.help();
}

}  // namespace keen
