#include "model/params.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "core/philox.h"
#include "op_test.h"

namespace keen {
namespace {

using testing::Tensors;

// Parameters with the memory behind them.
struct Model {
  Params params;
  Arena weights{Device::cpu}, gradients{Device::cpu}, moments{Device::cpu};

  void bind(DType compute, bool training, const Sharing& sharing = {}) {
    params.bind(compute, training, weights, gradients, moments, sharing);
    weights.allocate("weights");
    gradients.allocate("gradients");
    moments.allocate("moments");
    params.bind(compute, training, weights, gradients, moments, sharing);
  }
};

void add_block(Params& params, bool ssmax) {
  params.add("attn.qkv.weight", {24, 8}, normal(0.02), true, 1);
  if (ssmax) params.add("attn.s", {3}, constant(0.16847), true, 1);
  if (ssmax) params.add("attn.b", {3}, constant(1), false, 1);
  params.add("norm.weight", {8}, constant(1), true, 1);
  params.add("mlp.weight", {100, 8}, normal(0.01), true, 1);
}

TEST(Params, FlatArraysHoldEveryParameterAligned) {
  for (const DType compute : {DType::f32, DType::f64, DType::bf16}) {
    Model model;
    add_block(model.params, true);
    model.bind(compute, true);
    EXPECT_EQ(model.params.count(), 24 * 8 + 3 + 3 + 8 + 800);
    EXPECT_EQ(model.params.flat_count(), 192 + 64 + 64 + 64 + 832);
    std::vector<const Param*> in_memory;
    for (const Param& param : model.params.all()) in_memory.push_back(&param);
    std::sort(in_memory.begin(), in_memory.end(),
              [](const Param* a, const Param* b) { return a->offset < b->offset; });
    int64_t end = 0;
    for (size_t i = 0; i < in_memory.size(); ++i) {
      const Param& param = *in_memory[i];
      EXPECT_EQ(param.is_vector(), i < 3) << "vectors come first";
      EXPECT_EQ(param.offset % 64, 0);
      EXPECT_GE(param.offset, end);
      end = param.offset + param.count();
      EXPECT_EQ(param.master.dtype, wide(compute));
      EXPECT_EQ(param.master.data, model.params.master().data + param.offset * size_of(wide(compute)));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(param.master.data) % 256, 0u);
      EXPECT_EQ(param.value.dtype, param.decays() ? compute : wide(compute));
      EXPECT_EQ(param.value.shape, param.shape);
      EXPECT_EQ(bool(param.grad), param.learned);
      EXPECT_EQ(bool(param.m) && bool(param.v), param.learned);
      if (param.learned) {
        EXPECT_NE(param.m.data, param.v.data);
      }
    }
    EXPECT_LE(end, model.params.flat_count());
    EXPECT_EQ(model.params.find("attn.b")->learned, false);
    EXPECT_EQ(model.params.find("no"), nullptr);
  }
}

TEST(Params, SpareRowsLieBehindAMatrixAndStayZero) {
  Model model;
  const Param& head = model.params.add("head.weight", {100, 8}, normal(0.02), true, 1, 28);
  const Param& norm = model.params.add("norm.weight", {8}, constant(1), true, 1);
  model.bind(DType::f32, true);
  EXPECT_EQ(model.params.count(), 808);
  EXPECT_EQ(head.count(), 800);
  EXPECT_EQ(norm.offset, 0);
  EXPECT_EQ(model.params.flat_count(), 64 + 1024);
  model.params.initialize(1);
  const Tensor padded = with_spare_rows(head, head.value);
  EXPECT_EQ(padded.shape, (Shape{128, 8}));
  for (int64_t i = 0; i < padded.count(); ++i) EXPECT_EQ(padded.as<float>()[i] != 0, i < 800) << i;
}

TEST(Params, WithoutTrainingThereAreWeightsAlone) {
  Model model;
  add_block(model.params, true);
  model.bind(DType::f32, false);
  EXPECT_EQ(model.gradients.data(), nullptr);
  EXPECT_EQ(model.moments.data(), nullptr);
  for (const Param& param : model.params.all()) EXPECT_FALSE(param.grad || param.m || param.v);
  EXPECT_FALSE(model.params.grad() || model.params.rounded());
}

TEST(Params, RefusesTwiceTheSameNameAndLateComers) {
  Model model;
  add_block(model.params, false);
  EXPECT_THROW(model.params.add("norm.weight", {8}, constant(1), true, 1), Error);
  model.bind(DType::f32, false);
  EXPECT_THROW(model.params.add("late", {8}, constant(1), true, 1), Error);
}

// The values of `name` as bytes.
std::string bytes_of(Model& model, const std::string& name) {
  const Tensor x = model.params.find(name)->master;
  return {reinterpret_cast<const char*>(x.data), static_cast<size_t>(x.bytes())};
}

TEST(Params, InitialValuesDependOnSeedAndNameAlone) {
  Model softmax, ssmax, reversed, other_seed;
  add_block(softmax.params, false);
  add_block(ssmax.params, true);
  reversed.params.add("mlp.weight", {100, 8}, normal(0.01), true, 1);
  reversed.params.add("attn.qkv.weight", {24, 8}, normal(0.02), true, 1);
  add_block(other_seed.params, false);
  for (Model* model : {&softmax, &ssmax, &reversed, &other_seed}) {
    model->bind(DType::f32, false);
    model->params.initialize(model == &other_seed ? 2 : 1);
  }
  for (const char* name : {"attn.qkv.weight", "mlp.weight"}) {
    EXPECT_EQ(bytes_of(softmax, name), bytes_of(ssmax, name));
    EXPECT_EQ(bytes_of(softmax, name), bytes_of(reversed, name));
    EXPECT_NE(bytes_of(softmax, name), bytes_of(other_seed, name));
  }
  EXPECT_NE(bytes_of(softmax, "attn.qkv.weight").substr(0, 64),
            bytes_of(softmax, "mlp.weight").substr(0, 64));
  EXPECT_EQ(ssmax.params.find("attn.s")->master.as<float>()[2], 0.16847f);
  EXPECT_EQ(ssmax.params.find("norm.weight")->master.as<float>()[7], 1.0f);
  EXPECT_EQ(softmax.params.find("mlp.weight")->master.as<float>()[5],
            static_cast<float>(0.01 * Philox(1, "mlp.weight").normal(5)));
}

TEST(Params, InitialValuesAgreeAcrossTypes) {
  Model f32, f64, half;
  for (Model* model : {&f32, &f64, &half}) {
    add_block(model->params, true);
    model->bind(model == &f32 ? DType::f32 : model == &f64 ? DType::f64 : DType::bf16, true);
    model->params.initialize(3);
  }
  Context ctx;
  half.params.round_values(ctx);
  for (size_t p = 0; p < f32.params.all().size(); ++p) {
    const Param &a = f32.params.all()[p], &b = f64.params.all()[p], &c = half.params.all()[p];
    for (int64_t i = 0; i < a.count(); ++i) {
      EXPECT_EQ(a.master.as<float>()[i], static_cast<float>(b.master.as<double>()[i]));
      EXPECT_EQ(a.master.as<float>()[i], c.master.as<float>()[i]);
      if (c.decays())
        EXPECT_EQ(c.value.as<bf16>()[i].bits, bf16(a.master.as<float>()[i]).bits);
      else
        EXPECT_EQ(c.value.data, c.master.data);
    }
  }
}

TEST(Params, NormalValuesHaveTheirMeanAndDeviation) {
  Model model;
  model.params.add("w", {400, 500}, normal(0.02), true, 0);
  model.params.add("vector", {3}, constant(5), true, 0);
  model.bind(DType::f64, false);
  model.params.initialize(1337);
  double sum = 0, squares = 0;
  int64_t beyond = 0;
  for (const double x : Tensors::to_doubles(model.params.find("w")->master)) {
    sum += x;
    squares += x * x;
    beyond += std::abs(x) > 0.04;
  }
  const double n = 200000;
  EXPECT_NEAR(sum / n, 0, 4 * 0.02 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), 0.02, 4 * 0.02 / std::sqrt(2 * n));
  EXPECT_NEAR(static_cast<double>(beyond) / n, 0.0455, 0.002);
  // The padding between parameters stays zero.
  for (int64_t i = model.params.find("vector")->offset + 3; i < model.params.find("w")->offset; ++i)
    EXPECT_EQ(model.params.master().as<double>()[i], 0);
}

