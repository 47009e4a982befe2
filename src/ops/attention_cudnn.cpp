#include "ops/attention_cudnn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/console.h"
#include "core/cuda.h"
#include "core/launch.cuh"
#include "ops/attention_cudnn_graph.h"

namespace keen::ops {

namespace {

using cudnn::AttentionShape;

// The library, a handle to it on this context's stream, and the plans that were asked for.
class CudnnAttention : public LibraryState {
 public:
  explicit CudnnAttention(Context& ctx) {
    refusal = cuda::device_count() == 0 ? "there is no CUDA device" : library_.refusal();
    if (!refusal.empty()) return;
    cudnnStatus_t status = library_.create(&handle_);
    if (status == CUDNN_STATUS_SUCCESS) status = library_.set_stream(handle_, cuda::stream_of(ctx));
    if (status != CUDNN_STATUS_SUCCESS)
      refusal = fmt::format("cuDNN does not start: {}", library_.error_string(status));
  }
  ~CudnnAttention() override {
    plans_.clear();
    if (handle_ != nullptr) library_.destroy(handle_);
  }

  // Null when the library has no plan for this shape, which the first time is said on standard error.
  const cudnn::Plan* find(const AttentionShape& shape) {
    auto found = plans_.find(shape);
    if (found == plans_.end()) {
      found = plans_
                  .try_emplace(shape, cudnn::plan(attention_graph(library_, shape), {.handle = handle_},
                                                  attention_workspace_bytes(shape), shape.deterministic))
                  .first;
      if (!found->second)
        write_warning(fmt::format(
            "cuDNN has no {} pass of attention for {} sequences of {} tokens, {} heads ({} kv) of {} "
            "columns; the flash kernels compute it",
            shape.backward ? "backward" : "forward", shape.B, shape.T, shape.H, shape.K, shape.D));
    }
    return found->second ? &*found->second : nullptr;
  }

  struct Argument {
    int64_t id;
    const void* data;
  };
  void run(const cudnn::Plan& plan, std::initializer_list<Argument> arguments, void* workspace) {
    int64_t ids[16], count = 0;
    void* pointers[16];
    for (const Argument& argument : arguments) {
      if (argument.data == nullptr) continue;
      ids[count] = argument.id;
      pointers[count++] = const_cast<void*>(argument.data);
    }
    cudnn::Descriptor pack(library_, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids)
        .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers)
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace)
        .finalized();
    const cudnnStatus_t status = library_.execute(handle_, plan.plan.get(), pack.get());
    if (status != CUDNN_STATUS_SUCCESS)
      fail(Exit::device, "cuDNN: attention failed: {}; \"attention_path\": \"flash\" does without it",
           library_.error_string(status));
  }

  std::string refusal;

 private:
  cudnn::Library library_;
  cudnnHandle_t handle_ = nullptr;
  std::map<AttentionShape, std::optional<cudnn::Plan>> plans_;
};

CudnnAttention& cudnn_of(Context& ctx) {
  if (!ctx.cudnn) ctx.cudnn = std::make_unique<CudnnAttention>(ctx);
  return static_cast<CudnnAttention&>(*ctx.cudnn);
}

cudnn::HeadStrides strides_of(const ConstHeads& x) { return {x.sequence_stride, x.token_stride}; }

AttentionShape shape_of(const Attention& a) {
  return {.B = a.q.B,
          .T = a.q.T,
          .H = a.q.heads,
          .K = a.k.heads,
          .D = a.q.D,
          .q = strides_of(a.q),
          .k = strides_of(a.k),
          .v = strides_of(a.v)};
}
AttentionShape shape_of(const AttentionBackward& a) {
  return {.B = a.q.B,
          .T = a.q.T,
          .H = a.q.heads,
          .K = a.k.heads,
          .D = a.q.D,
          .backward = true,
          .deterministic = a.deterministic,
          .q = strides_of(a.q),
          .k = strides_of(a.k),
          .v = strides_of(a.v),
          .dq = strides_of(a.dq),
          .dk = strides_of(a.dk),
          .dv = strides_of(a.dv)};
}

// Sequences that one call takes. The deterministic backward pass holds T x T gradients of every head: as many
// sequences as take about this much together, in calls of (nearly) equal size.
int64_t sequences_at_once(const AttentionShape& shape) {
  constexpr int64_t kMostBytes = int64_t{256} << 20;
  if (!shape.backward || !shape.deterministic) return shape.B;
  AttentionShape one = shape;
  one.B = 1;
  const int64_t most = std::clamp<int64_t>(kMostBytes / attention_workspace_bytes(one), 1, shape.B);
  const int64_t calls = cuda::ceil_div(shape.B, most);
  return cuda::ceil_div(shape.B, calls);
}

// The shapes of the calls that make up one pass: all but the last are equal.
struct Calls {
  AttentionShape first, last;
  int64_t count;
  explicit Calls(const AttentionShape& whole) : first(whole), last(whole) {
    first.B = sequences_at_once(whole);
    count = cuda::ceil_div(whole.B, first.B);
    last.B = whole.B - (count - 1) * first.B;
  }
};

constexpr int64_t kElementBytes = 2;  // of bf16

