#include "data/needle.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace keen {

namespace {

constexpr std::array<std::string_view, 64> kCities = {
    "Accra",   "Algiers",    "Amsterdam", "Athens",   "Auckland", "Baghdad",  "Bangkok",  "Barcelona",
    "Beijing", "Belgrade",   "Berlin",    "Bogota",   "Boston",   "Brussels", "Budapest", "Cairo",
    "Chicago", "Copenhagen", "Dakar",     "Damascus", "Delhi",    "Denver",   "Dublin",   "Edinburgh",
    "Geneva",  "Glasgow",    "Hamburg",   "Hanoi",    "Havana",   "Helsinki", "Houston",  "Istanbul",
    "Jakarta", "Jerusalem",  "Kyoto",     "Lagos",    "Lima",     "Lisbon",   "London",   "Madrid",
    "Manila",  "Melbourne",  "Milan",     "Montreal", "Moscow",   "Munich",   "Nairobi",  "Naples",
    "Osaka",   "Oslo",       "Ottawa",    "Paris",    "Prague",   "Quito",    "Rome",     "Santiago",
    "Seattle", "Seoul",      "Stockholm", "Sydney",   "Tokyo",    "Toronto",  "Vienna",   "Warsaw"};

// Stands in every needle, and hardly anywhere else.
constexpr std::string_view kSign = "The special magic ";

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

}  // namespace

NeedleMaker::NeedleMaker(const Dataset& haystack, const Tokenizer& tokenizer, uint64_t seed,
                         std::string_view stream)
    : haystack_(&haystack), tokenizer_(&tokenizer), seed_(seed), stream_(stream) {
  const auto& info = haystack.info();
  if (info && info->tokenizer_hash != tokenizer.hash())
    fail(Exit::data,
         "{}: the shards were encoded with another tokenizer ({} there, {} here), so their tokens would read "
         "as "
         "other text; name shards and tokenizer that belong together",
         haystack.shards().front().path().string(), info->tokenizer_hash, tokenizer.hash());
}

NeedleMaker::Sentence NeedleMaker::sentence(const std::string& text, const std::string& number) const {
  Sentence sentence{.ids = tokenizer_->encode(text)};
  std::vector<size_t> ends;  // of each token, in the text that all of them decode to
  std::string decoded;
  for (const int32_t id : sentence.ids) {
    decoded += tokenizer_->decode({&id, 1});
    ends.push_back(decoded.size());
  }
  const size_t first = decoded.rfind(number);
  if (first == std::string::npos)
    fail(Exit::data, "the tokenizer turns \"{}\" into \"{}\": numbers do not survive it", text, decoded);
  const auto token_with = [&](size_t byte) {
    return std::upper_bound(ends.begin(), ends.end(), byte) - ends.begin();
  };
  sentence.number_begin = token_with(first);
  sentence.number_end = token_with(first + number.size() - 1) + 1;
  return sentence;
}

std::vector<int32_t> NeedleMaker::draw_haystack(int64_t tokens, int64_t context, double uniform) const {
  int64_t places = 0, longest = 0;
  for (const Shard& shard : haystack_->shards()) {
    places += std::max<int64_t>(0, shard.tokens() - tokens + 1);
    longest = std::max(longest, shard.tokens());
  }
  if (places == 0)
    fail(Exit::data,
         "context {}: no shard of \"{}\" holds a haystack of {} tokens, the longest has {}; ask for shorter "
         "contexts or name more text with --data",
         context, haystack_->pattern(), tokens, longest);
  auto place = std::min(static_cast<int64_t>(uniform * static_cast<double>(places)), places - 1);
  std::vector<int32_t> text(static_cast<size_t>(tokens));
  for (const Shard& shard : haystack_->shards()) {
    const int64_t here = std::max<int64_t>(0, shard.tokens() - tokens + 1);
    if (place < here) {
      shard.copy(place, text);
      break;
    }
    place -= here;
  }
  return text;
}

// The text before the border ends in a full stop or its like, or a line or document ends there, and what
// follows is no continuation (as the 5 of 1.5 is).
bool NeedleMaker::ends_sentence(std::span<const int32_t> text, int64_t border) const {
  if (border == 0 || border == std::ssize(text)) return true;
  const auto at = static_cast<size_t>(border);
  const std::string before = tokenizer_->decode(text.subspan(at - 1, 1)),
                    after = tokenizer_->decode(text.subspan(at, 1));
  if (before.empty() || before.back() == '\n') return true;
  return std::string_view(".!?").find(before.back()) != std::string_view::npos &&
         (after.empty() || is_space(after.front()));
}

int64_t NeedleMaker::border_at(std::span<const int32_t> text, double depth) const {
  const int64_t tokens = std::ssize(text), wanted = std::llround(depth / 100 * static_cast<double>(tokens));
  for (int64_t away = 0; away <= tokens / 20; ++away)
    for (const int64_t border : {wanted - away, wanted + away})
      if (border >= 0 && border <= tokens && ends_sentence(text, border)) return border;
  return wanted;
}

Needle NeedleMaker::make(int64_t context, double depth, int64_t index) const {
  check(depth >= 0 && depth <= 100, "NeedleMaker::make: a depth in percent");
  const Philox random(seed_, fmt::format("{} {} {} {}", stream_, context, depth, index));
  Needle needle;
  needle.city = kCities[static_cast<size_t>(random.uniform(0) * static_cast<double>(kCities.size()))];
  needle.number = std::to_string(1'000'000 + static_cast<int64_t>(random.uniform(1) * 9'000'000));
  const std::string claim = fmt::format(" The special magic {} number is: {}.", needle.city, needle.number);
  const Sentence hidden = sentence(claim, needle.number),
                 question =
                     sentence(fmt::format(" What is the special magic {} number?{}", needle.city, claim),
                              needle.number);
  const int64_t haystack = context - 1 - std::ssize(hidden.ids) - std::ssize(question.ids);
  if (haystack < 1)
    fail(Exit::usage,
         "context {}: needle, question and answer alone take {} tokens, and some text should be left to hide "
         "the needle in; ask for longer contexts",
         context, context - haystack);
  const std::vector<int32_t> text = draw_haystack(haystack, context, random.uniform(2));
  if (tokenizer_->decode(text).find(kSign) != std::string::npos)
    fail(Exit::data,
         "\"{}\" is no text to hide a needle in: there are needles in it already (\"{}\"); name plain text "
         "with --data",
         haystack_->pattern(), kSign);
  const auto border = text.begin() + border_at(text, depth);

  std::vector<int32_t>& tokens = needle.tokens;
  tokens.push_back(tokenizer_->end_of_text());
  tokens.insert(tokens.end(), text.begin(), border);
  needle.needle_begin = std::ssize(tokens);
  needle.number_begin = needle.needle_begin + hidden.number_begin;
  needle.number_end = needle.needle_begin + hidden.number_end;
  tokens.insert(tokens.end(), hidden.ids.begin(), hidden.ids.end());
  tokens.insert(tokens.end(), border, text.end());
  needle.prompt_tokens = std::ssize(tokens) + question.number_begin;
  tokens.insert(tokens.end(), question.ids.begin(), question.ids.end());
  return needle;
}

}  // namespace keen
