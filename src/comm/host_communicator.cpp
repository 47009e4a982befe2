#include "comm/host_communicator.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/console.h"
#include "core/parallel.h"

namespace keen {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Bytes of a slice that travel at a time; while one piece is added the next one is on its way.
constexpr int64_t kPieceBytes = int64_t{1} << 20;
// A rank that computes looks for questions this often.
constexpr auto kIdle = milliseconds(50);
// A rank that has not answered a question for so long does not answer.
constexpr auto kAnswerTime = milliseconds(2000);
// The first step waits for whatever starts late on other machines.
constexpr double kShortestFirstTimeout_s = 120;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Tensor slice_of(const Tensor& flat, int slice, int slices) {
  const int64_t n = flat.count() / slices;
  return flat.rows(slice * n, (slice + 1) * n);
}
std::span<std::byte> bytes_of(const Tensor& t) { return {t.data, static_cast<size_t>(t.bytes())}; }

void add(const Tensor& to, const Tensor& from) {
  with_float_type(to.dtype, [&]<class T>() {
    T* __restrict sum = to.as<T>();
    const T* __restrict part = from.as<T>();
    const int64_t n = to.count();
    if constexpr (std::is_same_v<T, bf16>) {
      check(false, "sum_slices: of float32 or float64");
    } else {
      KEEN_INDEPENDENT
      for (int64_t i = 0; i < n; ++i) sum[i] += part[i];
    }
  });
}

}  // namespace

HostCommunicator::HostCommunicator(const std::function<std::unique_ptr<Messages>()>& connect,
                                   double timeout_s, const Stopped& stopped)
    : timeout_s_(timeout_s), scratch_(2 * kPieceBytes) {
  thread_ = std::thread([this, &connect] { serve(connect); });
  std::unique_lock lock(mutex_);
  const auto connected = [this] { return connected_; };
  while (!changed_.wait_for(lock, kIdle, connected)) {
    if (!stopped || !stopped() || changed_.wait_for(lock, kAnswerTime, connected)) continue;
    write_err(fmt::format("keen: {}\n", kStoppedWhileConnecting));
    _exit(static_cast<int>(Exit::stopped));
  }
  if (!connect_error_) return;
  lock.unlock();
  thread_.join();
  std::rethrow_exception(connect_error_);
}

HostCommunicator::~HostCommunicator() {
  // MPI_Finalize waits for all ranks, and for ever.
  double ended = 1;
  if (size_ > 1) sum(std::span(&ended, 1), "the end of the run");
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void HostCommunicator::start(std::string_view what, std::function<void()> run) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({std::string(what), std::move(run)});
  }
  changed_.notify_all();
}

void HostCommunicator::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return jobs_.empty(); });
}

void HostCommunicator::start_sum_slices(Context& ctx, Tensor flat, std::string_view what) {
  check(flat.count() % size_ == 0, "start_sum_slices: equal slices");
  if (!ctx.planning) start(what, [this, flat] { sum_slices(flat); });
}

void HostCommunicator::start_gather_slices(Context& ctx, Tensor flat, std::string_view what) {
  check(flat.count() % size_ == 0, "start_gather_slices: equal slices");
  if (!ctx.planning) start(what, [this, flat] { gather_slices(flat); });
}

void HostCommunicator::sum(Context& ctx, Tensor numbers, std::string_view what) {
  check(numbers.dtype == DType::f64, "sum: of float64");
  if (!ctx.planning) sum({numbers.as<double>(), static_cast<size_t>(numbers.count())}, what);
}

void HostCommunicator::sum(std::span<double> numbers, std::string_view what) {
  start(what, [this, numbers] { sum_numbers(numbers); });
  finish();
}

void HostCommunicator::broadcast(std::string& text, std::string_view what) {
  start(what, [this, &text] {
    uint64_t length = text.size();
    const std::span length_bytes(reinterpret_cast<std::byte*>(&length), sizeof length);
    if (rank_ == 0) {
      for (int to = 1; to < size_; ++to) send_bytes(to, length_bytes);
      for (int to = 1; to < size_; ++to) send_bytes(to, std::as_bytes(std::span(text)));
    } else {
      messages_->start_receive(0, length_bytes);
      wait();
      text.resize(length);
      messages_->start_receive(0, std::as_writable_bytes(std::span(text)));
    }
    wait();
  });
  finish();
}

void HostCommunicator::send(int to, std::span<const std::byte> bytes, std::string_view what) {
  start(what, [this, to, bytes] {
    send_bytes(to, bytes);
    wait();
  });
  finish();
}

void HostCommunicator::receive(int from, std::span<std::byte> bytes, std::string_view what) {
  start(what, [this, from, bytes] {
    messages_->start_receive(from, bytes);
    wait();
  });
  finish();
}

