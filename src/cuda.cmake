# The CUDA backend, as KEEN_CUDA asks for it: sets KEEN_CUDA_BUILT (true, false), and defines which sources of a floor
# belong to the build and what a target needs for them.
#
#   AUTO     where nvcc and the toolkit are found, nothing is said where not
#   ON       an error where they are not
#   EMULATE  every .cu as plain C++, against tests/cuda_emulator: kernels run on the host, slowly

set(KEEN_CUDA_BUILT false)
set(KEEN_CUDA_EMULATED false)
set(KEEN_CUDA_EMULATOR ${PROJECT_SOURCE_DIR}/tests/cuda_emulator)

if(KEEN_CUDA STREQUAL "EMULATE" AND NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  message(STATUS "The CUDA emulator runs on x86-64 only: CUDA is left out")
elseif(KEEN_CUDA STREQUAL "EMULATE")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${KEEN_CUDA_EMULATOR}/*.cpp)
  add_library(keen_cuda_emulator STATIC ${sources})
  target_include_directories(keen_cuda_emulator PUBLIC ${KEEN_CUDA_EMULATOR}
                             PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_BINARY_DIR}/generated)
  target_link_libraries(keen_cuda_emulator PRIVATE ${CMAKE_DL_LIBS})
  set(KEEN_CUDA_BUILT true)
  set(KEEN_CUDA_EMULATED true)
elseif(KEEN_CUDA MATCHES "^(AUTO|ON)$")
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND AND CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12)  # the first one with C++20
    if(NOT DEFINED ENV{CUDACXX} AND CUDAToolkit_NVCC_EXECUTABLE)
      set(ENV{CUDACXX} ${CUDAToolkit_NVCC_EXECUTABLE})  # also where it is not in PATH
    endif()
    include(CheckLanguage)
    check_language(CUDA)
  endif()
  if(CMAKE_CUDA_COMPILER)
    set(KEEN_CUDA_BUILT true)
  elseif(KEEN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "KEEN_CUDA=ON: no CUDA toolkit of version 12 or later with a working nvcc was found; put nvcc "
                        "into PATH, or use AUTO or OFF")
  endif()
elseif(KEEN_CUDA)  # neither OFF nor another word for it
  message(FATAL_ERROR "KEEN_CUDA=${KEEN_CUDA}: one of AUTO, ON, OFF, EMULATE was expected")
endif()

if(KEEN_CUDA_BUILT AND NOT KEEN_CUDA STREQUAL "EMULATE")
  set(archs ${KEEN_CUDA_ARCHS})
  if(NOT archs)
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                    OUTPUT_VARIABLE archs OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    string(REGEX REPLACE "\\.|\\n.*" "" archs "${archs}")  # of the first GPU: 9.0 as 90
    if(NOT archs MATCHES "^[0-9]+$")
      set(archs 90)
    endif()
    string(REGEX REPLACE "^90$" "90a" archs ${archs})
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${archs})
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc 12 and later have C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
endif()

# cuDNN is opened at run time; its headers, which are no part of the toolkit, decide whether the code that asks for it is
# built. They lie beside CUDA's or below CUDNN_PATH, the variable or the environment's (PyTorch's wheels have them in
# site-packages/nvidia/cudnn).
set(KEEN_CUDNN_BUILT false CACHE INTERNAL "whether cuDNN's headers were found")
if(KEEN_CUDA_BUILT AND NOT KEEN_CUDA STREQUAL "EMULATE")
  find_path(KEEN_CUDNN_INCLUDE cudnn.h HINTS ${CUDNN_PATH} ENV CUDNN_PATH PATHS ${CUDAToolkit_INCLUDE_DIRS}
            PATH_SUFFIXES include DOC "The folder of cudnn.h")
  if(KEEN_CUDNN_INCLUDE)
    set(KEEN_CUDNN_BUILT true CACHE INTERNAL "whether cuDNN's headers were found")
  endif()
  message(STATUS "cuDNN's headers: ${KEEN_CUDNN_INCLUDE}")
endif()

# NCCL is opened at run time too, by runs of several ranks.
set(KEEN_NCCL_BUILT false CACHE INTERNAL "whether NCCL's header was found, and is wanted")
if(NOT KEEN_NCCL MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "KEEN_NCCL=${KEEN_NCCL}: one of AUTO, ON, OFF was expected")
endif()
if(KEEN_CUDA_BUILT AND NOT KEEN_CUDA STREQUAL "EMULATE" AND NOT KEEN_NCCL STREQUAL "OFF")
  find_path(KEEN_NCCL_INCLUDE nccl.h HINTS ${NCCL_PATH} ENV NCCL_PATH PATHS ${CUDAToolkit_INCLUDE_DIRS}
            PATH_SUFFIXES include DOC "The folder of nccl.h")
  if(KEEN_NCCL_INCLUDE)
    set(KEEN_NCCL_BUILT true CACHE INTERNAL "whether NCCL's header was found, and is wanted")
  endif()
  message(STATUS "NCCL's header: ${KEEN_NCCL_INCLUDE}")
endif()
if(KEEN_NCCL STREQUAL "ON" AND NOT KEEN_NCCL_BUILT)
  message(FATAL_ERROR "KEEN_NCCL=ON: a build with CUDA (KEEN_CUDA) and nccl.h are needed; name the folder of NCCL in "
                      "NCCL_PATH, or use AUTO or OFF")
endif()

# Adds the kernels of a floor to its sources.
function(keen_add_kernels list floor)
  file(GLOB kernels CONFIGURE_DEPENDS ${floor}/*.cu)
  if(KEEN_CUDA STREQUAL "EMULATE")
    set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS -Wno-unknown-pragmas)
  endif()
  set(${list} ${${list}} ${kernels} PARENT_SCOPE)
endfunction()

# Leaves out of the sources of a floor what a build without CUDA has no use for, or adds the kernels.
function(keen_choose_cuda_sources list floor)
  set(chosen ${${list}})
  if(KEEN_CUDA_BUILT)
    keen_add_kernels(chosen ${floor})
  else()
    list(FILTER chosen EXCLUDE REGEX "_cuda[^/]*\\.cpp$")
  endif()
  if(NOT KEEN_CUDNN_BUILT)
    list(FILTER chosen EXCLUDE REGEX "cudnn[^/]*\\.cpp$")
  endif()
  if(NOT KEEN_NCCL_BUILT)
    list(FILTER chosen EXCLUDE REGEX "nccl[^/]*\\.cpp$")
  endif()
  set(${list} ${chosen} PARENT_SCOPE)
endfunction()

function(keen_use_cuda target)
  if(NOT KEEN_CUDA_BUILT)
    return()
  endif()
  if(KEEN_CUDA STREQUAL "EMULATE")
    # First of all: it has twins of headers of src/.
    target_include_directories(${target} BEFORE PUBLIC ${KEEN_CUDA_EMULATOR})
    target_link_libraries(${target} PUBLIC keen_cuda_emulator)
    return()
  endif()
  # cudart alone, and statically: the program starts on machines that have no CUDA. Other libraries are opened at run
  # time.
  target_link_libraries(${target} PUBLIC CUDA::cudart_static)
  if(KEEN_CUDNN_BUILT)
    target_include_directories(${target} SYSTEM PUBLIC ${KEEN_CUDNN_INCLUDE})
  endif()
  if(KEEN_NCCL_BUILT)
    target_include_directories(${target} SYSTEM PUBLIC ${KEEN_NCCL_INCLUDE})
  endif()
  # What headers share with the other sources must be compiled alike: with OpenMP. Of the host's warnings nvcc's own
  # generated code trips over one.
  set(host_options ${KEEN_WARNINGS} -Wno-unused-parameter ${OpenMP_CXX_FLAGS})
  list(JOIN host_options "," host_options)
  # {fmt} 9 believes that nvcc has no constexpr. Warning 554 is of ConstHeads, which does not convert to itself. A spill
  # is a warning: nothing that we write should need one.
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-DFMT_USE_CONSTEXPR=1;-diag-suppress=554;-Xcompiler=${host_options};-Xptxas=-warn-spills>")
endfunction()
