#include "train/run.h"

#include "core/build.h"
#include "core/console.h"
#include "io/fault.h"
#include "io/fields.h"
#include "train/disk.h"
#include "train/fork.h"
#include "train/gemm_rate.h"
#include "train/run_loop.h"
#include "train/signals.h"
#include "train/startup.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

bool stopped() { return stop_signal() != 0; }

// A fixed key that changed makes another run of it: refused, with the command that would start that one.
void refuse_other_config(const RunConfig& before, const RunConfig& now, const RunDirectory& directory,
                         const RunOptions& options) {
  const std::vector<Difference> differences = fixed_differences(before, now);
  if (differences.empty()) return;
  std::string lines;
  for (const Difference& d : differences)
    lines += fmt::format("\n  {}: {} in the run, {} now", d.key, d.left, d.right);
  fail(Exit::usage,
       "{}: this run cannot go on with another config:{}\nTo start a new run from its weights:\n  keen train "
       "{} "
       "--run-dir NEW --init-from {}\nTo begin anew: name another --run-dir, or delete {}",
       directory.path().string(), lines, options.config_path, directory.path().string(),
       directory.path().string());
}

// Of several ranks an error of one is the end of all, with its exit code. While what the communicator still
// works on is there: this does not return.
void end_all_ranks(Communicator& comm, const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    keen::end_all_ranks(comm, error.exit, error.what());
  } catch (const std::bad_alloc&) {
    keen::end_all_ranks(comm, Exit::device,
                        "out of memory; lower batch.micro_sequences or model.context, or set \"recompute\": "
                        "\"block\"");
  } catch (const std::exception& error) {
    keen::end_all_ranks(comm, Exit::internal, error.what());
  }
}

// Ranks with another config or other data would train something that nobody asked for.
void check_same_everywhere(Communicator& comm, const RunConfig& config, const Dataset& train,
                           const Dataset* validation) {
  const Device device = resolve_device(config.device);
  const std::string own = fmt::format("{}{}\n{}\n{} {}", effective_config(config), train.fingerprint(),
                                      validation != nullptr ? validation->fingerprint() : "", name_of(device),
                                      name_of(resolve_precision(config.precision, device)));
  std::string of_rank_0 = own;
  comm.broadcast(of_rank_0, "the config of rank 0");
  if (of_rank_0 != own)
    fail(Exit::usage,
         "rank {} has another config, other data, or another device or precision by \"auto\" than rank 0; "
         "every rank must read the same files",
         comm.rank());
}

// What every rank does. `ends_together` tells whether what this raises is raised by all of them.
void train_rank(const RunConfig& config, const RunOptions& options, Communicator& comm, bool& ends_together) {
  const bool leads = comm.rank() == 0;
  check_batch(config, comm.size());
  const Dataset train(config.data.train, config.model.vocab_size, stopped);
  std::optional<Dataset> validation;
  if (config.data.validation) validation.emplace(*config.data.validation, config.model.vocab_size, stopped);
  const Dataset* validation_data = validation ? &*validation : nullptr;
  check_same_everywhere(comm, config, train, validation_data);
  const fs::path path = options.run_dir.empty() ? fs::path("runs") / config.name : options.run_dir;

  if (options.dry_run) {
    const Trainer trainer(config, train, validation_data, comm, true);
    if (!leads) return;
    std::string fork;
    if (config.init.from)
      fork = "\n" + describe(plan_fork(trainer.gpt.params, config, *config.init.from, train, write_warning));
    write_out(dry_run_report({config, trainer, train, validation_data, comm.size(), 0, path.string()}) +
              fork);
    try {
      check_room(disk_need(config, trainer.gpt.params, wide(trainer.gpt.dtype)), path, write_warning);
    } catch (const Error& error) {
      write_warning(error.what());  // the plan itself is no less true
    }
    if (!kCudaBuilt && trainer.device() == Device::cuda)
      write_warning(
          "this build has no CUDA backend, so nothing of this can run here; it is planned for a build that "
          "has "
          "one (cmake -DKEEN_CUDA=ON). To train with this build: --set device=cpu");
    return;
  }
  std::optional<RunDirectory> directory;
  if (leads) {
    const LongWork work(comm, "opening the run's directory");
    directory.emplace(path);
    clean_up_checkpoints(directory->checkpoints(), write_warning);
    if (!directory->is_new()) refuse_other_config(directory->read_config(), config, *directory, options);
  }
  fault::moment("plan");
  Trainer trainer(config, train, validation_data, comm);
  double gemm_flops_per_s = measure_gemm_flops_per_s(trainer.device(), trainer.gpt.dtype);
  comm.sum(std::span(&gemm_flops_per_s, 1), "the GEMM rate");
  const StartupFacts facts{config,      trainer,          train,        validation_data,
                           comm.size(), gemm_flops_per_s, path.string()};
  if (leads) write_out(startup_table(facts) + "\n");
  std::optional<Run> run;
  try {
    run.emplace(config, path, leads ? &*directory : nullptr, comm, trainer, train, validation_data,
                gemm_flops_per_s);
    if (leads) directory->write_environment(environment_json(facts));
    run->train();
  } catch (...) {
    ends_together = run && run->ends_together();
    if (run) run->complete_save();
    if (comm.size() > 1 && !ends_together) end_all_ranks(comm, std::current_exception());
    throw;
  }
}

}  // namespace

void run_training(const RunConfig& config, const RunOptions& options) {
  catch_stop_signals();
  fault::moment("start");
  const std::unique_ptr<Communicator> comm =
      make_communicator(resolve_device(config.device), config.parallel.timeout_s, stopped);
  bool ends_together = false;
  try {
    train_rank(config, options, *comm, ends_together);
  } catch (const Error& error) {
    if (comm->size() > 1 && !ends_together) end_all_ranks(*comm, std::current_exception());
    if (comm->rank() > 0) throw Error(error.exit, "");  // rank 0 speaks for all
    throw;
  } catch (...) {
    if (comm->size() > 1) end_all_ranks(*comm, std::current_exception());
    throw;
  }
}

}  // namespace keen