bool rows_aligned(const ConstHeads& x) {
  constexpr int64_t kBytes = 16;
  return x.D % 8 == 0 && x.sequence_stride % 8 == 0 && x.token_stride % 8 == 0 &&
         reinterpret_cast<uintptr_t>(x.data) % kBytes == 0;
}

int64_t bytes_of_dq_sum(const AttentionShape& shape) {
  if (shape.deterministic) return 0;
  const int64_t bytes = shape.B * shape.H * shape.T * shape.D * int64_t{sizeof(float)};
  return cuda::ceil_div(bytes, Arena::kAlignment) * Arena::kAlignment;
}

// Sequence b0 of a tensor, and the ones after it.
const void* from(const ConstHeads& x, int64_t b0) { return x.data + b0 * x.sequence_stride * kElementBytes; }
const void* from(const ConstTensor& x, int64_t b0, int64_t B) { return x.data + x.bytes() / B * b0; }

}  // namespace

std::string cudnn_attention_refusal(Context& ctx) { return cudnn_of(ctx).refusal; }

std::string cudnn_library_refusal() {
  return cuda::device_count() == 0 ? std::string() : cudnn::Library().refusal();
}

bool cudnn_attention_takes(Context& ctx, const Attention& args) {
  if (args.q.dtype != DType::bf16 || args.q.T != args.k.T || !args.lse) return false;
  for (const ConstHeads& x : {args.q, args.k, args.v})
    if (!rows_aligned(x)) return false;
  return cudnn_attention_refusal(ctx).empty() && cudnn_of(ctx).find(shape_of(args)) != nullptr;
}

bool cudnn_attention_takes(Context& ctx, const AttentionBackward& args) {
  if (args.q.dtype != DType::bf16) return false;
  for (const ConstHeads& x :
       {args.q, args.k, args.v, ConstHeads(args.dq), ConstHeads(args.dk), ConstHeads(args.dv)})
    if (!rows_aligned(x)) return false;
  if (!cudnn_attention_refusal(ctx).empty()) return false;
  const Calls calls(shape_of(args));
  return cudnn_of(ctx).find(calls.first) != nullptr && cudnn_of(ctx).find(calls.last) != nullptr;
}

int64_t cudnn_attention_work_bytes(const Attention& args) {
  return attention_workspace_bytes(shape_of(args));
}

int64_t cudnn_attention_work_bytes(const AttentionBackward& args) {
  const Calls calls(shape_of(args));
  return bytes_of_dq_sum(calls.first) + attention_workspace_bytes(calls.first);
}

void cudnn_attention(Context& ctx, const Attention& args, Tensor work) {
  const AttentionShape shape = shape_of(args);
  const cudnn::Plan* plan = cudnn_of(ctx).find(shape);
  check(plan != nullptr, "cudnn_attention: what cudnn_attention_takes");
  check(work.bytes() >= cudnn_attention_work_bytes(args), "cudnn_attention: as much scratch as planned");
  const float scale = 1 / std::sqrt(static_cast<float>(shape.D)),
              minus_infinity = -std::numeric_limits<float>::infinity();
  cudnn_of(ctx).run(*plan,
                    {{cudnn::kQ, args.q.data},
                     {cudnn::kK, args.k.data},
                     {cudnn::kV, args.v.data},
                     {cudnn::kOut, args.out.data},
                     {cudnn::kLse, args.lse.data},
                     {cudnn::kScale, &scale},
                     {cudnn::kMinusInfinity, &minus_infinity}},
                    work.data);
}

void cudnn_attention_backward(Context& ctx, const AttentionBackward& args, Tensor delta, Tensor work) {
  const AttentionShape shape = shape_of(args);
  const Calls calls(shape);
  check(work.bytes() >= cudnn_attention_work_bytes(args),
        "cudnn_attention_backward: as much scratch as planned");
  const float scale = 1 / std::sqrt(static_cast<float>(shape.D)),
              minus_infinity = -std::numeric_limits<float>::infinity(), one = 1;
  for (int64_t call = 0; call < calls.count; ++call) {
    const AttentionShape& part = call + 1 < calls.count ? calls.first : calls.last;
    const cudnn::Plan* plan = cudnn_of(ctx).find(part);
    check(plan != nullptr, "cudnn_attention_backward: what cudnn_attention_takes");
    const int64_t b0 = call * calls.first.B, dq_sum_bytes = bytes_of_dq_sum(part);
    cudnn_of(ctx).run(*plan,
                      {{cudnn::kQ, from(args.q, b0)},
                       {cudnn::kK, from(args.k, b0)},
                       {cudnn::kV, from(args.v, b0)},
                       {cudnn::kOut, from(args.out, b0, shape.B)},
                       {cudnn::kLse, from(args.lse, b0, shape.B)},
                       {cudnn::kDout, from(args.dout, b0, shape.B)},
                       {cudnn::kDq, from(args.dq, b0)},
                       {cudnn::kDk, from(args.dk, b0)},
                       {cudnn::kDv, from(args.dv, b0)},
                       {cudnn::kDelta, from(delta, b0, shape.B)},
                       {cudnn::kDqSum, shape.deterministic ? nullptr : work.data},
                       {cudnn::kScale, &scale},
                       {cudnn::kMinusInfinity, &minus_infinity},
                       {cudnn::kOne, &one}},
                      work.data + dq_sum_bytes);
  }
}

}  // namespace keen::ops
