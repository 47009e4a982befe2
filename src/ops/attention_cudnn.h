// Attention by cuDNN's fused kernels (cuDNN 9, opened at run time): the fastest there are for bf16 on Hopper
// and later. Defined only in builds with cuDNN's headers (kCudnnBuilt).
#pragma once

#include <string>

#include "ops/attention.h"

namespace keen::ops {

// Why cuDNN computes no attention in this context: there is no device, the library is missing, or it is a
// version with known defects. Empty when it does. The first call opens the library.
std::string cudnn_attention_refusal(Context& ctx);

// Of that, what concerns the library alone, asked without a context. Empty where there is no device: nothing
// can be asked then, and nothing runs.
std::string cudnn_library_refusal();

// Whether cuDNN computes this: it has no refusal, the type is bf16, as many queries as keys, head widths and
// strides are multiples of 8 elements and pointers (those that are known: a planning pass has none) of 16
// bytes, and the library plans such a kernel, which this tries once a shape and remembers.
bool cudnn_attention_takes(Context& ctx, const Attention& args);
bool cudnn_attention_takes(Context& ctx, const AttentionBackward& args);

// Bytes of scratch that they take, by shape alone: a plan of memory needs no cuDNN.
int64_t cudnn_attention_work_bytes(const Attention& args);
int64_t cudnn_attention_work_bytes(const AttentionBackward& args);

// The bodies, for what cudnn_attention_takes; `work` is that scratch. With args.deterministic the backward
// pass gives the same bits every time, and takes a workspace that grows with T squared, for some sequences at
// a time; without it, sums of dq depend on the order in which blocks finish.
void cudnn_attention(Context& ctx, const Attention& args, Tensor work);
void cudnn_attention_backward(Context& ctx, const AttentionBackward& args, Tensor delta, Tensor work);

}  // namespace keen::ops
