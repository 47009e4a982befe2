#include "ops/gemm_onednn.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <oneapi/dnnl/dnnl.hpp>
#include <string_view>
#include <unordered_map>

#include "ops/elementwise.h"

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

// Whether b is first packed into the layout that the kernel multiplies. With plain rows every block of rows
// of c packs its part of b anew. In GFLOP/s: dx (dy w) of 1024 rows, 768 x 2304, on one core of a Zen 5 in
// bf16 from 366 to 431, in float32 from 171 to 209; forward (x w^T) of 4096 rows, 128 x 384, on two cores of
// a Zen 4 in bf16 from 378 to 443, in float32 from 220 to 230. On fewer rows, or where few
// products (k) share what is packed, it costs more than it saves.
bool worth_packing(const Key& key, bool transpose_b) {
  return transpose_b ? key.m >= 2048 : key.m >= 768 && key.k >= 512;
}

// A gradient of weights over many rows, c += a^T b: the library's inner product transposes as it packs, once,
// where its matrix product transposes every block of rows anew. On two cores of a Zen 4, in GFLOP/s, 2048
// rows, 384 x 1536: in bf16 from 390 to 420, in float32 from 209 to 225; 4096 rows, 128 x 384: from 355 to
// 418 and from 196 to 233. But it overwrites, so that c is added to afterwards: in bf16 4 % of the product's
// time at 1024 rows, less for more.
bool is_gradient_by_inner_product(const Gemm& g, const Key& key) {
  constexpr int64_t kLargest = int64_t{1} << 22;  // elements of c: what is added lies in the workspace first
  return g.transpose_a && !g.transpose_b && g.accumulate && key.k >= 1024 && key.m * key.n <= kLargest;
}

