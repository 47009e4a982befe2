#include "io/fields.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace keen {

namespace {

std::string shortened(const std::string& text, size_t longest = 100) {
  if (text.size() <= longest) return text;
  size_t end = longest;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not inside a character
  return text.substr(0, end) + "...";
}

template <class T> std::string describe(const char* noun, const Range<T>& range) {
  constexpr Range<T> all{};
  const bool low = range.low != all.low, high = range.high != all.high;
  if (low && high && !range.low_open && !range.high_open)
    return fmt::format("{} from {} to {}", noun, range.low, range.high);
  std::string text = noun;
  if (low) text += fmt::format("{} {}", range.low_open ? " above" : ", at least", range.low);
  if (high) text += fmt::format(", {} {}", range.high_open ? "below" : "at most", range.high);
  return text;
}

Fields::Refusal read_integer(const Json& value, const Range<int64_t>& range, int64_t& out) {
  if (value.is_number_float()) {
    const double x = value.get<double>();
    if (x == std::floor(x) && std::abs(x) < 0x1p53)
      return fmt::format("write it without a point or exponent, as {}", static_cast<int64_t>(x));
    return "";
  }
  if (!value.is_number_integer()) return "";
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return "";
  const int64_t x = value.get<int64_t>();
  if (!range.has(x)) return "";
  out = x;
  return std::nullopt;
}

Fields::Refusal read_text(const Json& value, std::string& out) {
  if (!value.is_string()) return "";
  const std::string& text = value.get_ref<const std::string&>();
  if (text.empty()) return "it is empty";
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return "it holds a control character";
  try {
    value.dump();  // the flags of a command line may hold any bytes
  } catch (const Json::exception&) {
    return "it is not UTF-8";
  }
  out = text;
  return std::nullopt;
}

// Edits between two names: insert, delete, replace, or swap neighbours (the restricted Damerau-Levenshtein
// distance).
size_t edit_distance(std::string_view a, std::string_view b) {
  const size_t width = b.size() + 1;
  std::vector<size_t> table((a.size() + 1) * width);
  const auto at = [&](size_t i, size_t j) -> size_t& { return table[i * width + j]; };
  for (size_t i = 0; i <= a.size(); ++i)
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        at(i, j) = i + j;
        continue;
      }
      const size_t replace = at(i - 1, j - 1) + (a[i - 1] == b[j - 1] ? 0 : 1);
      at(i, j) = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
    }
  return at(a.size(), b.size());
}

std::string_view last_part(std::string_view key) { return key.substr(key.rfind('.') + 1); }

}  // namespace

std::string nearest_name(std::string_view name, std::span<const std::string_view> names) {
  const std::string_view known = name.substr(0, 200);  // a longer one is no slip of the finger
  std::string_view best;
  size_t least = SIZE_MAX;
  for (const std::string_view candidate : names) {
    const size_t distance = edit_distance(known, candidate);
    if (distance < least) least = distance, best = candidate;
  }
  return std::string(best);
}

std::string name_list(std::span<const std::string_view> names) {
  std::string list;
  for (const std::string_view name : names) list.append(list.empty() ? "" : ", ").append(name);
  return list;
}

// --- making the list ---

Fields::Field& Fields::add(const char* key, std::string valid, const char* meaning) {
  Field field;
  field.key = prefix_ + key;
  field.valid = std::move(valid);
  field.meaning = meaning;
  keen::check(find(field.key) == nullptr, "Fields: every key is listed once");
  return list_.emplace_back(std::move(field));
}

std::string Fields::open_section(const char* key) {
  sections_.push_back(prefix_ + key);
  return std::exchange(prefix_, prefix_ + key + '.');
}

Fields::Field& Fields::flag(const char* key, bool& value, const char* meaning) {
  Field& field = add(key, "true or false", meaning);
  field.read = [&value](const Json& json) -> Refusal {
    if (!json.is_boolean()) return "";
    value = json.get<bool>();
    return std::nullopt;
  };
  field.write = [&value] { return Json(value); };
  return field;
}

Fields::Field& Fields::integer(const char* key, int64_t& value, Range<int64_t> range, const char* meaning) {
  Field& field = add(key, describe("an integer", range), meaning);
  field.read = [&value, range](const Json& json) { return read_integer(json, range, value); };
  field.write = [&value] { return Json(value); };
  return field;
}

