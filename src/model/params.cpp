#include "model/params.h"

#include "core/parallel.h"
#include "core/philox.h"
#include "core/staging.h"
#include "ops/elementwise.h"

namespace keen {
namespace {

// Parameters begin at multiples of 64 elements in the flat arrays: 256 bytes in float32, 128 in bf16, so that
// every vector load of every type is aligned.
constexpr int64_t kAlignment = 64;

Tensor part_of(const Tensor& flat, const Param& param) {
  Tensor part = flat;
  part.shape = param.shape;
  if (flat.data != nullptr) part.data = flat.data + param.offset * size_of(flat.dtype);
  return part;
}

}  // namespace

Param& Params::add(std::string name, Shape shape, Init init, bool learned, int64_t bucket,
                   int64_t spare_rows) {
  check(find(name) == nullptr, "Params::add: a name that is not taken");
  check(!master_, "Params::add: before bind");
  check(shape.rank > 0 && shape.count() > 0, "Params::add: a shape with elements");
  Param& param = list_.emplace_back();
  param.name = std::move(name);
  param.shape = shape;
  param.init = init;
  param.learned = learned;
  param.bucket = bucket;
  param.offset = flat_count_;
  count_ += param.count();
  param.spare_rows = spare_rows;
  const int64_t taken = param.count() + spare_rows * (param.count() / shape[0]);
  flat_count_ += (taken + kAlignment - 1) / kAlignment * kAlignment;
  return param;
}

Param* Params::find(const std::string& name) {
  for (Param& param : list_)
    if (param.name == name) return &param;
  return nullptr;
}

void Params::bind(DType compute, bool training, Arena& weights, Arena& gradients, Arena& moments) {
  const DType type = wide(compute);
  master_ = weights.take({flat_count_}, type);
  rounded_ = compute == DType::bf16 ? weights.take({flat_count_}, DType::bf16) : Tensor{};
  grad_ = training ? gradients.take({flat_count_}, type) : Tensor{};
  m_ = training ? moments.take({flat_count_}, type) : Tensor{};
  v_ = training ? moments.take({flat_count_}, type) : Tensor{};
  for (Param& param : list_) {
    param.master = part_of(master_, param);
    param.value = rounded_ && param.shape.rank >= 2 ? part_of(rounded_, param) : param.master;
    const bool trained = training && param.learned;
    param.grad = trained ? part_of(grad_, param) : Tensor{};
    param.m = trained ? part_of(m_, param) : Tensor{};
    param.v = trained ? part_of(v_, param) : Tensor{};
  }
}

void Params::initialize(uint64_t seed) {
  HostAccess host(master_.device);
  for (Param& param : list_) {
    const Philox random(seed, param.name);
    const Init init = param.init;
    host.fill(param.master, [&](Tensor piece, int64_t first) {
      with_float_type(piece.dtype, [&]<class T>() {
        T* value = piece.as<T>();
        parallel_for(piece.count(), 4096, [=](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i)
            value[i] =
                T(static_cast<Wide<T>>(init.kind == Init::Kind::constant
                                           ? init.value
                                           : init.value * random.normal(static_cast<uint64_t>(first + i))));
        });
      });
    });
  }
}

void Params::round_values(Context& ctx) {
  if (rounded_) ops::convert(ctx, rounded_, master_);
}

}  // namespace keen
