#include "data/encode.h"

#include <cmath>

#include "data/ngram.h"
#include "data_test.h"

namespace keen {
namespace {

using namespace testing;

// The documents of a corpus, put together again from its parts.
std::vector<std::string> documents_of(const std::vector<std::string>& inputs,
                                      const CorpusOptions& options = {}) {
  Corpus corpus(inputs, options);
  std::vector<std::string> documents;
  std::string open;
  RawPart raw;
  while (corpus.next(raw)) {
    const CorpusPart part = parse(std::move(raw), options);
    size_t begin = 0;
    for (const size_t end : part.document_ends) {
      documents.push_back(open + part.text.substr(begin, end - begin));
      open.clear();
      begin = end;
    }
    open += part.text.substr(begin);
  }
  EXPECT_EQ(open, "") << "every document ends";
  return documents;
}

using Documents = std::vector<std::string>;
constexpr auto kBlankLine = CorpusOptions::Documents::blank_line;

TEST(Corpus, FindsDocumentsInFiles) {
  TemporaryDirectory directory;
  put(directory / "a.txt", "\n \none\ntwo  \n\n\t\nthree\r\n\r\nfour");
  const std::string a = (directory / "a.txt").string();
  EXPECT_EQ(documents_of({a}), Documents{content_of(a)});
  EXPECT_EQ(documents_of({a}, {.documents = kBlankLine}), (Documents{"one\ntwo  ", "three\r", "four"}));
  put(directory / "empty.txt", "");
  EXPECT_EQ(documents_of({(directory / "empty.txt").string()}), Documents{});
}

TEST(Corpus, WalksDirectoriesAndPatternsInOrder) {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "x/sub");
  std::filesystem::create_directories(directory / "x/.hidden");
  put(directory / "x/b.txt", "b");
  put(directory / "x/a.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \"a2\\n\", \"more\": [1]}\n{\"text\": \"\"}");
  put(directory / "x/sub/c.txt", "c");
  put(directory / "x/sub/picture.png", "not text");
  put(directory / "x/.hidden/d.txt", "d");
  EXPECT_EQ(documents_of({(directory / "x").string()}), (Documents{"a", "a2\n", "b", "c"}));
  EXPECT_EQ(documents_of({(directory / "x/sub/c.txt").string(), (directory / "x/*.txt").string()}),
            (Documents{"c", "b"}));
  expect_error(Exit::data, {"*.md"}, [&] { documents_of({(directory / "x/*.md").string()}); });
  expect_error(Exit::data, {"absent"}, [&] { documents_of({(directory / "absent").string()}); });
  std::filesystem::create_directories(directory / "bare");
  expect_error(Exit::data, {"bare"}, [&] { documents_of({(directory / "bare").string()}); });
}

TEST(Corpus, NamesTheBadJsonLine) {
  TemporaryDirectory directory;
  const std::string path = (directory / "bad.jsonl").string();
  const auto refused = [&](const std::string& line, const std::string& part) {
    put(path, fmt::format("{{\"text\": \"fine\"}}\n\n{}\n", line));
    expect_error(Exit::data, {"bad.jsonl line 3", part}, [&] { documents_of({path}); });
  };
  refused("{\"text\": ", "not JSON");
  refused("[1]", "no JSON object");
  refused("{\"body\": \"x\"}", "\"text\"");
  refused("{\"text\": 5}", "number");
  refused("{\"text\": \"\xff\"}", "not JSON");
  put(path, "{\"body\": \"x\"}\n");
  EXPECT_EQ(documents_of({path}, {.field = "body"}), Documents{"x"});
}

TEST(Corpus, RefusesCompressedFiles) {
  TemporaryDirectory directory;
  put(directory / "a.txt", "\x1f\x8b\x08 and so on");
  expect_error(Exit::data, {"a.txt", "gzip", "zcat"},
               [&] { documents_of({(directory / "a.txt").string()}); });
  put(directory / "a.txt", "PAR1 and so on");
  expect_error(Exit::data, {"Parquet"}, [&] { documents_of({(directory / "a.txt").string()}); });
}

TEST(Corpus, KeepsLongLinesAndFilesWholeInSmallParts) {
  TemporaryDirectory directory;
  std::string line;
  while (line.size() < 9'500'000) line += "ab😀é ";
  const std::string first = fmt::format("first\n{}\nlast", line), text = fmt::format("{}\n\n{}", first, line);
  const std::string path = (directory / "long.txt").string();
  put(path, text);
  EXPECT_EQ(documents_of({path}), Documents{text});
  EXPECT_EQ(documents_of({path}, {.documents = kBlankLine}), (Documents{first, line}));
  Corpus corpus({path}, {});
  RawPart raw;
  while (corpus.next(raw)) {
    EXPECT_LE(raw.bytes.size(), 8u << 20);
    EXPECT_EQ(parse(std::move(raw), {}).invalid_bytes, 0) << "no character is cut in two";
  }
  EXPECT_EQ(corpus.bytes_read(), corpus.total_bytes());
  put(path, "a\xff\xc3(");
  Corpus broken({path}, {});
  ASSERT_TRUE(broken.next(raw));
  EXPECT_EQ(parse(std::move(raw), {}).invalid_bytes, 2);
}

class EncodeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TemporaryDirectory>();
    train_english(*directory_);
  }
  static void TearDownTestSuite() { directory_.reset(); }

  // Encodes english() into a directory of its own.
  EncodeOptions options(const std::string& name) const {
    EncodeOptions options;
    options.inputs = {(*directory_ / "english.txt").string()};
    options.corpus.documents = kBlankLine;
    options.model = *directory_ / "english.model";
    options.directory = *directory_ / name;
    options.threads = 2;
    return options;
  }
  std::string text_of(const std::string& name, const std::string& pattern,
                      std::vector<std::string>* documents) const {
    const Tokenizer tokenizer(*directory_ / "english.model");
    const Dataset dataset((*directory_ / name / pattern).string(), tokenizer.vocab_size());
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < dataset.tokens(); ++i) {
      const auto id = static_cast<int32_t>(dataset.token(i));
      if (id != tokenizer.end_of_text()) {
        ids.push_back(id);
        continue;
      }
      documents->push_back(tokenizer.decode(ids));
      ids.clear();
    }
    return tokenizer.decode(ids);
  }
  static inline std::unique_ptr<TemporaryDirectory> directory_;
};

