// Messages over MPI (MPI: A Message-Passing Interface Standard, version 3.1, 2015).
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "comm/messages.h"
#include "core/check.h"

namespace keen {

namespace {

constexpr int kDataTag = 0, kNoteTag = 1;
constexpr size_t kLongest = size_t{1} << 30;  // MPI counts in int
constexpr auto kAbortTime = std::chrono::seconds(5);

class MpiMessages final : public Messages {
 public:
  MpiMessages() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    if (provided < MPI_THREAD_FUNNELED)
      fail(Exit::communication, "this MPI library cannot be used by programs with threads");
  }
  ~MpiMessages() override {
    forget_sent_notes();
    for (auto& note : notes_to_send_) note.release();  // MPI still reads them
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void start_send(int to, std::span<const std::byte> bytes) override {
    each_piece(bytes, [&](auto piece, MPI_Request* request) {
      MPI_Isend(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, to, kDataTag, MPI_COMM_WORLD,
                request);
    });
  }
  void start_receive(int from, std::span<std::byte> bytes) override {
    each_piece(bytes, [&](auto piece, MPI_Request* request) {
      MPI_Irecv(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, from, kDataTag, MPI_COMM_WORLD,
                request);
    });
  }
  bool poll() override {
    int done = 1;
    if (!begun_.empty())
      MPI_Testall(static_cast<int>(begun_.size()), begun_.data(), &done, MPI_STATUSES_IGNORE);
    if (done != 0) begun_.clear();
    return done != 0;
  }

  void send_note(int to, const Note& note) override {
    forget_sent_notes();
    SentNote& sent = *notes_to_send_.emplace_back(std::make_unique<SentNote>(note));
    MPI_Isend(&sent.note, sizeof(Note), MPI_BYTE, to, kNoteTag, MPI_COMM_WORLD, &sent.request);
  }
  std::optional<Note> next_note() override {
    int there = 0;
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, kNoteTag, MPI_COMM_WORLD, &there, &status);
    if (there == 0) return std::nullopt;
    Note note;
    MPI_Recv(&note, sizeof(Note), MPI_BYTE, status.MPI_SOURCE, kNoteTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return note;
  }

  void abort(int exit) override {
    // OpenMPI's MPI_Abort asks mpirun how to word its message, and waits for ever where that already ends the
    // job. A thread that writes to a full pipe holds its stream for as long.
    std::thread([exit] {
      std::this_thread::sleep_for(kAbortTime);
      std::_Exit(exit);
    }).detach();
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit);
    std::_Exit(exit);
  }

 private:
  struct SentNote {
    Note note;
    MPI_Request request = MPI_REQUEST_NULL;
    explicit SentNote(const Note& note) : note(note) {}
  };

  void forget_sent_notes() {
    std::erase_if(notes_to_send_, [](const auto& sent) {
      int done = 0;
      MPI_Test(&sent->request, &done, MPI_STATUS_IGNORE);
      return done != 0;
    });
  }
  template <class Span, class F> void each_piece(Span bytes, const F& begin) {
    for (size_t at = 0; at < bytes.size(); at += kLongest)
      begin(bytes.subspan(at, std::min(kLongest, bytes.size() - at)), &begun_.emplace_back(MPI_REQUEST_NULL));
  }

  int rank_ = 0, size_ = 1;
  std::vector<MPI_Request> begun_;
  std::vector<std::unique_ptr<SentNote>> notes_to_send_;
};

}  // namespace

std::unique_ptr<Messages> connect_mpi() { return std::make_unique<MpiMessages>(); }

}  // namespace keen
