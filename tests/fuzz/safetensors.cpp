// A file of tensors: what is accepted lies inside the file, each byte of it in one tensor, and is written and
// read back as it was.
#include "io/safetensors.h"

#include <cstring>

#include "target.h"

using namespace keen;

namespace {

std::string written(const StoredTensors& tensors, const std::filesystem::path& path) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] : tensors) entries.push_back({name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(path, entries);
  for (const TensorEntry& entry : writer.entries()) writer.write(entry.name, tensors.at(entry.name).data);
  writer.close();
  return read_file(path, Exit::internal);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fuzz::Directory directory;
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const auto tensors = fuzz::accepted(
      Exit::checkpoint, "f.safetensors:", [&] { return parse_safetensors(bytes, "f.safetensors"); });
  if (!tensors) return 0;
  size_t total = 0;
  for (const auto& [name, tensor] : *tensors) {
    total += tensor.data.size();
    fuzz::require(tensor.data.data() >= bytes.data() + 8 &&
                      tensor.data.data() + tensor.data.size() <= bytes.data() + size,
                  "tensors lie inside the file");
    fuzz::require(static_cast<size_t>(tensor.shape.count() * size_of(tensor.dtype)) == tensor.data.size(),
                  "a tensor has as many bytes as its shape says");
    std::vector<double> values(static_cast<size_t>(tensor.shape.count()));
    Tensor to;
    to.data = reinterpret_cast<std::byte*>(values.data());
    to.dtype = DType::f64;
    to.shape = {tensor.shape.count()};
    copy_values(to, tensor);
  }
  uint64_t header = 0;
  std::memcpy(&header, data, 8);
  fuzz::require(8 + header + total == size, "every byte of the data belongs to one tensor");

  const std::string copy = written(*tensors, directory / "copy.safetensors");
  const StoredTensors again = parse_safetensors(std::as_bytes(std::span(copy)), "copy");
  fuzz::require(again.size() == tensors->size(), "as many tensors as were written");
  for (const auto& [name, tensor] : *tensors) {
    const StoredTensor& other = again.at(name);
    fuzz::require(
        other.dtype == tensor.dtype && other.shape == tensor.shape &&
            std::equal(other.data.begin(), other.data.end(), tensor.data.begin(), tensor.data.end()),
        "read(write(x)) == x");
  }
  return 0;
}
