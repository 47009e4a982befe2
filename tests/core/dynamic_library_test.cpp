#include "core/dynamic_library.h"

#include <gtest/gtest.h>

#include "core/check.h"

namespace keen {
namespace {

TEST(DynamicLibrary, BindsWhatTheLibraryHas) {
  const DynamicLibrary library("libm.so.6");
  ASSERT_TRUE(library.found()) << library.complaint();
  double (*cosine)(double) = nullptr;
  library.bind(cosine, "cos", "the test");
  EXPECT_EQ(cosine(0.0), 1.0);
}

TEST(DynamicLibrary, NamesWhatIsMissingAndWhoNeedsIt) {
  const auto message = [](const char* name, const char* symbol) -> std::string {
    void (*function)() = nullptr;
    try {
      DynamicLibrary(name).bind(function, symbol, "the test");
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::device);
      return error.what();
    }
    return "";
  };
  const std::string library = message("libnowhere.so.7", "cos"),
                    symbol = message("libm.so.6", "no_such_function");
  EXPECT_NE(library.find("libnowhere.so.7 was not found, and the test needs it"), std::string::npos)
      << library;
  EXPECT_NE(library.find("LD_LIBRARY_PATH"), std::string::npos) << library;
  EXPECT_NE(symbol.find("libm.so.6 has no no_such_function"), std::string::npos) << symbol;
}

}  // namespace
}  // namespace keen
