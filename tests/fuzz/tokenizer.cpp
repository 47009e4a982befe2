// Text to tokenize, which may be any bytes: decode(encode(x)) = x, piece by piece too, and remembering words
// changes nothing.
#include "data/tokenizer.h"

#include "data/encode.h"
#include "target.h"

using namespace keen;

namespace {

// A small vocabulary with pieces of several bytes, spaces and digits in it.
Tokenizer trained() {
  const fuzz::Directory directory;
  std::string text;
  for (int line = 0; line < 200; ++line)
    text +=
        "the cat sat on the mat  and then another cat \xc3\xbc"
        "ber alles, na\xc3\xafve caf\xc3\xa9 " +
        std::to_string(line * 7) + "\n\tindented \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x98\x80\n";
  VocabularyOptions options;
  options.inputs = {directory.put("text.txt", text).string()};
  options.model = directory / "tokenizer.model";
  options.size = 340;
  train_vocabulary(options);
  return Tokenizer(options.model);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Tokenizer tokenizer = trained();
  static Encoder encoder(tokenizer);
  const std::string_view text = fuzz::text_of(data, size);
  const std::vector<int32_t> ids = tokenizer.encode(text);
  fuzz::require(tokenizer.decode(ids) == text, "decode(encode(x)) == x");
  std::string parts;
  for (const int32_t id : ids) parts += tokenizer.decode({&id, 1});
  fuzz::require(parts == text, "the decoded parts are the parts of the text");
  std::vector<int32_t> remembered;
  encoder.encode(text, remembered);
  fuzz::require(remembered == ids, "an Encoder gives the tokens of the tokenizer");
  return 0;
}
