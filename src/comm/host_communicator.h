// Collectives of tensors in host memory, over any way of messages. A thread of its own does all that the
// ways ask for, so that sums go on while the step computes, and so that a rank can always say where it is.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "comm/messages.h"

namespace keen {

class HostCommunicator final : public Communicator {
 public:
  // Connects in its thread; raises what `connect` raises. Where it goes on though this process was `stopped`,
  // the process ends with Exit::stopped.
  HostCommunicator(const std::function<std::unique_ptr<Messages>()>& connect, double timeout_s,
                   const Stopped& stopped = {});
  ~HostCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void start_sum_slices(Context& ctx, Tensor flat, std::string_view what) override;
  void start_gather_slices(Context& ctx, Tensor flat, std::string_view what) override;
  void finish(Context&) override { finish(); }
  void sum(Context& ctx, Tensor numbers, std::string_view what) override;
  void sum(std::span<double> numbers, std::string_view what) override;
  void broadcast(std::string& text, std::string_view what) override;
  void send(int to, std::span<const std::byte> bytes, std::string_view what) override;
  void receive(int from, std::span<std::byte> bytes, std::string_view what) override;
  void at_step(int64_t step) override {
    step_ = step;
    ++steps_begun_;
  }
  void works_on(std::string_view what) override;
  int64_t bytes_sent() const override { return bytes_sent_; }
  [[noreturn]] void abort(Exit exit) override;

  // For collectives that go another way, from any thread: how long a rank may wait in this step, and what to
  // do when this one has waited longer for `what`. That asks the others where they are, and returns when
  // `came` says, in another thread, that there is no more to wait for, or when they have an excuse, for as
  // long again; else it ends the run, saying who does not answer.
  double limit_s() const;
  void ask_or_give_up(std::string_view what, const std::function<bool()>& came);

 private:
  struct Job {
    std::string what;
    std::function<void()> run;
  };
  // What the others said when they were asked where they are; empty of those that have not answered.
  struct Answers {
    std::vector<std::string> places;
    bool somebody_works = false;
    // Whether that is a reason to go on waiting.
    bool are_an_excuse(int own_rank) const;
  };
  void start(std::string_view what, std::function<void()> run);
  void finish();

  // Of the thread.
  void serve(const std::function<std::unique_ptr<Messages>()>& connect);
  void serve_jobs();
  void sum_slices(Tensor flat);
  void gather_slices(Tensor flat);
  void sum_numbers(std::span<double> numbers);
  void send_bytes(int to, std::span<const std::byte> bytes);
  void wait();
  void answer_notes();
  void answer(const Note& got);
  Note note(Note::Kind kind);
  void ask_or_give_up(const std::function<bool()>& came);
  bool hear_answers(Answers& answers, std::chrono::milliseconds time, const std::function<bool()>& came);
  void give_up(const Answers& answers);
  void abort_if_asked();

  std::unique_ptr<Messages> messages_;
  int rank_ = 0, size_ = 1;
  const double timeout_s_;
  std::vector<std::byte> scratch_;
  std::string waits_for_;  // of the job that runs; empty while there is none
  bool lower_rank_asked_ = false;

  std::atomic<int64_t> step_ = 0, steps_begun_ = 0, bytes_sent_ = 0;
  std::atomic<int> abort_exit_ = 0;  // not 0: the thread is to end the run with it
  std::mutex mutex_;                 // of what follows
  std::condition_variable changed_;
  std::string works_on_;
  bool said_that_it_works_ = false;
  std::deque<Job> jobs_;  // the first one runs
  bool connected_ = false, ends_ = false;
  std::exception_ptr connect_error_;
  std::thread thread_;
};

}  // namespace keen
