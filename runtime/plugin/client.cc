// Errors, events, clients, devices, memories and topologies.
#include <mpi.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "mpi_collectives.h"
#include "support.h"
#include "xla/pjrt/plugin/xla_cpu/cpu_topology.h"
#include "xla/pjrt/plugin/xla_cpu/xla_cpu_pjrt_client.h"

namespace sft {
namespace {

// Who carries the collectives of a client's programs.
enum class CollectivesBackend {
  kAuto,   // MPI if MPI runs with more than one process, else kLocal.
  kMpi,    // MPI between processes, memory copies within one.
  kLocal,  // XLA's own, for the devices of this process only.
};

struct ClientOptions {
  int64_t device_count = 1;
  int64_t process_id = -1;  // -1: not given.
  CollectivesBackend collectives = CollectivesBackend::kAuto;
};

absl::StatusOr<int64_t> IntOption(absl::string_view name, const PJRT_NamedValue& value, int64_t low, int64_t high) {
  if (value.type != PJRT_NamedValue_kInt64) {
    return absl::InvalidArgumentError(absl::StrCat("option ", name, " must be an integer"));
  }
  if (value.int64_value < low || value.int64_value > high) {
    return absl::InvalidArgumentError(
        absl::StrCat("option ", name, " must be in ", low, "..", high, ", got ", value.int64_value));
  }
  return value.int64_value;
}

absl::StatusOr<ClientOptions> ParseOptions(const PJRT_NamedValue* values, size_t count) {
  ClientOptions options;
  for (size_t i = 0; i < count; ++i) {
    const PJRT_NamedValue& value = values[i];
    const absl::string_view name(value.name, value.name_size);
    if (name == "cpu_device_count") {
      TF_ASSIGN_OR_RETURN(options.device_count, IntOption(name, value, 1, xla::kMaxCpuDevicesPerProcess - 1));
    } else if (name == "process_id") {
      TF_ASSIGN_OR_RETURN(options.process_id, IntOption(name, value, 0, INT32_MAX / xla::kMaxCpuDevicesPerProcess - 1));
    } else if (name == "collectives") {
      if (value.type != PJRT_NamedValue_kString) {
        return absl::InvalidArgumentError("option collectives must be a string");
      }
      const absl::string_view text(value.string_value, value.value_size);
      if (text == "auto") {
        options.collectives = CollectivesBackend::kAuto;
      } else if (text == "mpi") {
        options.collectives = CollectivesBackend::kMpi;
      } else if (text == "local") {
        options.collectives = CollectivesBackend::kLocal;
      } else {
        return absl::InvalidArgumentError(
            absl::StrCat("option collectives must be auto, mpi or local, got \"", text, "\""));
      }
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown option \"", name, "\"; known: cpu_device_count, process_id, collectives"));
    }
  }
  return options;
}

// Number of processes of the MPI job, 1 if MPI does not run.
int MpiProcesses() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (!initialized || finalized) return 1;
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

absl::StatusOr<std::unique_ptr<xla::PjRtClient>> CreateClient(const ClientOptions& options) {
  xla::CpuClientOptions cpu;
  cpu.cpu_device_count = static_cast<int>(options.device_count);
  cpu.process_id = options.process_id < 0 ? 0 : static_cast<int>(options.process_id);
  const bool use_mpi = options.collectives == CollectivesBackend::kMpi ||
                       (options.collectives == CollectivesBackend::kAuto && MpiProcesses() > 1);
  if (use_mpi) {
    TF_ASSIGN_OR_RETURN(std::shared_ptr<MpiEngine> engine, CreateMpiEngine(static_cast<int>(options.device_count)));
    // A device's id holds its process; the transport finds a process by its rank.
    if (options.process_id >= 0 && options.process_id != engine->rank()) {
      return absl::InvalidArgumentError(absl::StrCat("option process_id is ", options.process_id,
                                                     ", but this process has MPI rank ", engine->rank()));
    }
    cpu.process_id = engine->rank();
    cpu.collectives = std::make_shared<MpiCollectives>(std::move(engine));
  }
  return xla::GetXlaPjrtCpuClient(std::move(cpu));
}

}  // namespace

// --- Errors

void PJRT_Error_Destroy(PJRT_Error_Destroy_Args* args) { delete args->error; }

void PJRT_Error_Message(PJRT_Error_Message_Args* args) {
  const absl::string_view message = args->error->status.message();
  args->message = message.data();
  args->message_size = message.size();
}

