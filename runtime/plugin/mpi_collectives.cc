#include "mpi_collectives.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "reduction.h"
#include "xla/core/collectives/clique_key.h"
#include "xla/pjrt/plugin/xla_cpu/cpu_topology.h"
#include "xla/primitive_util.h"

namespace sft {
namespace {

using stream_executor::DeviceAddressBase;
using xla::Future;
using xla::PrimitiveType;
using xla::RankId;
using xla::ReductionKind;

// Up to this size an all-reduce sends everything to everyone: half the round trips for a few more bytes.
constexpr size_t kOnePhaseAllReduceBytes = 16 << 10;

// SFT_COLLECTIVE_TIMEOUT_SECONDS overrides how long XLA lets a collective wait.
absl::Duration Timeout(absl::Duration xla_timeout) {
  static const int64_t seconds = [] {
    int64_t value = 0;
    const char* text = std::getenv("SFT_COLLECTIVE_TIMEOUT_SECONDS");
    return text != nullptr && absl::SimpleAtoi(text, &value) && value > 0 ? value : 0;
  }();
  return seconds > 0 ? absl::Seconds(seconds) : xla_timeout;
}

char* At(DeviceAddressBase buffer, size_t offset = 0) { return static_cast<char*>(buffer.opaque()) + offset; }

using Memory = std::shared_ptr<char[]>;

Memory Allocate(size_t bytes) { return Memory(new char[bytes]); }

// Numbers the messages so that a send meets its receive.
//
// MPI keeps the messages of one tag between two processes in order. XLA may start different collectives in different
// orders on different devices, but the calls of one collective (its turns in a loop, its operands when XLA has combined
// several collectives into one) come in the same order on every device. Their second phases, which begin when the first
// are complete, do not. So a tag is made of the two devices, the collective (its channel id if it has one; those without
// one XLA starts in the program's order, and they share a number), the number of the call and the phase. Numbers of calls
// repeat, long after whatever had them is over. What does not fit is an error, so tags never collide.
class TagSpace {
 public:
  // More than the operands of one collective that XLA combines.
  static constexpr int64_t kCalls = 1024;

  TagSpace(int max_local_devices, int tag_upper_bound) : devices_(max_local_devices), upper_bound_(tag_upper_bound) {}

  absl::StatusOr<int64_t> Operation(const xla::RendezvousKey& key) const {
    const bool has_channel = key.collective_op_kind == xla::RendezvousKey::kCrossModule;
    const int64_t operation = has_channel ? key.op_id + 1 : 0;
    const int64_t limit = (int64_t{upper_bound_} + 1) / (2 * kCalls * devices_ * devices_);
    if (operation < 0 || operation >= limit) {
      return absl::UnimplementedError(absl::StrCat("channel id ", key.op_id, " does not fit into MPI's tags: with ",
                                                   devices_, " devices a process ids below ", limit - 1,
                                                   " can be used"));
    }
    return operation;
  }

  int Tag(int64_t operation, int64_t call, int phase, int source_device, int destination_device) const {
    const int64_t message = (operation * kCalls + call % kCalls) * 2 + phase;
    return static_cast<int>((message * devices_ + source_device) * devices_ + destination_device);
  }

 private:
  int64_t devices_;
  int upper_bound_;
};

// One device's end of a group of devices.
class MpiCommunicator : public xla::Communicator {
 public:
  MpiCommunicator(std::shared_ptr<MpiEngine> engine, std::vector<xla::GlobalDeviceId> devices, size_t rank)
      : engine_(std::move(engine)),
        tags_(engine_->max_local_devices(), engine_->tag_upper_bound()),
        devices_(std::move(devices)),
        rank_(rank) {}

