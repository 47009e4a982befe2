#include "data/tokenizer.h"

#include <sentencepiece_processor.h>

#include <optional>

#include "io/file.h"

namespace keen {

namespace {

constexpr std::string_view kSpaceSign = "\xe2\x96\x81";  // U+2581
constexpr size_t kMaxWords = 1 << 18;
constexpr size_t kMaxWordBytes = 64;  // longer ones hardly come twice

// The fields of a message in the protocol buffer wire format, as far as they are needed here: varints and
// bytes.
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view bytes) : rest_(bytes) {}

  struct Field {
    uint64_t number = 0, value = 0;
    std::string_view bytes;
  };
  std::optional<Field> next() {
    const auto tag = varint();
    if (!tag) return std::nullopt;
    Field field{*tag >> 3, 0, {}};
    switch (*tag & 7) {
      case 0: {
        const auto value = varint();
        if (!value) return std::nullopt;
        field.value = *value;
        return field;
      }
      case 1:
        return take(8, field);
      case 2: {
        const auto length = varint();
        return length ? take(*length, field) : std::nullopt;
      }
      case 5:
        return take(4, field);
      default:
        return std::nullopt;
    }
  }

 private:
  std::optional<uint64_t> varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const uint64_t byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }
  std::optional<Field> take(uint64_t length, Field field) {
    if (length > rest_.size()) return std::nullopt;
    field.bytes = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return field;
  }

  std::string_view rest_;
};

// Whether the model leaves text as it is before cutting it into pieces: no character map, no dummy prefix, no
// space removed, spaces escaped (fields 2 to 5 of NormalizerSpec, field 3 of ModelProto; the flags are true
// where absent).
bool leaves_text_alone(std::string_view model) {
  ProtoReader reader(model);
  bool mapped = false, prefix = true, removes = true, escapes = true;
  while (const auto field = reader.next()) {
    if (field->number != 3) continue;
    ProtoReader spec(field->bytes);
    while (const auto entry = spec.next()) {
      if (entry->number == 2) mapped = !entry->bytes.empty();
      if (entry->number == 3) prefix = entry->value != 0;
      if (entry->number == 4) removes = entry->value != 0;
      if (entry->number == 5) escapes = entry->value != 0;
    }
  }
  return !mapped && !prefix && !removes && escapes;
}

std::string with_spaces(std::string_view piece) {
  std::string text;
  for (size_t at = 0; at < piece.size();) {
    const bool space = piece.substr(at, kSpaceSign.size()) == kSpaceSign;
    text += space ? ' ' : piece[at];
    at += space ? kSpaceSign.size() : 1;
  }
  return text;
}

}  // namespace

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return continues(1) ? 2 : 0;
  if (lead < 0xf0) {
    if (!continues(1) || !continues(2)) return 0;
    return (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) >= 0xa0) ? 0 : 3;
  }
  if (lead > 0xf4 || !continues(1) || !continues(2) || !continues(3)) return 0;
  return (lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) >= 0x90) ? 0 : 4;
}

Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer::Tokenizer(const std::filesystem::path& path) : model_(new sentencepiece::SentencePieceProcessor) {
  const std::string name = path.string();
  if (std::filesystem::is_directory(path)) fail(Exit::data, "{}: a directory, not a tokenizer model", name);
  const std::string file = read_file(path, Exit::data, FileKind::regular);
  hash_ = hash_of(file);
  // An empty or cut file can pass for a message without fields.
  if (file.empty() || !model_->LoadFromSerializedProto(file).ok() || model_->GetPieceSize() == 0)
    fail(Exit::data, "{}: no SentencePiece model ({} bytes); train one with `keen tokenize vocab`", name,
         file.size());
  vocab_size_ = model_->GetPieceSize();
  end_of_text_ = model_->eos_id();
  if (end_of_text_ < 0)
    fail(Exit::data, "{}: the model has no end-of-text id (eos_id -1); train one with `keen tokenize vocab`",
         name);
  byte_ids_.assign(256, -1);
  separable_ = lossless_ = leaves_text_alone(file);
  for (int id = 0; id < vocab_size_; ++id) {
    const std::string& piece = model_->IdToPiece(id);
    std::string surface;
    if (model_->IsByte(id)) {
      const auto value = static_cast<unsigned char>(std::stoul(piece.substr(3, 2), nullptr, 16));
      byte_ids_[value] = id;
      surface = std::string(1, static_cast<char>(value));
    } else if (model_->IsUnknown(id)) {
      surface = "\xef\xbf\xbd";
    } else if (!model_->IsControl(id)) {
      surface = with_spaces(piece);
      for (size_t at = 1; at < surface.size(); ++at)
        if (surface[at] == ' ' && surface[at - 1] != ' ') separable_ = false;
    }
    surfaces_.push_back(std::move(surface));
  }
  for (int value = 0; value < 256; ++value)
    if (byte_ids_[static_cast<size_t>(value)] < 0)
      fail(Exit::data,
           "{}: the model has no piece for byte 0x{:02X}; it must be trained with --byte_fallback, as `keen "
           "tokenize vocab` does",
           name, value);
}