PJRT_Error* PJRT_Error_GetCode(PJRT_Error_GetCode_Args* args) {
  SFT_CHECK_ARGS(PJRT_Error_GetCode);
  args->code = static_cast<PJRT_Error_Code>(args->error->status.code());  // The C codes are absl's.
  return nullptr;
}

PJRT_Error* UnimplementedFunction(const char* name) {
  return new PJRT_Error{absl::UnimplementedError(absl::StrCat(name, " is not implemented by the CPU plugin"))};
}

// --- Plugin

PJRT_Error* PJRT_Plugin_Initialize(PJRT_Plugin_Initialize_Args*) { return nullptr; }

PJRT_Error* PJRT_Plugin_Attributes(PJRT_Plugin_Attributes_Args* args) {
  SFT_CHECK_ARGS(PJRT_Plugin_Attributes);
  args->attributes = nullptr;
  args->num_attributes = 0;
  return nullptr;
}

// --- Events

PJRT_Error* PJRT_Event_Destroy(PJRT_Event_Destroy_Args* args) {
  SFT_CHECK_ARGS(PJRT_Event_Destroy);
  delete args->event;
  return nullptr;
}

PJRT_Error* PJRT_Event_IsReady(PJRT_Event_IsReady_Args* args) {
  SFT_CHECK_ARGS(PJRT_Event_IsReady);
  SFT_CHECK_NOT_NULL(args->event);
  args->is_ready = args->event->future.IsReady();
  return nullptr;
}

PJRT_Error* PJRT_Event_Error(PJRT_Event_Error_Args* args) {
  SFT_CHECK_ARGS(PJRT_Event_Error);
  SFT_CHECK_NOT_NULL(args->event);
  if (!args->event->future.IsReady()) return ToError(absl::FailedPreconditionError("the event is not ready yet"));
  return ToError(args->event->future.Await());
}

PJRT_Error* PJRT_Event_Await(PJRT_Event_Await_Args* args) {
  SFT_CHECK_ARGS(PJRT_Event_Await);
  SFT_CHECK_NOT_NULL(args->event);
  return ToError(args->event->future.Await());
}

PJRT_Error* PJRT_Event_OnReady(PJRT_Event_OnReady_Args* args) {
  SFT_CHECK_ARGS(PJRT_Event_OnReady);
  SFT_CHECK_NOT_NULL(args->event);
  args->event->future.OnReady([callback = args->callback, user_arg = args->user_arg](absl::Status status) {
    callback(ToError(std::move(status)), user_arg);
  });
  return nullptr;
}

PJRT_Error* PJRT_Event_Create(PJRT_Event_Create_Args* args) {
  SFT_CHECK_ARGS(PJRT_Event_Create);
  auto [promise, future] = xla::MakePromise<>();
  args->event = new PJRT_Event{std::move(future), std::move(promise)};
  return nullptr;
}

PJRT_Error* PJRT_Event_Set(PJRT_Event_Set_Args* args) {
  SFT_CHECK_ARGS(PJRT_Event_Set);
  SFT_CHECK_NOT_NULL(args->event);
  if (!args->event->promise || args->event->future.IsReady()) {
    return ToError(absl::FailedPreconditionError("only an event made by PJRT_Event_Create can be set, and only once"));
  }
  args->event->promise.Set(absl::Status(static_cast<absl::StatusCode>(args->error_code),
                                        absl::string_view(args->error_message, args->error_message_size)));
  return nullptr;
}

// --- Clients

PJRT_Error* PJRT_Client_Create(PJRT_Client_Create_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_Create);
  PJRT_ASSIGN_OR_RETURN(const ClientOptions options, ParseOptions(args->create_options, args->num_options));
  PJRT_ASSIGN_OR_RETURN(std::unique_ptr<xla::PjRtClient> client, CreateClient(options));
  args->client = pjrt::CreateWrapperClient(std::move(client));
  return nullptr;
}

PJRT_Error* PJRT_Client_Destroy(PJRT_Client_Destroy_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_Destroy);
  delete args->client;
  return nullptr;
}

PJRT_Error* PJRT_Client_PlatformName(PJRT_Client_PlatformName_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_PlatformName);
  SFT_CHECK_NOT_NULL(args->client);
  const absl::string_view name = args->client->client->platform_name();
  args->platform_name = name.data();
  args->platform_name_size = name.size();
  return nullptr;
}