  Future<> AllReduce(DeviceAddressBase send, DeviceAddressBase receive, PrimitiveType type, size_t count,
                     ReductionKind reduction, const Executor& executor) override {
    if (!IsReducible(type)) return NotReducible("all-reduce", type);
    absl::StatusOr<Call> started = Begin(kAllReduce, type, count, executor);
    if (!started.ok()) return started.status();
    Call& call = *started;
    const size_t width = xla::primitive_util::ByteWidth(type);

    if (count * width <= kOnePhaseAllReduceBytes) {
      Memory received = Allocate(count * width * size());
      std::vector<const char*> inputs(size());
      for (size_t peer = 0; peer < size(); ++peer) {
        if (peer == rank_) {
          inputs[peer] = At(send);
          continue;
        }
        char* slot = received.get() + peer * count * width;
        AddSend(call, peer, At(send), count * width);
        AddReceive(call, peer, slot, count * width);
        inputs[peer] = slot;
      }
      call.operation->after_phase = [=](Operation&) {
        (void)received;  // Keeps the inputs.
        Reduce(type, reduction, inputs, count, At(receive));
        return std::string();
      };
      return Submit(std::move(call));
    }

    // Each member reduces one chunk, then sends it to the others.
    auto begin_of = [=, members = size()](size_t member) { return count * member / members; };
    auto bytes_of = [=](size_t member) { return (begin_of(member + 1) - begin_of(member)) * width; };
    const size_t own_bytes = bytes_of(rank_);
    Memory received = Allocate(own_bytes * size());
    std::vector<const char*> inputs(size());
    for (size_t peer = 0; peer < size(); ++peer) {
      if (peer == rank_) {
        inputs[peer] = At(send, begin_of(rank_) * width);
        continue;
      }
      char* slot = received.get() + peer * own_bytes;
      AddSend(call, peer, At(send, begin_of(peer) * width), bytes_of(peer));
      AddReceive(call, peer, slot, own_bytes);
      inputs[peer] = slot;
    }
    const Phase second_phase{call.phase.operation, call.phase.call, 1};
    call.operation->after_phase = [=](Operation& operation) mutable {
      if (received == nullptr) return std::string();  // The second phase is over.
      char* own = At(receive, begin_of(rank_) * width);
      Reduce(type, reduction, inputs, own_bytes / width, own);
      received.reset();
      for (size_t peer = 0; peer < size(); ++peer) {
        if (peer == rank_) continue;
        AddTransfer(operation, second_phase, Transfer::kSend, peer, own, own_bytes);
        AddTransfer(operation, second_phase, Transfer::kReceive, peer, At(receive, begin_of(peer) * width),
                    bytes_of(peer));
      }
      return std::string();
    };
    return Submit(std::move(call));
  }

  Future<> ReduceScatter(DeviceAddressBase send, DeviceAddressBase receive, PrimitiveType type, size_t count,
                         ReductionKind reduction, const Executor& executor) override {
    if (!IsReducible(type)) return NotReducible("reduce-scatter", type);
    absl::StatusOr<Call> call = Begin(kReduceScatter, type, count, executor);
    if (!call.ok()) return call.status();
    const size_t bytes = count * xla::primitive_util::ByteWidth(type);
    Memory received = Allocate(bytes * size());
    std::vector<const char*> inputs(size());
    for (size_t peer = 0; peer < size(); ++peer) {
      if (peer == rank_) {
        inputs[peer] = At(send, peer * bytes);
        continue;
      }
      char* slot = received.get() + peer * bytes;
      AddSend(*call, peer, At(send, peer * bytes), bytes);
      AddReceive(*call, peer, slot, bytes);
      inputs[peer] = slot;
    }
    call->operation->after_phase = [=](Operation&) {
      (void)received;  // Keeps the inputs.
      Reduce(type, reduction, inputs, count, At(receive));
      return std::string();
    };
    return Submit(*std::move(call));
  }

  Future<> AllGather(DeviceAddressBase send, DeviceAddressBase receive, PrimitiveType type, size_t count,
                     const Executor& executor) override {
    absl::StatusOr<Call> call = Begin(kAllGather, type, count, executor);
    if (!call.ok()) return call.status();
    const size_t bytes = count * xla::primitive_util::ByteWidth(type);
    for (size_t peer = 0; peer < size(); ++peer) {
      if (peer == rank_) continue;
      AddSend(*call, peer, At(send), bytes);
      AddReceive(*call, peer, At(receive, peer * bytes), bytes);
    }
    CopyOwn(At(receive, rank_ * bytes), At(send), bytes);
    return Submit(*std::move(call));
  }

