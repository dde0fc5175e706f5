#include "mpi_engine.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <utility>

namespace sft {

using Clock = std::chrono::steady_clock;

namespace {

constexpr const char* kKindNames[kNumCollectiveKinds] = {
    "all_gather", "all_reduce", "reduce_scatter", "all_to_all", "collective_permute", "broadcast", "send_receive",
};

// MPI counts bytes in an int.
constexpr size_t kMaxMessageBytes = size_t{1} << 30;

// A process that waits this long says so, once an operation.
constexpr auto kWarnAfter = std::chrono::seconds(60);

// How the engine's thread waits for MPI, in polls without progress: at first it polls (a message may be microseconds
// away), then offers the core to the threads that compute, then sleeps, ever longer.
constexpr int kPollsBeforeYield = 50;
constexpr int kPollsBeforeSleep = 400;
constexpr auto kShortestSleep = std::chrono::microseconds(10);
constexpr auto kLongestSleep = std::chrono::microseconds(100);

std::atomic<uint64_t> g_bytes_between_processes[kNumCollectiveKinds];
std::atomic<uint64_t> g_bytes_within_process[kNumCollectiveKinds];

std::string MpiErrorText(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return "MPI error " + std::to_string(code);
  return std::string(text, length);
}

}  // namespace

const char* CollectiveKindName(CollectiveKind kind) { return kKindNames[kind]; }

struct MpiEngine::Flight {
  std::unique_ptr<Operation> operation;
  std::vector<MPI_Request> requests;
  std::vector<size_t> expected_bytes;  // Of each request's message.
  std::vector<int> peers;              // Of each request.
  std::vector<MPI_Status> statuses;
  size_t local_pending = 0;  // Transfers within the process that have not met their other end.
  Clock::time_point submitted;
  bool warned = false;
  std::string error;
};

std::shared_ptr<MpiEngine> MpiEngine::Create(int local_devices, std::string* error) {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (!initialized || finalized) {
    *error = "collectives over MPI need MPI to be initialized before the client is created";
    return nullptr;
  }
  int provided = 0;
  MPI_Query_thread(&provided);
  if (provided < MPI_THREAD_MULTIPLE) {
    *error = "collectives over MPI need MPI to be initialized with MPI_THREAD_MULTIPLE";
    return nullptr;
  }
  MPI_Comm communicator = MPI_COMM_NULL;
  int code = MPI_Comm_dup(MPI_COMM_WORLD, &communicator);
  if (code == MPI_SUCCESS) code = MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN);
  int max_local_devices = local_devices;
  if (code == MPI_SUCCESS) {
    code = MPI_Allreduce(&local_devices, &max_local_devices, 1, MPI_INT, MPI_MAX, communicator);
  }
  int* upper_bound = nullptr;
  int found = 0;
  if (code == MPI_SUCCESS) code = MPI_Comm_get_attr(communicator, MPI_TAG_UB, &upper_bound, &found);
  if (code != MPI_SUCCESS) {
    *error = "cannot set up MPI for collectives: " + MpiErrorText(code);
    return nullptr;
  }
  constexpr int kSmallestUpperBound = 32767;  // What the MPI standard guarantees.
  return std::shared_ptr<MpiEngine>(
      new MpiEngine(communicator, local_devices, max_local_devices, found ? *upper_bound : kSmallestUpperBound));
}

MpiEngine::MpiEngine(MPI_Comm communicator, int local_devices, int max_local_devices, int tag_upper_bound)
    : communicator_(communicator), max_local_devices_(max_local_devices), tag_upper_bound_(tag_upper_bound) {
  MPI_Comm_rank(communicator_, &rank_);
  MPI_Comm_size(communicator_, &num_processes_);
  if (local_devices > 1) {
    for (int i = 0; i < local_devices; ++i) completion_threads_.emplace_back([this] { RunCompletions(); });
  }
  thread_ = std::thread([this] { Run(); });
}

MpiEngine::~MpiEngine() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  submitted_.notify_all();
  thread_.join();
  {
    std::lock_guard<std::mutex> lock(completion_mutex_);
    completions_stopping_ = true;
  }
  completion_ready_.notify_all();
  for (std::thread& thread : completion_threads_) thread.join();
  int finalized = 0;
  MPI_Finalized(&finalized);
  // After a failure the other processes may be gone or out of step.
  if (!finalized && failure_.empty()) MPI_Comm_free(&communicator_);
}

void MpiEngine::Submit(std::unique_ptr<Operation> operation) {
  auto flight = std::make_unique<Flight>();
  flight->operation = std::move(operation);
  flight->submitted = Clock::now();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(flight));
  }
  submitted_.notify_one();
}

