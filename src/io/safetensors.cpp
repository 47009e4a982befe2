#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/parallel.h"
#include "io/json.h"

namespace keen {
namespace {

// The format's own limit, which keeps a damaged length from asking for gigabytes.
constexpr uint64_t kLargestHeader = 100'000'000;

std::string_view name_in_file(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f64:
      return "F64";
    case DType::bf16:
      return "BF16";
    default:
      fail(Exit::internal, "safetensors: no name for type {}", name_of(dtype));
  }
}

std::optional<DType> dtype_named(const std::string& name) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    if (name == name_in_file(dtype)) return dtype;
  return std::nullopt;
}

int64_t bytes_of(const TensorEntry& entry) { return entry.shape.count() * size_of(entry.dtype); }

void sort_by_name(std::vector<TensorEntry>& entries) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (size_t i = 1; i < entries.size(); ++i)
    check(entries[i - 1].name != entries[i].name, "safetensors: names that differ");
}

// The first bytes of the file: length and header. The entries are sorted.
std::string header_of(const std::vector<TensorEntry>& entries) {
  nlohmann::json header = nlohmann::json::object();  // sorts its keys
  int64_t offset = 0;
  for (const TensorEntry& entry : entries) {
    nlohmann::json shape = nlohmann::json::array();
    for (int axis = 0; axis < entry.shape.rank; ++axis) shape.push_back(entry.shape[axis]);
    const int64_t end = offset + bytes_of(entry);
    header[entry.name] = {
        {"dtype", name_in_file(entry.dtype)}, {"shape", shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(uint64_t{text.size()} >> (8 * i));
  return length + text;
}

void check_metadata(const Json& metadata, const std::string& file) {
  const bool strings =
      metadata.is_object() &&
      std::all_of(metadata.begin(), metadata.end(), [](const Json& value) { return value.is_string(); });
  if (!strings) fail(Exit::checkpoint, "{}: __metadata__ is not an object of strings", file);
}

Shape shape_in(const Json& dims, int64_t element_bytes, const std::string& file, const std::string& name) {
  if (!dims.is_array() || dims.size() > Shape::kMaxRank)
    fail(Exit::checkpoint, "{}: tensor {}: the shape is not a list of at most {} numbers", file, name,
         Shape::kMaxRank);
  Shape shape;
  int64_t bytes = element_bytes;
  for (const Json& dim : dims) {
    const bool fits = dim.is_number_unsigned() && dim.get<uint64_t>() <= uint64_t{INT64_MAX} &&
                      !__builtin_mul_overflow(bytes, dim.get<int64_t>(), &bytes);
    if (!fits) fail(Exit::checkpoint, "{}: tensor {}: {} is no possible dimension", file, name, dim.dump());
    shape.dim[static_cast<size_t>(shape.rank++)] = dim.get<int64_t>();
  }
  return shape;
}

StoredTensor tensor_in(const Json& entry, std::span<const std::byte> data, const std::string& file,
                       const std::string& name) {
  for (const char* key : {"dtype", "shape", "data_offsets"})
    if (!entry.is_object() || !entry.contains(key))
      fail(Exit::checkpoint, "{}: tensor {}: the header has no \"{}\"", file, name, key);
  if (entry.size() != 3) fail(Exit::checkpoint, "{}: tensor {}: the header has unknown keys", file, name);
  const auto dtype =
      entry["dtype"].is_string() ? dtype_named(entry["dtype"].get<std::string>()) : std::nullopt;
  if (!dtype)
    fail(Exit::checkpoint, "{}: tensor {}: type {} is not known (F32, F64 and BF16 are)", file, name,
         entry["dtype"].dump());

  const Json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    fail(Exit::checkpoint, "{}: tensor {}: data_offsets are not two numbers", file, name);
  const uint64_t begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  if (begin > end || end > data.size())
    fail(Exit::checkpoint,
         "{}: tensor {}: data_offsets [{}, {}] lie outside the {} bytes of data (truncated?)", file, name,
         begin, end, data.size());

  StoredTensor tensor{*dtype, shape_in(entry["shape"], size_of(*dtype), file, name),
                      data.subspan(begin, end - begin)};
  if (static_cast<uint64_t>(tensor.shape.count() * size_of(*dtype)) != end - begin)
    fail(Exit::checkpoint, "{}: tensor {}: shape {} of {} needs {} bytes, data_offsets hold {}", file, name,
         to_string(tensor.shape), name_in_file(*dtype), tensor.shape.count() * size_of(*dtype), end - begin);
  return tensor;
}

// Every byte of the data belongs to exactly one tensor.
void check_coverage(const StoredTensors& tensors, std::span<const std::byte> data, const std::string& file) {
  std::vector<std::pair<std::span<const std::byte>, const std::string*>> pieces;
  for (const auto& [name, tensor] : tensors) pieces.emplace_back(tensor.data, &name);
  std::sort(pieces.begin(), pieces.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.data(), a.first.size()) < std::pair(b.first.data(), b.first.size());
  });
  const std::byte* end = data.data();
  for (const auto& [piece, name] : pieces) {
    if (piece.data() != end)
      fail(Exit::checkpoint, "{}: tensor {}: its data {} the tensor before", file, *name,
           piece.data() < end ? "overlaps" : "leaves a hole after");
    end = piece.data() + piece.size();
  }
  if (const auto rest = data.data() + data.size() - end; rest != 0)
    fail(Exit::checkpoint, "{}: {} bytes after the last tensor belong to none", file, rest);
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorEntry> entries)
    : entries_(std::move(entries)), file_(path) {
  sort_by_name(entries_);
  file_.write(header_of(entries_));
}

void SafetensorsWriter::step_over_whole() {
  while (next_ < entries_.size() && written_of_next_ == bytes_of(entries_[next_])) {
    ++next_;
    written_of_next_ = 0;
  }
}

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  step_over_whole();
  check(next_ < entries_.size() && entries_[next_].name == name,
        "safetensors: tensors in the order of entries()");
  written_of_next_ += static_cast<int64_t>(bytes.size());
  check(written_of_next_ <= bytes_of(entries_[next_]), "safetensors: as many bytes as the shape says");
  file_.write(bytes);
}