PJRT_Error* PJRT_Client_ProcessIndex(PJRT_Client_ProcessIndex_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_ProcessIndex);
  SFT_CHECK_NOT_NULL(args->client);
  args->process_index = args->client->client->process_index();
  return nullptr;
}

PJRT_Error* PJRT_Client_PlatformVersion(PJRT_Client_PlatformVersion_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_PlatformVersion);
  SFT_CHECK_NOT_NULL(args->client);
  const absl::string_view version = args->client->client->platform_version();
  args->platform_version = version.data();
  args->platform_version_size = version.size();
  return nullptr;
}

PJRT_Error* PJRT_Client_TopologyDescription(PJRT_Client_TopologyDescription_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_TopologyDescription);
  SFT_CHECK_NOT_NULL(args->client);
  if (!args->client->topology.ok()) return ToError(args->client->topology.status());
  args->topology = args->client->topology->get();
  return nullptr;
}

PJRT_Error* PJRT_Client_Devices(PJRT_Client_Devices_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_Devices);
  SFT_CHECK_NOT_NULL(args->client);
  args->devices = args->client->devices.data();
  args->num_devices = args->client->devices.size();
  return nullptr;
}

PJRT_Error* PJRT_Client_AddressableDevices(PJRT_Client_AddressableDevices_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_AddressableDevices);
  SFT_CHECK_NOT_NULL(args->client);
  args->addressable_devices = args->client->addressable_devices.data();
  args->num_addressable_devices = args->client->addressable_devices.size();
  return nullptr;
}

PJRT_Error* PJRT_Client_LookupDevice(PJRT_Client_LookupDevice_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_LookupDevice);
  SFT_CHECK_NOT_NULL(args->client);
  PJRT_ASSIGN_OR_RETURN(xla::PjRtDevice * device,
                        args->client->client->LookupDevice(xla::PjRtGlobalDeviceId(args->id)));
  args->device = args->client->c_device_from_cpp_device.at(device);
  return nullptr;
}

PJRT_Error* PJRT_Client_LookupAddressableDevice(PJRT_Client_LookupAddressableDevice_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_LookupAddressableDevice);
  SFT_CHECK_NOT_NULL(args->client);
  PJRT_ASSIGN_OR_RETURN(
      xla::PjRtDevice * device,
      args->client->client->LookupAddressableDevice(xla::PjRtLocalDeviceId(args->local_hardware_id)));
  args->addressable_device = args->client->c_device_from_cpp_device.at(device);
  return nullptr;
}

PJRT_Error* PJRT_Client_AddressableMemories(PJRT_Client_AddressableMemories_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_AddressableMemories);
  SFT_CHECK_NOT_NULL(args->client);
  args->addressable_memories = args->client->addressable_memories.data();
  args->num_addressable_memories = args->client->addressable_memories.size();
  return nullptr;
}

PJRT_Error* PJRT_Client_DefaultDeviceAssignment(PJRT_Client_DefaultDeviceAssignment_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_DefaultDeviceAssignment);
  SFT_CHECK_NOT_NULL(args->client);
  SFT_CHECK_NOT_NULL(args->default_assignment);
  const int64_t wanted = int64_t{args->num_replicas} * args->num_partitions;
  if (args->num_replicas < 1 || args->num_partitions < 1 ||
      args->default_assignment_size < static_cast<size_t>(wanted)) {
    return ToError(absl::InvalidArgumentError(absl::StrCat("no room for ", args->num_replicas, " replicas x ",
                                                           args->num_partitions, " partitions in ",
                                                           args->default_assignment_size, " entries")));
  }
  PJRT_ASSIGN_OR_RETURN(xla::DeviceAssignment assignment, args->client->client->GetDefaultDeviceAssignment(
                                                              args->num_replicas, args->num_partitions));
  int* out = args->default_assignment;
  for (int replica = 0; replica < args->num_replicas; ++replica) {
    for (int partition = 0; partition < args->num_partitions; ++partition) {
      *out++ = static_cast<int>(assignment(replica, partition));
    }
  }
  return nullptr;
}

// --- Devices

PJRT_Error* PJRT_DeviceDescription_Id(PJRT_DeviceDescription_Id_Args* args) {
  SFT_CHECK_ARGS(PJRT_DeviceDescription_Id);
  SFT_CHECK_NOT_NULL(args->device_description);
  args->id = args->device_description->device_description->id();
  return nullptr;
}

