// Threads. The caller says how many (torch's number; 1 in a forked child, where OpenMP threads would hang),
// and with one thread, or without OpenMP, no OpenMP call is made at all.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

namespace twophase {

// Below these many multiply-adds, or elements of a pass, starting threads does not pay.
constexpr int64_t serial_work = 1 << 16;
constexpr int64_t serial_elements = 1 << 15;

// Runs body(worker) for worker = 0 ... threads - 1, at the same time. The first exception is thrown again
// here.
template <class Body>
void parallel_workers(int threads, const Body& body) {
#ifdef _OPENMP
  if (threads > 1) {
    std::exception_ptr failure;
    std::mutex guard;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int worker = 0; worker < threads; ++worker) {
      try {
        body(worker);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(guard);
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
#endif
  (void)threads;
  body(0);
}

// Hands the tasks 0 ... count - 1 to the threads, first come first served, in ascending order. make_worker()
// is called once on each thread and returns the callable that runs a task; it owns that thread's scratch.
// Which thread runs a task must not matter for the result: tasks write to disjoint places.
template <class MakeWorker>
void parallel_tasks(int64_t count, int threads, const MakeWorker& make_worker) {
  if (count <= 0) return;
  std::atomic<int64_t> next{0};
  parallel_workers(static_cast<int>(std::min<int64_t>(threads, count)), [&](int) {
    auto run_task = make_worker();
    for (int64_t task = next++; task < count; task = next++) run_task(task);
  });
}

}  // namespace twophase