Fields::Field& Fields::integer(const char* key, std::optional<int64_t>& value, Range<int64_t> range,
                               const char* meaning) {
  Field& field = add(key, describe("an integer", range) + ", or null", meaning);
  field.read = [&value, range](const Json& json) -> Refusal {
    if (json.is_null()) return value.reset(), std::nullopt;
    int64_t x = 0;
    Refusal refusal = read_integer(json, range, x);
    if (!refusal) value = x;
    return refusal;
  };
  field.write = [&value] { return value ? Json(*value) : Json(nullptr); };
  return field;
}

Fields::Field& Fields::integers(const char* key, std::vector<int64_t>& value, Range<int64_t> range,
                                const char* meaning) {
  Field& field = add(key, "a list, each element " + describe("an integer", range), meaning);
  field.read = [&value, range](const Json& json) -> Refusal {
    if (!json.is_array()) return "";
    std::vector<int64_t> numbers;
    for (const Json& element : json)
      if (const Refusal refusal = read_integer(element, range, numbers.emplace_back()))
        return fmt::format("{} is not{}{}", shortened(json_line(element)), refusal->empty() ? "" : ": ",
                           *refusal);
    value = std::move(numbers);
    return std::nullopt;
  };
  field.write = [&value] { return Json(value); };
  return field;
}

Fields::Field& Fields::number(const char* key, double& value, Range<double> range, const char* meaning) {
  Field& field = add(key, describe("a number", range), meaning);
  field.read = [&value, range](const Json& json) -> Refusal {
    if (!json.is_number() || !range.has(json.get<double>())) return "";
    value = json.get<double>();
    return std::nullopt;
  };
  field.write = [&value] { return Json(value); };
  return field;
}

Fields::Field& Fields::text(const char* key, std::string& value, const char* valid, const char* meaning) {
  Field& field = add(key, valid, meaning);
  field.read = [&value](const Json& json) { return read_text(json, value); };
  field.write = [&value] { return Json(value); };
  return field;
}

Fields::Field& Fields::text(const char* key, std::optional<std::string>& value, const char* valid,
                            const char* meaning) {
  Field& field = add(key, fmt::format("{}, or null", valid), meaning);
  field.read = [&value](const Json& json) -> Refusal {
    if (json.is_null()) return value.reset(), std::nullopt;
    std::string text;
    Refusal refusal = read_text(json, text);
    if (!refusal) value = std::move(text);
    return refusal;
  };
  field.write = [&value] { return value ? Json(*value) : Json(nullptr); };
  return field;
}

Fields::Field& Fields::choice(const char* key, std::span<const std::string_view> names,
                              std::function<size_t()> get, std::function<void(size_t)> put,
                              const char* meaning) {
  Field& field = add(key, "one of " + name_list(names), meaning);
  field.read = [names, put = std::move(put)](const Json& json) -> Refusal {
    if (!json.is_string()) return "";
    const std::string& name = json.get_ref<const std::string&>();
    const auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end()) return fmt::format("the nearest is {}", nearest_name(name, names));
    put(static_cast<size_t>(at - names.begin()));
    return std::nullopt;
  };
  field.write = [names, get = std::move(get)] { return Json(std::string(names[get()])); };
  return field;
}

Fields::Field& Fields::custom(const char* key, Json absent, const char* valid, const char* meaning,
                              std::function<void(const Json&)> read, std::function<Json()> write) {
  Field& field = add(key, valid, meaning);
  field.read = [](const Json&) -> Refusal { return std::nullopt; };  // kept, and read at the end
  field.write = std::move(write);
  const std::string dotted = field.key;
  custom_[dotted] = std::move(read);
  check([this, dotted, absent = std::move(absent)] {
    const auto found = found_.find(dotted);
    custom_.at(dotted)(found == found_.end() ? absent : found->second.value);
  });
  return field;
}

Fields::Field* Fields::find(const std::string& key) {
  const auto at =
      std::find_if(list_.begin(), list_.end(), [&](const Field& field) { return field.key == key; });
  return at == list_.end() ? nullptr : &*at;
}