TEST_F(EncodeTest, EveryDocumentIsInOneOfTheSets) {
  EncodeOptions run = options("split");
  run.validation = 0.1;
  run.shard_tokens = 1000;
  const EncodeResult result = encode_corpus(run);
  const Documents all = documents_of(run.inputs, run.corpus);
  ASSERT_EQ(all.size(), 50u);
  Documents train, validation;
  EXPECT_EQ(text_of("split", "train_*.bin", &train), "");
  EXPECT_EQ(text_of("split", "val_*.bin", &validation), "");
  EXPECT_EQ(validation, (Documents{all[0], all[10], all[20], all[30], all[40]}));
  EXPECT_EQ(train.size(), 45u);
  EXPECT_EQ(train[0], all[1]);
  EXPECT_EQ(train[44], all[49]);
  EXPECT_EQ(result.info.train_documents, 45);
  EXPECT_EQ(result.info.validation_documents, 5);

  const auto info = read_dataset_info(run.directory);
  ASSERT_TRUE(info);
  EXPECT_GT(info->shards.size(), 3u);
  EXPECT_EQ(info->shards[0].tokens, 1000);
  EXPECT_EQ(info->vocab_size, 320);
  EXPECT_EQ(info->tokenizer_hash, hash_of(content_of(run.model)));
  EXPECT_EQ(content_of(run.directory / "tokenizer.model"), content_of(run.model));
  for (const ShardRecord& shard : info->shards) {
    EXPECT_EQ(shard.checksum, hash_of(content_of(run.directory / shard.file)));
    EXPECT_EQ(shard.bytes, static_cast<int64_t>(content_of(run.directory / shard.file).size()));
  }
  ASSERT_TRUE(info->bigram_loss && info->unigram_loss);
  EXPECT_LT(*info->bigram_loss, *info->unigram_loss);
  EXPECT_LT(*info->unigram_loss, std::log(320.0));
}

TEST_F(EncodeTest, AnyNumberOfThreadsWritesTheSame) {
  // Enough text for many parts.
  std::string text;
  for (int i = 0; i < 250; ++i) text += english();
  put(*directory_ / "many.txt", text);
  const auto content = [&](int threads) {
    EncodeOptions run = options(fmt::format("threads_{}", threads));
    run.inputs = {(*directory_ / "many.txt").string()};
    run.validation = 0.03;
    run.threads = threads;
    encode_corpus(run);
    return content_of(run.directory / "train_000000.bin") + content_of(run.directory / "val_000000.bin");
  };
  const std::string one = content(1);
  EXPECT_GT(one.size(), 1'000'000u);
  EXPECT_TRUE(content(4) == one);
}

TEST_F(EncodeTest, RefusesAnOccupiedDirectoryUnlessForced) {
  EncodeOptions run = options("occupied");
  run.shard_tokens = 2000;
  encode_corpus(run);
  put(run.directory / "notes.txt", "not ours");
  put(run.directory / ".train_000007.bin.tmp", "left by a killed run");
  expect_error(Exit::usage, {"occupied", "--force"}, [&] { encode_corpus(run); });
  run.force = true;
  run.shard_tokens = 1'000'000;
  run.model = run.directory / "tokenizer.model";
  encode_corpus(run);
  EXPECT_FALSE(std::filesystem::exists(run.directory / "train_000001.bin"));
  EXPECT_FALSE(std::filesystem::exists(run.directory / ".train_000007.bin.tmp"));
  EXPECT_TRUE(std::filesystem::exists(run.directory / "notes.txt"));
  EXPECT_EQ(Dataset((run.directory / "train_*.bin").string(), 320).shards().size(), 1u);
}