PJRT_Error* PJRT_DeviceDescription_ProcessIndex(PJRT_DeviceDescription_ProcessIndex_Args* args) {
  SFT_CHECK_ARGS(PJRT_DeviceDescription_ProcessIndex);
  SFT_CHECK_NOT_NULL(args->device_description);
  args->process_index = args->device_description->device_description->process_index();
  return nullptr;
}

PJRT_Error* PJRT_DeviceDescription_Attributes(PJRT_DeviceDescription_Attributes_Args* args) {
  SFT_CHECK_ARGS(PJRT_DeviceDescription_Attributes);
  SFT_CHECK_NOT_NULL(args->device_description);
  args->attributes = args->device_description->attributes.data();
  args->num_attributes = args->device_description->attributes.size();
  return nullptr;
}

PJRT_Error* PJRT_DeviceDescription_Kind(PJRT_DeviceDescription_Kind_Args* args) {
  SFT_CHECK_ARGS(PJRT_DeviceDescription_Kind);
  SFT_CHECK_NOT_NULL(args->device_description);
  const absl::string_view kind = args->device_description->device_description->device_kind();
  args->device_kind = kind.data();
  args->device_kind_size = kind.size();
  return nullptr;
}

PJRT_Error* PJRT_DeviceDescription_DebugString(PJRT_DeviceDescription_DebugString_Args* args) {
  SFT_CHECK_ARGS(PJRT_DeviceDescription_DebugString);
  SFT_CHECK_NOT_NULL(args->device_description);
  const absl::string_view text = args->device_description->device_description->DebugString();
  args->debug_string = text.data();
  args->debug_string_size = text.size();
  return nullptr;
}

PJRT_Error* PJRT_DeviceDescription_ToString(PJRT_DeviceDescription_ToString_Args* args) {
  SFT_CHECK_ARGS(PJRT_DeviceDescription_ToString);
  SFT_CHECK_NOT_NULL(args->device_description);
  const absl::string_view text = args->device_description->device_description->ToString();
  args->to_string = text.data();
  args->to_string_size = text.size();
  return nullptr;
}

PJRT_Error* PJRT_Device_GetDescription(PJRT_Device_GetDescription_Args* args) {
  SFT_CHECK_ARGS(PJRT_Device_GetDescription);
  SFT_CHECK_NOT_NULL(args->device);
  args->device_description = &args->device->description;
  return nullptr;
}

PJRT_Error* PJRT_Device_IsAddressable(PJRT_Device_IsAddressable_Args* args) {
  SFT_CHECK_ARGS(PJRT_Device_IsAddressable);
  SFT_CHECK_NOT_NULL(args->device);
  args->is_addressable = args->device->device->IsAddressable();
  return nullptr;
}

PJRT_Error* PJRT_Device_LocalHardwareId(PJRT_Device_LocalHardwareId_Args* args) {
  SFT_CHECK_ARGS(PJRT_Device_LocalHardwareId);
  SFT_CHECK_NOT_NULL(args->device);
  args->local_hardware_id = args->device->device->local_hardware_id().value();
  return nullptr;
}

PJRT_Error* PJRT_Device_AddressableMemories(PJRT_Device_AddressableMemories_Args* args) {
  SFT_CHECK_ARGS(PJRT_Device_AddressableMemories);
  SFT_CHECK_NOT_NULL(args->device);
  args->memories = args->device->addressable_memories.data();
  args->num_memories = args->device->addressable_memories.size();
  return nullptr;
}

PJRT_Error* PJRT_Device_DefaultMemory(PJRT_Device_DefaultMemory_Args* args) {
  SFT_CHECK_ARGS(PJRT_Device_DefaultMemory);
  SFT_CHECK_NOT_NULL(args->device);
  PJRT_ASSIGN_OR_RETURN(xla::PjRtMemorySpace * memory, args->device->device->default_memory_space());
  args->memory = args->device->client->c_memory_from_cpp_memory.at(memory);
  return nullptr;
}

