// Graphs of elementary operations in cuDNN's backend interface (cuDNN 9, "Graph API"), which plans one kernel
// for the whole. The library is opened when first asked for. Graphs are planned for a handle's device, or for
// one that is only described: the latter needs no GPU.
#pragma once

#include <cudnn.h>

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dynamic_library.h"

namespace keen::ops::cudnn {

// The functions that keen calls. Null where the library was not found: ask `refusal` first.
struct Library {
  DynamicLibrary library;

  decltype(&cudnnGetVersion) version = nullptr;
  decltype(&cudnnGetErrorString) error_string = nullptr;
  decltype(&cudnnGetLastErrorString) last_error = nullptr;
  decltype(&cudnnCreate) create = nullptr;
  decltype(&cudnnDestroy) destroy = nullptr;
  decltype(&cudnnSetStream) set_stream = nullptr;
  decltype(&cudnnBackendCreateDescriptor) create_descriptor = nullptr;
  decltype(&cudnnBackendDestroyDescriptor) destroy_descriptor = nullptr;
  decltype(&cudnnBackendSetAttribute) set_attribute = nullptr;
  decltype(&cudnnBackendGetAttribute) get_attribute = nullptr;
  decltype(&cudnnBackendFinalize) finalize = nullptr;
  decltype(&cudnnBackendExecute) execute = nullptr;

  Library();
  // Why this library is not used: it is missing, or a version known to compute or plan attention wrongly.
  // Empty when it is used.
  std::string refusal() const;
};

// One backend descriptor. What is set comes before `finalize`, which says whether the library takes it as a
// whole.
class Descriptor {
 public:
  Descriptor(const Library& library, cudnnBackendDescriptorType_t type);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&&) = delete;

  cudnnBackendDescriptor_t get() const { return descriptor_; }
  // Raise Exit::device when the library does not take them.
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                  const void* values);
  Descriptor& set(cudnnBackendAttributeName_t name, int64_t value);
  Descriptor& set(cudnnBackendAttributeName_t name, bool value);
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnDataType_t value);
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value);
  Descriptor& finalized();
  cudnnStatus_t finalize();

 private:
  const Library* library_;
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

// Four numbers: a tensor's dimensions (B, H, rows, columns), or its strides in elements.
using Four = std::array<int64_t, 4>;

// Tensors and the operations between them, in the order in which they are made: the library recognizes
// patterns by it. References to tensors stay valid as long as the graph.
class Graph {
 public:
  explicit Graph(const Library& library) : library_(library) {}

  // In memory that the caller names by `id` at every execution.
  Descriptor& tensor(int64_t id, cudnnDataType_t type, const Four& dims, const Four& strides);
  // A number that is read from the host's memory at every execution.
  Descriptor& scalar(int64_t id);
  // Between two operations, never in memory; contiguous unless strides are given.
  Descriptor& between(cudnnDataType_t type, const Four& dims);
  Descriptor& between(cudnnDataType_t type, const Four& dims, const Four& strides);

  void matmul(const Descriptor& a, const Descriptor& b, const Descriptor& c);
  void reduce(cudnnReduceTensorOp_t how, const Descriptor& x, const Descriptor& y);
  void reshape(const Descriptor& x, const Descriptor& y);
  // y = mode(x, b, mask); computed in `precision`, indices counted along `axis`.
  struct Pointwise {
    cudnnPointwiseMode_t mode;
    const Descriptor& x;
    const Descriptor* b = nullptr;
    const Descriptor* mask = nullptr;
    cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    std::optional<int64_t> axis{};
  };
  void pointwise(const Pointwise& how, const Descriptor& y);

  const Library& library() const { return library_; }
  const std::vector<cudnnBackendDescriptor_t>& operations() const { return operations_; }

 private:
  Descriptor& make(cudnnBackendDescriptorType_t type);
  Descriptor& any_tensor(int64_t id, cudnnDataType_t type, const Four& dims, const Four& strides,
                         bool is_virtual, bool by_value);
  void add(Descriptor& operation) { operations_.push_back(operation.finalized().get()); }

  const Library& library_;
  std::deque<Descriptor> made_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  int64_t next_id_ = 1000;  // of tensors between operations
};

// For what a graph is planned: the device of a handle, or one described by the library's JSON (device
// properties).
struct Target {
  cudnnHandle_t handle = nullptr;
  const Descriptor* properties = nullptr;
};
Descriptor device_properties(const Library& library, std::string_view json);

struct Plan {
  Descriptor plan;
  int64_t workspace_bytes;
  int64_t engine;
};
// The library's favourite among its kernels for this graph that need at most so much workspace, and, if asked
// for, give the same bits every time. Empty when there is none.
std::optional<Plan> plan(const Graph& graph, const Target& target, int64_t workspace_bytes,
                         bool deterministic);

}  // namespace keen::ops::cudnn