void HostCommunicator::abort(Exit exit) {
  abort_exit_ = static_cast<int>(exit);
  changed_.notify_all();
  for (;;) std::this_thread::sleep_for(milliseconds(1000));
}

double HostCommunicator::limit_s() const {
  return steps_begun_ > 1 ? timeout_s_ : std::max(timeout_s_, kShortestFirstTimeout_s);
}

void HostCommunicator::works_on(std::string_view what) {
  const std::lock_guard lock(mutex_);
  works_on_ = what;
  said_that_it_works_ = false;
}

void HostCommunicator::ask_or_give_up(std::string_view what, const std::function<bool()>& came) {
  start(what, [this, &came] { ask_or_give_up(came); });
  finish();
}

void HostCommunicator::serve(const std::function<std::unique_ptr<Messages>()>& connect) {
  try {
    messages_ = connect();
    rank_ = messages_->rank();
    size_ = messages_->size();
  } catch (...) {
    connect_error_ = std::current_exception();
  }
  {
    const std::lock_guard lock(mutex_);
    connected_ = true;
  }
  changed_.notify_all();
  if (connect_error_) return;
  try {
    serve_jobs();
    messages_.reset();
  } catch (const Error& error) {
    // Another rank that ended the run has said why.
    if (error.exit == Exit::communication)
      write_err(fmt::format("{}keen: rank {}: step {}: {}: {}\n", clear_line(stderr), rank_, step_.load(),
                            waits_for_.empty() ? "computing" : waits_for_, error.what()));
    messages_->abort(static_cast<int>(error.exit));
  } catch (const std::exception& error) {
    write_err(fmt::format("keen: rank {}: step {}: {}: {}\n", rank_, step_.load(), waits_for_, error.what()));
    messages_->abort(static_cast<int>(Exit::communication));
  }
}

void HostCommunicator::serve_jobs() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait_for(lock, kIdle, [this] { return !jobs_.empty() || ends_ || abort_exit_ != 0; });
    abort_if_asked();
    if (jobs_.empty() && ends_) return;
    if (jobs_.empty()) {
      lock.unlock();
      answer_notes();
      messages_->poll();  // learns that another rank has ended the run
      lock.lock();
      continue;
    }
    Job& job = jobs_.front();  // others are put behind it meanwhile, which leaves it where it is
    lock.unlock();
    waits_for_ = job.what;
    job.run();
    waits_for_.clear();
    lock.lock();
    jobs_.pop_front();
    if (jobs_.empty()) changed_.notify_all();
  }
}

// In round k a rank sends the slice of the rank k behind it, and adds what the rank k before it sends: the
// order in which a slice is summed depends on the slice alone.
void HostCommunicator::sum_slices(Tensor flat) {
  const Tensor own = slice_of(flat, rank_, size_);
  const int64_t piece = kPieceBytes / size_of(flat.dtype);
  Tensor sum_to, came;  // of the piece before
  int64_t turn = 0;
  for (int k = 1; k < size_; ++k) {
    const int to = (rank_ + k) % size_, from = (rank_ + size_ - k) % size_;
    const Tensor theirs = slice_of(flat, to, size_);
    for (int64_t begin = 0; begin < own.count(); begin += piece, ++turn) {
      const int64_t end = std::min(begin + piece, own.count());
      Tensor arriving = own.rows(begin, end);
      arriving.data = scratch_.data() + turn % 2 * kPieceBytes;
      send_bytes(to, bytes_of(theirs.rows(begin, end)));
      messages_->start_receive(from, bytes_of(arriving));
      if (sum_to) add(sum_to, came);
      sum_to = own.rows(begin, end);
      came = arriving;
      wait();
    }
  }
  if (sum_to) add(sum_to, came);
}

void HostCommunicator::gather_slices(Tensor flat) {
  for (int k = 1; k < size_; ++k) {
    send_bytes((rank_ + k) % size_, bytes_of(slice_of(flat, rank_, size_)));
    const int from = (rank_ + size_ - k) % size_;
    messages_->start_receive(from, bytes_of(slice_of(flat, from, size_)));
  }
  wait();
}

// Every rank adds the numbers of all in the order of ranks.
void HostCommunicator::sum_numbers(std::span<double> numbers) {
  const size_t n = numbers.size();
  std::vector<double> all(n * static_cast<size_t>(size_));
  const auto part = [&](int rank) { return std::span(all).subspan(n * static_cast<size_t>(rank), n); };
  std::copy(numbers.begin(), numbers.end(), part(rank_).begin());
  Tensor flat;
  flat.data = reinterpret_cast<std::byte*>(all.data());
  flat.dtype = DType::f64;
  flat.shape = {std::ssize(all)};
  gather_slices(flat);
  for (size_t i = 0; i < n; ++i) {
    numbers[i] = 0;
    for (int rank = 0; rank < size_; ++rank) numbers[i] += part(rank)[i];
  }
}

