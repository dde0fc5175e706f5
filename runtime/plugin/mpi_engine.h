// Moves the data of collectives between processes with MPI, and between the devices of this process by copying.
//
// XLA starts a collective from a thread of its pool and must not be blocked there: the other devices of the process
// need those threads to start theirs. So an operation is handed to the engine, whose one thread makes every MPI call
// of the data path and reports completion. This file and mpi_engine.cc know nothing of XLA.
#ifndef SFT_RUNTIME_PLUGIN_MPI_ENGINE_H_
#define SFT_RUNTIME_PLUGIN_MPI_ENGINE_H_

#include <mpi.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace sft {

// The collectives whose traffic is counted apart.
enum CollectiveKind : int {
  kAllGather,
  kAllReduce,
  kReduceScatter,
  kAllToAll,
  kCollectivePermute,
  kBroadcast,
  kSendReceive,
  kNumCollectiveKinds,
};

const char* CollectiveKindName(CollectiveKind kind);

// One message of an operation. A send and the receive it meets carry the same tag.
struct Transfer {
  enum Direction { kSend, kReceive };
  Direction direction;
  char* data;
  size_t bytes;
  int process;  // The other end's MPI rank; may be this process.
  int tag;
};

// What one device does in one collective: phases of transfers, each followed by some local work.
struct Operation {
  CollectiveKind kind;
  std::string description;  // For error messages.
  std::vector<Transfer> transfers;  // The first phase's.
  // Runs after a phase's transfers are complete: does the local work and, if another phase follows, puts its
  // transfers into `transfers`. May be empty. Returns an error message, or an empty string.
  std::function<std::string(Operation&)> after_phase;
  // Called exactly once, with an error message or an empty string. The buffers are not touched afterwards.
  std::function<void(const std::string&)> done;
  std::chrono::steady_clock::duration timeout;
};

class MpiEngine {
 public:
  // Collective over MPI_COMM_WORLD. `local_devices` may differ between processes. Returns null and sets `error` if MPI
  // does not run or does not allow calls from several threads.
  static std::shared_ptr<MpiEngine> Create(int local_devices, std::string* error);

  // Waits for the operations in flight.
  ~MpiEngine();

  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  // Never blocks. `operation->done` is called from a thread of the engine.
  void Submit(std::unique_ptr<Operation> operation);

  int rank() const { return rank_; }
  int num_processes() const { return num_processes_; }
  // The largest number of devices that a process has.
  int max_local_devices() const { return max_local_devices_; }
  // The largest tag that MPI takes.
  int tag_upper_bound() const { return tag_upper_bound_; }

 private:
  struct Flight;  // An operation in flight.
  struct LocalQueue {
    std::deque<std::pair<Flight*, Transfer>> sends;
    std::deque<std::pair<Flight*, Transfer>> receives;
  };

  MpiEngine(MPI_Comm communicator, int local_devices, int max_local_devices, int tag_upper_bound);

  void Run();                                        // The engine's thread.
  void Start(Flight& flight);                        // Posts the transfers of a phase.
  void StartLocal(Flight& flight, const Transfer&);  // Copies once both ends are there.
  bool Advance(Flight& flight);                      // Returns true if the flight has ended.
  void CheckDeadline(Flight& flight);
  void Fail(const std::string& error);  // Fails what is in flight and everything submitted later.
  void Finish(std::unique_ptr<Flight> flight);
  void RunCompletions();  // A completion thread.

  MPI_Comm communicator_;
  int rank_ = 0;
  int num_processes_ = 1;
  const int max_local_devices_;
  const int tag_upper_bound_;

  std::mutex mutex_;
  std::condition_variable submitted_;
  std::deque<std::unique_ptr<Flight>> queue_;  // Guarded by mutex_.
  bool stopping_ = false;                      // Guarded by mutex_.

  // Only the engine's thread touches these.
  std::list<std::unique_ptr<Flight>> flights_;
  std::unordered_map<int, LocalQueue> local_;  // By tag.
  std::string failure_;                        // Not empty once something has failed.

  // What XLA does when a collective completes may be long (it computes on the thread that completes it), so with
  // several devices it must not hold up the traffic of the others.
  std::mutex completion_mutex_;
  std::condition_variable completion_ready_;
  std::deque<std::function<void()>> completions_;  // Guarded by completion_mutex_.
  bool completions_stopping_ = false;              // Guarded by completion_mutex_.
  std::vector<std::thread> completion_threads_;

  std::thread thread_;
};

}  // namespace sft

extern "C" {

// Copies up to `capacity` counters to `counters` and returns how many there are: for each collective, in the order of
// CollectiveKind, the bytes that this process has sent to other processes, then the bytes that it has copied between
// its own devices. Collectives of clients that do not use MPI are not counted.
__attribute__((visibility("default"))) size_t sft_cpu_collective_bytes(uint64_t* counters, size_t capacity);

// The name of the collective at `index` of CollectiveKind, null past the end.
__attribute__((visibility("default"))) const char* sft_cpu_collective_name(size_t index);
}

#endif  // SFT_RUNTIME_PLUGIN_MPI_ENGINE_H_
