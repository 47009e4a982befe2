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
  int64_t bucket;  // matrices of one bucket lie together and are reduced together: 0 the embeddings, 1 + l
                   // block l, L + 1 the head
  int64_t spare_rows = 0;  // rows of zeros that lie behind it in the flat arrays and belong to nobody

  // Valid after Params::bind.
  int64_t offset = 0;  // of its first element in the flat arrays, in elements
  // The elements [first, first + owned) that this rank updates: all, unless the ranks share them out.
  int64_t first = 0, owned = 0;
  int64_t shift = 0;  // element i of the flat arrays is element i - shift of the arrays of owned elements
  Tensor master;      // wide: the truth, what checkpoints hold; see Params::bind for shared-out ones
  Tensor value;       // what ops read: master, or its bf16 copy for rank >= 2
  Tensor grad;        // wide; empty when not learned or when no gradients were asked for
  Tensor m, v;        // wide; AdamW's averages; empty likewise
  bool decays() const { return shape.rank >= 2; }
  bool is_vector() const { return shape.rank < 2; }
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

// Which part of the parameters this rank updates: with `share_out` (ZeRO stage 1; Rajbhandari et al., "ZeRO:
// Memory Optimizations Toward Training Trillion Parameter Models", 2020) a slice of each bucket, else all.
struct Sharing {
  int64_t rank = 0, ranks = 1;
  bool share_out = false;
};

// The flat arrays behind all parameters: first all vectors, then the matrices bucket by bucket, in the order
// of their creation. Vectors are a thousandth of the whole; every rank holds and updates all of them.
class Params {
 public:
  // References stay valid. Names must differ. Before bind.
  Param& add(std::string name, Shape shape, Init init, bool learned, int64_t bucket, int64_t spare_rows = 0);

  std::deque<Param>& all() { return list_; }
  const std::deque<Param>& all() const { return list_; }
  Param* find(const std::string& name);
  int64_t count() const { return count_; }            // elements of all tensors
  int64_t flat_count() const { return flat_count_; }  // with the padding between them, after bind

  // Takes the flat arrays from the arenas and points every Param at its part. `compute` is the activation
  // type. Without `training` there are masters and values alone. In the flat arrays every parameter begins at
  // a multiple of 64 elements; the padding between them stays zero. The vectors, and each bucket, are padded
  // to a multiple of 64 ranks, so that slices are equal.
  //
  // With `share_out` the averages are arrays of the owned elements alone, and so are the masters where values
  // are bf16: Param::m and v, and master then, are flat (owned) tensors.
  void bind(DType compute, bool training, Arena& weights, Arena& gradients, Arena& moments,
            const Sharing& sharing = {});
  // Fills the masters with numbers drawn on the host: the same on every device and for any order of creation.
  // Then call round_values.
  void initialize(uint64_t seed);
  // Makes the bf16 copies again after the masters changed from outside (initialize, a load): of the owned
  // elements, where masters are shared out.
  void round_values(Context& ctx);

  // Parts of a flat array of flat_count() elements that ranks reduce together: 0 the vectors, 1 + b the
  // matrices of bucket b. May be empty.
  int64_t parts() const { return std::ssize(parts_); }
  Tensor part(const Tensor& flat, int64_t part) const;
  // The elements of one of a parameter's arrays that lie on this rank: a flat tensor, and the first one's
  // place in the parameter. All of them, where they are not shared out.
  enum class Array : uint8_t { master, m, v };
  struct Elements {
    Tensor tensor;
    int64_t first = 0;
  };
  Elements held(const Param& param, Array array) const;

  // What ranks gather after an update: the values that ops read, but for the vectors.
  Tensor values() const { return rounded_ ? rounded_ : master_; }
  bool shares_out_masters() const { return master_.count() != flat_count_; }
  // The elements of a parameter that `rank` owns, as Param::first and owned say for this one.
  std::pair<int64_t, int64_t> owned_by(const Param& param, int64_t rank) const;
  const Sharing& sharing() const { return sharing_; }

  Tensor master() const { return master_; }
  Tensor rounded() const { return rounded_; }  // empty unless bf16
  Tensor grad() const { return grad_; }
  Tensor m() const { return m_; }
  Tensor v() const { return v_; }

 private:
  struct Part {
    int64_t begin = 0, end = 0;  // of the flat arrays
    int64_t owned_begin = 0;     // of the arrays of owned elements
  };
  void lay_out();
  int64_t part_of(const Param& param) const { return param.is_vector() ? 0 : 1 + param.bucket; }
  int64_t slice(const Part& part) const { return (part.end - part.begin) / sharing_.ranks; }

  std::deque<Param> list_;
  std::vector<Part> parts_;
  Sharing sharing_;
  int64_t count_ = 0, flat_count_ = 0, owned_count_ = 0;
  Tensor master_, rounded_, grad_, m_, v_;
};

}  // namespace keen