void MpiEngine::Run() {
  int idle_polls = 0;
  auto sleep = kShortestSleep;
  for (;;) {
    std::deque<std::unique_ptr<Flight>> arrived;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (flights_.empty()) submitted_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_ && queue_.empty() && flights_.empty()) return;
      arrived.swap(queue_);
    }
    bool progress = !arrived.empty();
    for (std::unique_ptr<Flight>& flight : arrived) {
      if (failure_.empty()) {
        Start(*flight);
      } else {
        flight->error = failure_;
      }
      flights_.push_back(std::move(flight));
    }
    for (auto it = flights_.begin(); it != flights_.end();) {
      if (Advance(**it)) {
        progress = true;
        std::unique_ptr<Flight> flight = std::move(*it);
        it = flights_.erase(it);
        const std::string error = flight->error;
        Finish(std::move(flight));
        if (!error.empty() && failure_.empty()) {
          Fail(error);
          break;
        }
      } else {
        ++it;
      }
    }
    if (progress || flights_.empty()) {
      idle_polls = 0;
      sleep = kShortestSleep;
    } else if (++idle_polls > kPollsBeforeSleep) {
      std::unique_lock<std::mutex> lock(mutex_);
      submitted_.wait_for(lock, sleep, [this] { return !queue_.empty(); });
      sleep = std::min<std::chrono::microseconds>(sleep * 2, kLongestSleep);
    } else if (idle_polls > kPollsBeforeYield) {
      sched_yield();
    }
  }
}

void MpiEngine::Start(Flight& flight) {
  flight.requests.clear();
  flight.expected_bytes.clear();
  flight.peers.clear();
  const std::vector<Transfer> transfers = std::move(flight.operation->transfers);
  flight.operation->transfers.clear();
  for (const Transfer& transfer : transfers) {
    if (transfer.process == rank_) {
      StartLocal(flight, transfer);
      continue;
    }
    // Both ends split a long message alike, and MPI keeps messages of one tag in order.
    for (size_t offset = 0; offset < transfer.bytes; offset += kMaxMessageBytes) {
      const size_t bytes = std::min(kMaxMessageBytes, transfer.bytes - offset);
      MPI_Request request = MPI_REQUEST_NULL;
      int code;
      if (transfer.direction == Transfer::kSend) {
        code = MPI_Isend(transfer.data + offset, static_cast<int>(bytes), MPI_BYTE, transfer.process, transfer.tag,
                         communicator_, &request);
        g_bytes_between_processes[flight.operation->kind] += bytes;
      } else {
        code = MPI_Irecv(transfer.data + offset, static_cast<int>(bytes), MPI_BYTE, transfer.process, transfer.tag,
                         communicator_, &request);
      }
      if (code != MPI_SUCCESS) {
        flight.error = flight.operation->description + ": " + MpiErrorText(code);
        return;
      }
      flight.requests.push_back(request);
      flight.expected_bytes.push_back(transfer.direction == Transfer::kReceive ? bytes : SIZE_MAX);
      flight.peers.push_back(transfer.process);
    }
  }
  flight.statuses.resize(flight.requests.size());
}

void MpiEngine::StartLocal(Flight& flight, const Transfer& transfer) {
  LocalQueue& queue = local_[transfer.tag];
  const bool is_send = transfer.direction == Transfer::kSend;
  auto& others = is_send ? queue.receives : queue.sends;
  if (others.empty()) {
    (is_send ? queue.sends : queue.receives).emplace_back(&flight, transfer);
    ++flight.local_pending;
    return;
  }
  const auto [other_flight, other] = others.front();
  others.pop_front();
  if (queue.sends.empty() && queue.receives.empty()) local_.erase(transfer.tag);
  --other_flight->local_pending;
  if (other.bytes != transfer.bytes) {
    flight.error = flight.operation->description + " meets " + other_flight->operation->description +
                   " on another device of this process: the devices do not run the same program";
    return;
  }
  const Transfer& send = is_send ? transfer : other;
  const Transfer& receive = is_send ? other : transfer;
  std::memcpy(receive.data, send.data, send.bytes);
  g_bytes_within_process[flight.operation->kind] += send.bytes;
}

