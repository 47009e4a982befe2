// Text that comes in bytes, handed on in whole characters.
#pragma once

#include <string>
#include <string_view>

namespace keen {

// Bytes go in as they come, and what comes out is valid UTF-8 at every moment: the bytes of a character that
// is not complete wait for the rest, and bytes that can belong to none become U+FFFD, one each.
class Utf8Pieces {
 public:
  // The characters that are complete with these bytes; often none.
  std::string add(std::string_view bytes);
  // What still waits can be completed no more: U+FFFD for each byte.
  std::string finish();

 private:
  std::string waiting_;
};

}  // namespace keen
