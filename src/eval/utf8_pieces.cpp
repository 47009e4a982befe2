#include "eval/utf8_pieces.h"

#include <array>

#include "data/tokenizer.h"

namespace keen {

namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// Whether more bytes can make a character of these few, which are none yet: some ending makes it valid.
bool may_become_character(std::string_view bytes) {
  // The second byte of a character is the one that its first restricts, so both extremes of it are tried.
  constexpr std::array<std::string_view, 2> kEndings = {"\x80\x80\x80", "\xbf\xbf\xbf"};
  for (const std::string_view ending : kEndings)
    if (bytes.size() < 4 && utf8_length(std::string(bytes).append(ending)) > bytes.size()) return true;
  return false;
}

}  // namespace

std::string Utf8Pieces::add(std::string_view bytes) {
  waiting_ += bytes;
  std::string whole;
  size_t at = 0;
  while (at < waiting_.size()) {
    const std::string_view rest = std::string_view(waiting_).substr(at);
    if (const size_t length = utf8_length(rest); length > 0) {
      whole += rest.substr(0, length);
      at += length;
    } else if (may_become_character(rest)) {
      break;
    } else {
      whole += kReplacement;
      ++at;
    }
  }
  waiting_.erase(0, at);
  return whole;
}

std::string Utf8Pieces::finish() {
  std::string whole;
  for (size_t i = 0; i < waiting_.size(); ++i) whole += kReplacement;
  waiting_.clear();
  return whole;
}

}  // namespace keen
