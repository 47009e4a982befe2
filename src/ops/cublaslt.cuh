// The functions of cuBLASLt that keen calls, from a library that is opened when the first of them is needed:
// a run on the CPU starts as fast, and on as many machines, as without CUDA. (Under the CUDA emulator of the
// tests a twin of this file binds the emulator's.)
#pragma once

#include <cublasLt.h>

#include "core/dynamic_library.h"

namespace keen::ops {

struct CublasLt {
  DynamicLibrary library{fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR)};

  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtGetStatusString) status_string = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmulDescCreate) operation_create = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) operation_set = nullptr;
  decltype(&cublasLtMatmulDescDestroy) operation_destroy = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoCheck) algorithm_check = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;

  CublasLt() {
    bind(version, "cublasLtGetVersion");
    bind(status_string, "cublasLtGetStatusString");
    bind(create, "cublasLtCreate");
    bind(destroy, "cublasLtDestroy");
    bind(operation_create, "cublasLtMatmulDescCreate");
    bind(operation_set, "cublasLtMatmulDescSetAttribute");
    bind(operation_destroy, "cublasLtMatmulDescDestroy");
    bind(layout_create, "cublasLtMatrixLayoutCreate");
    bind(layout_destroy, "cublasLtMatrixLayoutDestroy");
    bind(preference_create, "cublasLtMatmulPreferenceCreate");
    bind(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    bind(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    bind(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    bind(algorithm_check, "cublasLtMatmulAlgoCheck");
    bind(matmul, "cublasLtMatmul");
  }

 private:
  template <class F> void bind(F*& function, const char* symbol) const {
    library.bind(function, symbol, "\"device\": \"cuda\"");
  }
};

}  // namespace keen::ops