void SafetensorsWriter::close() {
  step_over_whole();
  check(next_ == entries_.size(), "safetensors: every tensor is written before close");
  file_.close();
}

int64_t safetensors_bytes(std::vector<TensorEntry> entries) {
  sort_by_name(entries);
  int64_t bytes = static_cast<int64_t>(header_of(entries).size());
  for (const TensorEntry& entry : entries) bytes += bytes_of(entry);
  return bytes;
}

StoredTensors parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < 8)
    fail(Exit::checkpoint, "{}: {} bytes are too few for a safetensors file (truncated?)", file,
         bytes.size());
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  if (length > kLargestHeader || length > bytes.size() - 8)
    fail(Exit::checkpoint, "{}: a safetensors header of {} bytes cannot lie in a file of {} (truncated?)",
         file, length, bytes.size());
  const auto data = bytes.subspan(8 + length);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  const Json header = parse_json(text, file + ": header", Exit::checkpoint);
  if (!header.is_object()) fail(Exit::checkpoint, "{}: the header is not a JSON object", file);
  StoredTensors tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__")
      check_metadata(entry, file);
    else
      tensors.emplace(name, tensor_in(entry, data, file, name));
  }
  check_coverage(tensors, data, file);
  return tensors;
}

void copy_values(Tensor to, const StoredTensor& from, int64_t first) {
  check(to.device == Device::cpu && 0 <= first && first + to.count() <= from.shape.count(),
        "copy_values: elements that there are, to host memory");
  if (from.data.empty()) return;
  const std::byte* source = from.data.data() + first * size_of(from.dtype);
  if (to.dtype == from.dtype) {
    std::memcpy(to.data, source, static_cast<size_t>(to.bytes()));
    return;
  }
  with_float_type(from.dtype, [&]<class From>() {
    with_float_type(to.dtype, [&]<class To>() {
      To* target = to.as<To>();
      parallel_for(to.count(), 1 << 16, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          From value;
          std::memcpy(&value, source + i * static_cast<int64_t>(sizeof(From)), sizeof(From));
          target[i] = To(static_cast<Wide<To>>(static_cast<Wide<From>>(value)));
        }
      });
    });
  });
}

}  // namespace keen
