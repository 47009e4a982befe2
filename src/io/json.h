// JSON text: strict parsing with // comments, and two ways of writing. Include <nlohmann/json.hpp> to use a
// Json.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "core/check.h"

namespace keen {

// Objects keep the order of their keys.
using Json = nlohmann::ordered_json;

// Parses one JSON document, in which // comments are allowed. Everything else is an error that raises `exit`
// and reads "source:line:column: what is wrong": a syntax error, invalid UTF-8, a number too large for
// float64, a key twice in one object, nesting deeper than kMaxJsonDepth. Integers above 2^63 - 1 are kept as
// unsigned or, above 2^64 - 1, as float64.
inline constexpr int kMaxJsonDepth = 64;
Json parse_json(std::string_view text, const std::string& source, Exit exit);

// What a count in a file may be at most: every reader of JSON has it exactly, and sums of a few stay in 64
// bits.
inline constexpr int64_t kMostCount = int64_t{1} << 53;
// The member `key` of an object, which must be a whole number from `low` to `high`; raises `exit` otherwise,
// and when there is none. Json::get converts instead: 2^64 - 1 becomes -1, and 1e300 anything.
int64_t integer_in(const Json& object, std::string_view key, const std::string& source, Exit exit,
                   int64_t low = 0, int64_t high = kMostCount);

// Compact, on one line. Bytes that are not UTF-8 become U+FFFD, so that this never fails.
std::string json_line(const Json& value);

// Indented by two spaces; an object or list that fits into `columns` stays on one line, except the outermost
// one. Ends without a newline.
std::string json_pages(const Json& value, int columns = 110);

}  // namespace keen
