#include "ops/gemm_onednn.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

namespace keen::ops {

namespace {

// Everything that decides which primitive computes a product. The number of threads belongs to it: oneDNN
// fixes the division of the work when the primitive is made.
struct Key {
  int64_t m, n, k, how;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t hash = 0;
    for (const int64_t part : {key.m, key.n, key.k, key.how})
      hash = (hash ^ static_cast<uint64_t>(part)) * 0x9E3779B97F4A7C15 + (hash >> 29);
    return hash ^ (hash >> 32);
  }
};

Key key_of(const Gemm& g) {
  const auto [m, n] = dims<2>(g.c);
  const int64_t k = g.a.shape[g.transpose_a ? 0 : 1];
  const int64_t flags = g.transpose_a | g.transpose_b << 1 | g.accumulate << 2 | (g.bias ? 1 : 0) << 3 |
                        (g.a.dtype == DType::bf16 ? 1 : 0) << 4 | (g.c.dtype == DType::bf16 ? 1 : 0) << 5;
  return {m, n, k, flags | static_cast<int64_t>(omp_get_max_threads()) << 8};
}

dnnl::memory::data_type library_type(DType type) {
  return type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

// The primitive of one kind of product, and memory objects whose pointers are set at every call.
struct Product {
  dnnl::matmul primitive;
  dnnl::memory a, b, bias, c, scratchpad;
  int64_t workspace_bytes = 0;

  Product(const dnnl::engine& engine, const Gemm& g) {
    using dnnl::memory;
    const auto [m, n, k, how] = key_of(g);
    // A transposed operand is the same memory with its strides exchanged.
    const memory::desc a_desc({m, k}, library_type(g.a.dtype),
                              g.transpose_a ? memory::dims{1, m} : memory::dims{k, 1});
    const memory::desc b_desc({k, n}, library_type(g.b.dtype),
                              g.transpose_b ? memory::dims{1, k} : memory::dims{n, 1});
    const memory::desc c_desc({m, n}, library_type(g.c.dtype), memory::dims{n, 1});
    const memory::desc bias_desc({1, n}, memory::data_type::f32, memory::dims{n, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (g.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const dnnl::matmul::desc desc = g.bias ? dnnl::matmul::desc(a_desc, b_desc, bias_desc, c_desc)
                                           : dnnl::matmul::desc(a_desc, b_desc, c_desc);
    const dnnl::matmul::primitive_desc description(desc, attributes, engine);
    primitive = dnnl::matmul(description);
    workspace_bytes = static_cast<int64_t>(description.scratchpad_desc().get_size());
    a = memory(a_desc, engine, nullptr);
    b = memory(b_desc, engine, nullptr);
    c = memory(c_desc, engine, nullptr);
    if (g.bias) bias = memory(bias_desc, engine, nullptr);
    scratchpad = memory(description.scratchpad_desc(), engine, nullptr);
  }
};

class Products : public LibraryState {
 public:
  Product& find(const Gemm& g) {
    const Key key = key_of(g);
    const auto found = products_.find(key);
    if (found != products_.end()) return found->second;
    try {
      return products_.try_emplace(key, engine_, g).first->second;
    } catch (const dnnl::error& error) {
      fail(Exit::device, "oneDNN cannot multiply {} x {} x {} of {}: {} (status {})", key.m, key.n, key.k,
           name_of(g.a.dtype), error.message, static_cast<int>(error.status));
    }
  }

  void run(const Gemm& g, Tensor workspace) {
    Product& product = find(g);
    check(workspace.bytes() >= product.workspace_bytes, "gemm: the workspace is smaller than the plan");
    // The C interface, because the C++ one allocates at every call.
    dnnl_exec_arg_t args[5];
    int count = 0;
    const auto add = [&](int name, dnnl::memory& memory, const void* data) {
      memory.set_data_handle(const_cast<void*>(data));
      args[count++] = {name, memory.get()};
    };
    add(DNNL_ARG_SRC, product.a, g.a.data);
    add(DNNL_ARG_WEIGHTS, product.b, g.b.data);
    add(DNNL_ARG_DST, product.c, g.c.data);
    if (g.bias) add(DNNL_ARG_BIAS, product.bias, g.bias.data);
    if (product.workspace_bytes > 0) add(DNNL_ARG_SCRATCHPAD, product.scratchpad, workspace.data);
    const dnnl_status_t status = dnnl_primitive_execute(product.primitive.get(), stream_.get(), count, args);
    if (status != dnnl_success)
      fail(Exit::device, "oneDNN failed in a matrix product (status {})", static_cast<int>(status));
    stream_.wait();
  }

 private:
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::unordered_map<Key, Product, KeyHash> products_;
};

Products& products_of(Context& ctx) {
  if (!ctx.gemm) ctx.gemm = std::make_unique<Products>();
  return static_cast<Products&>(*ctx.gemm);
}

}  // namespace

int64_t onednn_workspace_bytes(Context& ctx, const Gemm& args) {
  return products_of(ctx).find(args).workspace_bytes;
}

void onednn_gemm(Context& ctx, const Gemm& args, Tensor workspace) { products_of(ctx).run(args, workspace); }

bool onednn_has_bf16() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (isa & needed) == needed;
}

}  // namespace keen::ops
