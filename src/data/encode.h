// From text to shards, and from text to a vocabulary.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/dataset.h"

namespace keen {

struct EncodeOptions {
  std::vector<std::string> inputs;
  CorpusOptions corpus;
  std::filesystem::path model, directory;
  double validation = 0;  // share of the documents, in [0, 1)
  int64_t shard_tokens = 100'000'000;
  int threads = 0;     // 0: one per processor
  bool force = false;  // overwrite a dataset in `directory`
};

struct EncodeResult {
  DatasetInfo info;
  int64_t invalid_bytes = 0;  // that were not UTF-8, and became byte tokens
  // The documents did not suffice for a split by document (every one fell to validation): the last part of
  // all tokens, in order, became the validation tokens.
  bool split_inside_documents = false;
};

// Encodes documents into shards train_NNNNNN.bin and val_NNNNNN.bin of `directory`, each document followed by
// the end-of-text id, with the model copied beside them as tokenizer.model and dataset.json written last.
// Tokens are uint16, or uint32 for vocabularies over 65,536.
//
// Document d of the corpus (from 0) goes to validation where ceil((d + 1) f) > ceil(d f), f being the share:
// the first one and then evenly spaced ones, the same for any number of threads. So does the whole output,
// which depends on the text, model and options alone.
//
// Memory is bounded, whatever the size of the corpus. All files bear temporary names until everything is
// encoded: a run that is killed leaves nothing that looks like data, and the next one removes what it left.
// Raises Exit::usage for a directory that already holds a dataset, unless `force`; Exit::data for bad input
// or no text at all; Exit::storage. Shows its progress on standard error.
EncodeResult encode_corpus(const EncodeOptions& options);

struct VocabularyOptions {
  std::vector<std::string> inputs;
  CorpusOptions corpus;
  std::filesystem::path model;  // the file to write
  int64_t size = 0;
  // At most this much text is used: of a larger corpus, lines spread evenly over it.
  int64_t sample_bytes = int64_t{64} << 20;
  bool verbose = false;  // show what SentencePiece says while training
};

// Trains a SentencePiece BPE vocabulary of exactly `size` pieces: id 0 <unk> (never produced), id 1
// <|endoftext|>, ids 2 to 257 the bytes, then the merges and single characters. The text is not normalized,
// spaces are kept, digits stay single, and merges do not cross the start of a word. The same text gives the
// same model. Raises Exit::usage when the size is too small for the bytes and characters or larger than the
// text yields, naming what would do.
void train_vocabulary(const VocabularyOptions& options);

}  // namespace keen