int64_t aligned(int64_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

// The primitives of one kind of product, and memory objects whose pointers are set at every call.
struct Product {
  dnnl::primitive primitive;
  int a_arg = DNNL_ARG_SRC, b_arg = DNNL_ARG_WEIGHTS, c_arg = DNNL_ARG_DST;  // what it calls them
  dnnl::reorder pack;  // empty where b is taken as it lies
  dnnl::memory a, b, packed_b, bias, c, scratchpad, pack_scratchpad;
  int64_t scratchpad_bytes = 0;
  int64_t packed_bytes = 0;  // of b
  int64_t sum_bytes = 0;     // of the product, where it is added to c afterwards; else 0

  Product(const dnnl::engine& engine, const Gemm& g) {
    if (!is_gradient_by_inner_product(g, key_of(g)) || !make_inner_product(engine, g)) make_matmul(engine, g);
  }

  void make_memory(const dnnl::engine& engine, const dnnl::memory::desc& a_desc,
                   const dnnl::memory::desc& b_desc, const dnnl::memory::desc& c_desc,
                   const dnnl::memory::desc& scratchpad_desc) {
    a = dnnl::memory(a_desc, engine, nullptr);
    b = dnnl::memory(b_desc, engine, nullptr);
    c = dnnl::memory(c_desc, engine, nullptr);
    scratchpad = dnnl::memory(scratchpad_desc, engine, nullptr);
    scratchpad_bytes = aligned(static_cast<int64_t>(scratchpad_desc.get_size()));
  }

  // False where the library has no fast one for this processor.
  bool make_inner_product(const dnnl::engine& engine, const Gemm& g) {
    using dnnl::memory;
    const auto [m, n, k, how] = key_of(g);
    const memory::data_type type = library_type(g.a.dtype);
    const memory::desc a_desc({k, m}, type, memory::format_tag::ab),
        b_desc({k, n}, type, memory::format_tag::ab);
    const memory::desc c_desc({m, n}, library_type(g.c.dtype), memory::format_tag::ab);
    const memory::desc weights({m, n}, type, memory::format_tag::any);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::inner_product_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, b_desc, weights, a_desc}, engine, true);
    if (!forward) return false;
    const dnnl::inner_product_backward_weights::primitive_desc description({b_desc, c_desc, a_desc},
                                                                           attributes, engine, forward, true);
    if (!description || !std::string_view(description.impl_info_str()).starts_with("x64:gemm")) return false;
    primitive = dnnl::inner_product_backward_weights(description);
    a_arg = DNNL_ARG_DIFF_DST;
    b_arg = DNNL_ARG_SRC;
    c_arg = DNNL_ARG_DIFF_WEIGHTS;
    make_memory(engine, a_desc, b_desc, c_desc, description.scratchpad_desc());
    sum_bytes = aligned(g.c.bytes());
    return true;
  }

  void make_matmul(const dnnl::engine& engine, const Gemm& g) {
    using dnnl::memory;
    const Key key = key_of(g);
    const auto [m, n, k, how] = key;
    // A transposed operand is the same memory with its strides exchanged.
    const memory::desc a_desc({m, k}, library_type(g.a.dtype),
                              g.transpose_a ? memory::dims{1, m} : memory::dims{k, 1});
    const memory::desc b_desc({k, n}, library_type(g.b.dtype),
                              g.transpose_b ? memory::dims{1, k} : memory::dims{n, 1});
    const memory::desc any_desc({k, n}, library_type(g.b.dtype), memory::format_tag::any);
    const memory::desc c_desc({m, n}, library_type(g.c.dtype), memory::dims{n, 1});
    const memory::desc bias_desc({1, n}, memory::data_type::f32, memory::dims{n, 1});
    const memory::desc& given_b = worth_packing(key, g.transpose_b) ? any_desc : b_desc;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::primitive_attr pack_attributes;
    pack_attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (g.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const dnnl::matmul::desc desc = g.bias ? dnnl::matmul::desc(a_desc, given_b, bias_desc, c_desc)
                                           : dnnl::matmul::desc(a_desc, given_b, c_desc);
    const dnnl::matmul::primitive_desc description(desc, attributes, engine);
    primitive = dnnl::matmul(description);
    make_memory(engine, a_desc, b_desc, c_desc, description.scratchpad_desc());
    if (g.bias) bias = memory(bias_desc, engine, nullptr);
    if (description.weights_desc() == b_desc) return;
    packed_b = memory(description.weights_desc(), engine, nullptr);
    packed_bytes = aligned(static_cast<int64_t>(description.weights_desc().get_size()));
    const dnnl::reorder::primitive_desc pack_description(b, packed_b, pack_attributes);
    pack = dnnl::reorder(pack_description);
    pack_scratchpad = memory(pack_description.scratchpad_desc(), engine, nullptr);
    scratchpad_bytes = std::max(scratchpad_bytes,
                                aligned(static_cast<int64_t>(pack_description.scratchpad_desc().get_size())));
  }

  int64_t workspace_bytes() const { return packed_bytes + sum_bytes + scratchpad_bytes; }
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

  void run(Context& ctx, const Gemm& g, Tensor workspace) {
    Product& product = find(g);
    check(workspace.bytes() >= product.workspace_bytes(), "gemm: the workspace is smaller than the plan");
    std::byte* scratchpad = workspace.data + product.packed_bytes + product.sum_bytes;
    product.b.set_data_handle(const_cast<std::byte*>(g.b.data));
    dnnl::memory& b = product.pack ? product.packed_b : product.b;
    if (product.pack) {
      b.set_data_handle(workspace.data);
      product.pack_scratchpad.set_data_handle(scratchpad);
      execute(product.pack, {{{DNNL_ARG_FROM, product.b.get()},
                              {DNNL_ARG_TO, b.get()},
                              {DNNL_ARG_SCRATCHPAD, product.pack_scratchpad.get()}}});
    }
    product.a.set_data_handle(const_cast<std::byte*>(g.a.data));
    Tensor c = g.c;
    if (product.sum_bytes > 0) c.data = workspace.data;
    product.c.set_data_handle(c.data);
    product.scratchpad.set_data_handle(scratchpad);
    if (g.bias) product.bias.set_data_handle(const_cast<std::byte*>(g.bias.data));
    execute(product.primitive, {{{product.a_arg, product.a.get()},
                                 {product.b_arg, b.get()},
                                 {product.c_arg, product.c.get()},
                                 {DNNL_ARG_SCRATCHPAD, product.scratchpad.get()},
                                 {DNNL_ARG_BIAS, g.bias ? product.bias.get() : nullptr}}});
    stream_.wait();
    if (product.sum_bytes > 0) add(ctx, g.c, g.c, c);
  }

 private:
  // Through the C interface, because the C++ one allocates at every call. Arguments that are null are left
  // out.
  void execute(const dnnl::primitive& primitive, std::array<dnnl_exec_arg_t, 5> args) {
    const auto used =
        std::remove_if(args.begin(), args.end(), [](const auto& arg) { return arg.memory == nullptr; });
    const dnnl_status_t status = dnnl_primitive_execute(primitive.get(), stream_.get(),
                                                        static_cast<int>(used - args.begin()), args.data());
    if (status != dnnl_success)
      fail(Exit::device, "oneDNN failed in a matrix product (status {})", static_cast<int>(status));
  }

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
  return products_of(ctx).find(args).workspace_bytes();
}

void onednn_gemm(Context& ctx, const Gemm& args, Tensor workspace) {
  products_of(ctx).run(ctx, args, workspace);
}

bool onednn_is_fast_at_bf16() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto has = [isa](dnnl::cpu_isa needed) {
    return (isa & static_cast<unsigned>(needed)) == static_cast<unsigned>(needed);
  };
#if defined(__x86_64__)
  const bool intel = __builtin_cpu_is("intel");
#else
  const bool intel = false;
#endif
  return has(dnnl::cpu_isa::avx512_core_amx) || (has(dnnl::cpu_isa::avx512_core_bf16) && !intel);
}

}  // namespace keen::ops
