#include "train/trainer.h"

#include <cmath>
#include <numeric>

#include "ops/elementwise.h"
#include "ops/gemm.h"
#include "train/forward_model.h"
#include "train/schedule.h"
#include "train/signals.h"

namespace keen {

Device resolve_device(DeviceChoice choice) {
  if (choice == DeviceChoice::automatic) return kCudaBuilt ? Device::cuda : Device::cpu;
  return choice == DeviceChoice::cuda ? Device::cuda : Device::cpu;
}

DType resolve_precision(Precision precision, Device device) {
  switch (precision) {
    case Precision::fp32:
      return DType::f32;
    case Precision::bf16:
      return DType::bf16;
    case Precision::fp64:
      if (device != Device::cpu)
        fail(Exit::usage, "precision: fp64 runs on the CPU only; set \"device\": \"cpu\"");
      return DType::f64;
    case Precision::automatic:
      return ops::fast_bf16(device) ? DType::bf16 : DType::f32;
  }
  return DType::f32;
}

ops::AttentionPath resolve_attention_path(AttentionPath path, Device device) {
  if (path == AttentionPath::cudnn && device == Device::cpu)
    fail(Exit::usage,
         "attention_path: cudnn needs \"device\": \"cuda\"; on the CPU use auto, flash or reference");
  return path == AttentionPath::reference ? ops::AttentionPath::reference : ops::AttentionPath::fused;
}

Trainer::Trainer(const RunConfig& config, const Dataset& train, const Dataset* validation, Communicator& comm,
                 bool plan_only)
    : gpt(config.model, resolve_precision(config.precision, resolve_device(config.device))),
      config_(config),
      comm_(comm),
      ctx_(resolve_device(config.device)),
      arenas_(ctx_.device),
      loader_(train, config.model.context, static_cast<uint64_t>(config.seed)),
      accumulation_(accumulation(config, comm.size())),
      pass_{.B = config.batch.micro_sequences,
            .T = config.model.context,
            .tables = &gpt.tables,
            .path = resolve_attention_path(config.attention_path, ctx_.device)} {
  if (validation != nullptr) validation_.emplace(*validation, config.model.context);
  for (const Param& p : gpt.params.all())
    segments_.push_back({.begin = p.offset,
                         .end = p.offset + p.count(),
                         .weight_decay = p.decays() ? config.optimizer.weight_decay : 0,
                         .updates = 1,
                         .learned = p.learned});
  state.updates.assign(segments_.size(), 0);
  plan_and_allocate(
      ctx_, arenas_, [this] { bind(); }, [this] { plan_step(); }, !plan_only);
  if (plan_only) return;
  fill_tables(gpt.config, gpt.tables);
  gpt.params.initialize(static_cast<uint64_t>(config.seed));
  weights_changed();
}

void Trainer::bind() {
  gpt.bind(true, gpt.config.context, arenas_);
  const Keep keep = config_.recompute == Recompute::block ? Keep::inputs : Keep::everything;
  acts_ = take_gpt_acts(gpt, pass_, keep, arenas_.activations);
  inputs_ = arenas_.activations.take({pass_.N()}, DType::i32);
  targets_ = arenas_.activations.take({pass_.N()}, DType::i32);
  grad_square_sums_ = arenas_.activations.take({static_cast<int64_t>(segments_.size())}, DType::f64);
}

// Every op that `step` and `validate` call, so that the plan sees the scratch of each.
void Trainer::plan_step() {
  gpt.params.round_values(ctx_);
  gpt_forward(ctx_, gpt, pass_, acts_, inputs_);
  gpt_losses(ctx_, gpt, acts_, targets_);
  gpt_backward(ctx_, gpt, pass_, acts_, inputs_, targets_, 1);
  std::string first_bad;
  grad_norm(first_bad);
  update_weights(0, 1);
}

StepResult Trainer::step() {
  StepResult result{.outcome = StepResult::Outcome::updated,
                    .lr = learning_rate(config_.schedule, config_.optimizer.lr, state.step + 1)};
  const auto reduce = [this](int64_t bucket) { comm_.start_sum(bucket_gradients(bucket)); };

  ops::zero(ctx_, gpt.params.grad());
  for (int64_t micro = 0; micro < accumulation_; ++micro) {
    if (stop_signal() != 0) return {.outcome = StepResult::Outcome::interrupted};
    read_batch(state.sequences + (micro * comm_.size() + comm_.rank()) * pass_.B);
    gpt_forward(ctx_, gpt, pass_, acts_, inputs_);
    gpt_backward(ctx_, gpt, pass_, acts_, inputs_, targets_, 1.0 / static_cast<double>(tokens_per_step()),
                 micro + 1 == accumulation_ ? reduce : std::function<void(int64_t)>());
    result.loss += sum_of_losses() / static_cast<double>(tokens_per_step());
  }
  comm_.finish_sums();
  comm_.sum({&result.loss, 1});

  state.sequences += config_.batch.sequences;
  result.grad_norm = grad_norm(result.first_bad);
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    result.outcome = StepResult::Outcome::non_finite;
    return result;
  }
  update_weights(result.lr, result.grad_norm);
  state.tokens += tokens_per_step();
  ++state.step;
  return result;
}

