// The element types of CUDA's libraries, as far as keen uses them.
#pragma once

typedef enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 } cudaDataType;