// Three ranks do not divide the bucket evenly: it is padded.
TEST(Params, RanksOwnEveryElementOnce) {
  for (const DType compute : {DType::f32, DType::bf16})
    for (const int64_t ranks : {1, 2, 3, 4}) {
      Model whole;
      add_block(whole.params, true);
      whole.bind(compute, true);
      whole.params.initialize(5);
      std::map<std::string, std::vector<int>> owners;
      int64_t owned = -1;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        Model part;
        add_block(part.params, true);
        part.bind(compute, true, {.rank = rank, .ranks = ranks, .share_out = true});
        part.params.initialize(5);
        EXPECT_TRUE(owned < 0 || owned == part.params.m().count()) << "equal shares";
        owned = part.params.m().count();
        EXPECT_EQ(part.params.shares_out_masters(), compute == DType::bf16 && ranks > 1);
        for (const Param& param : part.params.all()) {
          auto& list = owners[param.name];
          list.resize(static_cast<size_t>(param.count()));
          for (int64_t i = param.first; i < param.first + param.owned; ++i) ++list[static_cast<size_t>(i)];
          const Params::Elements held = part.params.held(param, Params::Array::master);
          const auto values = Tensors::to_doubles(held.tensor);
          const auto all = Tensors::to_doubles(whole.params.find(param.name)->master);
          for (size_t i = 0; i < values.size(); ++i)
            ASSERT_EQ(values[i], all[static_cast<size_t>(held.first) + i]) << param.name;
          if (param.learned) {
            EXPECT_EQ(param.m.count(), param.owned);
          }
        }
      }
      for (const auto& [name, list] : owners)
        for (const int count : list)
          ASSERT_EQ(count, whole.params.find(name)->is_vector() ? ranks : 1) << name;
      // Vectors are a third of this model, padding included.
      EXPECT_LE(owned, 192 + (1024 + 64 * ranks) / ranks);
    }
}

}  // namespace
}  // namespace keen
