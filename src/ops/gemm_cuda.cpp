#include <cstring>
#include <map>
#include <optional>

#include "core/cuda.h"
#include "ops/gemm_choice.h"
#include "ops/gemm_product.cuh"

namespace keen::ops {

namespace {

cudaDataType_t library_type(DType type) { return type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

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
      type(g.a.dtype),
      c_type(g.c.dtype),
      a_alignment(alignment_of(g.a.data)),
      b_alignment(alignment_of(g.b.data)),
      c_alignment(alignment_of(g.c.data)) {}

std::string ProductKey::str() const {
  return fmt::format("{} x {} x {} {}{} {} to {}{}{} aligned {} {} {}", m, n, k, transpose_a ? 't' : 'n',
                     transpose_b ? 't' : 'n', name_of(type), name_of(c_type), accumulate ? " added" : "",
                     bias ? " with bias" : "", a_alignment, b_alignment, c_alignment);
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

Product::Product(const CublasLtHandle& cublas, const ProductKey& key)
    : cublas_(cublas),
      key_(key),
      operation_(nullptr, cublas.library.operation_destroy),
      a_(layout(key.type, key.transpose_a ? key.k : key.m, key.transpose_a ? key.m : key.k)),
      b_(layout(key.type, key.transpose_b ? key.n : key.k, key.transpose_b ? key.k : key.n)),
      c_(layout(key.c_type, key.m, key.n)) {
  cublasLtMatmulDesc_t made = nullptr;
  // Products of float32 are float32's own: the library may use TF32 only where COMPUTE_32F_FAST_TF32 says so.
  cublas.check_status(cublas.library.operation_create(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                      "describing a matrix product");
  operation_.reset(made);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    cublas.check_status(cublas.library.operation_set(made, attribute, &value, sizeof value),
                        "describing a matrix product");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (key.bias) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
}

std::vector<cublasLtMatmulAlgo_t> Product::algorithms(int64_t workspace_bytes, int most) const {
  const CublasLt& library = cublas_.library;
  cublasLtMatmulPreference_t made = nullptr;
  cublas_.check_status(library.preference_create(&made), "asking for an algorithm");
  const Owned<cublasLtMatmulPreferenceOpaque_t> preference(made, library.preference_destroy);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    cublas_.check_status(library.preference_set(made, attribute, &value, sizeof value),
                         "asking for an algorithm");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes));
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key_.b_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key_.a_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key_.c_alignment);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key_.c_alignment);
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
  int count = 0;
  const cublasStatus_t status = library.heuristic(cublas_, operation_.get(), b_.get(), a_.get(), c_.get(),
                                                  c_.get(), made, most, results.data(), &count);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i)
    if (results[static_cast<size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
      algorithms.push_back(results[static_cast<size_t>(i)].algo);
  if (algorithms.empty())
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

void Product::run(const Gemm& g, const cublasLtMatmulAlgo_t& algorithm, Tensor workspace,
                  cudaStream_t stream) const {
  const float alpha = 1, beta = g.accumulate ? 1 : 0;
  if (g.bias) {
    const void* bias = g.bias.data;
    cublas_.check_status(cublas_.library.operation_set(operation_.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                       &bias, sizeof bias),
                         "naming the bias");
  }
  cublas_.check_status(
      cublas_.library.matmul(cublas_, operation_.get(), &alpha, g.b.data, b_.get(), g.a.data, a_.get(), &beta,
                             g.c.data, c_.get(), g.c.data, c_.get(), &algorithm, workspace.data,
                             static_cast<size_t>(workspace.bytes()), stream),
      "multiplying");
}

namespace {

// The products of one context, each with its algorithm.
class Products : public LibraryState {
 public:
  void run(Context& ctx, const Gemm& g, Tensor workspace) {
    const Chosen& chosen = find(ctx, g, workspace);
    chosen.product.run(g, chosen.algorithm, workspace, cuda::stream_of(ctx));
  }

 private:
  struct Chosen {
    Product product;
    cublasLtMatmulAlgo_t algorithm;
  };

  const Chosen& find(Context& ctx, const Gemm& g, Tensor workspace) {
    const ProductKey key(g);
    const auto found = chosen_.find(key);
    if (found != chosen_.end()) return found->second;
    Product product(cublas_, key);
    const cublasLtMatmulAlgo_t algorithm = ctx.time_gemms ? timed(ctx, product, key, g, workspace)
                                                          : product.algorithms(workspace.bytes(), 1).front();
    return chosen_.try_emplace(key, std::move(product), algorithm).first->second;
  }

  cublasLtMatmulAlgo_t timed(Context& ctx, const Product& product, const ProductKey& key, const Gemm& g,
                             Tensor workspace) {
    if (!choices_) {
      const cuda::DeviceFacts facts = cuda::device_facts();
      machine_ = fmt::format("{} {}.{} {} multiprocessors, cuBLASLt {}", facts.name, facts.major, facts.minor,
                             facts.multiprocessors, cublas_.library.version());
      choices_.emplace(gemm_choices_file());
    }
    const std::string name = fmt::format("{}, {}", machine_, key.str());
    cublasLtMatmulAlgo_t algorithm{};
    if (const auto kept = choices_->find(name)) {
      static_assert(sizeof *kept == sizeof algorithm.data);
      std::memcpy(algorithm.data, kept->data(), sizeof algorithm.data);
      if (product.takes(algorithm, workspace.bytes())) return algorithm;
    }
    constexpr int kCandidates = 32;
    const std::vector<cublasLtMatmulAlgo_t> candidates = product.algorithms(workspace.bytes(), kCandidates);
    const auto best = fastest(ctx, product, g, candidates, workspace);
    if (!best) return candidates.front();
    GemmAlgorithm kept;
    std::memcpy(kept.data(), best->data, sizeof best->data);
    choices_->keep(name, kept);
    return *best;
  }

  CublasLtHandle cublas_;
  std::map<ProductKey, Chosen> chosen_;
  std::optional<GemmChoices> choices_;
  std::string machine_;
};

}  // namespace

template <> void gemm_on<Device::cuda>(Context& ctx, const Gemm& args, Tensor workspace) {
  if (args.a.dtype == DType::f64)
    fail(Exit::usage, "device: CUDA computes in fp32 and bf16, not in {}", name_of(args.a.dtype));
  if (!ctx.gemm) ctx.gemm = std::make_unique<Products>();
  static_cast<Products&>(*ctx.gemm).run(ctx, args, workspace);
}

}  // namespace keen::ops
