// The safetensors format (Hugging Face, https://github.com/huggingface/safetensors): 8 bytes little-endian
// with the length of a JSON header, the header {"NAME": {"dtype", "shape", "data_offsets": [begin, end]}},
// then the data.
//
// keen writes tensors only (no metadata), names sorted in the header and in the data, the header padded with
// spaces to a multiple of 8 bytes: equal state gives equal bytes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "io/file.h"

namespace keen {

// What the header says of one tensor. F32, F64 and BF16 are known.
struct TensorEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

// Writes a file whose tensors come one after the other, so that no second copy of a model is needed. Storage
// errors are those of FileWriter.
class SafetensorsWriter {
 public:
  // Writes the header. Sorts the entries by name; names must differ.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorEntry> entries);

  // In the order in which the data must come.
  const std::vector<TensorEntry>& entries() const { return entries_; }
  // The next bytes of entry `name`, in as many pieces as the caller likes; an entry must be whole before the
  // next begins.
  void write(const std::string& name, std::span<const std::byte> bytes);
  void close();  // fsync; every entry must be whole

  int64_t bytes_written() const { return file_.bytes_written(); }
  std::string hash() const { return file_.hash(); }

 private:
  void step_over_whole();

  std::vector<TensorEntry> entries_;
  FileWriter file_;
  size_t next_ = 0;
  int64_t written_of_next_ = 0;
};

// The size of the file that these entries make.
int64_t safetensors_bytes(std::vector<TensorEntry> entries);

// One tensor of a mapped file. The data may be unaligned.
struct StoredTensor {
  DType dtype = DType::f32;
  Shape shape;
  std::span<const std::byte> data;
};
using StoredTensors = std::map<std::string, StoredTensor>;

// Reads the header of a whole file and checks everything: lengths, JSON without duplicate names, types,
// shapes against bytes, offsets in range, no overlaps, no holes. "__metadata__" is checked and ignored.
// Raises Exit::checkpoint naming `file` and the tensor. The result points into `bytes`.
StoredTensors parse_safetensors(std::span<const std::byte> bytes, const std::string& file);

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path)
      : file_(path, Exit::checkpoint), tensors_(parse_safetensors(file_.bytes(), path.string())) {}

  const std::filesystem::path& path() const { return file_.path(); }
  const StoredTensors& tensors() const { return tensors_; }
  const StoredTensor* find(const std::string& name) const {
    const auto at = tensors_.find(name);
    return at == tensors_.end() ? nullptr : &at->second;
  }

 private:
  MappedFile file_;
  StoredTensors tensors_;
};

// to = elements [first, first + to.count()) of `from`, converted to to's type. `to` lies in host memory.
void copy_values(Tensor to, const StoredTensor& from, int64_t first = 0);

}  // namespace keen