void Trainer::update_weights(double lr, double norm) {
  for (size_t i = 0; i < segments_.size(); ++i) segments_[i].updates = state.updates[i] + 1;
  const OptimizerConfig& optimizer = config_.optimizer;
  const bool clips = optimizer.grad_clip > 0 && norm > optimizer.grad_clip;
  ops::adamw(ctx_, {.value = gpt.params.master(),
                    .rounded = gpt.params.rounded(),
                    .m = gpt.params.m(),
                    .v = gpt.params.v(),
                    .grad = gpt.params.grad(),
                    .segments = segments_,
                    .lr = lr,
                    .beta1 = optimizer.beta1,
                    .beta2 = optimizer.beta2,
                    .eps = optimizer.eps,
                    .grad_scale = clips ? optimizer.grad_clip / norm : 1});
  if (!ctx_.planning)
    for (size_t i = 0; i < segments_.size(); ++i) state.updates[i] += segments_[i].learned ? 1 : 0;
}

double Trainer::grad_norm(std::string& first_bad) {
  ops::sum_of_squares(ctx_, grad_square_sums_, gpt.params.grad(), segments_);
  if (ctx_.planning) return 1;
  double sum = 0;
  for (size_t i = 0; i < segments_.size(); ++i) {
    const double square = grad_square_sums_.as<double>()[i];
    if (!std::isfinite(square) && first_bad.empty()) first_bad = gpt.params.all()[i].name;
    sum += square;
  }
  return std::sqrt(sum);
}

std::optional<double> Trainer::validate() {
  const SequentialWindows& windows = validation_.value();
  const int64_t count = windows_of(windows, config_.evaluate.batches, pass_.B);
  double sum = 0;
  const bool whole = visit_model_losses(
      ctx_, gpt, pass_, acts_, inputs_, targets_, windows, count,
      [&](int64_t, std::span<const double> losses) {
        sum = std::accumulate(losses.begin(), losses.end(), sum);
      },
      [] { return stop_signal() != 0; });
  if (!whole) return std::nullopt;
  return sum / static_cast<double>(count * pass_.T);
}

void Trainer::read_batch(int64_t first_sequence) {
  loader_.fill(first_sequence, pass_.B, inputs_.as<int32_t>(), targets_.as<int32_t>());
}

double Trainer::sum_of_losses() const {
  const std::vector<double> losses = to_doubles(acts_.losses);
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

Tensor Trainer::bucket_gradients(int64_t bucket) const {
  int64_t begin = -1, end = -1;
  for (const Param& p : gpt.params.all()) {
    if (p.bucket != bucket) continue;
    if (begin < 0) begin = p.offset;
    end = p.offset + p.count();
  }
  return gpt.params.grad().rows(begin, end);
}

std::vector<MemoryUse> Trainer::memory() const {
  return {{"weights", arenas_.weights.size()},
          {"gradients", arenas_.gradients.size()},
          {"optimizer moments", arenas_.moments.size()},
          {"activations", arenas_.activations.size()},
          {"scratch", ctx_.scratch.size()}};
}

}  // namespace keen
