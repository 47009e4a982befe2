#include "io/json.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

namespace keen {

namespace {

// Walks over the text and tells how far the parser has come, because its callbacks do not.
struct Reading {
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at = nullptr;
  const char** reached = nullptr;

  reference operator*() const { return *at; }
  Reading& operator++() {
    ++at;
    *reached = at;
    return *this;
  }
  Reading operator++(int) {
    const Reading before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Reading& other) const { return at == other.at; }
};

// Receives what the parser finds and builds the document, so that keys and depth can be checked on the way.
class Builder : public Json::json_sax_t {
 public:
  Builder(std::string_view text, const char* const& reached) : text_(text), reached_(reached) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(Json::binary_t&) override { return stop("binary values are not JSON"); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (!open_.back().keys.insert(name).second)
      return stop(fmt::format("the key \"{}\" appears twice", name));
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    std::string what = error.what();  // "[json.exception.NAME.ID] parse error at line 3, column 5: what"
    what.erase(0, what.find("] ") + 2);
    if (what.starts_with("parse error")) what.erase(0, what.find(": ") + 2);
    constexpr size_t kLongest = 300;  // the message repeats the last token, which may be the whole file
    if (what.size() > kLongest) what = what.substr(0, kLongest) + " ...";
    stop(what, position == 0 ? 0 : position - 1);
    return false;
  }

  Json document;
  std::string error;  // "line:column: what is wrong"

 private:
  struct Open {
    Json* value;
    std::unordered_set<std::string> keys;
  };

  Json* place(Json&& value) {
    if (open_.empty()) {
      document = std::move(value);
      return &document;
    }
    Json& parent = *open_.back().value;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    // The key is known to be new; looking for it again in an ordered object would be linear.
    auto& pairs =
        static_cast<std::vector<std::pair<const std::string, Json>>&>(parent.get_ref<Json::object_t&>());
    pairs.emplace_back(std::move(key_), std::move(value));
    return &pairs.back().second;
  }

  bool add(Json&& value) {
    place(std::move(value));
    return true;
  }
  bool open(Json&& value) {
    if (open_.size() >= static_cast<size_t>(kMaxJsonDepth))
      return stop(fmt::format("nested deeper than {} levels", kMaxJsonDepth));
    Json* const at = place(std::move(value));
    open_.push_back({at, {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  bool stop(const std::string& what) {
    const auto consumed = static_cast<size_t>(reached_ - text_.data());
    return stop(what, consumed == 0 ? 0 : consumed - 1);
  }
  bool stop(const std::string& what, size_t offset) {
    const std::string_view before = text_.substr(0, std::min(offset, text_.size()));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    error = fmt::format("{}:{}: {}", line, before.size() - start + 1, what);
    return false;
  }

  std::string_view text_;
  const char* const& reached_;
  std::vector<Open> open_;
  std::string key_;
};

void write_pages(const Json& value, int columns, int indent, size_t used, std::string& out) {
  const bool outermost = indent == 0;
  const bool nested = value.is_structured() && !value.empty();
  std::string line = json_line(value);
  if (!nested || (!outermost && indent + used + line.size() <= static_cast<size_t>(columns))) {
    out += line;
    return;
  }
  out += value.is_object() ? '{' : '[';
  const std::string margin(static_cast<size_t>(indent) + 2, ' ');
  bool first = true;
  for (auto item = value.begin(); item != value.end(); ++item) {
    out += first ? "\n" : ",\n";
    first = false;
    const std::string label = value.is_object() ? json_line(Json(item.key())) + ": " : "";
    out += margin + label;
    write_pages(*item, columns, indent + 2, label.size() + 1, out);
  }
  out += '\n' + std::string(static_cast<size_t>(indent), ' ') + (value.is_object() ? '}' : ']');
}

}  // namespace

Json parse_json(std::string_view text, const std::string& source, Exit exit) {
  const char* reached = text.data();
  Builder builder(text, reached);
  const Reading begin{text.data(), &reached}, end{text.data() + text.size(), &reached};
  if (!Json::sax_parse(begin, end, &builder, Json::input_format_t::json, true, true))
    fail(exit, "{}:{}", source, builder.error);
  return std::move(builder.document);
}

int64_t integer_in(const Json& object, std::string_view key, const std::string& source, Exit exit,
                   int64_t low, int64_t high) {
  const auto at = object.find(std::string(key));  // the end where this is no object
  const bool found = at != object.end();
  const bool fits = found && at->is_number_integer() &&
                    (!at->is_number_unsigned() || at->get<uint64_t>() <= uint64_t{INT64_MAX}) &&
                    at->get<int64_t>() >= low && at->get<int64_t>() <= high;
  if (!fits)
    fail(exit, "{}: \"{}\" {}; should be a whole number from {} to {}", source, key,
         found ? "is " + json_line(*at).substr(0, 100) : "is missing", low, high);
  return at->get<int64_t>();
}

std::string json_line(const Json& value) {
  if (value.is_object() || value.is_array()) {
    std::string line(1, value.is_object() ? '{' : '[');
    for (auto item = value.begin(); item != value.end(); ++item) {
      if (line.size() > 1) line += ", ";
      if (value.is_object()) line += json_line(Json(item.key())) + ": ";
      line += json_line(*item);
    }
    return line + (value.is_object() ? '}' : ']');
  }
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string json_pages(const Json& value, int columns) {
  std::string out;
  write_pages(value, columns, 0, 0, out);
  return out;
}

}  // namespace keen
