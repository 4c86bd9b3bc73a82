// A vendor's library that is looked for when it is needed: nothing of ours links it. It stays in
// the process once it was found, for drivers do not survive being unloaded. Any thread.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace inrush {

class Library {
 public:
  // The first of these names that the loader finds; or, where `instead` is not empty, the file of
  // that name and no other ("off": none). Throws Error{usage} with the loader's words.
  static Library open(std::initializer_list<const char*> names, const std::string& instead);

  // The one loaded last of those in this process already whose files are called `stem`, with any
  // ending: somebody else's, or ours. Nothing where there is none.
  static std::optional<Library> find_loaded(std::string_view stem);

  // Where it lies.
  [[nodiscard]] std::string path() const;

  // nullptr if it has none of that name.
  [[nodiscard]] void* find(const char* symbol) const;

  // Sets a pointer to a function. Throws Error{usage} naming the symbol that is missing.
  template <typename Function>
  void bind(const char* symbol, Function*& function) const {
    function = reinterpret_cast<Function*>(require(symbol));
  }

 private:
  explicit Library(void* handle) : handle_(handle) {}
  [[nodiscard]] void* require(const char* symbol) const;

  void* handle_ = nullptr;
};

}  // namespace inrush
