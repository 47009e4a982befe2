#include "io/safetensors.h"

#include <bit>
#include <cstdlib>
#include <cstring>

#include "core/philox.h"
#include "io/fault.h"
#include "op_test.h"
#include "temporary_directory.h"

namespace keen {
namespace {

using testing::content_of;
using testing::put;
using testing::TemporaryDirectory;
using testing::Tensors;

std::span<const std::byte> bytes_of(const Tensor& x) { return {x.data, static_cast<size_t>(x.bytes())}; }

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A file made by hand from its header and data.
std::string made(std::string header, const std::string& data) {
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
  return length + header + data;
}

std::string error_of(const std::string& file) {
  try {
    parse_safetensors(bytes_of(file), "f.safetensors");
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, Exit::checkpoint);
    EXPECT_TRUE(std::string(error.what()).starts_with("f.safetensors: ")) << error.what();
    return error.what();
  }
  return "";
}

// A file with three tensors of two types.
void write_sample(const std::filesystem::path& path, Tensor b, Tensor a, Tensor c) {
  SafetensorsWriter writer(path, {{"b", b.dtype, b.shape}, {"c", c.dtype, c.shape}, {"a", a.dtype, a.shape}});
  std::vector<std::string> order;
  for (const TensorEntry& entry : writer.entries()) order.push_back(entry.name);
  EXPECT_EQ(order, (std::vector<std::string>{"a", "b", "c"}));
  writer.write("a", bytes_of(a));
  writer.write("b", bytes_of(b).first(4));
  writer.write("b", bytes_of(b).subspan(4));
  writer.write("c", bytes_of(c));
  writer.close();
  EXPECT_EQ(writer.hash(), hash_of(content_of(path)));
  EXPECT_EQ(writer.bytes_written(), static_cast<int64_t>(content_of(path).size()));
  EXPECT_EQ(writer.bytes_written(), safetensors_bytes({writer.entries().rbegin(), writer.entries().rend()}));
}

TEST(Safetensors, RoundTripIsExact) {
  TemporaryDirectory directory;
  Tensors t;
  const Tensor a = t.normal({3}, DType::f32), b = t.normal({2, 5}, DType::f64),
               c = t.normal({1, 2, 3, 4}, DType::f32);
  write_sample(directory / "x", b, a, c);
  const SafetensorsFile file(directory / "x");
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.find("d"), nullptr);
  for (const auto& [name, tensor] : {std::pair("a", a), std::pair("b", b), std::pair("c", c)}) {
    const StoredTensor* stored = file.find(name);
    ASSERT_NE(stored, nullptr);
    EXPECT_EQ(stored->dtype, tensor.dtype);
    const Tensor got = t.poisoned(tensor.shape, tensor.dtype);
    copy_values(got, *stored);
    EXPECT_EQ(std::memcmp(got.data, tensor.data, static_cast<size_t>(tensor.bytes())), 0);
  }
  // The format: a header padded to 8 bytes, nothing but what it needs, the same bytes again for the same
  // tensors.
  const std::string content = content_of(directory / "x");
  EXPECT_EQ(static_cast<unsigned char>(content[0]) % 8, 0);
  EXPECT_EQ(content.substr(8, 56), R"({"a":{"data_offsets":[0,12],"dtype":"F32","shape":[3]},")");
  write_sample(directory / "y", b, a, c);
  EXPECT_EQ(content, content_of(directory / "y"));
}

TEST(Safetensors, ConvertsBetweenTypes) {
  Tensors t;
  const Tensor x = t.normal({1000}, DType::f32);
  const Tensor wide = t.poisoned({1000}, DType::f64), back = t.poisoned({1000}, DType::f32);
  copy_values(wide, {x.dtype, x.shape, bytes_of(x)});
  copy_values(back, {wide.dtype, wide.shape, bytes_of(wide)});
  EXPECT_EQ(Tensors::to_doubles(x), Tensors::to_doubles(wide));
  EXPECT_EQ(Tensors::to_doubles(x), Tensors::to_doubles(back));
  const Tensor rounded = t.copy_as(x, DType::bf16);
  copy_values(back, {rounded.dtype, rounded.shape, bytes_of(rounded)});
  EXPECT_EQ(Tensors::to_doubles(rounded), Tensors::to_doubles(back));
}

