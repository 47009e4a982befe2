#include "model/params.h"

#include <algorithm>
#include <tuple>

#include "core/parallel.h"
#include "core/philox.h"
#include "core/staging.h"
#include "ops/elementwise.h"

namespace keen {
namespace {

// Parameters begin at multiples of 64 elements in the flat arrays: 256 bytes in float32, 128 in bf16, so that
// every vector load of every type is aligned.
constexpr int64_t kAlignment = 64;

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The elements from `first` on of a flat array, in a shape; a tensor without memory when planning.
Tensor view(const Tensor& flat, int64_t first, Shape shape) {
  Tensor tensor = flat;
  tensor.shape = shape;
  if (flat.data != nullptr) tensor.data = flat.data + first * size_of(flat.dtype);
  return tensor;
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
  param.spare_rows = spare_rows;
  count_ += param.count();
  return param;
}

Param* Params::find(const std::string& name) {
  for (Param& param : list_)
    if (param.name == name) return &param;
  return nullptr;
}

void Params::lay_out() {
  int64_t buckets = 0;
  for (const Param& param : list_) buckets = std::max(buckets, param.bucket + 1);
  parts_.assign(static_cast<size_t>(1 + buckets), {});
  flat_count_ = owned_count_ = 0;
  for (int64_t i = 0; i < parts(); ++i) {
    Part& part = parts_[static_cast<size_t>(i)];
    part.begin = part.end = flat_count_;
    for (Param& param : list_) {
      if (part_of(param) != i) continue;
      param.offset = part.end;
      const int64_t spare = param.spare_rows * (param.count() / param.shape[0]);
      part.end += round_up(param.count() + spare, kAlignment);
    }
    part.end = part.begin + round_up(part.end - part.begin, kAlignment * sharing_.ranks);
    part.owned_begin = owned_count_;
    flat_count_ = part.end;
    owned_count_ += sharing_.share_out && i > 0 ? slice(part) : part.end - part.begin;
  }
  for (Param& param : list_) {
    std::tie(param.first, param.owned) = owned_by(param, sharing_.rank);
    const Part& part = parts_[static_cast<size_t>(part_of(param))];
    const bool sliced = sharing_.share_out && !param.is_vector();
    param.shift = part.begin + (sliced ? sharing_.rank * slice(part) : 0) - part.owned_begin;
  }
}

std::pair<int64_t, int64_t> Params::owned_by(const Param& param, int64_t rank) const {
  if (!sharing_.share_out || param.is_vector()) return {0, param.count()};
  const Part& part = parts_[static_cast<size_t>(part_of(param))];
  const int64_t begin = part.begin + rank * slice(part), end = begin + slice(part);
  const int64_t from = std::clamp(begin, param.offset, param.offset + param.count());
  const int64_t to = std::clamp(end, from, std::max(from, param.offset + param.count()));
  return {from - param.offset, to - from};
}

Params::Elements Params::held(const Param& param, Array array) const {
  const Tensor tensor = array == Array::master ? param.master : array == Array::m ? param.m : param.v;
  return {tensor.reshape({tensor.count()}), tensor.count() == param.count() ? 0 : param.first};
}

Tensor Params::part(const Tensor& flat, int64_t index) const {
  const Part& part = parts_[static_cast<size_t>(index)];
  return flat.rows(part.begin, part.end);
}

void Params::bind(DType compute, bool training, Arena& weights, Arena& gradients, Arena& moments,
                  const Sharing& sharing) {
  sharing_ = sharing;
  lay_out();
  const DType type = wide(compute);
  const bool rounds = compute == DType::bf16;
  const int64_t masters = rounds ? owned_count_ : flat_count_;
  master_ = weights.take({masters}, type);
  rounded_ = rounds ? weights.take({flat_count_}, DType::bf16) : Tensor{};
  grad_ = training ? gradients.take({flat_count_}, type) : Tensor{};
  m_ = training ? moments.take({owned_count_}, type) : Tensor{};
  v_ = training ? moments.take({owned_count_}, type) : Tensor{};
  for (Param& param : list_) {
    const bool whole = param.owned == param.count() && !sharing.share_out;
    const int64_t at = param.offset + param.first - param.shift;
    const auto owned = [&](const Tensor& flat) {
      return view(flat, at, whole || param.is_vector() ? param.shape : Shape{param.owned});
    };
    param.master = rounds ? owned(master_) : view(master_, param.offset, param.shape);
    param.value = rounds && !param.is_vector() ? view(rounded_, param.offset, param.shape) : param.master;
    const bool trained = training && param.learned;
    param.grad = trained ? view(grad_, param.offset, param.shape) : Tensor{};
    param.m = trained ? owned(m_) : Tensor{};
    param.v = trained ? owned(v_) : Tensor{};
  }
}

void Params::initialize(uint64_t seed) {
  HostAccess host(master_.device);
  for (Param& param : list_) {
    const Philox random(seed, param.name);
    const Init init = param.init;
    const Elements held_here = held(param, Array::master);
    host.fill(held_here.tensor, [&](Tensor piece, int64_t begin_of_piece) {
      const int64_t first = held_here.first + begin_of_piece;
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
  if (!rounded_) return;
  if (!shares_out_masters()) return ops::convert(ctx, rounded_, master_);
  for (size_t i = 1; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    const int64_t n = slice(part), begin = part.begin + sharing_.rank * n;
    if (n > 0)
      ops::convert(ctx, rounded_.rows(begin, begin + n),
                   master_.rows(part.owned_begin, part.owned_begin + n));
  }
}

}  // namespace keen
