#include "cublasLt.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cudaDataType scale;
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;  // or where sums go
  const void* aux = nullptr;   // GELU's input
  int64_t aux_leading_dimension = 0;

  bool adds_bias() const { return (epilogue & CUBLASLT_EPILOGUE_BIAS) != 0; }
  bool is_gelu() const {
    return epilogue == CUBLASLT_EPILOGUE_GELU_AUX || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
  }
  bool has_aux() const { return is_gelu() || epilogue == CUBLASLT_EPILOGUE_DGELU; }
  bool is_known() const {
    return has_aux() || epilogue == CUBLASLT_EPILOGUE_DEFAULT || epilogue == CUBLASLT_EPILOGUE_BIAS ||
           epilogue == CUBLASLT_EPILOGUE_BGRADB;
  }
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  int64_t rows, columns, leading_dimension;
};
struct cublasLtMatmulPreferenceOpaque_t {
  uint64_t workspace_bytes = 0;
  uint32_t reduction_mask = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t a_alignment = 256, b_alignment = 256, c_alignment = 256, d_alignment = 256;
};

namespace {

using Layout = const cublasLtMatrixLayoutOpaque_t*;
using Operation = const cublasLtMatmulDescOpaque_t*;

// What distinguishes the algorithms, fastest first as heuristics go. Those that need no alignment have no
// epilogue but a bias.
struct Algorithm {
  int64_t pieces;          // that the sum over k is cut into
  uint32_t scheme;         // how the pieces are added
  uint32_t alignment;      // of every matrix and of its columns
  bool rounds_each_piece;  // to the type of d
};
constexpr Algorithm kAlgorithms[] = {{4, CUBLASLT_REDUCTION_SCHEME_INPLACE, 16, true},
                                     {1, CUBLASLT_REDUCTION_SCHEME_NONE, 16, false},
                                     {3, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 16, false},
                                     {1, CUBLASLT_REDUCTION_SCHEME_NONE, 1, false},
                                     {2, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 1, false}};
constexpr uint64_t kMagic = 0x6b65656e67656d6d;

const Algorithm* algorithm_of(const cublasLtMatmulAlgo_t& algorithm) {
  if (algorithm.data[0] != kMagic || algorithm.data[1] >= std::size(kAlgorithms)) return nullptr;
  return &kAlgorithms[algorithm.data[1]];
}

int64_t size_of_type(cudaDataType type) { return type == CUDA_R_16BF ? 2 : 4; }

struct Sizes {
  int64_t m, n, k;
};

// The sizes of a product, or why there is none.
cublasStatus_t sizes_of(Operation operation, Layout a, Layout b, Layout c, Layout d, Sizes& sizes) {
  if (operation == nullptr || a == nullptr || b == nullptr || c == nullptr || d == nullptr)
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool ta = operation->transpose_a == CUBLAS_OP_T, tb = operation->transpose_b == CUBLAS_OP_T;
  sizes = {ta ? a->columns : a->rows, tb ? b->rows : b->columns, ta ? a->rows : a->columns};
  if ((tb ? b->columns : b->rows) != sizes.k) return CUBLAS_STATUS_INVALID_VALUE;
  for (Layout x : {c, d})
    if (x->rows != sizes.m || x->columns != sizes.n) return CUBLAS_STATUS_INVALID_VALUE;
  for (Layout x : {a, b, c, d})
    if (x->rows < 1 || x->columns < 1 || x->leading_dimension < x->rows) return CUBLAS_STATUS_INVALID_VALUE;
  if (operation->compute != CUBLAS_COMPUTE_32F || operation->scale != CUDA_R_32F || a->type != b->type ||
      c->type != d->type || (a->type == CUDA_R_32F && c->type == CUDA_R_16BF))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!operation->is_known()) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (operation->has_aux() &&
      (operation->aux_leading_dimension % 8 != 0 || operation->aux_leading_dimension < sizes.m))
    return CUBLAS_STATUS_INVALID_VALUE;
  return CUBLAS_STATUS_SUCCESS;
}

bool columns_aligned(Layout x, uint32_t alignment) {
  return x->leading_dimension * size_of_type(x->type) % alignment == 0;
}

bool aligned(const void* pointer, uint32_t alignment) {
  return reinterpret_cast<uintptr_t>(pointer) % alignment == 0;
}

