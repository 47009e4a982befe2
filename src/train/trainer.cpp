#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <numeric>

#include "core/copy.h"
#include "core/cuda.h"
#include "io/fault.h"
#include "ops/add_sum.h"
#include "ops/elementwise.h"
#include "ops/gemm.h"
#include "train/forward_model.h"
#include "train/schedule.h"
#include "train/signals.h"

namespace keen {

Device resolve_device(DeviceChoice choice) {
  if constexpr (kCudaBuilt && !kCudaEmulated)
    if (choice == DeviceChoice::automatic && cuda::device_count() > 0) return Device::cuda;
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

ops::AttentionPath resolve_attention_path(AttentionPath path, Device device, DType dtype,
                                          int64_t head_width) {
  if (path == AttentionPath::reference) return ops::AttentionPath::reference;
  if (path == AttentionPath::flash) return ops::AttentionPath::fused;
  const std::string refusal = ops::cudnn_refusal(device, dtype, head_width);
  if (refusal.empty()) return ops::AttentionPath::cudnn;
  if (path == AttentionPath::cudnn)
    fail(device == Device::cuda ? Exit::device : Exit::usage,
         "attention_path: cudnn cannot be had: {}; use auto, flash or reference", refusal);
  return ops::AttentionPath::fused;
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
            .path = resolve_attention_path(config.attention_path, ctx_.device, gpt.dtype,
                                           config.model.head_width()),
            .deterministic = config.deterministic} {
  ctx_.time_gemms = config.time_gemms;
  if (validation != nullptr) validation_.emplace(*validation, config.model.context);
  state.updates.assign(gpt.params.all().size(), 0);
  plan_and_allocate(
      ctx_, arenas_, [this] { bind(); }, [this] { plan_step(); }, !plan_only);
  if (plan_only) return;
  if (takes_snapshot()) snapshot.emplace(gpt.params);
  fill_tables(gpt.config, gpt.tables);
  gpt.params.initialize(static_cast<uint64_t>(config.seed));
  weights_changed();
}

void Trainer::bind() {
  const Sharing sharing{.rank = comm_.rank(),
                        .ranks = comm_.size(),
                        .share_out = comm_.size() > 1 && config_.parallel.zero > 0};
  gpt.bind(true, gpt.config.context, arenas_, sharing);
  segments_.clear();
  for (const Param& p : gpt.params.all())
    segments_.push_back({.begin = p.offset + p.first,
                         .end = p.offset + p.first + p.owned,
                         .weight_decay = p.decays() ? config_.optimizer.weight_decay : 0,
                         .updates = 1,
                         .learned = p.learned,
                         .shift = p.shift});
  // What every rank owns is counted once.
  measured_ = segments_;
  for (size_t i = 0; i < measured_.size(); ++i)
    measured_[i].learned &= !sharing.share_out || sharing.rank == 0 || !gpt.params.all()[i].is_vector();
  const Keep keep = config_.recompute == Recompute::block ? Keep::inputs : Keep::everything;
  acts_ = take_gpt_acts(gpt, pass_, keep, arenas_.activations);
  tokens_.bind(pass_.N(), arenas_.activations);
  const auto n = static_cast<int64_t>(segments_.size());
  summed_ = arenas_.activations.take({n + 2}, DType::f64);
  grad_square_sums_ = summed_.rows(0, n);
  loss_ = summed_.rows(n, n + 1);
  stops_ = summed_.rows(n + 1, n + 2);
  clip_ = arenas_.activations.take({2}, DType::f64);
}

// Every op that `step` and `validate` call, so that the plan sees the scratch of each.
void Trainer::plan_step() {
  gpt.params.round_values(ctx_);
  gpt_losses(ctx_, gpt, acts_, tokens_.targets());
  micro_step({});
  measure_gradients();
  update_weights(0);
}

// The host puts a whole step into the device's stream and waits once, at its end, for loss and norm; whether
// they are finite the device sees for itself, before weights change.
StepResult Trainer::step() {
  StepResult result{.outcome = StepResult::Outcome::updated,
                    .lr = learning_rate(config_.schedule, config_.optimizer.lr, state.step + 1)};
  // Of bucket b the matrices are complete; the vectors of all buckets follow as one part.
  const auto reduce = [this](int64_t bucket) { start_sum_of_gradients(1 + bucket); };
  const auto read = [this](int64_t first, int32_t* inputs, int32_t* targets) {
    read_batch(first, inputs, targets);
  };
  const auto first_of = [this](int64_t micro) {
    const int64_t batch = micro / accumulation_ * config_.batch.sequences;
    return state.sequences + batch + (micro % accumulation_ * comm_.size() + comm_.rank()) * pass_.B;
  };

  comm_.at_step(state.step + 1);
  ops::zero(ctx_, gpt.params.grad());
  ops::zero(ctx_, summed_);
  for (int64_t micro = 0; micro < accumulation_; ++micro) {
    if (comm_.size() == 1 && stop_signal() != 0) return {.outcome = StepResult::Outcome::interrupted};
    phase("data");
    const auto waits = std::chrono::steady_clock::now();
    tokens_.next(ctx_, first_of(micro), read);
    result.data_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - waits).count();
    if (comm_.size() > 1 && micro + 1 == accumulation_)
      micro_step(reduce);
    else
      micro_step_.run(ctx_, [this] { micro_step({}); });
    tokens_.prepare(ctx_, first_of(micro + 1), read);
  }
  fault::spoil("loss", loss_);
  fault::spoil("gradients", gpt.params.grad());
  phase("sum");
  if (comm_.size() > 1) {
    start_sum_of_gradients(0);
    comm_.finish(ctx_);
  }

  measure_gradients();
  phase("update");
  update_weights(result.lr);
  gather_values();
  read_result(result);
  state.sequences += config_.batch.sequences;
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    result.outcome = StepResult::Outcome::non_finite;
    return result;
  }
  for (size_t i = 0; i < segments_.size(); ++i) state.updates[i] += segments_[i].learned ? 1 : 0;
  state.tokens += tokens_per_step();
  ++state.step;
  return result;
}

