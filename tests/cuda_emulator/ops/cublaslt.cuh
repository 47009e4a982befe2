// The twin of src/ops/cublaslt.cuh: the emulator's functions, which are linked.
#pragma once

#include <cublasLt.h>

namespace keen::ops {

struct CublasLt {
  decltype(&cublasLtGetVersion) version = &cublasLtGetVersion;
  decltype(&cublasLtGetStatusString) status_string = &cublasLtGetStatusString;
  decltype(&cublasLtCreate) create = &cublasLtCreate;
  decltype(&cublasLtDestroy) destroy = &cublasLtDestroy;
  decltype(&cublasLtMatmulDescCreate) operation_create = &cublasLtMatmulDescCreate;
  decltype(&cublasLtMatmulDescSetAttribute) operation_set = &cublasLtMatmulDescSetAttribute;
  decltype(&cublasLtMatmulDescDestroy) operation_destroy = &cublasLtMatmulDescDestroy;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = &cublasLtMatrixLayoutCreate;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = &cublasLtMatrixLayoutDestroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = &cublasLtMatmulPreferenceCreate;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = &cublasLtMatmulPreferenceSetAttribute;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = &cublasLtMatmulPreferenceDestroy;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = &cublasLtMatmulAlgoGetHeuristic;
  decltype(&cublasLtMatmulAlgoCheck) algorithm_check = &cublasLtMatmulAlgoCheck;
  decltype(&cublasLtMatmul) matmul = &cublasLtMatmul;
};

}  // namespace keen::ops