cublasStatus_t fits(const Algorithm& algorithm, const cublasLtMatmulDescOpaque_t& operation, Layout a,
                    Layout b, Layout c, const Sizes& sizes, size_t& workspace_bytes) {
  const bool plain =
      operation.epilogue == CUBLASLT_EPILOGUE_DEFAULT || operation.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (!plain && algorithm.alignment == 1) return CUBLAS_STATUS_NOT_SUPPORTED;
  // As the real library, it learns from the pointers how they are aligned.
  if (!aligned(operation.bias, algorithm.alignment) || !aligned(operation.aux, algorithm.alignment))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  for (Layout x : {a, b, c})
    if (algorithm.alignment > 1 && !columns_aligned(x, algorithm.alignment))
      return CUBLAS_STATUS_NOT_SUPPORTED;
  workspace_bytes = algorithm.scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                        ? static_cast<size_t>(algorithm.pieces * sizes.m * sizes.n) * sizeof(float)
                        : 0;
  return CUBLAS_STATUS_SUCCESS;
}

float read(const void* data, cudaDataType type, int64_t i) {
  return type == CUDA_R_16BF ? __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i])
                             : static_cast<const float*>(data)[i];
}
float rounded(float x, cudaDataType type) {
  return type == CUDA_R_16BF ? __bfloat162float(__float2bfloat16_rn(x)) : x;
}
void write(void* data, cudaDataType type, int64_t i, float x) {
  if (type == CUDA_R_16BF)
    static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(x);
  else
    static_cast<float*>(data)[i] = x;
}

// op(x) with its rows contiguous, as floats.
std::vector<float> gather(const void* data, Layout x, bool transpose) {
  const int64_t rows = transpose ? x->columns : x->rows, columns = transpose ? x->rows : x->columns;
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      values[static_cast<size_t>(i * columns + j)] =
          read(data, x->type, transpose ? j + i * x->leading_dimension : i + j * x->leading_dimension);
  return values;
}

template <class T> cublasStatus_t set_value(T& member, const void* value, size_t bytes) {
  if (value == nullptr || bytes != sizeof member) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&member, value, sizeof member);
  return CUBLAS_STATUS_SUCCESS;
}

// A product as it was called, with copies of what the caller may change before it runs.
struct Product {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a_layout, b_layout, c_layout, d_layout;
  const void *a, *b, *c;
  void* d;
  float* partial;  // sums of the pieces; null where they are not kept
  float alpha, beta;
  Algorithm algorithm;
  Sizes sizes;
};

// The tanh form: GELU(x) = x gate(x).
float gelu_gate(float x) { return 0.5f * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x))); }
float gelu_slope(float x) {
  const float gate = gelu_gate(x);
  return gate + x * 2 * gate * (1 - gate) * 0.79788456f * (1 + 3 * 0.044715f * x * x);
}

void multiply(const Product& p) {
  const auto [m, n, k] = p.sizes;
  const std::vector<float> left = gather(p.a, &p.a_layout, p.operation.transpose_a == CUBLAS_OP_T),
                           right = gather(p.b, &p.b_layout, p.operation.transpose_b != CUBLAS_OP_T);
  const cudaDataType type = p.d_layout.type;
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < m; ++i) {
      float sum = 0;
      for (int64_t piece = 0; piece < p.algorithm.pieces; ++piece) {
        const int64_t begin = piece * k / p.algorithm.pieces, end = (piece + 1) * k / p.algorithm.pieces;
        float of_piece = 0;
        for (int64_t l = begin; l < end; ++l)
          of_piece += left[static_cast<size_t>(i * k + l)] * right[static_cast<size_t>(j * k + l)];
        if (p.partial != nullptr) p.partial[(piece * n + j) * m + i] = of_piece;
        sum = p.algorithm.rounds_each_piece ? rounded(sum + of_piece, type) : sum + of_piece;
      }
      float y = p.alpha * sum;
      // As in BLAS, c is not read when beta is 0: it may hold NaN.
      if (p.beta != 0) y += p.beta * read(p.c, type, i + j * p.c_layout.leading_dimension);
      if (p.operation.adds_bias()) y += read(p.operation.bias, type, i);
      const int64_t aux = i + j * p.operation.aux_leading_dimension;
      if (p.operation.is_gelu()) {
        write(const_cast<void*>(p.operation.aux), type, aux, y);
        y *= gelu_gate(y);
      } else if (p.operation.epilogue == CUBLASLT_EPILOGUE_DGELU) {
        y *= gelu_slope(read(p.operation.aux, type, aux));
      }
      write(p.d, type, i + j * p.d_layout.leading_dimension, y);
    }
  if (p.operation.epilogue == CUBLASLT_EPILOGUE_BGRADB)
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += right[static_cast<size_t>(j * k + l)];
      write(const_cast<void*>(p.operation.bias), type, j, sum);
    }
}