// For tests that kill or signal a run in this part of a step (io/fault.h).
void Trainer::phase(const char* name) const {
  if (!ctx_.planning) fault::moment(name);
}

// Forward and backward over the ids in tokens_: adds to the gradients and to loss_. All that changes from
// step to step lies in memory of the device, so that on CUDA the whole of it can be one graph.
void Trainer::micro_step(const std::function<void(int64_t)>& bucket_done) {
  const auto tokens = static_cast<double>(tokens_per_step());
  phase("forward");
  gpt_forward(ctx_, gpt, pass_, acts_, tokens_.inputs());
  phase("backward");
  gpt_backward(ctx_, gpt, pass_, acts_, tokens_.inputs(), tokens_.targets(), 1.0 / tokens, bucket_done);
  ops::add_sum(ctx_, loss_, acts_.losses, tokens);
}

// Every rank has the sum of its slice then; where it updates the whole, of all slices.
void Trainer::start_sum_of_gradients(int64_t part) {
  const Tensor grad = gpt.params.part(gpt.params.grad(), part);
  if (grad.count() == 0) return;
  const std::string what =
      part == 0 ? "the gradients of the vectors" : fmt::format("the gradients of bucket {}", part - 1);
  comm_.start_sum_slices(ctx_, grad, what);
  if (part == 0 || !shares_out()) comm_.start_gather_slices(ctx_, grad, what);
}

void Trainer::measure_gradients() {
  ops::sum_of_squares(ctx_, grad_square_sums_, gpt.params.grad(), measured_);
  if (comm_.size() > 1 && !ctx_.planning) {
    tell_stop();
    comm_.sum(ctx_, shares_out() ? summed_ : summed_.rows(grad_square_sums_.count(), summed_.count()),
              "the loss and the gradient norm");
  }
  ops::clip_factor(ctx_, clip_, grad_square_sums_, config_.optimizer.grad_clip, loss_);
}

// Does nothing where the norm in clip_ is not finite.
void Trainer::update_weights(double lr) {
  for (size_t i = 0; i < segments_.size(); ++i) segments_[i].updates = state.updates[i] + 1;
  const OptimizerConfig& optimizer = config_.optimizer;
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
                    .clip = clip_});
}

// Host and device exchange the numbers of a step through this: loss, norm, stops, and what this rank adds to
// the last.
Tensor Trainer::result_numbers() {
  if (!result_) result_.emplace(ctx_.device, 4 * int64_t{sizeof(double)}, "the result of a step");
  return result_->as_tensor(4, DType::f64);
}