void Tokenizer::encode_run(std::string_view run, std::vector<int32_t>& ids) const {
  std::vector<int> tokens;
  const auto status = model_->Encode(run, &tokens);
  if (!status.ok())
    fail(Exit::data, "SentencePiece cannot encode {} bytes of text: {}", run.size(), status.message());
  ids.insert(ids.end(), tokens.begin(), tokens.end());
}

// Cuts text into newlines, bytes that must go in as byte pieces, and runs that SentencePiece encodes.
template <class Run>
void Tokenizer::encode_with(std::string_view text, std::vector<int32_t>& ids, const Run& run) const {
  size_t begin = 0, at = 0;
  const auto emit = [&](size_t end, size_t bytes) {
    if (end > begin) run(text.substr(begin, end - begin), ids);
    for (size_t i = end; i < end + bytes; ++i) ids.push_back(byte_ids_[static_cast<unsigned char>(text[i])]);
    begin = at = end + bytes;
  };
  while (at < text.size()) {
    const auto c = static_cast<unsigned char>(text[at]);
    if (c == '\n') {
      emit(at, 1);
    } else if (c < 0x80) {
      ++at;
    } else if (const size_t length = utf8_length(text.substr(at)); length == 0) {
      emit(at, 1);
    } else if (text.substr(at, length) == kSpaceSign) {
      emit(at, length);
    } else {
      at += length;
    }
  }
  emit(at, 0);
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t>& ids) const {
  encode_with(text, ids, [this](std::string_view run, std::vector<int32_t>& out) { encode_run(run, out); });
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode(text, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size_)
      fail(Exit::data,
           "decode: token id {} is outside the tokenizer's vocabulary of {}; was the data encoded with "
           "another model?",
           id, vocab_size_);
    text += surfaces_[static_cast<size_t>(id)];
  }
  return text;
}

void Encoder::encode(std::string_view text, std::vector<int32_t>& ids) {
  if (!tokenizer_->separable_) return tokenizer_->encode(text, ids);
  tokenizer_->encode_with(
      text, ids, [this](std::string_view run, std::vector<int32_t>& out) { encode_words(run, out); });
}

void Encoder::encode_words(std::string_view run, std::vector<int32_t>& ids) {
  while (!run.empty()) {
    size_t end = 1;
    while (end < run.size() && !(run[end] == ' ' && run[end - 1] != ' ')) ++end;
    const std::string_view word = run.substr(0, end);
    run.remove_prefix(end);
    if (const auto known = words_.find(word); known != words_.end()) {
      ids.insert(ids.end(), known->second.begin(), known->second.end());
      continue;
    }
    const size_t before = ids.size();
    tokenizer_->encode_run(word, ids);
    if (word.size() > kMaxWordBytes) continue;
    if (words_.size() >= kMaxWords) words_.clear();
    words_.emplace(word, std::vector<int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end()));
  }
}

}  // namespace keen
