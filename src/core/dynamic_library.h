// A shared library that is looked for when it is first needed, so that a program starts as fast, and on as
// many machines, as without it.
#pragma once

#include <memory>
#include <string>

namespace keen {

class DynamicLibrary {
 public:
  // Opens `name` ("libcublasLt.so.13") where the system looks for libraries (LD_LIBRARY_PATH among others),
  // then in lib64 and lib of $CUDA_HOME, $CUDA_PATH and /usr/local/cuda. Whether it was found is asked by
  // `found`.
  explicit DynamicLibrary(const std::string& name);

  bool found() const { return handle_ != nullptr; }
  const std::string& name() const { return name_; }
  // It stays in memory until the process ends: for libraries whose threads outlive what was asked of them.
  void keep_open() { handle_.get_deleter().keeps = true; }
  // What the system says about a library that was not found.
  const std::string& complaint() const { return complaint_; }

  // Sets `function` to the address of what the library calls `symbol`. Raises Exit::device without the
  // library, saying that `needed_for` needs it, and without the symbol.
  template <class F> void bind(F*& function, const char* symbol, const char* needed_for) const {
    function = reinterpret_cast<F*>(address_of(symbol, needed_for));
  }

 private:
  struct Close {
    bool keeps;
    Close() : keeps(false) {}
    void operator()(void* handle) const;
  };
  void* address_of(const char* symbol, const char* needed_for) const;

  std::string name_, complaint_;
  std::unique_ptr<void, Close> handle_;
};

}  // namespace keen
