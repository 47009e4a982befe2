#include "ops/cudnn_graph.h"

#include <utility>

#include "core/check.h"

namespace keen::ops::cudnn {

Library::Library() : library("libcudnn.so.9") {
  if (!library.found()) return;
  const auto bind = [this](auto& function, const char* symbol) {
    library.bind(function, symbol, "\"attention_path\": \"cudnn\"");
  };
  bind(version, "cudnnGetVersion");
  bind(error_string, "cudnnGetErrorString");
  bind(last_error, "cudnnGetLastErrorString");
  bind(create, "cudnnCreate");
  bind(destroy, "cudnnDestroy");
  bind(set_stream, "cudnnSetStream");
  bind(create_descriptor, "cudnnBackendCreateDescriptor");
  bind(destroy_descriptor, "cudnnBackendDestroyDescriptor");
  bind(set_attribute, "cudnnBackendSetAttribute");
  bind(get_attribute, "cudnnBackendGetAttribute");
  bind(finalize, "cudnnBackendFinalize");
  bind(execute, "cudnnBackendExecute");
}

std::string Library::refusal() const {
  if (!library.found()) return fmt::format("{} was not found ({})", library.name(), library.complaint());
  const size_t v = version();
  for (const size_t bad : {91000u, 91001u, 91400u})
    if (v == bad)
      return fmt::format("cuDNN {}.{}.{} has known defects in attention", v / 10000, v / 100 % 100, v % 100);
  return "";
}

namespace {

void check_status(const Library& library, cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char details[512] = "";
  library.last_error(details, sizeof details);
  fail(Exit::device, "cuDNN: {}: {} {}", what, library.error_string(status), details);
}

}  // namespace

Descriptor::Descriptor(const Library& library, cudnnBackendDescriptorType_t type) : library_(&library) {
  check_status(library, library.create_descriptor(type, &descriptor_), "making a descriptor");
}
Descriptor::~Descriptor() {
  if (descriptor_ != nullptr) library_->destroy_descriptor(descriptor_);
}
Descriptor::Descriptor(Descriptor&& other) noexcept
    : library_(other.library_), descriptor_(std::exchange(other.descriptor_, nullptr)) {}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                            const void* values) {
  check_status(*library_, library_->set_attribute(descriptor_, name, type, count, values),
               "setting an attribute");
  return *this;
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, int64_t value) {
  return set(name, CUDNN_TYPE_INT64, 1, &value);
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, bool value) {
  return set(name, CUDNN_TYPE_BOOLEAN, 1, &value);
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
  return set(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, const Descriptor& value) {
  return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.descriptor_);
}
cudnnStatus_t Descriptor::finalize() { return library_->finalize(descriptor_); }
Descriptor& Descriptor::finalized() {
  check_status(*library_, finalize(), "describing a graph");
  return *this;
}

Descriptor& Graph::make(cudnnBackendDescriptorType_t type) { return made_.emplace_back(library_, type); }

Descriptor& Graph::any_tensor(int64_t id, cudnnDataType_t type, const Four& dims, const Four& strides,
                              bool is_virtual, bool by_value) {
  return make(CUDNN_BACKEND_TENSOR_DESCRIPTOR)
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims.data())
      .set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides.data())
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16})
      .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, is_virtual)
      .set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, by_value)
      .finalized();
}
Descriptor& Graph::tensor(int64_t id, cudnnDataType_t type, const Four& dims, const Four& strides) {
  return any_tensor(id, type, dims, strides, false, false);
}
Descriptor& Graph::scalar(int64_t id) {
  return any_tensor(id, CUDNN_DATA_FLOAT, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true);
}
Descriptor& Graph::between(cudnnDataType_t type, const Four& dims) {
  return between(type, dims, {dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1});
}
Descriptor& Graph::between(cudnnDataType_t type, const Four& dims, const Four& strides) {
  return any_tensor(next_id_++, type, dims, strides, true, false);
}