void Trainer::tell_stop() {
  const double stop = stop_signal() != 0 ? 1 : 0;
  if (ctx_.device == Device::cpu) {
    *stops_.as<double>() = stop;
    return;
  }
  const Tensor numbers = result_numbers();
  numbers.as<double>()[3] = stop;
  copy(ctx_, stops_, numbers.rows(3, 4));
}

// The values that ops read, of what the other ranks have updated.
void Trainer::gather_values() {
  if (!shares_out()) return;
  for (int64_t part = 1; part < gpt.params.parts(); ++part)
    if (const Tensor values = gpt.params.part(gpt.params.values(), part); values.count() > 0)
      comm_.start_gather_slices(ctx_, values, fmt::format("the weights of bucket {}", part - 1));
  comm_.finish(ctx_);
}

void Trainer::weights_changed() {
  gpt.params.round_values(ctx_);
  if (gpt.params.shares_out_masters()) gather_values();
}

bool Trainer::stop_asked() const { return comm_.size() > 1 ? stop_agreed_ : stop_signal() != 0; }

void Trainer::read_result(StepResult& result) {
  if (ctx_.device == Device::cpu) {
    result.loss = *loss_.as<double>();
    result.grad_norm = *clip_.as<double>();
    stop_agreed_ = *stops_.as<double>() > 0;
  } else {
    const Tensor numbers = result_numbers();
    copy(ctx_, numbers.rows(0, 1), loss_);
    copy(ctx_, numbers.rows(1, 2), clip_.rows(0, 1));
    copy(ctx_, numbers.rows(2, 3), stops_);
    result_->mark(ctx_);
    result_->wait();
    result.loss = numbers.as<double>()[0];
    result.grad_norm = numbers.as<double>()[1];
    stop_agreed_ = numbers.as<double>()[2] > 0;
  }
  if (std::isfinite(result.grad_norm)) return;
  const std::vector<double> squares = to_doubles(grad_square_sums_);
  for (size_t i = 0; i < squares.size() && result.first_bad.empty(); ++i)
    if (!std::isfinite(squares[i])) result.first_bad = gpt.params.all()[i].name;
}

std::optional<double> Trainer::validate() {
  const SequentialWindows& windows = validation_.value();
  const int64_t count = windows_of(windows, config_.evaluate.batches, pass_.B);
  double sum = 0;
  const bool whole = visit_model_losses(
      ctx_, gpt, pass_, acts_, tokens_.inputs(), tokens_.targets(), windows, count,
      [&](int64_t, std::span<const double> losses) {
        sum = std::accumulate(losses.begin(), losses.end(), sum);
      },
      [this] { return stop_agreed_ || stop_signal() != 0; }, {.part = comm_.rank(), .of = comm_.size()});
  std::array<double, 2> summed = {sum, whole ? 0.0 : 1.0};
  comm_.sum(summed, "the validation loss");
  if (summed[1] > 0) {
    stop_agreed_ = true;
    return std::nullopt;
  }
  return summed[0] / static_cast<double>(count * pass_.T);
}

void Trainer::read_batch(int64_t first_sequence, int32_t* inputs, int32_t* targets) const {
  loader_.fill(first_sequence, pass_.B, inputs, targets);
}

// A run that saves at its end alone has nothing to do meanwhile.
bool Trainer::takes_snapshot() const {
  const CheckpointConfig& checkpoint = config_.checkpoint;
  const int64_t last = config_.schedule.last_step();
  const auto on_its_way = [last](int64_t step) { return step > 0 && step < last; };
  return comm_.rank() == 0 && checkpoint.background &&
         (on_its_way(checkpoint.every) || std::ranges::any_of(checkpoint.keep_steps, on_its_way));
}

std::vector<MemoryUse> Trainer::memory() const {
  std::vector<MemoryUse> uses = {{"weights", arenas_.weights.size()},
                                 {"gradients", arenas_.gradients.size()},
                                 {"optimizer moments", arenas_.moments.size()},
                                 {"activations", arenas_.activations.size()},
                                 {"scratch", ctx_.scratch.size()}};
  if (takes_snapshot()) uses.push_back({"snapshot", snapshot_bytes(gpt.params), ctx_.device != Device::cpu});
  return uses;
}

}  // namespace keen