// --- reading ---

void Fields::read(const Json& document, const std::string& source) {
  source_ = source;
  const Found from{nullptr, source, false};
  if (document.is_object()) return read_object(document, "", from);
  problems_.push_back(fmt::format("{}: {}: should be an object, {{\"key\": value, ...}}", source,
                                  shortened(json_line(document))));
}

void Fields::read_object(const Json& object, const std::string& prefix, const Found& from) {
  for (auto item = object.begin(); item != object.end(); ++item) {
    const std::string key = prefix + item.key();
    const bool plain = item.key().find('.') == std::string::npos;
    if (Field* const field = plain ? find(key) : nullptr) {
      take(*field, *item, from);
    } else if (plain && std::find(sections_.begin(), sections_.end(), key) != sections_.end()) {
      if (item->is_object())
        read_object(*item, key + '.', from);
      else
        report(key, *item, from, "should be an object, {\"key\": value, ...}");
    } else {
      unknown(key, *item, from);
    }
  }
}

void Fields::take(Field& field, const Json& value, const Found& from) {
  if (field.derive && value.is_null()) {
    found_.erase(field.key);
    return;
  }
  if (const Refusal refusal = field.read(value))
    return report(field.key, value, from,
                  fmt::format("should be {}{}{}", field.valid, refusal->empty() ? "" : "; ", *refusal));
  found_[field.key] = {value, from.source, from.flag};
}

void Fields::set(const std::string& assignment) {
  const Found from{nullptr, shortened("--set " + assignment), true};
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    problems_.push_back(fmt::format("{}: should be KEY=VALUE, as in --set model.layers=4", from.source));
    return;
  }
  const std::string key = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  Json value;
  try {
    value = parse_json(text, "", Exit::usage);
  } catch (const Error&) {
    value = text;
  }
  if (Field* const field = find(key)) {
    take(*field, value, from);
  } else if (std::find(sections_.begin(), sections_.end(), key) != sections_.end()) {
    if (value.is_object())
      read_object(value, key + '.', from);
    else
      report(key, value, from,
             fmt::format("is a group of keys; set one of them, as in --set {}.KEY=VALUE", key));
  } else {
    unknown(key, value, from);
  }
}

void Fields::unknown(const std::string& key, const Json& value, const Found& from) {
  if (const std::string meant = keys_called(key); !meant.empty())
    return report(key, value, from, fmt::format("unknown key; did you mean {}?", meant));
  const std::string nearest = nearest_key(key);
  if (nearest.empty())
    return report(key, value, from, "unknown key; keen train --help-config lists all keys");
  if (nearest == key)
    return report(key, value, from,
                  "unknown key; it would be known without the dot, as an object in an object");
  if (last_part(nearest) != last_part(key))
    return report(key, value, from, fmt::format("unknown key; the nearest known key is {}", nearest));
  std::string namesakes;  // the name is right, the place is not
  for (const Field& field : list_)
    if (last_part(field.key) == last_part(key)) namesakes += (namesakes.empty() ? "" : " or ") + field.key;
  report(key, value, from,
         fmt::format("unknown key here; did you mean {}?", namesakes.empty() ? nearest : namesakes));
}

std::string Fields::keys_called(const std::string& key) const {
  std::string keys;
  for (const Field& field : list_)
    if (std::find(field.synonyms.begin(), field.synonyms.end(), last_part(key)) != field.synonyms.end())
      keys += (keys.empty() ? "" : " or ") + field.key;
  return keys;
}

std::string Fields::nearest_key(const std::string& key) const {
  // The same name at another level is what was meant, whatever stands before it.
  const std::string_view known = std::string_view(key).substr(0, 200);
  // What is farther away is another word, and no slip of the finger.
  const size_t farthest = last_part(known).size() / 3 + 1;
  std::string best;
  size_t least = SIZE_MAX;
  const auto offer = [&](const std::string& candidate) {
    const size_t inside = edit_distance(last_part(known), last_part(candidate));
    const size_t whole = edit_distance(known, candidate);
    if (std::min(inside, whole) > farthest) return;
    const bool same_level = key.substr(0, key.size() - last_part(key).size()) ==
                            candidate.substr(0, candidate.size() - last_part(candidate).size());
    const size_t cost = std::min(2 * inside + (same_level ? 0 : 1), 2 * whole);
    if (cost < least) least = cost, best = candidate;
  };
  for (const Field& field : list_) offer(field.key);
  for (const std::string& section : sections_) offer(section);
  return best;
}

