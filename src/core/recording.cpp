#include "core/recording.h"

#include "core/cuda.h"

namespace keen {

void Recording::run(Context& ctx, const std::function<void()>& work) {
  if (ctx.planning || ctx.device == Device::cpu) return work();
  if constexpr (kCudaBuilt) {
    if (runs_++ == 0) return work();
    if (graph_ == nullptr) graph_ = cuda::record_graph(ctx, work);
    cuda::launch_graph(ctx, *graph_);
  }
}

}  // namespace keen
