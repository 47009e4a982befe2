// OpenMP of one thread, for the fuzzers: clang brings no OpenMP of its own, the package that does cannot
// stand beside that of another version, and a finding is easier to read without threads. Loops run as if
// nothing stood above them.
#pragma once

inline int omp_get_max_threads() { return 1; }
inline int omp_get_num_threads() { return 1; }
inline int omp_get_thread_num() { return 0; }
inline int omp_in_parallel() { return 0; }