  Future<> AllToAll(absl::InlinedVector<DeviceAddressBase, 4> send, absl::InlinedVector<DeviceAddressBase, 4> receive,
                    PrimitiveType type, size_t count, const Executor& executor) override {
    if (send.size() != size() || receive.size() != size()) {
      return absl::InvalidArgumentError(absl::StrCat("all-to-all between ", size(), " devices got ", send.size(),
                                                     " buffers to send and ", receive.size(), " to receive"));
    }
    absl::StatusOr<Call> call = Begin(kAllToAll, type, count, executor);
    if (!call.ok()) return call.status();
    const size_t bytes = count * xla::primitive_util::ByteWidth(type);
    for (size_t peer = 0; peer < size(); ++peer) {
      if (peer == rank_) continue;
      AddSend(*call, peer, At(send[peer]), bytes);
      AddReceive(*call, peer, At(receive[peer]), bytes);
    }
    CopyOwn(At(receive[rank_]), At(send[rank_]), bytes);
    return Submit(*std::move(call));
  }

  Future<> CollectivePermute(DeviceAddressBase send, DeviceAddressBase receive, PrimitiveType type, size_t count,
                             std::optional<RankId> source, absl::Span<const RankId> targets,
                             const Executor& executor) override {
    absl::StatusOr<Call> call = Begin(kCollectivePermute, type, count, executor);
    if (!call.ok()) return call.status();
    const size_t bytes = count * xla::primitive_util::ByteWidth(type);
    for (RankId target : targets) {
      if (static_cast<size_t>(target.value()) != rank_) AddSend(*call, target.value(), At(send), bytes);
    }
    if (!source.has_value()) {
      std::memset(At(receive), 0, bytes);
    } else if (static_cast<size_t>(source->value()) == rank_) {
      CopyOwn(At(receive), At(send), bytes);
    } else {
      AddReceive(*call, source->value(), At(receive), bytes);
    }
    return Submit(*std::move(call));
  }

  Future<> Broadcast(DeviceAddressBase send, DeviceAddressBase receive, PrimitiveType type, size_t count, RankId root,
                     const Executor& executor) override {
    absl::StatusOr<Call> call = Begin(kBroadcast, type, count, executor);
    if (!call.ok()) return call.status();
    const size_t bytes = count * xla::primitive_util::ByteWidth(type);
    if (static_cast<size_t>(root.value()) == rank_) {
      for (size_t peer = 0; peer < size(); ++peer) {
        if (peer != rank_) AddSend(*call, peer, At(send), bytes);
      }
      CopyOwn(At(receive), At(send), bytes);
    } else {
      AddReceive(*call, root.value(), At(receive), bytes);
    }
    return Submit(*std::move(call));
  }

  Future<> Send(DeviceAddressBase send, PrimitiveType type, size_t count, RankId peer,
                const Executor& executor) override {
    absl::StatusOr<Call> call = Begin(kSendReceive, type, count, executor);
    if (!call.ok()) return call.status();
    AddSend(*call, peer.value(), At(send), count * xla::primitive_util::ByteWidth(type));
    return Submit(*std::move(call));
  }

  Future<> Recv(DeviceAddressBase receive, PrimitiveType type, size_t count, RankId peer,
                const Executor& executor) override {
    absl::StatusOr<Call> call = Begin(kSendReceive, type, count, executor);
    if (!call.ok()) return call.status();
    AddReceive(*call, peer.value(), At(receive), count * xla::primitive_util::ByteWidth(type));
    return Submit(*std::move(call));
  }

  absl::StatusOr<size_t> NumRanks() const override { return size(); }
  absl::StatusOr<size_t> CurrentRank() override { return rank_; }
  std::string ToString() const override { return absl::StrCat("MpiCommunicator(", rank_, " of ", size(), ")"); }

 private:
  // What the tags of a phase's messages are made of, besides the devices.
  struct Phase {
    int64_t operation;
    int64_t call;
    int phase;
  };

  // A collective that is being put together.
  struct Call {
    std::unique_ptr<Operation> operation;
    Phase phase;
  };

  size_t size() const { return devices_.size(); }

  static Future<> NotReducible(const char* what, PrimitiveType type) {
    return absl::UnimplementedError(absl::StrCat(what, " of ", xla::primitive_util::LowercasePrimitiveTypeName(type),
                                                 " is not supported between processes"));
  }

  // The two may be the same memory, or overlap.
  static void CopyOwn(char* to, const char* from, size_t bytes) {
    if (to != from) std::memmove(to, from, bytes);
  }

