#include "train/forward_model.h"

#include "core/copy.h"

namespace keen {

namespace {

// Ids as the host writes them: in place where the tensor lies in host memory, else in a copy that is sent.
class HostIds {
 public:
  explicit HostIds(Tensor ids) : ids_(ids), on_host_(ids) {
    if (ids.device == Device::cpu) return;
    copy_.resize(static_cast<size_t>(ids.count()));
    on_host_.device = Device::cpu;
    on_host_.data = reinterpret_cast<std::byte*>(copy_.data());
  }
  int32_t* data() { return on_host_.as<int32_t>(); }
  void send() {
    if (ids_.device != Device::cpu) copy_now(ids_, on_host_);
  }

 private:
  Tensor ids_, on_host_;
  std::vector<int32_t> copy_;
};

}  // namespace

bool visit_window_losses(const SequentialWindows& windows, int64_t count, Tensor inputs, Tensor targets,
                         const std::function<ConstTensor()>& losses,
                         const std::function<void(int64_t window, std::span<const double> losses)>& visit,
                         const std::function<bool()>& stop, Share share) {
  const int64_t T = windows.context(), B = inputs.count() / T;
  std::vector<double> row(static_cast<size_t>(T));
  HostIds host_inputs(inputs), host_targets(targets);
  for (int64_t first = share.part * B; first < count; first += share.of * B) {
    if (stop && stop()) return false;
    for (int64_t b = 0; b < B; ++b)
      windows.window(std::min(first + b, count - 1), host_inputs.data() + b * T, host_targets.data() + b * T);
    host_inputs.send();
    host_targets.send();
    const ConstTensor group = losses();
    for (int64_t b = 0; b < std::min(B, count - first); ++b) {
      to_doubles(group.rows(b * T, (b + 1) * T), row);
      visit(first + b, row);
    }
  }
  return true;
}

bool visit_model_losses(Context& ctx, const Gpt& gpt, const Pass& pass, GptActs& acts, Tensor inputs,
                        Tensor targets, const SequentialWindows& windows, int64_t count,
                        const std::function<void(int64_t window, std::span<const double> losses)>& visit,
                        const std::function<bool()>& stop, Share share) {
  return visit_window_losses(
      windows, count, inputs, targets,
      [&]() -> ConstTensor {
        gpt_forward(ctx, gpt, pass, acts, inputs);
        gpt_losses(ctx, gpt, acts, targets);
        return acts.losses;
      },
      visit, stop, share);
}

int64_t windows_of(const SequentialWindows& windows, int64_t groups, int64_t B) {
  return groups > windows.count() / B ? windows.count() : groups * B;
}

ForwardModel::ForwardModel(const ModelConfig& config, Device device, DType dtype, ops::AttentionPath path,
                           int64_t B, int64_t T)
    : gpt(config, dtype),
      ctx_(device),
      arenas_(device),
      pass_{.B = B, .T = T, .tables = &gpt.tables, .path = path} {
  if (gpt.positions != nullptr && T > config.context)
    fail(Exit::usage,
         "context {}: this model has learned positions for {} tokens and cannot read further; use --context "
         "{} or "
         "less",
         T, config.context, config.context);
  plan_and_allocate(
      ctx_, arenas_,
      [this] {
        gpt.bind(false, pass_.T, arenas_);
        acts_ = take_gpt_acts(gpt, pass_, Keep::nothing, arenas_.activations);
        inputs_ = arenas_.activations.take({pass_.N()}, DType::i32);
        targets_ = arenas_.activations.take({pass_.N()}, DType::i32);
      },
      [this] {
        gpt.params.round_values(ctx_);
        gpt_forward(ctx_, gpt, pass_, acts_, inputs_);
        gpt_losses(ctx_, gpt, acts_, targets_);
      });
  fill_tables(config, gpt.tables);
}

LoadReport ForwardModel::load(const Checkpoint& checkpoint, uint64_t seed) {
  gpt.params.initialize(seed);
  LoadReport report =
      load_weights(checkpoint, gpt.params, Match::by_name, scales_set_anew(checkpoint, gpt.config));
  gpt.params.round_values(ctx_);
  return report;
}

bool ForwardModel::visit_losses(
    const SequentialWindows& windows, int64_t count,
    const std::function<void(int64_t window, std::span<const double> losses)>& visit,
    const std::function<bool()>& stop) {
  return visit_model_losses(ctx_, gpt, pass_, acts_, inputs_, targets_, windows, count, visit, stop);
}

}  // namespace keen
