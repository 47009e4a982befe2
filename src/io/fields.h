// The one list of fields of a config. Every config struct has a member
//
//   void fields(Fields& f) {
//     f.number("lr", lr, at_least(0.0), "peak learning rate");
//     ...
//   }
//
// and everything else follows from that list: strict reading, --set, writing, help, validation and
// comparison. A list is bound to the struct that it was made from, and must not outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace keen {

// The values that a number may take.
template <class T> struct Range {
  T low = std::numeric_limits<T>::lowest(), high = std::numeric_limits<T>::max();
  bool low_open = false, high_open = false;

  bool has(T x) const { return (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high); }
};
template <class T> Range<T> at_least(T low) { return {.low = low}; }
template <class T> Range<T> above(T low) { return {.low = low, .low_open = true}; }
template <class T> Range<T> between(T low, T high) { return {.low = low, .high = high}; }
inline Range<double> any_number() { return {}; }

class Fields {
 public:
  // Why a value was not taken: nothing when it was, otherwise a hint beyond "should be ...", which may be
  // empty.
  using Refusal = std::optional<std::string>;

  struct Field {
    std::string key;      // dotted, from the outermost object
    std::string valid;    // "an integer, at least 1"
    std::string meaning;  // one line
    std::string absent;  // what an absent key stands for, in words, where that is not the value in the struct
    bool fixed = false;  // may not change when a run is resumed
    bool required = false;
    // What others call it: who writes such a key is told this one.
    std::vector<std::string_view> synonyms;
    std::function<Refusal(const Json&)> read;  // assigns only a valid value
    std::function<Json()> write;
    std::function<void()> derive;  // gives an absent (or null) key its value, from the values of other keys

    Field& fix() { return fixed = true, *this; }
    Field& require() { return required = true, *this; }
    Field& also_called(std::initializer_list<std::string_view> names) {
      return synonyms.assign(names), *this;
    }
    Field& when_absent(std::string rule, std::function<void()> rule_body) {
      absent = std::move(rule);
      derive = std::move(rule_body);
      return *this;
    }
  };

  // --- making the list ---

  Field& flag(const char* key, bool& value, const char* meaning);
  Field& integer(const char* key, int64_t& value, Range<int64_t> range, const char* meaning);
  Field& integer(const char* key, std::optional<int64_t>& value, Range<int64_t> range, const char* meaning);
  Field& integers(const char* key, std::vector<int64_t>& value, Range<int64_t> range, const char* meaning);
  // An integer is a valid number.
  Field& number(const char* key, double& value, Range<double> range, const char* meaning);
  // Neither empty nor with control characters; `valid` reads "a path".
  Field& text(const char* key, std::string& value, const char* valid, const char* meaning);
  Field& text(const char* key, std::optional<std::string>& value, const char* valid, const char* meaning);
  // An enum by name: `names` in the order of its values.
  template <class E>
  Field& choice(const char* key, E& value, std::span<const std::string_view> names, const char* meaning) {
    return choice(
        key, names, [&value] { return static_cast<size_t>(value); },
        [&value](size_t index) { value = static_cast<E>(index); }, meaning);
  }
  // A value with a form of its own. `read` runs after all other fields have their values, because it may
  // depend on them; it gets `absent` when the key is not given, and reports through problem().
  Field& custom(const char* key, Json absent, const char* valid, const char* meaning,
                std::function<void(const Json&)> read, std::function<Json()> write);

  // A nested object. With `fixed`, every field in it is.
  template <class Struct> void section(const char* key, Struct& object, bool fixed = false) {
    const std::string outer = open_section(key);
    const size_t first = list_.size();
    object.fields(*this);
    for (size_t i = first; fixed && i < list_.size(); ++i) list_[i].fixed = true;
    prefix_ = outer;
  }

  // A check across fields, run at the end by finish(). Calls demand() or problem().
  void check(std::function<void()> body) { checks_.push_back({prefix_, std::move(body)}); }

  // --- inside checks; keys are relative to the section ---

  // Reports `what` unless `ok`. Says nothing where one of the keys has a problem of its own. The line names
  // the first of the keys that was set by a flag, otherwise the first.
  void demand(bool ok, std::initializer_list<const char*> keys, const std::string& what);
  // Reports a problem with `value`, found at `key` or at a place inside it ("attention[1].layers").
  void problem(const std::string& key, const Json& value, const std::string& what);
  // Whether none of the keys has a problem.
  bool clean(std::initializer_list<const char*> keys) const;

  // --- using it ---

  // Takes the values of an object; `source` (a file name) stands at the head of each problem.
  void read(const Json& document, const std::string& source);
  // Takes the KEY=VALUE of one --set flag: a JSON value, or a string when it is not JSON.
  void set(const std::string& assignment);
  // Derives what is absent, runs the checks, and raises one Error(Exit::usage) with a line for every problem.
  void finish();

  Json write() const;
  // Two lines for every key: its default, then what it means and what is valid. For a list of default values.
  std::string help() const;
  const std::vector<Field>& list() const { return list_; }

 private:
  struct Found {
    Json value;
    std::string source;
    bool flag = false;
  };
  struct Check {
    std::string prefix;
    std::function<void()> body;
  };

  Field& add(const char* key, std::string valid, const char* meaning);
  Field& choice(const char* key, std::span<const std::string_view> names, std::function<size_t()> get,
                std::function<void(size_t)> put, const char* meaning);
  std::string open_section(const char* key);
  Field* find(const std::string& key);
  void read_object(const Json& object, const std::string& prefix, const Found& from);
  void take(Field& field, const Json& value, const Found& from);
  void unknown(const std::string& key, const Json& value, const Found& from);
  void report(const std::string& key, const Json& value, const Found& from, const std::string& what);
  // The known keys, "a or b", that others call by the last part of `key`; empty when nobody does.
  std::string keys_called(const std::string& key) const;
  // The known key that is fewest edits away; empty when all are another word altogether.
  std::string nearest_key(const std::string& key) const;

  std::vector<Field> list_;
  std::vector<std::string> sections_;
  std::vector<Check> checks_;
  std::string prefix_;  // "model." while the fields of model are listed or checked
  std::map<std::string, Found> found_;
  std::map<std::string, std::function<void(const Json&)>> custom_;
  std::set<std::string> bad_;  // keys with a problem
  std::vector<std::string> problems_;
  std::string source_;
};

// One key in which two configs of the same kind differ, with both values as JSON.
struct Difference {
  std::string key, left, right;
  bool fixed = false;
};
std::vector<Difference> differences(const Fields& left, const Fields& right);

// The name that is fewest edits away (insert, delete, replace, swap neighbours).
std::string nearest_name(std::string_view name, std::span<const std::string_view> names);
// "red, green"
std::string name_list(std::span<const std::string_view> names);

}  // namespace keen