PJRT_Error* PJRT_Device_MemoryStats(PJRT_Device_MemoryStats_Args* args) {
  SFT_CHECK_ARGS(PJRT_Device_MemoryStats);
  SFT_CHECK_NOT_NULL(args->device);
  PJRT_ASSIGN_OR_RETURN(tsl::AllocatorStats stats, args->device->device->GetAllocatorStats());
  args->bytes_in_use = stats.bytes_in_use;
  args->peak_bytes_in_use = stats.peak_bytes_in_use;
  args->peak_bytes_in_use_is_set = true;
  args->num_allocs = stats.num_allocs;
  args->num_allocs_is_set = true;
  args->largest_alloc_size = stats.largest_alloc_size;
  args->largest_alloc_size_is_set = true;
  args->bytes_limit_is_set = stats.bytes_limit.has_value();
  args->bytes_limit = stats.bytes_limit.value_or(0);
  return nullptr;
}

// --- Memories

PJRT_Error* PJRT_Memory_Id(PJRT_Memory_Id_Args* args) {
  SFT_CHECK_ARGS(PJRT_Memory_Id);
  SFT_CHECK_NOT_NULL(args->memory);
  args->id = args->memory->memory_space->id();
  return nullptr;
}

PJRT_Error* PJRT_Memory_Kind(PJRT_Memory_Kind_Args* args) {
  SFT_CHECK_ARGS(PJRT_Memory_Kind);
  SFT_CHECK_NOT_NULL(args->memory);
  const absl::string_view kind = args->memory->memory_space->kind();
  args->kind = kind.data();
  args->kind_size = kind.size();
  return nullptr;
}

PJRT_Error* PJRT_Memory_Kind_Id(PJRT_Memory_Kind_Id_Args* args) {
  SFT_CHECK_ARGS(PJRT_Memory_Kind_Id);
  SFT_CHECK_NOT_NULL(args->memory);
  args->kind_id = args->memory->memory_space->kind_id();
  return nullptr;
}

PJRT_Error* PJRT_Memory_DebugString(PJRT_Memory_DebugString_Args* args) {
  SFT_CHECK_ARGS(PJRT_Memory_DebugString);
  SFT_CHECK_NOT_NULL(args->memory);
  const absl::string_view text = args->memory->memory_space->DebugString();
  args->debug_string = text.data();
  args->debug_string_size = text.size();
  return nullptr;
}

PJRT_Error* PJRT_Memory_ToString(PJRT_Memory_ToString_Args* args) {
  SFT_CHECK_ARGS(PJRT_Memory_ToString);
  SFT_CHECK_NOT_NULL(args->memory);
  const absl::string_view text = args->memory->memory_space->ToString();
  args->to_string = text.data();
  args->to_string_size = text.size();
  return nullptr;
}

PJRT_Error* PJRT_Memory_AddressableByDevices(PJRT_Memory_AddressableByDevices_Args* args) {
  SFT_CHECK_ARGS(PJRT_Memory_AddressableByDevices);
  SFT_CHECK_NOT_NULL(args->memory);
  args->devices = args->memory->devices.data();
  args->num_devices = args->memory->devices.size();
  return nullptr;
}

// --- Topologies

PJRT_Error* PJRT_TopologyDescription_Destroy(PJRT_TopologyDescription_Destroy_Args* args) {
  SFT_CHECK_ARGS(PJRT_TopologyDescription_Destroy);
  delete args->topology;
  return nullptr;
}

PJRT_Error* PJRT_TopologyDescription_PlatformName(PJRT_TopologyDescription_PlatformName_Args* args) {
  SFT_CHECK_ARGS(PJRT_TopologyDescription_PlatformName);
  SFT_CHECK_NOT_NULL(args->topology);
  const absl::string_view name = args->topology->topology->platform_name();
  args->platform_name = name.data();
  args->platform_name_size = name.size();
  return nullptr;
}

PJRT_Error* PJRT_TopologyDescription_PlatformVersion(PJRT_TopologyDescription_PlatformVersion_Args* args) {
  SFT_CHECK_ARGS(PJRT_TopologyDescription_PlatformVersion);
  SFT_CHECK_NOT_NULL(args->topology);
  const absl::string_view version = args->topology->topology->platform_version();
  args->platform_version = version.data();
  args->platform_version_size = version.size();
  return nullptr;
}

PJRT_Error* PJRT_TopologyDescription_GetDeviceDescriptions(PJRT_TopologyDescription_GetDeviceDescriptions_Args* args) {
  SFT_CHECK_ARGS(PJRT_TopologyDescription_GetDeviceDescriptions);
  SFT_CHECK_NOT_NULL(args->topology);
  args->descriptions = args->topology->description_pointers.data();
  args->num_descriptions = args->topology->description_pointers.size();
  return nullptr;
}

}  // namespace sft