TEST(Safetensors, AnIndependentReaderAgrees) {
  if (std::system("python3 -c 'import struct' 2>/dev/null") != 0) GTEST_SKIP() << "no python3";
  TemporaryDirectory directory;
  Tensors t;
  Tensor a = t.zeros({3}, DType::f32), b = t.zeros({2, 2}, DType::f64), c = t.zeros({2}, DType::f32);
  Tensors::fill(a, [](int64_t i) { return 0.5 + static_cast<double>(i); });
  Tensors::fill(b, [](int64_t i) { return -0.1 * static_cast<double>(i); });
  Tensors::fill(c, [](int64_t) { return 7.0; });
  write_sample(directory / "x", b, a, c);
  put(directory / "read.py", R"(
import json, struct, sys
raw = open(sys.argv[1], 'rb').read()
n, = struct.unpack('<Q', raw[:8])
assert n % 8 == 0 and raw[8:9] == b'{'
header, data = json.loads(raw[8:8 + n]), raw[8 + n:]
assert list(header) == sorted(header) == ['a', 'b', 'c'] and '__metadata__' not in header
end = 0
for name, e in header.items():
    assert e['data_offsets'][0] == end
    end = e['data_offsets'][1]
assert end == len(data)
def values(name, code):
    i, j = header[name]['data_offsets']
    return list(struct.unpack('<%d%s' % ((j - i) // struct.calcsize(code), code), data[i:j]))
assert values('a', 'f') == [0.5, 1.5, 2.5] and header['a']['shape'] == [3]
assert values('b', 'd') == [-0.1 * i for i in range(4)] and header['b']['shape'] == [2, 2]
assert values('c', 'f') == [7.0, 7.0] and header['b']['dtype'] == 'F64'
)");
  EXPECT_EQ(
      std::system(
          fmt::format("python3 {} {}", (directory / "read.py").string(), (directory / "x").string()).c_str()),
      0);
}

TEST(Safetensors, RefusesEveryKindOfDamage) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  EXPECT_EQ(error_of(made(good, std::string(8, 'x'))), "");
  EXPECT_EQ(error_of(made("{}", "")), "");
  EXPECT_EQ(error_of(made(R"({"__metadata__":{"format":"pt"}})", "")), "");
  const std::pair<std::string, const char*> cases[] = {
      {"", "too few"},
      {"1234567", "too few"},
      {made(good, "x").substr(0, 20), "cannot lie in a file of 20"},
      {std::string(8, '\xff'), "cannot lie"},
      {made(good, std::string(7, 'x')), "truncated"},
      {made(good, std::string(9, 'x')), "1 bytes after the last tensor"},
      {made("[]", ""), "not a JSON object"},
      {made("{", ""), "header:1:"},
      {made("{\"\xff\":1}", ""), "header:1:"},
      {made(std::string(1000000, '['), ""), "nested deeper"},
      {made(
           R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
           ""),
       "the key \"a\" appears twice"},
      {made(R"({"__metadata__":{"format":1}})", ""), "__metadata__"},
      {made(R"({"a":3})", ""), "tensor a: the header has no \"dtype\""},
      {made(R"({"a":{"dtype":"F32","shape":[0]}})", ""), "no \"data_offsets\""},
      {made(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":1}})", ""), "unknown keys"},
      {made(R"({"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})", ""), "type \"I8\" is not known"},
      {made(R"({"a":{"dtype":3,"shape":[0],"data_offsets":[0,0]}})", ""), "type 3 is not known"},
      {made(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4]}})", "xxxx"), "at most 4"},
      {made(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "xxxx"), "-1 is no possible"},
      {made(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "xxxx"), "1.0 is no possible"},
      {made(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", ""),
       "no possible"},
      {made(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})", ""),
       "no possible"},
      {made(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "xxxxxxxx"), "needs 4 bytes"},
      {made(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "xxxx"), "outside"},
      {made(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", "xxxx"),
       "outside"},
      {made(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "xxxx"), "not two numbers"},
      {made(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "xxxxxxxx"), "leaves a hole"},
      {made(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           "xxxxxxxx"),
       "overlaps"},
  };
  for (const auto& [file, want] : cases)
    EXPECT_NE(error_of(file).find(want), std::string::npos) << want << ": " << error_of(file);
}

// Whatever a valid file turns into by flips, cuts, repeats and insertions: an error or a result that lies in
// it.
TEST(Safetensors, NeverCrashesOnMutations) {
  const std::string valid = made(
      R"({"__metadata__":{"k":"v"},"a":{"data_offsets":[0,12],"dtype":"F32","shape":[3]},"b":{"data_offsets":[12,28],"dtype":"F64","shape":[2,1]}})",
      std::string(28, 'x'));
  ASSERT_EQ(error_of(valid), "");
  const Philox random(7, "safetensors");
  int refused = 0;
  for (uint64_t round = 0; round < 20000; ++round) {
    std::string file = valid;
    const auto draw = random.bits(round);
    for (uint64_t change = 0; change <= draw[0] % 3; ++change) {
      const auto x = random.bits(round, change + 1);
      const size_t at = x[0] % (file.size() + 1);
      switch (x[1] % 5) {
        case 0:
          file.resize(at);
          break;
        case 1:
          file.insert(at, 1, static_cast<char>(x[2]));
          break;
        case 2:
          file.erase(at, x[2] % 8);
          break;
        case 3:
          file.insert(at, file.substr(x[2] % (file.size() + 1), x[3] % 32));
          break;
        default:
          if (at < file.size()) file[at] = static_cast<char>(file[at] ^ (1 << x[2] % 8));
      }
    }
    const std::vector<char> exact(file.begin(),
                                  file.end());  // so that a read past the end is seen by sanitizers
    try {
      for (const auto& [name, tensor] : parse_safetensors(std::as_bytes(std::span(exact)), "f")) {
        const std::vector<std::byte> copy(tensor.data.begin(), tensor.data.end());  // reads every byte
        EXPECT_EQ(static_cast<size_t>(tensor.shape.count() * size_of(tensor.dtype)), copy.size());
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::checkpoint);
      ++refused;
    }
  }
  EXPECT_GT(refused, 10000);
}

TEST(Safetensors, WriterRefusesWhatItWasNotTold) {
  TemporaryDirectory directory;
  Tensors t;
  const Tensor x = t.zeros({2}, DType::f32);
  EXPECT_THROW(SafetensorsWriter(directory / "d", {{"a", x.dtype, x.shape}, {"a", x.dtype, x.shape}}), Error);
  SafetensorsWriter writer(directory / "x", {{"a", x.dtype, x.shape}, {"b", x.dtype, x.shape}});
  EXPECT_THROW(writer.write("b", bytes_of(x)), Error);
  writer.write("a", bytes_of(x));
  EXPECT_THROW(writer.write("a", bytes_of(x)), Error);
  EXPECT_THROW(writer.close(), Error);
}

}  // namespace
}  // namespace keen