// By the device's clock, of which the environment may ask more than the host takes.
double extra_ms(const cublasLtMatmulDescOpaque_t& operation) {
  const char* text = std::getenv("KEEN_EMULATOR_EPILOGUE_MS");
  const double ms = text == nullptr ? 0 : std::atof(text);
  const bool fused = operation.has_aux() || operation.epilogue == CUBLASLT_EPILOGUE_BGRADB;
  return fused ? std::max(ms, 0.0) : std::max(-ms, 0.0);
}

}  // namespace

size_t cublasLtGetVersion() { return 130100; }

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown status";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute,
                                        cudaDataType scale) {
  *operation = new cublasLtMatmulDescOpaque_t{.compute = compute, .scale = scale};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set_value(operation->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set_value(operation->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set_value(operation->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set_value(operation->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return set_value(operation->aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return set_value(operation->aux_leading_dimension, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete operation;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading_dimension) {
  *layout = new cublasLtMatrixLayoutOpaque_t{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns),
                                             leading_dimension};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set_value(preference->workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set_value(preference->reduction_mask, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set_value(preference->a_alignment, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set_value(preference->b_alignment, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set_value(preference->c_alignment, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set_value(preference->d_alignment, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  *count = 0;
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  Sizes sizes{};
  if (const auto status = sizes_of(operation, a, b, c, d, sizes); status != CUBLAS_STATUS_SUCCESS)
    return status;
  const uint32_t alignment = std::min(
      {preference->a_alignment, preference->b_alignment, preference->c_alignment, preference->d_alignment});
  for (uint64_t i = 0; i < std::size(kAlgorithms) && *count < most; ++i) {
    const Algorithm& algorithm = kAlgorithms[i];
    size_t workspace_bytes = 0;
    if (algorithm.alignment > alignment || (algorithm.scheme & ~preference->reduction_mask) != 0 ||
        fits(algorithm, *operation, a, b, c, sizes, workspace_bytes) != CUBLAS_STATUS_SUCCESS ||
        workspace_bytes > preference->workspace_bytes)
      continue;
    results[(*count)++] = {.algo = {{kMagic, i}},
                           .workspaceSize = workspace_bytes,
                           .state = CUBLAS_STATUS_SUCCESS,
                           .wavesCount = 1,
                           .reserved = {}};
  }
  return *count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  Sizes sizes{};
  if (const auto status = sizes_of(operation, a, b, c, d, sizes); status != CUBLAS_STATUS_SUCCESS)
    return status;
  const Algorithm* known = algorithm_of(*algorithm);
  if (known == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *result = {};
  result->algo = *algorithm;
  result->state = fits(*known, *operation, a, b, c, sizes, result->workspaceSize);
  return result->state;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  Sizes sizes{};
  if (const auto status = sizes_of(operation, a_layout, b_layout, c_layout, d_layout, sizes);
      status != CUBLAS_STATUS_SUCCESS)
    return status;
  if (algorithm == nullptr || alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  const Algorithm* known = algorithm_of(*algorithm);
  size_t needed_bytes = 0;
  if (known == nullptr ||
      fits(*known, *operation, a_layout, b_layout, d_layout, sizes, needed_bytes) != CUBLAS_STATUS_SUCCESS ||
      needed_bytes > workspace_bytes || (needed_bytes > 0 && !cuda_emulator::on_device(workspace)))
    return CUBLAS_STATUS_INVALID_VALUE;
  for (const void* pointer : {a, b, c, static_cast<const void*>(d)})
    if (!cuda_emulator::on_device(pointer) || !aligned(pointer, known->alignment))
      return CUBLAS_STATUS_INVALID_VALUE;
  if (c == d && c_layout->leading_dimension != d_layout->leading_dimension)
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool has_vector = operation->adds_bias() || operation->epilogue == CUBLASLT_EPILOGUE_BGRADB;
  if ((has_vector && !cuda_emulator::on_device(operation->bias)) ||
      (operation->has_aux() && !cuda_emulator::on_device(operation->aux)))
    return CUBLAS_STATUS_INVALID_VALUE;
  const Product product{.operation = *operation,
                        .a_layout = *a_layout,
                        .b_layout = *b_layout,
                        .c_layout = *c_layout,
                        .d_layout = *d_layout,
                        .a = a,
                        .b = b,
                        .c = c,
                        .d = d,
                        .partial = needed_bytes > 0 ? static_cast<float*>(workspace) : nullptr,
                        .alpha = *static_cast<const float*>(alpha),
                        .beta = *static_cast<const float*>(beta),
                        .algorithm = *known,
                        .sizes = sizes};
  const double ms = extra_ms(*operation);
  return cuda_emulator::enqueue(stream,
                                [product, ms] {
                                  multiply(product);
                                  cuda_emulator::take_longer(ms);
                                }) == cudaSuccess
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_EXECUTION_FAILED;
}