bool MpiEngine::Advance(Flight& flight) {
  while (flight.error.empty()) {
    if (!flight.requests.empty()) {
      int complete = 0;
      const int count = static_cast<int>(flight.requests.size());
      const int code = MPI_Testall(count, flight.requests.data(), &complete, flight.statuses.data());
      if (code != MPI_SUCCESS) {
        flight.error = flight.operation->description + ": " + MpiErrorText(code);
        for (int i = 0; code == MPI_ERR_IN_STATUS && i < count; ++i) {
          const int reason = flight.statuses[i].MPI_ERROR;
          if (reason != MPI_SUCCESS && reason != MPI_ERR_PENDING) {
            flight.error = flight.operation->description + " with process " + std::to_string(flight.peers[i]) + ": " +
                           MpiErrorText(reason);
            break;
          }
        }
        return true;
      }
      if (!complete) {
        CheckDeadline(flight);
        return !flight.error.empty();
      }
      for (int i = 0; i < count; ++i) {
        int bytes = 0;
        if (flight.expected_bytes[i] == SIZE_MAX) continue;  // A send.
        MPI_Get_count(&flight.statuses[i], MPI_BYTE, &bytes);
        if (static_cast<size_t>(bytes) != flight.expected_bytes[i]) {
          flight.error = flight.operation->description + ": process " + std::to_string(flight.peers[i]) + " sent " +
                         std::to_string(bytes) + " bytes instead of " + std::to_string(flight.expected_bytes[i]) +
                         ": it does not run the same program";
          return true;
        }
      }
      flight.requests.clear();
    }
    if (flight.local_pending > 0) {
      CheckDeadline(flight);
      return !flight.error.empty();
    }
    if (!flight.operation->after_phase) return true;
    flight.error = flight.operation->after_phase(*flight.operation);
    if (flight.operation->transfers.empty()) return true;
    if (flight.error.empty()) Start(flight);
  }
  return true;
}

void MpiEngine::CheckDeadline(Flight& flight) {
  const auto waited = Clock::now() - flight.submitted;
  if (waited < kWarnAfter && waited < flight.operation->timeout) return;
  const std::string seconds =
      std::to_string(std::chrono::duration_cast<std::chrono::seconds>(waited).count()) + " s";
  if (waited >= flight.operation->timeout) {
    flight.error = flight.operation->description + ": waited " + seconds +
                   " for the other devices; a process has died, hangs, or does not run the same program";
  } else if (!flight.warned) {
    flight.warned = true;
    std::fprintf(stderr, "process %d waits for the other devices in %s, for %s so far\n", rank_,
                 flight.operation->description.c_str(), seconds.c_str());
  }
}

void MpiEngine::Fail(const std::string& error) {
  failure_ = error;
  local_.clear();
  while (!flights_.empty()) {
    std::unique_ptr<Flight> flight = std::move(flights_.front());
    flights_.pop_front();
    flight->error = error;
    Finish(std::move(flight));
  }
}

void MpiEngine::Finish(std::unique_ptr<Flight> flight) {
  if (!flight->error.empty()) {
    // Stops MPI from writing into buffers that are about to go. A message under way can no longer be stopped, but
    // after an error the process ends.
    for (size_t i = 0; i < flight->requests.size(); ++i) {
      if (flight->requests[i] == MPI_REQUEST_NULL) continue;
      if (flight->expected_bytes[i] != SIZE_MAX) MPI_Cancel(&flight->requests[i]);
      MPI_Request_free(&flight->requests[i]);
    }
    for (auto& [tag, queue] : local_) {
      auto of_flight = [&](const std::pair<Flight*, Transfer>& entry) { return entry.first == flight.get(); };
      queue.sends.erase(std::remove_if(queue.sends.begin(), queue.sends.end(), of_flight), queue.sends.end());
      queue.receives.erase(std::remove_if(queue.receives.begin(), queue.receives.end(), of_flight),
                           queue.receives.end());
    }
  }
  auto complete = [operation = std::shared_ptr<Operation>(std::move(flight->operation)),
                   error = std::move(flight->error)] { operation->done(error); };
  if (completion_threads_.empty()) {
    complete();
    return;
  }
  {
    std::lock_guard<std::mutex> lock(completion_mutex_);
    completions_.push_back(std::move(complete));
  }
  completion_ready_.notify_one();
}

void MpiEngine::RunCompletions() {
  for (;;) {
    std::function<void()> complete;
    {
      std::unique_lock<std::mutex> lock(completion_mutex_);
      completion_ready_.wait(lock, [this] { return completions_stopping_ || !completions_.empty(); });
      if (completions_.empty()) return;
      complete = std::move(completions_.front());
      completions_.pop_front();
    }
    complete();
  }
}

}  // namespace sft

size_t sft_cpu_collective_bytes(uint64_t* counters, size_t capacity) {
  constexpr size_t kCount = 2 * sft::kNumCollectiveKinds;
  for (size_t i = 0; i < std::min(capacity, kCount); ++i) {
    const auto& source = i < sft::kNumCollectiveKinds ? sft::g_bytes_between_processes : sft::g_bytes_within_process;
    counters[i] = source[i % sft::kNumCollectiveKinds].load(std::memory_order_relaxed);
  }
  return kCount;
}

const char* sft_cpu_collective_name(size_t index) {
  return index < sft::kNumCollectiveKinds ? sft::kKindNames[index] : nullptr;
}