// --- problems ---

void Fields::report(const std::string& key, const Json& value, const Found& from, const std::string& what) {
  bad_.insert(key.substr(0, key.find('[')));
  const bool told =
      from.flag && from.source.starts_with("--set " + key + "=");  // the flag shows key and value
  problems_.push_back(told ? fmt::format("{}: {}", from.source, what)
                           : fmt::format("{}: {} = {}: {}", from.source, shortened(key, 200),
                                         shortened(json_line(value)), what));
}

void Fields::problem(const std::string& key, const Json& value, const std::string& what) {
  const std::string dotted = prefix_ + key;
  // The value was found at the key itself or, for a place inside a custom value, at the longest key it starts
  // with.
  const Found* from = nullptr;
  for (const auto& [name, found] : found_)
    if (dotted.starts_with(name) &&
        (dotted.size() == name.size() || dotted[name.size()] == '.' || dotted[name.size()] == '['))
      from = &found, bad_.insert(name);
  const Found nowhere{nullptr, source_, false};
  report(dotted, value, from != nullptr ? *from : nowhere, what);  // both by reference: a value may be large
}

bool Fields::clean(std::initializer_list<const char*> keys) const {
  return std::none_of(keys.begin(), keys.end(),
                      [&](const char* key) { return bad_.contains(prefix_ + key); });
}

void Fields::demand(bool ok, std::initializer_list<const char*> keys, const std::string& what) {
  if (ok || !clean(keys)) return;
  std::string blamed = *keys.begin();
  for (const char* key : keys) {
    const auto found = found_.find(prefix_ + key);
    if (found == found_.end() || !found->second.flag) continue;
    blamed = key;
    break;
  }
  const Field* const field = find(prefix_ + blamed);
  keen::check(field != nullptr, "Fields::demand: a listed key");
  const bool given = found_.contains(field->key);
  problem(blamed, field->write(), given ? what : "(not given) " + what);
}

void Fields::finish() {
  for (Field& field : list_) {
    const bool given = found_.contains(field.key) || bad_.contains(field.key);
    if (field.required && !given)
      problems_.push_back(fmt::format("{}: {}: missing; should be {}", source_, field.key, field.valid));
    if (field.derive && !given) field.derive();
  }
  for (const Check& check : checks_) {
    prefix_ = check.prefix;
    check.body();
  }
  prefix_.clear();
  if (problems_.empty()) return;
  std::string lines = problems_.front();
  for (size_t i = 1; i < problems_.size(); ++i) lines += '\n' + problems_[i];
  throw Error(Exit::usage, lines);
}

// --- writing ---

Json Fields::write() const {
  Json out = Json::object();
  for (const Field& field : list_) {
    Json* at = &out;
    size_t start = 0;
    for (size_t dot; (dot = field.key.find('.', start)) != std::string::npos; start = dot + 1)
      at = &(*at)[field.key.substr(start, dot - start)];
    (*at)[field.key.substr(start)] = field.write();
  }
  return out;
}

std::string Fields::help() const {
  std::string out;
  for (const Field& field : list_) {
    const std::string value = field.required         ? "(required)"
                              : field.absent.empty() ? json_line(field.write())
                                                     : field.absent;
    out += fmt::format("{} = {}\n    {} ({}{})\n", field.key, value, field.meaning, field.valid,
                       field.fixed ? "; fixed for a run" : "");
  }
  return out;
}

std::vector<Difference> differences(const Fields& left, const Fields& right) {
  check(left.list().size() == right.list().size(), "differences: two lists of one kind");
  std::vector<Difference> found;
  for (size_t i = 0; i < left.list().size(); ++i) {
    const Fields::Field &a = left.list()[i], &b = right.list()[i];
    const Json x = a.write(), y = b.write();
    if (x != y) found.push_back({a.key, json_line(x), json_line(y), a.fixed});
  }
  return found;
}

}  // namespace keen
