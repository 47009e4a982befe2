// Ranks as threads of this process, connected over TCP, each with a communicator of its own.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "comm/host_communicator.h"
#include "free_port.h"

namespace keen::testing {

inline void on_ranks(int size, const std::function<void(HostCommunicator&)>& body, double timeout_s = 60) {
  const int port = free_port();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([=, &body] {
      HostCommunicator comm(
          [=] {
            return connect_tcp(TcpPlace{rank, size, "127.0.0.1", port, ""}, 60);
          },
          timeout_s);
      body(comm);
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace keen::testing
