// XLA:CPU's collectives over MpiEngine.
//
// Every collective is a direct exchange: a device sends its part to each of the others at once and reduces what it
// receives itself, in the order of the ranks. The result is the same on every device and in every run.
#ifndef SFT_RUNTIME_PLUGIN_MPI_COLLECTIVES_H_
#define SFT_RUNTIME_PLUGIN_MPI_COLLECTIVES_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mpi_engine.h"
#include "xla/backends/cpu/collectives/cpu_collectives.h"

namespace sft {

// Collective over MPI_COMM_WORLD.
absl::StatusOr<std::shared_ptr<MpiEngine>> CreateMpiEngine(int local_devices);

class MpiCollectives : public xla::cpu::CpuCollectives {
 public:
  explicit MpiCollectives(std::shared_ptr<MpiEngine> engine);
  ~MpiCollectives() override;

  // Called when the first collective of a group of devices starts, by the processes that have members in it and in no
  // common order; so it must not communicate.
  absl::StatusOr<std::vector<std::unique_ptr<xla::Communicator>>> CreateCommunicators(
      const xla::CliqueKey& clique, const std::optional<xla::CliqueIds>& ids, absl::Span<const DeviceRank> ranks,
      const Config& config) override;

 private:
  std::shared_ptr<MpiEngine> engine_;
};

}  // namespace sft

#endif  // SFT_RUNTIME_PLUGIN_MPI_COLLECTIVES_H_