void Graph::matmul(const Descriptor& a, const Descriptor& b, const Descriptor& c) {
  const Descriptor& how =
      make(CUDNN_BACKEND_MATMUL_DESCRIPTOR).set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT).finalized();
  add(make(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
          .set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a)
          .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b)
          .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, c)
          .set(CUDNN_ATTR_OPERATION_MATMUL_DESC, how));
}

void Graph::reduce(cudnnReduceTensorOp_t op, const Descriptor& x, const Descriptor& y) {
  const Descriptor& how = make(CUDNN_BACKEND_REDUCTION_DESCRIPTOR)
                              .set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &op)
                              .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT)
                              .finalized();
  add(make(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
          .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x)
          .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y)
          .set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, how));
}

void Graph::reshape(const Descriptor& x, const Descriptor& y) {
  add(make(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR)
          .set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x)
          .set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y));
}

void Graph::pointwise(const Pointwise& how, const Descriptor& y) {
  Descriptor& description = make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR)
                                .set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &how.mode)
                                .set(CUDNN_ATTR_POINTWISE_MATH_PREC, how.precision);
  if (how.axis) description.set(CUDNN_ATTR_POINTWISE_AXIS, *how.axis);
  description.finalized();
  Descriptor& operation = make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
                              .set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, description)
                              .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, how.x);
  if (how.b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *how.b);
  if (how.mask != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, *how.mask);
  add(operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y));
}

Descriptor device_properties(const Library& library, std::string_view json) {
  Descriptor properties(library, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties
      .set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, static_cast<int64_t>(json.size()),
           json.data())
      .finalized();
  return properties;
}

namespace {

// What the library proposes for a graph, best first.
std::deque<Descriptor> proposals(const Library& library, const Descriptor& graph, const Target& target) {
  const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
  Descriptor heuristic(library, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
      .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (target.properties != nullptr) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target.properties);
  std::deque<Descriptor> configs;
  if (heuristic.finalize() != CUDNN_STATUS_SUCCESS) return configs;
  int64_t count = 0;
  check_status(library,
               library.get_attribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr),
               "asking for kernels");
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; ++i)
    raw.push_back(configs.emplace_back(library, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  int64_t filled = 0;
  check_status(library,
               library.get_attribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &filled, raw.data()),
               "asking for kernels");
  while (static_cast<int64_t>(configs.size()) > filled) configs.pop_back();
  return configs;
}

struct Engine {
  int64_t index = -1;
  bool deterministic = true;
};

Engine engine_of(const Library& library, const Descriptor& config) {
  const Descriptor engine(library, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  Engine facts;
  int64_t count = 0;
  check_status(library,
               library.get_attribute(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                     1, &count, &raw),
               "asking for a kernel");
  check_status(
      library,
      library.get_attribute(raw, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, &facts.index),
      "asking for a kernel");
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  if (library.get_attribute(raw, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                            CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) == CUDNN_STATUS_SUCCESS)
    for (int64_t i = 0; i < count; ++i)
      if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) facts.deterministic = false;
  return facts;
}

}  // namespace

std::optional<Plan> plan(const Graph& graph, const Target& target, int64_t workspace_bytes,
                         bool deterministic) {
  const Library& library = graph.library();
  Descriptor operations(library, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  operations.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                 static_cast<int64_t>(graph.operations().size()), graph.operations().data());
  if (target.handle != nullptr)
    operations.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
  if (operations.finalize() != CUDNN_STATUS_SUCCESS) return {};
  for (const Descriptor& config : proposals(library, operations, target)) {
    Descriptor candidate(library, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    candidate.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (target.handle != nullptr)
      candidate.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
    else
      candidate.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target.properties);
    const Engine engine = engine_of(library, config);
    if (deterministic && !engine.deterministic) continue;
    if (candidate.finalize() != CUDNN_STATUS_SUCCESS) continue;
    int64_t needed_bytes = 0, count = 0;
    check_status(library,
                 library.get_attribute(candidate.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                       CUDNN_TYPE_INT64, 1, &count, &needed_bytes),
                 "asking for a workspace");
    if (needed_bytes <= workspace_bytes) return Plan{std::move(candidate), needed_bytes, engine.index};
  }
  return {};
}

}  // namespace keen::ops::cudnn
