// One thread copies 16 bytes of a token's heads, or 2 where they are not aligned.
#include "core/launch.cuh"
#include "ops/copy_heads.h"

namespace keen::ops {

namespace {

constexpr int kThreads = 256;

// A view in units of Word.
template <class Pointer> struct View {
  Pointer data;
  int64_t sequence_stride, token_stride;
  __device__ Pointer at(int64_t b, int64_t t) const { return data + b * sequence_stride + t * token_stride; }
};

template <class Word>
__global__ void __launch_bounds__(kThreads)
    copy_heads_kernel(View<Word*> to, View<const Word*> from, int64_t T, int64_t words, int64_t items) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items) return;
  const int64_t row = item / words, word = item % words, b = row / T, t = row % T;
  to.at(b, t)[word] = from.at(b, t)[word];
}

template <class Word> void copy_words(Context& ctx, Heads to, ConstHeads from) {
  const int64_t per_word = static_cast<int64_t>(sizeof(Word)) / size_of(to.dtype);
  const int64_t words = to.heads * to.D / per_word, items = to.B * to.T * words;
  if (items == 0) return;
  const auto view = [=]<class Pointer>(const auto& heads, Pointer data) {
    return View<Pointer>{data, heads.sequence_stride / per_word, heads.token_stride / per_word};
  };
  cuda::launch(ctx, copy_heads_kernel<Word>, cuda::grid_of(cuda::ceil_div(items, kThreads)), kThreads, 0,
               view(to, reinterpret_cast<Word*>(to.data)),
               view(from, reinterpret_cast<const Word*>(from.data)), to.T, words, items);
}

template <class Word> bool in_words(const ConstHeads& heads) {
  const int64_t element = size_of(heads.dtype), word = sizeof(Word);
  return reinterpret_cast<uintptr_t>(heads.data) % sizeof(Word) == 0 &&
         heads.heads * heads.D * element % word == 0 && heads.sequence_stride * element % word == 0 &&
         heads.token_stride * element % word == 0;
}

}  // namespace

template <> void copy_heads_on<Device::cuda>(Context& ctx, Heads to, ConstHeads from) {
  if (in_words<uint4>(to) && in_words<uint4>(from)) return copy_words<uint4>(ctx, to, from);
  if (size_of(to.dtype) == 4) return copy_words<uint32_t>(ctx, to, from);
  check(size_of(to.dtype) == 2, "copy_heads: CUDA has elements of 2 and 4 bytes");
  copy_words<uint16_t>(ctx, to, from);
}

}  // namespace keen::ops