void HostCommunicator::send_bytes(int to, std::span<const std::byte> bytes) {
  messages_->start_send(to, bytes);
  bytes_sent_ += static_cast<int64_t>(bytes.size());
}

// Until all that was begun is done. Other threads of this machine may have work, so the core is given away
// soon.
void HostCommunicator::wait() {
  Clock::time_point started = Clock::now(), noted = started;
  const double limit_s = this->limit_s();
  for (int64_t turn = 0; !messages_->poll(); ++turn) {
    if (turn < 1000)
      sched_yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    if (turn % 64 != 63) continue;
    abort_if_asked();
    if (Clock::now() - noted < kIdle) continue;
    noted = Clock::now();
    answer_notes();
    if (seconds_since(started) <= limit_s) continue;
    ask_or_give_up([this] { return messages_->poll(); });
    started = Clock::now();
  }
}

bool HostCommunicator::Answers::are_an_excuse(int own_rank) const {
  for (int rank = 0; rank < static_cast<int>(places.size()); ++rank)
    if (rank != own_rank && places[static_cast<size_t>(rank)].empty()) return false;
  return somebody_works;
}

Note HostCommunicator::note(Note::Kind kind) {
  Note note{.kind = kind, .from = rank_, .step = step_};
  const std::lock_guard lock(mutex_);
  if (!waits_for_.empty()) note.doing = Note::Doing::waiting;
  if (!works_on_.empty()) note.doing = Note::Doing::working;
  (works_on_.empty() ? waits_for_ : works_on_).copy(note.what.data(), note.what.size() - 1);
  return note;
}

void HostCommunicator::answer_notes() {
  while (const auto got = messages_->next_note()) answer(*got);
}

void HostCommunicator::answer(const Note& got) {
  if (got.kind != Note::Kind::question) return;
  messages_->send_note(got.from, note(Note::Kind::answer));
  lower_rank_asked_ |= got.from < rank_;
  std::unique_lock lock(mutex_);
  if (works_on_.empty() || std::exchange(said_that_it_works_, true)) return;
  const std::string work = works_on_;
  lock.unlock();
  write_warning(
      fmt::format("{} takes longer than parallel.timeout_s = {:g}; the other ranks wait", work, timeout_s_));
}

// Asks everybody where they are. Several ranks find out at about the same time that they have waited too
// long: the lowest of them speaks at once, and the others where it has not ended them soon after.
void HostCommunicator::ask_or_give_up(const std::function<bool()>& came) {
  for (int rank = 0; rank < size_; ++rank)
    if (rank != rank_) messages_->send_note(rank, note(Note::Kind::question));
  Answers answers{.places = std::vector<std::string>(static_cast<size_t>(size_)), .somebody_works = false};
  if (!hear_answers(answers, kAnswerTime, came) &&
      !(lower_rank_asked_ && hear_answers(answers, 2 * kAnswerTime, came)))
    give_up(answers);
  lower_rank_asked_ = false;
}

// True as soon as there is a reason not to give up.
bool HostCommunicator::hear_answers(Answers& answers, milliseconds time, const std::function<bool()>& came) {
  for (const auto began = Clock::now(); Clock::now() - began < time;) {
    abort_if_asked();
    messages_->poll();  // learns that another rank has ended the run
    if (came()) return true;
    while (const auto got = messages_->next_note()) {
      answer(*got);  // whoever asks answers by that
      answers.somebody_works |= got->doing == Note::Doing::working;
      const std::string_view does[] = {"computing", "waiting for ", "working on "};
      answers.places.at(static_cast<size_t>(got->from)) = fmt::format(
          "is in step {}, {}{}", got->step, does[static_cast<size_t>(got->doing)], got->what.data());
    }
    if (answers.are_an_excuse(rank_)) return true;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return false;
}

// Says who does not answer, and ends the run.
void HostCommunicator::give_up(const Answers& answers) {
  std::vector<int> silent;
  std::string others;
  for (int rank = 0; rank < size_; ++rank) {
    const std::string& place = answers.places[static_cast<size_t>(rank)];
    if (rank == rank_) continue;
    if (place.empty())
      silent.push_back(rank);
    else
      others += fmt::format("\n  rank {} {}", rank, place);
  }
  write_err(
      fmt::format("{}keen: rank {}: step {}: waited for {} for longer than parallel.timeout_s = {:g}; {}{}\n",
                  clear_line(stderr), rank_, step_.load(), waits_for_, timeout_s_,
                  silent.empty()       ? "every rank answers:"
                  : silent.size() == 1 ? fmt::format("rank {} does not answer", silent[0])
                                       : fmt::format("ranks {} do not answer", fmt::join(silent, ", ")),
                  others));
  messages_->abort(static_cast<int>(Exit::communication));
}

void HostCommunicator::abort_if_asked() {
  if (abort_exit_ != 0) messages_->abort(abort_exit_);
}

}  // namespace keen
