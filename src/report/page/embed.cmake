# Writes a C++ file with the page's files as arrays of bytes, which no compiler's limit on string literals concerns.
#
#   cmake -DOUTPUT=FILE -DHTML=FILE -DSTYLE=FILE -DSCRIPT=FILE,FILE... -P embed.cmake

set(text "// Written by page/embed.cmake.\n#include \"report/page_files.h\"\n\nnamespace keen::page_file {\n\nnamespace {\n")
foreach(part Html Style Script)
  string(TOUPPER ${part} files)
  string(REPLACE "," ";" files "${${files}}")
  set(bytes "")
  foreach(file IN LISTS files)
    file(READ ${file} hex HEX)
    string(APPEND bytes ${hex})
  endforeach()
  string(LENGTH "${bytes}" length)
  math(EXPR length "${length} / 2")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
  string(REGEX REPLACE "(................................................................................................................)" "\\1\n" bytes "${bytes}")
  string(APPEND text "constexpr char k${part}Bytes[] = {${bytes}};\n")
  string(APPEND views "const std::string_view k${part}(k${part}Bytes, ${length});\n")
endforeach()
string(APPEND text "}  // namespace\n\n${views}\n}  // namespace keen::page_file\n")
file(WRITE ${OUTPUT} "${text}")
