// How the ranks of a TCP launch find each other, and the connections that come out of it: two between each
// pair of ranks, one for data and one for notes, which must get through while data waits for a receiver.
//
// Rank 0 listens at MASTER_PORT, every other rank at any port. Each rank calls rank 0, again and again until
// it is there, and says who it is; when all have come, rank 0 tells each of them where the others are, as it
// sees them, and each rank calls those below itself. All leave together, when rank 0 has heard that every
// connection stands. What goes wrong at a rank that has come, it tells rank 0, and rank 0 tells all who have
// come.
//
// Others may call, too: a scanner of ports that says nothing, or another job. They are shown out, and keep
// nobody waiting. There is no secret that would keep out somebody who speaks this protocol on purpose: like
// every launcher's, the port belongs into a network that is trusted. Where MASTER_ADDR of rank 0 is this host
// alone (localhost, 127.*, ::1), rank 0 answers no calls from elsewhere.
#pragma once

#include <vector>

#include "comm/messages.h"
#include "comm/socket.h"

namespace keen {

struct TcpMesh {
  // By rank; none to oneself.
  std::vector<Socket> data, notes;
};

// Raises Exit::communication when ranks have not come within `timeout_s` or do not go together, and
// Exit::stopped when this rank was `stopped` or another one says that it was.
TcpMesh connect_tcp_mesh(const TcpPlace& place, double timeout_s, const Stopped& stopped);

}  // namespace keen
