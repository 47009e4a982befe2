#include "data/needle.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "data/draws.h"

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

constexpr int64_t kDigits = 7;

// The first digit is not 0.
std::string number_of(double uniform) {
  return std::to_string(1'000'000 + static_cast<int64_t>(uniform * 9'000'000));
}

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
  most_tokens_ = most_tokens_of_sentences();
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
  if (tokenizer_->decode(text).find(kSign) != std::string::npos)
    fail(Exit::data,
         "\"{}\" is no text to hide a needle in: there are needles in it already (\"{}\"); name plain text "
         "with --data",
         haystack_->pattern(), kSign);
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

NeedleMaker::Sentences NeedleMaker::sentences(std::string_view city, const std::string& number) const {
  const std::string claim = fmt::format(" The special magic {} number is: {}.", city, number);
  return {sentence(claim, number),
          sentence(fmt::format(" What is the special magic {} number?{}", city, claim), number)};
}

// Of any city and number, at most.
int64_t NeedleMaker::most_tokens_of_sentences() const {
  int64_t most = 0;
  for (const std::string_view city : kCities) most = std::max(most, sentences(city, number_of(0)).tokens());
  return most + 2 * kDigits;  // another number may be cut into as many tokens as it has digits, twice
}

Needle NeedleMaker::make(int64_t context, double depth, int64_t index) const {
  check(depth >= 0 && depth <= 100, "NeedleMaker::make: a depth in percent");
  const Philox random(seed_, fmt::format("{} {} {} {}", stream_, context, depth, index));
  Needle needle;
  needle.city = kCities[static_cast<size_t>(random.uniform(0) * static_cast<double>(kCities.size()))];
  needle.number = number_of(random.uniform(1));
  const Sentences said = sentences(needle.city, needle.number);
  const Sentence &hidden = said.hidden, &question = said.question;
  const int64_t haystack = context - 1 - said.tokens();
  if (haystack < 1)
    fail(Exit::usage,
         "context {}: needle, question and answer alone take {} tokens, and some text should be left to hide "
         "the needle in; ask for longer contexts",
         context, context - haystack);
  const std::vector<int32_t> text = draw_haystack(haystack, context, random.uniform(2));
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

std::vector<int32_t> NeedleMaker::lesson(int64_t context, int64_t index) const {
  Draws draws(Philox(seed_, fmt::format("{} lesson {}", stream_, context)), index);
  const int64_t most = (context - 2) / most_tokens_;
  if (most < 1)
    fail(Exit::usage, "context {}: a needle and a question take up to {} tokens; use a longer context",
         context, most_tokens_ + 2);
  const auto needles = static_cast<size_t>(draws.log_uniform(std::min(most, std::ssize(kCities))));
  std::vector<size_t> order(kCities.size());
  std::iota(order.begin(), order.end(), size_t{0});
  draws.shuffle(order);
  order.resize(needles);
  std::vector<Sentences> said;
  int64_t left = context - 2;  // but for the end-of-text and a token of haystack
  for (const size_t city : order) {
    said.push_back(sentences(kCities[city], number_of(draws.uniform())));
    left -= std::ssize(said.back().hidden.ids);
  }

  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<size_t> questions;
  for (;;) {
    if (questions.size() % needles == 0) draws.shuffle(order);
    const size_t next = order[questions.size() % needles];
    left -= std::ssize(said[next].question.ids);
    if (left < 0) break;
    questions.push_back(next);
  }
  check(questions.size() >= needles, "NeedleMaker::lesson: a question for every needle");
  const auto more = static_cast<int64_t>(questions.size() - needles);
  questions.resize(needles + static_cast<size_t>(draws.below(more + 1)));

  int64_t haystack = context - 1;
  for (const Sentences& both : said) haystack -= std::ssize(both.hidden.ids);
  for (const size_t question : questions) haystack -= std::ssize(said[question].question.ids);
  const std::vector<int32_t> text = draw_haystack(haystack, context, draws.uniform());
  std::vector<int64_t> borders;
  for (size_t i = 0; i < needles; ++i) borders.push_back(border_at(text, 100 * draws.uniform()));
  std::ranges::sort(borders);

  std::vector<int32_t> tokens = {tokenizer_->end_of_text()};
  const auto append = [&](auto begin, auto end) { tokens.insert(tokens.end(), begin, end); };
  int64_t read = 0;
  for (size_t i = 0; i < needles; ++i) {
    append(text.begin() + read, text.begin() + borders[i]);
    append(said[i].hidden.ids.begin(), said[i].hidden.ids.end());
    read = borders[i];
  }
  append(text.begin() + read, text.end());
  for (const size_t i : questions) append(said[i].question.ids.begin(), said[i].question.ids.end());
  return tokens;
}

}  // namespace keen
