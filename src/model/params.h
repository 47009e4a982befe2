// The one list of parameters. It drives initialization, weight decay, the optimizer, checkpoint names and the
// start-up table.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "ops/adamw.h"

namespace keen {

// How a parameter starts. Normal values are drawn on the host by Philox keyed by (seed, name, element): the
// same on every device and rank count, and shared between softmax and SSMax runs of one seed.
struct Init {
  enum class Kind : uint8_t { constant, normal } kind = Kind::constant;
  double value = 0;  // the constant, or the standard deviation
};
inline Init constant(double value) { return {Init::Kind::constant, value}; }
inline Init normal(double stddev) { return {Init::Kind::normal, stddev}; }

struct Param {
  std::string name;  // as in model.safetensors
  Shape shape;
  Init init;
  bool learned;    // false: never updated, has no moments (s of ssmax_fixed)
  int64_t bucket;  // gradients of one bucket are reduced together: 0 the embeddings, 1 + l block l, L + 1 the
                   // head
  int64_t offset;  // of its first element in the flat arrays, in elements
  int64_t spare_rows = 0;  // rows of zeros that lie behind it in the flat arrays and belong to nobody

  // Views, valid after Params::bind.
  Tensor master;  // wide: the truth, what checkpoints hold
  Tensor value;   // what ops read: master, or its bf16 copy for rank >= 2
  Tensor grad;    // wide; empty when not learned or when no gradients were asked for
  Tensor m, v;    // wide; AdamW's averages; empty likewise
  bool decays() const { return shape.rank >= 2; }
  int64_t count() const { return shape.count(); }
};

// A matrix `view` of a parameter with the spare rows behind it.
inline Tensor with_spare_rows(const Param& param, Tensor view) {
  view.shape = {view.shape[0] + param.spare_rows, view.shape[1]};
  return view;
}

// Views of a parameter that a model may lack (a bias, a row scale): absent tensors then.
inline ConstTensor value_of(const Param* param) {
  return param == nullptr ? ConstTensor() : ConstTensor(param->value);
}
inline Tensor grad_of(const Param* param) { return param == nullptr ? Tensor() : param->grad; }

// The flat arrays behind all parameters, one behind the other in the order of their creation.
class Params {
 public:
  // References stay valid. Names must differ. Before bind.
  Param& add(std::string name, Shape shape, Init init, bool learned, int64_t bucket, int64_t spare_rows = 0);

  std::deque<Param>& all() { return list_; }
  const std::deque<Param>& all() const { return list_; }
  Param* find(const std::string& name);
  int64_t count() const { return count_; }            // elements of all tensors
  int64_t flat_count() const { return flat_count_; }  // with the padding between them

  // Takes the flat arrays from the arenas and points every Param at its part. `compute` is the activation
  // type. Without `training` there are masters and values alone. In the flat arrays every parameter begins at
  // a multiple of 64 elements; the padding between them stays zero.
  void bind(DType compute, bool training, Arena& weights, Arena& gradients, Arena& moments);
  // Fills the masters with numbers drawn on the host: the same on every device and for any order of creation.
  // Then call round_values.
  void initialize(uint64_t seed);
  // Makes the bf16 copies again after the masters changed from outside (initialize, a load).
  void round_values(Context& ctx);

  Tensor master() const { return master_; }
  Tensor rounded() const { return rounded_; }  // empty unless bf16
  Tensor grad() const { return grad_; }
  Tensor m() const { return m_; }
  Tensor v() const { return v_; }

 private:
  std::deque<Param> list_;
  int64_t count_ = 0, flat_count_ = 0;
  Tensor master_, rounded_, grad_, m_, v_;
};

}  // namespace keen