  absl::StatusOr<Call> Begin(CollectiveKind kind, PrimitiveType type, size_t count, const Executor& executor) const {
    TF_ASSIGN_OR_RETURN(const xla::cpu::CpuCollectives::Executor* cpu_executor,
                        xla::cpu::CpuCollectives::TryCast(&executor));
    TF_ASSIGN_OR_RETURN(const int64_t id, tags_.Operation(cpu_executor->rendezvous_key()));
    Call call{std::make_unique<Operation>(), {id, NextCall(id), /*phase=*/0}};
    call.operation->kind = kind;
    call.operation->description =
        absl::StrCat(CollectiveKindName(kind), " of ", count, " ",
                     xla::primitive_util::LowercasePrimitiveTypeName(type), " between ", size(), " devices");
    call.operation->timeout = absl::ToChronoMicroseconds(Timeout(cpu_executor->timeout()));
    return call;
  }

  int64_t NextCall(int64_t operation) const {
    std::lock_guard<std::mutex> lock(mutex_);
    return calls_[operation]++;
  }

  void AddSend(Call& call, size_t peer, char* data, size_t bytes) const {
    AddTransfer(*call.operation, call.phase, Transfer::kSend, peer, data, bytes);
  }

  void AddReceive(Call& call, size_t peer, char* data, size_t bytes) const {
    AddTransfer(*call.operation, call.phase, Transfer::kReceive, peer, data, bytes);
  }

  void AddTransfer(Operation& operation, const Phase& phase, Transfer::Direction direction, size_t peer, char* data,
                   size_t bytes) const {
    if (bytes == 0) return;
    const size_t source = direction == Transfer::kSend ? rank_ : peer;
    const size_t destination = direction == Transfer::kSend ? peer : rank_;
    operation.transfers.push_back({direction, data, bytes, Process(peer),
                                   tags_.Tag(phase.operation, phase.call, phase.phase, LocalDevice(source),
                                             LocalDevice(destination))});
  }

  // A global device id is made of the process and the device's number there.
  int Process(size_t member) const { return devices_[member].value() / xla::kMaxCpuDevicesPerProcess; }
  int LocalDevice(size_t member) const { return devices_[member].value() % xla::kMaxCpuDevicesPerProcess; }

  Future<> Submit(Call call) const {
    auto [promise, future] = xla::MakePromise<>();
    auto shared_promise = std::move(promise).ToShared();
    call.operation->done = [shared_promise](const std::string& error) {
      shared_promise->Set(error.empty() ? absl::OkStatus() : absl::UnavailableError(error));
    };
    engine_->Submit(std::move(call.operation));
    return std::move(future);
  }

  std::shared_ptr<MpiEngine> engine_;
  TagSpace tags_;
  std::vector<xla::GlobalDeviceId> devices_;  // The members, by rank.
  size_t rank_;

  mutable std::mutex mutex_;
  mutable std::unordered_map<int64_t, int64_t> calls_;  // Of each operation so far. Guarded by mutex_.
};

}  // namespace

absl::StatusOr<std::shared_ptr<MpiEngine>> CreateMpiEngine(int local_devices) {
  std::string error;
  std::shared_ptr<MpiEngine> engine = MpiEngine::Create(local_devices, &error);
  if (engine == nullptr) return absl::FailedPreconditionError(error);
  return engine;
}

MpiCollectives::MpiCollectives(std::shared_ptr<MpiEngine> engine) : engine_(std::move(engine)) {}

MpiCollectives::~MpiCollectives() {
  NotifyOnDestroyCallbacks();  // XLA drops the communicators while the engine still runs.
}

absl::StatusOr<std::vector<std::unique_ptr<xla::Communicator>>> MpiCollectives::CreateCommunicators(
    const xla::CliqueKey& clique, const std::optional<xla::CliqueIds>& ids, absl::Span<const DeviceRank> ranks,
    const Config& config) {
  std::vector<xla::GlobalDeviceId> devices(clique.devices().begin(), clique.devices().end());
  for (xla::GlobalDeviceId device : devices) {
    if (device.value() < 0 || device.value() / xla::kMaxCpuDevicesPerProcess >= engine_->num_processes() ||
        device.value() % xla::kMaxCpuDevicesPerProcess >= engine_->max_local_devices()) {
      return absl::InvalidArgumentError(
          absl::StrCat("device ", device.value(), " belongs to none of the ", engine_->num_processes(), " processes"));
    }
  }
  std::vector<std::unique_ptr<xla::Communicator>> communicators;
  for (const DeviceRank& rank : ranks) {
    communicators.push_back(std::make_unique<MpiCommunicator>(engine_, devices, rank.rank.value()));
  }
  return communicators;
}

}  // namespace sft