TEST_F(EncodeTest, LeavesNothingThatLooksLikeDataWhenItFails) {
  EncodeOptions run = options("failed");
  put(*directory_ / "bad.jsonl", "{\"text\": \"good\"}\n{\n");
  run.inputs.push_back((*directory_ / "bad.jsonl").string());
  expect_error(Exit::data, {"bad.jsonl line 2"}, [&] { encode_corpus(run); });
  EXPECT_TRUE(std::filesystem::is_empty(run.directory));
  run = options("failed");
  run.inputs = {(*directory_ / "absent.txt").string()};
  expect_error(Exit::data, {"absent.txt"}, [&] { encode_corpus(run); });
  run = options("failed");
  put(*directory_ / "blank.txt", " \n\n");
  run.inputs = {(*directory_ / "blank.txt").string()};
  expect_error(Exit::data, {"no text"}, [&] { encode_corpus(run); });
  run = options("failed");
  for (const double share : {-0.1, 1.0, std::nan("")}) {
    run.validation = share;
    expect_error(Exit::usage, {"--validation"}, [&] { encode_corpus(run); });
  }
}

TEST_F(EncodeTest, ASingleDocumentIsSplitInside) {
  EncodeOptions run = options("single");
  run.corpus.documents = CorpusOptions::Documents::file;
  run.validation = 0.25;
  run.shard_tokens = 700;
  EXPECT_TRUE(encode_corpus(run).split_inside_documents);
  Documents train, validation;
  const std::string head = text_of("single", "train_*.bin", &train);
  text_of("single", "val_*.bin", &validation);
  ASSERT_EQ(validation.size(), 1u);
  EXPECT_TRUE(train.empty());
  EXPECT_EQ(head + validation[0], english());
  const auto info = read_dataset_info(run.directory);
  const double share = static_cast<double>(info->tokens("validation")) /
                       static_cast<double>(info->tokens("validation") + info->tokens("train"));
  EXPECT_NEAR(share, 0.25, 1e-3);
  for (const auto& entry : std::filesystem::directory_iterator(run.directory)) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();
  }
}

TEST(Ngram, MatchesAnExampleByHand) {
  TemporaryDirectory directory;
  // Pairs: 0-1 twice, 1-0 once, 1-2 once. n1 = 2, n2 = 1, so d = 2 / 4.
  put(directory / "t.bin", narrow_shard({0, 1, 0, 1, 2}));
  put(directory / "v.bin", narrow_shard({0, 1, 1, 2, 0}));
  std::vector<Shard> train, validation;
  train.emplace_back(directory / "t.bin");
  validation.emplace_back(directory / "v.bin");
  const NgramLoss loss = ngram_loss(train, validation, 3, 1000);
  const double p1[] = {3.0 / 8, 3.0 / 8, 2.0 / 8};
  const double d = 0.5;
  const double p01 = (2 - d) / 2 + d * 1 / 2 * p1[1], p11 = d * 2 / 2 * p1[1],
               p12 = (1 - d) / 2 + d * 2 / 2 * p1[2], p20 = p1[0];
  EXPECT_NEAR(loss.bigram, -(std::log(p01) + std::log(p11) + std::log(p12) + std::log(p20)) / 4, 1e-12);
  EXPECT_NEAR(loss.unigram, -(2 * std::log(p1[1]) + std::log(p1[2]) + std::log(p1[0])) / 4, 1e-12);
  EXPECT_EQ(loss.validation_tokens, 4);
  // The hash map of large vocabularies counts the same; only the share of unseen ids grows.
  put(directory / "big.bin", narrow_shard(std::vector<uint32_t>(100'000, 5)));
  std::vector<Shard> same;
  same.emplace_back(directory / "big.bin");
  EXPECT_NEAR(ngram_loss(same, same, 20000, 1 << 20).bigram, 0, 1e-4);
  EXPECT_EQ(ngram_loss(same, same, 20000, 70'000).train_tokens, 70'000);
}

TEST(Ngram, ProbabilitiesSumToOne) {
  TemporaryDirectory directory;
  put(directory / "t.bin", narrow_shard({0, 1, 0, 1, 2, 2, 2, 0, 3, 1}));
  std::vector<Shard> train;
  train.emplace_back(directory / "t.bin");
  for (uint32_t a = 0; a < 5; ++a) {
    double sum = 0;
    for (uint32_t b = 0; b < 5; ++b) {
      put(directory / "v.bin", narrow_shard({a, b}));
      std::vector<Shard> pair;
      pair.emplace_back(directory / "v.bin");
      sum += std::exp(-ngram_loss(train, pair, 5, 100).bigram);
    }
    EXPECT_NEAR(sum, 1, 1e-12);
  }
}

}  // namespace
}  // namespace keen
