// One kind of matrix product as cuBLASLt describes it, what goes along with it included (its epilogue), and
// the choice among ways to compute it by timing them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/launch.cuh"
#include "ops/cublaslt.cuh"
#include "ops/gemm.h"

namespace keen::ops {

// The library, and a handle to it on this context's device.
class CublasLtHandle {
 public:
  CublasLtHandle();
  ~CublasLtHandle() { library.destroy(handle_); }
  CublasLtHandle(const CublasLtHandle&) = delete;
  CublasLtHandle& operator=(const CublasLtHandle&) = delete;

  operator cublasLtHandle_t() const { return handle_; }
  // Raises Exit::device with what the library says.
  void check_status(cublasStatus_t status, const char* what) const;

  const CublasLt library;

 private:
  cublasLtHandle_t handle_ = nullptr;
};

// Everything that decides which algorithm computes a product. Alignments are those of the pointers, in bytes,
// a power of two up to 256, which also stands for what is absent: the library must not assume more.
struct ProductKey {
  int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate, bias, gelu, gelu_slope, sums;
  DType type, c_type;
  uint32_t a_alignment, b_alignment, c_alignment, bias_alignment, gelu_alignment;

  explicit ProductKey(const Gemm& g);
  auto operator<=>(const ProductKey&) const = default;
  std::string str() const;  // for files and messages
};

// The library counts along columns first, so our row-major c = op(a) op(b) is its column-major c^T = op(b)^T
// op(a)^T: the operands change places, and what is transposed for us is for it.
class Product {
 public:
  // Remembers where `g` has its bias and the like: the library asks for their alignment.
  Product(const CublasLtHandle& cublas, const Gemm& g, const GemmScratch& scratch);

  // At most `most` algorithms that need at most `workspace_bytes`, the library's own favourite first. None
  // adds partial sums in the order in which they happen to be ready, and none rounds them before they are
  // added. Empty where the library has none for what goes along with this product.
  std::vector<cublasLtMatmulAlgo_t> algorithms(int64_t workspace_bytes, int most) const;
  // Whether the library can run this algorithm here with such a workspace.
  bool takes(const cublasLtMatmulAlgo_t& algorithm, int64_t workspace_bytes) const;

  // Whether the library took it. The sums of `a`, where they are asked for, are complete only with this.
  bool try_run(Context& ctx, const Gemm& g, const cublasLtMatmulAlgo_t& algorithm,
               const GemmScratch& scratch) const;
  void run(Context& ctx, const Gemm& g, const cublasLtMatmulAlgo_t& algorithm,
           const GemmScratch& scratch) const;

 private:
  template <class T> using Owned = std::unique_ptr<T, cublasStatus_t (*)(T*)>;
  using Layout = Owned<cublasLtMatrixLayoutOpaque_t>;
  Layout layout(DType type, int64_t rows, int64_t columns) const;
  template <class T> void set(cublasLtMatmulDescAttributes_t attribute, const T& value) const;
  void point_at(const Gemm& g, const GemmScratch& scratch) const;
  cublasStatus_t multiply(Context& ctx, const Gemm& g, const cublasLtMatmulAlgo_t& algorithm,
                          const GemmScratch& scratch) const;

  const CublasLtHandle& cublas_;
  ProductKey key_;
  Owned<cublasLtMatmulDescOpaque_t> operation_;
  Layout a_, b_, c_;
};

// A way to compute a GEMM; false where it turns out to be none.
using Way = std::function<bool(const Gemm&)>;

// The fastest of these ways to compute `g`: each is run on random operands of its own, as many sets of them
// as do not fit into the second-level cache together, and the first one wins unless another is at least 1 %
// faster. Their memory, which no plan knows, is given back before this returns. Where it cannot be had, or
// while a graph is recorded, the answer is empty.
std::optional<size_t> fastest(Context& ctx, const Gemm& g, std::span<const Way> ways);

// x = random numbers, uniform in [-1, 1). Zeros would be multiplied faster than anything that training
// multiplies.
void fill_with_noise(Context& ctx, Tensor x, uint32_t seed);

}  // namespace keen::ops
