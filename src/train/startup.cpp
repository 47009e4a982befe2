#include "train/startup.h"

#include <oneapi/dnnl/dnnl_version.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "core/console.h"
#include "core/cuda.h"
#include "core/parallel.h"
#include "core/version.h"
#include "io/file.h"
#include "train/disk.h"
#include "train/summary.h"

namespace keen {

namespace {

// On CUDA, by whose kernels: " (cuDNN)", " (flash kernels)". Where cuDNN was wanted, also why it is not.
std::string attention_kernels(const StartupFacts& facts) {
  const Trainer& trainer = facts.trainer;
  if (trainer.device() == Device::cpu) return "";
  if (trainer.attention_path() == ops::AttentionPath::cudnn) return " (cuDNN)";
  if (trainer.attention_path() == ops::AttentionPath::reference) return " (reference kernels)";
  // Where there is no CUDA at all, a reason about cuDNN would lead astray.
  if (facts.config.attention_path == AttentionPath::flash || !kCudaBuilt) return " (flash kernels)";
  return fmt::format(
      " (flash kernels; cuDNN is not used: {})",
      ops::cudnn_refusal(trainer.device(), trainer.gpt.dtype, trainer.gpt.config.head_width()));
}

std::string data_summary(const Dataset& data, int64_t context) {
  return fmt::format("{} tokens in {} shard{}, {} windows", short_count(static_cast<double>(data.tokens())),
                     data.shards().size(), data.shards().size() == 1 ? "" : "s",
                     with_commas(SequentialWindows(data, context).count()));
}

// What computes, for people. Nothing of a GPU is asked where a run is only planned: there may be none.
std::string processor(const StartupFacts& facts) {
  if constexpr (kCudaBuilt)
    if (facts.trainer.device() == Device::cuda && facts.gemm_flops_per_s > 0)
      return cuda::device_facts().name;
  const int threads = omp_get_max_threads();
  return fmt::format("{} thread{}", threads, threads == 1 ? "" : "s");
}

// Null on the CPU.
Json gpu_json(const StartupFacts& facts) {
  if constexpr (kCudaBuilt) {
    if (facts.trainer.device() == Device::cuda) {
      const cuda::DeviceFacts gpu = cuda::device_facts();
      return {{"name", gpu.name},
              {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
              {"multiprocessors", gpu.multiprocessors},
              {"memory_bytes", gpu.memory_bytes},
              {"driver", gpu.driver},
              {"cuda", gpu.runtime}};
    }
  }
  return nullptr;
}

}  // namespace

int64_t total_bytes(const std::vector<MemoryUse>& uses) {
  int64_t bytes = 0;
  for (const MemoryUse& use : uses) bytes += use.beside_device ? 0 : use.bytes;
  return bytes;
}

std::string memory_summary(const std::vector<MemoryUse>& uses) {
  std::string text = short_bytes(total_bytes(uses)) + ":", beside;
  for (const MemoryUse& use : uses) {
    const std::string part = fmt::format("{} {}", use.category, short_bytes(use.bytes));
    if (use.beside_device)
      beside += fmt::format("; {} of the host", part);
    else
      text += (text.ends_with(':') ? " " : ", ") + part;
  }
  return text + beside;
}

std::string startup_table(const StartupFacts& facts) {
  const RunConfig& config = facts.config;
  const ModelConfig& model = config.model;
  const Gpt& gpt = facts.trainer.gpt;
  const int64_t T = model.context;
  Facts table;
  table.add("run", facts.run);
  table.add("model", model_summary(model));
  table.add("attention", attention_summary(model.attention) + attention_kernels(facts));
  add_training_facts(table, config, gpt, facts.ranks);
  table.add("data", data_summary(facts.train, T) +
                        fmt::format(" ({:.2f} epochs)",
                                    static_cast<double>(config.schedule.steps) *
                                        static_cast<double>(config.batch.sequences) /
                                        static_cast<double>(SequentialWindows(facts.train, T).count())));
  table.add("validation", facts.validation == nullptr ? "none" : data_summary(*facts.validation, T));
  const std::string rate =
      facts.gemm_flops_per_s > 0 ? fmt::format(", GEMM {:.0f} GFLOP/s", facts.gemm_flops_per_s / 1e9) : "";
  table.add("device", fmt::format("{}, {}, {}{}", name_of(facts.trainer.device()), name_of(gpt.dtype),
                                  processor(facts), rate));
  table.add("memory", memory_summary(facts.trainer.memory()));
  return table.str(2);
}

std::string dry_run_report(const StartupFacts& facts) {
  const Gpt& gpt = facts.trainer.gpt;
  const DiskNeed disk = disk_need(facts.config, gpt.params, wide(gpt.dtype));
  Table memory({"memory", "bytes", ""});
  for (const MemoryUse& use : facts.trainer.memory())
    memory.add({use.category, with_commas(use.bytes),
                short_bytes(use.bytes) + (use.beside_device ? " of the host" : "")});
  const int64_t total = total_bytes(facts.trainer.memory());
  memory.add({"total", with_commas(total), short_bytes(total)});
  Table numbers;
  numbers.add({"tokens a step", with_commas(facts.trainer.tokens_per_step())});
  numbers.add({"FLOPs a token", with_commas(static_cast<int64_t>(gpt.flops_per_token(gpt.config.context)))});
  numbers.add({"one checkpoint, bytes", with_commas(disk.checkpoint_bytes)});
  numbers.add({"disk for checkpoints, bytes", with_commas(disk.checkpoints * disk.checkpoint_bytes)});
  numbers.add({"disk for the log, bytes", with_commas(disk.log_bytes)});
  numbers.add({"disk that is free, bytes", with_commas(free_bytes(facts.run))});
  return fmt::format(
      "{}\nEffective config\n\n{}\nParameters\n\n{}\nMemory that keen allocates (the GEMM library's code "
      "and caches come beside it)\n\n{}\nArithmetic\n\n{}",
      startup_table(facts), effective_config(facts.config), parameter_table(gpt).str(2), memory.str(2),
      numbers.str(2));
}

Json environment_json(const StartupFacts& facts) {
  Json memory = Json::object();
  for (const MemoryUse& use : facts.trainer.memory()) memory[use.category] = use.bytes;
  return {{"keen", kVersion},
          {"revision", kRevision},
          {"compiler", kCompiler},
          {"onednn", fmt::format("{}.{}.{}", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH)},
          {"device", name_of(facts.trainer.device())},
          {"gpu", gpu_json(facts)},
          {"precision", name_of(facts.trainer.gpt.dtype)},
          {"attention_path", ops::name_of(facts.trainer.attention_path())},
          {"cores", std::thread::hardware_concurrency()},
          {"threads", omp_get_max_threads()},
          {"ranks", facts.ranks},
          {"gemm_flops_per_s", facts.gemm_flops_per_s},
          {"parameters", facts.trainer.gpt.params.count()},
          {"flops_per_token", facts.trainer.gpt.flops_per_token(facts.config.model.context)},
          {"memory_bytes", memory},
          {"data",
           {{"train",
             {{"pattern", facts.train.pattern()},
              {"tokens", facts.train.tokens()},
              {"fingerprint", facts.train.fingerprint()}}},
            {"validation", facts.validation == nullptr
                               ? Json()
                               : Json{{"pattern", facts.validation->pattern()},
                                      {"tokens", facts.validation->tokens()},
                                      {"fingerprint", facts.validation->fingerprint()}}}}}};
}

}  // namespace keen
