// Stopping by a signal: SIGTERM, SIGINT and SIGUSR1 ask the run to save and stop.
#pragma once

namespace keen {

// Catches the three signals from now on. The first one is only remembered; a second one ends the process at
// once.
void catch_stop_signals();
// The signal that came, or 0. Any thread may ask.
int stop_signal();

}  // namespace keen
