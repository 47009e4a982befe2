#include <cstring>
#include <map>
#include <optional>

#include "core/cuda.h"
#include "ops/column_sums.cuh"
#include "ops/gemm_choice.h"
#include "ops/gemm_product.cuh"

namespace keen::ops {

namespace {

cudaDataType_t library_type(DType type) { return type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// What the library's documentation asks of epilogues: GELU's input has rows of a multiple of 8 elements, and
// sums are of c's type, while ours are float32.
bool has_epilogue(const ProductKey& key) {
  if (key.gelu || key.gelu_slope) return key.n % 8 == 0 && key.gelu_alignment >= 16;
  return !key.sums || key.c_type == DType::f32;
}

cublasLtEpilogue_t epilogue_of(const ProductKey& key) {
  if (key.gelu) return key.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  if (key.gelu_slope) return CUBLASLT_EPILOGUE_DGELU;
  if (key.sums) return CUBLASLT_EPILOGUE_BGRADB;  // our a is its B
  return key.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

// The row of partial sums that the library's one goes to: one chunk, which add_partial_sums then adds.
Tensor whole_sums(const GemmScratch& scratch) { return scratch.sums.rows(0, 1); }

uint32_t alignment_of(const void* address) {
  constexpr uintptr_t kMost = 256;
  const uintptr_t bits = reinterpret_cast<uintptr_t>(address) | kMost;
  return static_cast<uint32_t>(bits & ~(bits - 1));
}

}  // namespace

CublasLtHandle::CublasLtHandle() { check_status(library.create(&handle_), "starting"); }

void CublasLtHandle::check_status(cublasStatus_t status, const char* what) const {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(Exit::device, "cuBLASLt: {}: {}", what, library.status_string(status));
}

ProductKey::ProductKey(const Gemm& g)
    : m(g.c.shape[0]),
      n(g.c.shape[1]),
      k(g.a.shape[g.transpose_a ? 0 : 1]),
      transpose_a(g.transpose_a),
      transpose_b(g.transpose_b),
      accumulate(g.accumulate),
      bias(static_cast<bool>(g.bias)),
      gelu(static_cast<bool>(g.gelu_input)),
      gelu_slope(static_cast<bool>(g.gelu_at)),
      sums(static_cast<bool>(g.a_sums)),
      type(g.a.dtype),
      c_type(g.c.dtype),
      a_alignment(alignment_of(g.a.data)),
      b_alignment(alignment_of(g.b.data)),
      c_alignment(alignment_of(g.c.data)),
      bias_alignment(alignment_of(g.bias.data)),
      gelu_alignment(alignment_of(g.gelu_input ? g.gelu_input.data : g.gelu_at.data)) {}

std::string ProductKey::str() const {
  return fmt::format("{} x {} x {} {}{} {} to {}{}{}{}{}{} aligned {} {} {} {} {}", m, n, k,
                     transpose_a ? 't' : 'n', transpose_b ? 't' : 'n', name_of(type), name_of(c_type),
                     accumulate ? " added" : "", bias ? " with bias" : "", gelu ? " with gelu" : "",
                     gelu_slope ? " with gelu's slope" : "", sums ? " with sums" : "", a_alignment,
                     b_alignment, c_alignment, bias_alignment, gelu_alignment);
}

Product::Layout Product::layout(DType type, int64_t rows, int64_t columns) const {
  cublasLtMatrixLayout_t made = nullptr;
  // The rows of ours are its columns, one after another.
  cublas_.check_status(
      cublas_.library.layout_create(&made, library_type(type), static_cast<uint64_t>(columns),
                                    static_cast<uint64_t>(rows), columns),
      "describing a matrix");
  return {made, cublas_.library.layout_destroy};
}

template <class T> void Product::set(cublasLtMatmulDescAttributes_t attribute, const T& value) const {
  cublas_.check_status(cublas_.library.operation_set(operation_.get(), attribute, &value, sizeof value),
                       "describing a matrix product");
}

Product::Product(const CublasLtHandle& cublas, const Gemm& g, const GemmScratch& scratch)
    : cublas_(cublas),
      key_(g),
      operation_(nullptr, cublas.library.operation_destroy),
      a_(layout(key_.type, key_.transpose_a ? key_.k : key_.m, key_.transpose_a ? key_.m : key_.k)),
      b_(layout(key_.type, key_.transpose_b ? key_.n : key_.k, key_.transpose_b ? key_.k : key_.n)),
      c_(layout(key_.c_type, key_.m, key_.n)) {
  cublasLtMatmulDesc_t made = nullptr;
  // Products of float32 are float32's own: the library may use TF32 only where COMPUTE_32F_FAST_TF32 says so.
  cublas.check_status(cublas.library.operation_create(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                      "describing a matrix product");
  operation_.reset(made);
  set(CUBLASLT_MATMUL_DESC_TRANSA, key_.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, key_.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(key_));
  if (key_.gelu || key_.gelu_slope) set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, key_.n);
  point_at(g, scratch);
}

void Product::point_at(const Gemm& g, const GemmScratch& scratch) const {
  const void* bias = g.a_sums ? whole_sums(scratch).data : g.bias.data;
  const void* gelu = g.gelu_input ? g.gelu_input.data : g.gelu_at.data;
  if (key_.bias || key_.sums) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  if (key_.gelu || key_.gelu_slope) set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, gelu);
}

std::vector<cublasLtMatmulAlgo_t> Product::algorithms(int64_t workspace_bytes, int most) const {
  if (!has_epilogue(key_)) return {};
  const CublasLt& library = cublas_.library;
  cublasLtMatmulPreference_t made = nullptr;
  cublas_.check_status(library.preference_create(&made), "asking for an algorithm");
  const Owned<cublasLtMatmulPreferenceOpaque_t> preference(made, library.preference_destroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    cublas_.check_status(library.preference_set(made, attribute, &value, sizeof value),
                         "asking for an algorithm");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes));
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key_.b_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key_.a_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key_.c_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key_.c_alignment);
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
  int count = 0;
  const cublasStatus_t status = library.heuristic(cublas_, operation_.get(), b_.get(), a_.get(), c_.get(),
                                                  c_.get(), made, most, results.data(), &count);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i)
    if (results[static_cast<size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
      algorithms.push_back(results[static_cast<size_t>(i)].algo);
  const bool plain = !key_.gelu && !key_.gelu_slope && !key_.sums;
  if (algorithms.empty() && plain)
    fail(Exit::device, "cuBLASLt: no algorithm for the product {}: {}", key_.str(),
         library.status_string(status));
  return algorithms;
}

bool Product::takes(const cublasLtMatmulAlgo_t& algorithm, int64_t workspace_bytes) const {
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status = cublas_.library.algorithm_check(cublas_, operation_.get(), b_.get(), a_.get(),
                                                                c_.get(), c_.get(), &algorithm, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= static_cast<size_t>(workspace_bytes);
}

cublasStatus_t Product::multiply(Context& ctx, const Gemm& g, const cublasLtMatmulAlgo_t& algorithm,
                                 const GemmScratch& scratch) const {
  const float alpha = 1, beta = g.accumulate ? 1 : 0;
  point_at(g, scratch);
  const cublasStatus_t status =
      cublas_.library.matmul(cublas_, operation_.get(), &alpha, g.b.data, b_.get(), g.a.data, a_.get(), &beta,
                             g.c.data, c_.get(), g.c.data, c_.get(), &algorithm, scratch.workspace.data,
                             static_cast<size_t>(scratch.workspace.bytes()), cuda::stream_of(ctx));
  if (status == CUBLAS_STATUS_SUCCESS && g.a_sums) add_partial_sums(ctx, g.a_sums, whole_sums(scratch), 0);
  return status;
}

bool Product::try_run(Context& ctx, const Gemm& g, const cublasLtMatmulAlgo_t& algorithm,
                      const GemmScratch& scratch) const {
  return multiply(ctx, g, algorithm, scratch) == CUBLAS_STATUS_SUCCESS;
}

void Product::run(Context& ctx, const Gemm& g, const cublasLtMatmulAlgo_t& algorithm,
                  const GemmScratch& scratch) const {
  cublas_.check_status(multiply(ctx, g, algorithm, scratch), "multiplying");
}

namespace {

// In the file of choices: the product's kernel and what goes along with it are faster apart. No algorithm of
// the library reads so.
constexpr GemmAlgorithm kApart{~uint64_t{0}, ~uint64_t{0}};

// The products of one context, each with its algorithm.
class Products : public LibraryState {
 public:
  void run(Context& ctx, const Gemm& g, const GemmScratch& scratch) {
    const Chosen& chosen = find(ctx, g, scratch);
    if (chosen.algorithm) return chosen.product.run(ctx, g, *chosen.algorithm, scratch);
    run(ctx, plain_product(g), scratch);
    after_product(ctx, g, scratch);
  }

 private:
  struct Chosen {
    Product product;
    std::optional<cublasLtMatmulAlgo_t> algorithm;  // empty: the kernels are apart
  };

  const Chosen& find(Context& ctx, const Gemm& g, const GemmScratch& scratch) {
    const ProductKey key(g);
    const auto found = chosen_.find(key);
    if (found != chosen_.end()) return found->second;
    Product product(cublas_, g, scratch);
    std::optional<cublasLtMatmulAlgo_t> algorithm;
    if (ctx.time_gemms)
      algorithm = timed(ctx, product, key, g, scratch);
    else if (g.is_plain())
      algorithm = product.algorithms(scratch.workspace.bytes(), 1).front();
    return chosen_.try_emplace(key, std::move(product), algorithm).first->second;
  }

  std::optional<cublasLtMatmulAlgo_t> timed(Context& ctx, const Product& product, const ProductKey& key,
                                            const Gemm& g, const GemmScratch& scratch) {
    open_choices();
    const std::string name = fmt::format("{}, {}", machine_, key.str());
    const int64_t workspace_bytes = scratch.workspace.bytes();
    if (const auto kept = choices_->find(name)) {
      if (*kept == kApart && !g.is_plain()) return {};
      cublasLtMatmulAlgo_t algorithm{};
      static_assert(sizeof *kept == sizeof algorithm.data);
      std::memcpy(algorithm.data, kept->data(), sizeof algorithm.data);
      if (product.takes(algorithm, workspace_bytes)) return algorithm;
    }
    constexpr int kCandidates = 32;
    const std::vector<cublasLtMatmulAlgo_t> candidates = product.algorithms(workspace_bytes, kCandidates);
    if (candidates.empty()) return {};
    std::vector<Way> ways;
    // The operands of the ways are better aligned than those of `g`, which the algorithm must fit.
    const Chosen* plain = g.is_plain() ? nullptr : &find(ctx, plain_product(g), scratch);
    if (plain != nullptr)
      ways.push_back([&](const Gemm& copy) {
        const bool runs = plain->product.try_run(ctx, plain_product(copy), *plain->algorithm, scratch);
        if (runs) after_product(ctx, copy, scratch);
        return runs;
      });
    const size_t first = ways.size();
    for (const cublasLtMatmulAlgo_t& algorithm : candidates)
      ways.push_back([&](const Gemm& copy) { return product.try_run(ctx, copy, algorithm, scratch); });
    const auto best = fastest(ctx, g, ways);
    if (!best) return plain != nullptr ? std::nullopt : std::optional(candidates.front());
    GemmAlgorithm kept = kApart;
    if (*best >= first) std::memcpy(kept.data(), candidates[*best - first].data, sizeof kept);
    choices_->keep(name, kept);
    return *best >= first ? std::optional(candidates[*best - first]) : std::nullopt;
  }

  void open_choices() {
    if (choices_) return;
    const cuda::DeviceFacts facts = cuda::device_facts();
    machine_ = fmt::format("{} {}.{} {} multiprocessors, cuBLASLt {}", facts.name, facts.major, facts.minor,
                           facts.multiprocessors, cublas_.library.version());
    choices_.emplace(gemm_choices_file());
  }

  CublasLtHandle cublas_;
  std::map<ProductKey, Chosen> chosen_;
  std::optional<GemmChoices> choices_;
  std::string machine_;
};

}  // namespace

template <> void gemm_on<Device::cuda>(Context& ctx, const Gemm& args, const GemmScratch& scratch) {
  if (args.a.dtype == DType::f64)
    fail(Exit::usage, "device: CUDA computes in fp32 and bf16, not in {}", name_of(args.a.dtype));
  if (!ctx.gemm) ctx.gemm = std::make_unique<Products>();
  static_cast<Products&>(*ctx.gemm).run(ctx, args, scratch);
}

}  // namespace keen::ops
