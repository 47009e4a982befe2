#include "io/file.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <functional>
#include <string>
#include <vector>

#include "io/fault.h"
#include "temporary_directory.h"

namespace keen {
namespace {

using testing::content_of;
using testing::put;
using testing::TemporaryDirectory;

class FileTest : public ::testing::Test {
 protected:
  ~FileTest() override { fault::arm(""); }

  // The message of the Error that `body` raises; checks its exit code.
  static std::string message_of(Exit exit, const auto& body) {
    try {
      body();
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.exit), static_cast<int>(exit)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error was raised";
    return "";
  }

  // Whether a child process that runs `body` is killed by SIGKILL.
  static bool killed(const auto& body) {
    const pid_t child = fork();
    if (child == 0) {
      body();
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }

  TemporaryDirectory directory_;
};

TEST_F(FileTest, WhatLiesBesideOtherFilesIsNoPipeAndNoDevice) {
  const auto pipe = directory_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  // Nobody writes to it: whoever waits for that waits for ever.
  for (const FileKind kind : {FileKind::regular, FileKind::own}) {
    EXPECT_NE(message_of(Exit::data, [&] { read_file(pipe, Exit::data, kind); }).find("pipe"),
              std::string::npos);
    EXPECT_NE(message_of(Exit::data, [&] { MappedFile(pipe, Exit::data, kind); }).find("pipe"),
              std::string::npos);
    EXPECT_NE(message_of(Exit::data, [&] { read_file("/dev/zero", Exit::data, kind); }).find("device"),
              std::string::npos);
  }
  EXPECT_NE(message_of(Exit::usage, [] { read_file("/dev/zero", Exit::usage); }).find("no end"),
            std::string::npos);
}

TEST_F(FileTest, OwnFilesLeadNowhereElse) {
  put(directory_ / "a", "keen");
  std::filesystem::create_symlink("a", directory_ / "link");
  EXPECT_EQ(read_file(directory_ / "link", Exit::data, FileKind::regular), "keen");
  EXPECT_EQ(read_file(directory_ / "a", Exit::data, FileKind::own), "keen");
  for (const auto& read : std::vector<std::function<void()>>{
           [&] { read_file(directory_ / "link", Exit::checkpoint, FileKind::own); },
           [&] { MappedFile(directory_ / "link", Exit::checkpoint, FileKind::own); }})
    EXPECT_NE(message_of(Exit::checkpoint, read).find("link: is a symbolic link"), std::string::npos);
  // The way to it may have links.
  std::filesystem::create_directory_symlink(".", directory_ / "here");
  EXPECT_EQ(read_file(directory_ / "here/a", Exit::data, FileKind::own), "keen");
}

TEST_F(FileTest, AHoleInACheckpointTakesNoMemory) {
  put(directory_ / "a", "{");
  std::filesystem::resize_file(directory_ / "a", int64_t{1} << 40);
  message_of(Exit::checkpoint, [&] { read_file(directory_ / "a", Exit::checkpoint, FileKind::own); });
}

// The program is not where it can go on: the bytes that it computes with are gone.
TEST_F(FileTest, CutShortWhileMappedIsSaid) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto path = directory_ / "mapped";
  put(path, std::string(100'000, 'x'));
  const auto read_after_cut = [&](Exit exit) {
    const MappedFile before(path, Exit::internal);  // another one, and one that is gone, are not blamed
    { const MappedFile gone(path, Exit::internal); }
    const MappedFile mapped(path, exit);
    std::filesystem::resize_file(path, 10'000);
    const volatile std::byte* bytes = mapped.bytes().data();
    (void)bytes[9'999];
    (void)bytes[50'000];
  };
  EXPECT_EXIT(read_after_cut(Exit::data), ::testing::ExitedWithCode(3),
              "keen: error: .*mapped: cannot be read at offset 50000: the file was cut short");
  EXPECT_EXIT(read_after_cut(Exit::checkpoint), ::testing::ExitedWithCode(4), "mapped: cannot be read");
#ifndef __SANITIZE_ADDRESS__  // which has a handler of its own
  // What no mapped file of ours explains ends as ever.
  EXPECT_EXIT(
      {
        const MappedFile mapped(path, Exit::data);
        raise(SIGBUS);
      },
      ::testing::KilledBySignal(SIGBUS), "");
#endif
}

TEST_F(FileTest, WritesMapsAndReads) {
  const auto path = directory_ / "a";
  FileWriter file(path);
  file.write("keen");
  file.write(std::string_view("\0!", 2));
  EXPECT_EQ(file.hash(), hash_of(std::string_view("keen\0!", 6)));
  file.close();
  EXPECT_EQ(file.bytes_written(), 6);
  EXPECT_EQ(read_file(path, Exit::data), std::string("keen\0!", 6));
  const MappedFile mapped(path, Exit::data);
  ASSERT_EQ(mapped.bytes().size(), 6u);
  EXPECT_EQ(mapped.bytes()[0], std::byte{'k'});
  put(path, "");
  EXPECT_TRUE(MappedFile(path, Exit::data).bytes().empty());
}

TEST_F(FileTest, HashIsXxh3) {
  // The published value for no input, seed 0.
  EXPECT_EQ(hash_of(std::string_view()), "2d06800538d394c2");
  Hash pieces;
  pieces.update(std::as_bytes(std::span("ab", 2)));
  pieces.update(std::as_bytes(std::span("c", 1)));
  EXPECT_EQ(pieces.digits(), hash_of("abc"));
}

TEST_F(FileTest, ReadErrorsNameThePath) {
  EXPECT_NE(
      message_of(Exit::data, [&] { MappedFile(directory_ / "no", Exit::data); }).find("/no: cannot open"),
      std::string::npos);
  EXPECT_NE(message_of(Exit::usage, [&] { read_file(directory_ / "no", Exit::usage); }).find("/no"),
            std::string::npos);
  EXPECT_NE(
      message_of(Exit::data, [&] { MappedFile(directory_.path(), Exit::data); }).find("it is a directory"),
      std::string::npos);
  EXPECT_NE(message_of(Exit::data, [&] { read_file(directory_.path(), Exit::data); }).find("cannot read"),
            std::string::npos);
}

TEST_F(FileTest, FullDiskNamesPathNeededAndFreeBytes) {
  fault::arm("write:ENOSPC:2");
  FileWriter file(directory_ / "full");
  file.write("12345");
  const std::string message = message_of(Exit::storage, [&] { file.write("1234567"); });
  EXPECT_NE(message.find("/full: cannot write 7 bytes at offset 5: No space left on device ("),
            std::string::npos);
  EXPECT_NE(message.find("bytes free on that file system)"), std::string::npos) << message;
  EXPECT_EQ(message.find("unknown bytes"), std::string::npos) << message;
}

TEST_F(FileTest, WhatCannotBeOpenedIsSaidToBeThat) {
  const auto path = directory_ / "missing" / "x";
  const std::string want = path.string() + ": cannot open for writing: No such file or directory";
  EXPECT_EQ(message_of(Exit::storage, [&] { FileWriter file(path); }), want);
  EXPECT_EQ(message_of(Exit::storage, [&] { FileAppender file(path); }), want);
}

TEST_F(FileTest, ShortAndInterruptedWritesAreContinued) {
  fault::arm("write:short:1,write:EINTR:2,write:short:3,fsync:EINTR:1");
  FileWriter file(directory_ / "short");
  file.write("abcdefghijklmnopqrstuvwxyz");
  file.close();
  EXPECT_EQ(content_of(directory_ / "short"), "abcdefghijklmnopqrstuvwxyz");
}

TEST_F(FileTest, EveryOtherCallReportsItsError) {
  for (const char* plan : {"open:EACCES", "write:EIO", "fsync:EIO", "close:EIO"}) {
    fault::arm(plan);
    message_of(Exit::storage, [&] {
      FileWriter file(directory_ / "x");
      file.write("x");
      file.close();
    });
  }
  for (const char* plan : {"rename:EIO", "remove:EIO", "mkdir:ENOSPC", "fsync:EIO"}) {
    put(directory_ / "y", "y");
    std::filesystem::remove_all(directory_ / "made");
    fault::arm(plan);
    message_of(Exit::storage, [&] {
      make_directories(directory_ / "made" / "deep");
      rename_path(directory_ / "y", directory_ / "z");
      rename_path(directory_ / "z", directory_ / "y");
      sync_directory(directory_.path());
      remove_path(directory_ / "y");
    });
    EXPECT_TRUE(std::filesystem::exists(directory_ / "y")) << plan;
  }
}

TEST_F(FileTest, ReplaceLeavesOldOrNew) {
  const auto path = directory_ / "c.json";
  replace_file(path, "old");
  for (const char* plan : {"open@c.json:ENOSPC", "write:ENOSPC", "fsync:EIO", "close:EIO", "rename:EIO"}) {
    fault::arm(plan);
    message_of(Exit::storage, [&] { replace_file(path, "new"); });
    EXPECT_EQ(content_of(path), "old") << plan;
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path()), {}), 1) << plan;
  }
  fault::arm("");
  replace_file(path, "new");
  EXPECT_EQ(content_of(path), "new");
  for (const char* plan : {"write:kill", "write:tear", "fsync:kill", "close:kill", "rename:kill"}) {
    EXPECT_TRUE(killed([&] {
      fault::arm(plan);
      replace_file(path, "newest");
    })) << plan;
    EXPECT_EQ(content_of(path), "new") << plan;
  }
}

TEST_F(FileTest, AppenderKeepsWholeLines) {
  const auto path = directory_ / "m.jsonl";
  {
    FileAppender file(path);
    file.append("one\n");
    fault::arm("write:short:1,write:ENOSPC:2");
    message_of(Exit::storage, [&] { file.append("two\n"); });
    EXPECT_EQ(content_of(path), "one\n");
    fault::arm("write:short:1,write:EINTR:2");
    file.append("three\n");
    EXPECT_EQ(content_of(path), "one\nthree\n");
    fault::arm("");
    EXPECT_TRUE(killed([&] {
      fault::arm("write:tear");
      file.append("four\n");
    }));
  }
  EXPECT_EQ(content_of(path), "one\nthree\nfo");
  FileAppender file(path);
  EXPECT_EQ(file.cut_torn_line(), 2);
  EXPECT_EQ(file.cut_torn_line(), 0);
  file.append("five\n");
  EXPECT_EQ(content_of(path), "one\nthree\nfive\n");
  put(path, std::string(10000, 'x'));
  EXPECT_EQ(FileAppender(path).cut_torn_line(), 10000);
  put(path, "ok\n" + std::string(10000, 'x'));
  EXPECT_EQ(FileAppender(path).cut_torn_line(), 10000);
  EXPECT_EQ(content_of(path), "ok\n");
}

TEST_F(FileTest, AppenderGoesOnWhereATornRecordCannotBeTakenBack) {
  const char* torn = "write:short:1,write:ENOSPC:2,truncate:EIO:1+";
  FileAppender lines(directory_ / "m.jsonl");
  lines.append("one\n");
  fault::arm(torn);
  message_of(Exit::storage, [&] { lines.append("two\n"); });
  lines.append("three\n");
  EXPECT_EQ(content_of(directory_ / "m.jsonl"), "one\ntw\nthree\n");

  fault::arm("");
  FileAppender binary(directory_ / "events", FileAppender::Records::binary);
  binary.append("<one>");
  fault::arm(torn);
  message_of(Exit::storage, [&] { binary.append("<two>"); });
  EXPECT_EQ(content_of(directory_ / "events"), "<one><t") << "no byte that is not the record's";
  const std::string message = message_of(Exit::storage, [&] { binary.append("<three>"); });
  EXPECT_NE(message.find("torn last record"), std::string::npos) << message;
  EXPECT_EQ(content_of(directory_ / "events"), "<one><t");
  fault::arm("");
  binary.append("<four>");
  EXPECT_EQ(content_of(directory_ / "events"), "<one><four>");
}

TEST_F(FileTest, ExchangeSwapsDirectories) {
  make_directories(directory_ / "a");
  make_directories(directory_ / "b");
  put(directory_ / "a/x", "from a");
  put(directory_ / "b/x", "from b");
  exchange_paths(directory_ / "a", directory_ / "b");
  EXPECT_EQ(content_of(directory_ / "a/x"), "from b");
  EXPECT_EQ(content_of(directory_ / "b/x"), "from a");
}

TEST_F(FileTest, FaultPlansThatCannotBeReadAreRefused) {
  for (const char* plan : {"write", "write:NOPE", "write:EIO:0", "write:EIO:x", "write:EIO:1++"})
    message_of(Exit::usage, [&] { fault::arm(plan); });
  fault::arm("write@b:EIO:2+");
  EXPECT_EQ(fault::next("write", "a").error, 0);
  EXPECT_EQ(fault::next("write", "b").error, 0);
  EXPECT_EQ(fault::next("write", "a").error, 0);
  EXPECT_EQ(fault::next("write", "b").error, EIO);
  EXPECT_EQ(fault::next("write", "b").error, EIO);
}

}  // namespace
}  // namespace keen
