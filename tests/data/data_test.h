// Shared by the tests of data: shards written byte by byte, a small vocabulary, and errors looked at from
// outside.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "core/check.h"
#include "data/encode.h"
#include "data/tokenizer.h"
#include "temporary_directory.h"

namespace keen::testing {

// A shard as another program would write it: `token_bytes` is 2 or 4.
inline std::string shard_bytes(int32_t magic, int32_t version, int32_t count,
                               const std::vector<uint32_t>& tokens, int token_bytes) {
  std::string bytes;
  const auto put_number = [&](uint32_t value, int width) {
    for (int i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  };
  for (int i = 0; i < 256; ++i)
    put_number(static_cast<uint32_t>(i == 0 ? magic : i == 1 ? version : i == 2 ? count : 0), 4);
  for (const uint32_t token : tokens) put_number(token, token_bytes);
  return bytes;
}
inline std::string narrow_shard(const std::vector<uint32_t>& tokens) {
  return shard_bytes(20240520, 1, static_cast<int32_t>(tokens.size()), tokens, 2);
}
// Tokens first, first + 1, ...
inline std::vector<uint32_t> ascending(size_t count, uint32_t first = 0) {
  std::vector<uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Runs `act`, which must raise an Error with this exit code whose message holds all of `parts`.
inline void expect_error(Exit exit, const std::vector<std::string>& parts, const std::function<void()>& act) {
  try {
    act();
    ADD_FAILURE() << "no error was raised";
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.exit), static_cast<int>(exit)) << error.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << part << " is not in: " << error.what();
  }
}

// Some English to train a vocabulary on.
inline std::string english() {
  const char* words[] = {"the",     "cat",    "sat",     "on",      "a",      "mat",    "and", "then",
                         "another", "cattle", "station", "matters", "thence", "  deep", "42",  "\tnote"};
  std::string text;
  uint32_t state = 12345;
  for (int line = 0; line < 400; ++line) {
    for (int word = 0; word < 9; ++word) {
      state = state * 1664525 + 1013904223;
      if (word > 0) text += ' ';
      text += words[state >> 28];
    }
    text += line % 8 == 7 ? ".\n\n" : ".\n";
  }
  return text;
}

inline std::filesystem::path train_english(const TemporaryDirectory& directory, int64_t size = 320) {
  put(directory / "english.txt", english());
  VocabularyOptions options;
  options.inputs = {(directory / "english.txt").string()};
  options.model = directory / "english.model";
  options.size = size;
  train_vocabulary(options);
  return options.model;
}

}  // namespace keen::testing
