// Programs: compiling, describing, keeping and executing them.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "support.h"
#include "xla/hlo/builder/xla_computation.h"
#include "xla/hlo/ir/hlo_module.h"
#include "xla/pjrt/proto/compile_options.pb.h"
#include "xla/service/hlo.pb.h"
#include "xla/service/hlo_cost_analysis.h"
#include "xla/shape.h"
#include "xla/shape_util.h"

namespace xla {
// Exported by the library; its header needs LLVM's. `use_tuple_args` and `return_tuple` as in xla/pjrt/mlir_to_hlo.h.
absl::Status ParseMlirModuleStringAndConvertToXlaComputation(absl::string_view text, XlaComputation& computation,
                                                             bool use_tuple_args, bool return_tuple);
}  // namespace xla

namespace sft {
namespace {

constexpr absl::string_view kOptimizedProgramFormat = "hlo_with_config";

absl::StatusOr<xla::CompileOptions> ParseCompileOptions(const char* bytes, size_t size) {
  xla::CompileOptionsProto proto;
  if (!proto.ParseFromArray(bytes, static_cast<int>(size))) {
    return absl::InvalidArgumentError("the compile options are not a serialized CompileOptionsProto");
  }
  TF_ASSIGN_OR_RETURN(xla::CompileOptions options, xla::CompileOptions::FromProto(proto));
  return options;
}

absl::StatusOr<xla::XlaComputation> ParseProgram(const PJRT_Program& program) {
  const absl::string_view code(program.code, program.code_size);
  const absl::string_view format(program.format, program.format_size);
  if (format == "mlir") {
    xla::XlaComputation computation;
    TF_RETURN_IF_ERROR(xla::ParseMlirModuleStringAndConvertToXlaComputation(code, computation, /*use_tuple_args=*/false,
                                                                            /*return_tuple=*/false));
    return computation;
  }
  if (format == "hlo") {
    xla::HloModuleProto module;
    if (!module.ParseFromArray(code.data(), static_cast<int>(code.size()))) {
      return absl::InvalidArgumentError("the program is not a serialized HloModuleProto");
    }
    return xla::XlaComputation(std::move(module));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("program format \"", format, "\" is unknown; known: mlir (text or bytecode), hlo"));
}

// Programs here are single modules, whose result is an array or a flat tuple of arrays.
template <typename T>
absl::StatusOr<T> OnlyModule(absl::StatusOr<std::vector<T>> per_module) {
  if (!per_module.ok()) return per_module.status();
  if (per_module->size() != 1) {
    return absl::UnimplementedError(absl::StrCat("programs of ", per_module->size(), " modules are not supported"));
  }
  return std::move((*per_module)[0]);
}

// A loaded program and the shapes that it takes.
struct LoadedProgram : PJRT_LoadedExecutable {
  LoadedProgram(std::shared_ptr<xla::PjRtLoadedExecutable> executable, PJRT_Client* client,
                std::vector<xla::Shape> parameters)
      : PJRT_LoadedExecutable(std::move(executable), client), parameters(std::move(parameters)) {}

  std::vector<xla::Shape> parameters;
};

absl::StatusOr<PJRT_LoadedExecutable*> Wrap(std::unique_ptr<xla::PjRtLoadedExecutable> executable,
                                            PJRT_Client* client) {
  TF_ASSIGN_OR_RETURN(const std::shared_ptr<xla::HloModule> module, OnlyModule(executable->GetHloModules()));
  const xla::ComputationLayout& layout = module->entry_computation_layout();
  std::vector<xla::Shape> parameters;
  for (int i = 0; i < layout.parameter_count(); ++i) parameters.push_back(layout.parameter_shape(i));
  return new LoadedProgram(std::shared_ptr<xla::PjRtLoadedExecutable>(std::move(executable)), client,
                           std::move(parameters));
}

// XLA:CPU compares only sizes in bytes, and when it refuses to start a program of several replicas, every later one
// of them waits for it forever. So arguments are checked before it sees them.
absl::Status CheckArguments(const std::vector<xla::Shape>& parameters, PJRT_Buffer* const* arguments, size_t count) {
  if (count != parameters.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the program takes ", parameters.size(), " arguments, got ", count));
  }
  for (size_t i = 0; i < count; ++i) {
    TF_RETURN_IF_ERROR(NotNull(arguments[i], "an argument"));
    const xla::PjRtBuffer& buffer = *arguments[i]->buffer;
    if (buffer.element_type() != parameters[i].element_type() ||
        !absl::c_equal(buffer.dimensions(), parameters[i].dimensions())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "argument ", i, " of the program is ", xla::ShapeUtil::HumanString(parameters[i]), ", got ",
          xla::ShapeUtil::HumanString(xla::ShapeUtil::MakeShape(buffer.element_type(), buffer.dimensions()))));
    }
  }
  return absl::OkStatus();
}

// Converts `value`, which must outlive the result.
PJRT_NamedValue ToNamedValue(const std::string& name, const xla::PjRtValueType& value) {
  PJRT_NamedValue out = {};
  out.struct_size = PJRT_NamedValue_STRUCT_SIZE;
  out.name = name.data();
  out.name_size = name.size();
  out.value_size = 1;
  if (const auto* text = std::get_if<std::string>(&value)) {
    out.type = PJRT_NamedValue_kString;
    out.string_value = text->data();
    out.value_size = text->size();
  } else if (const auto* flag = std::get_if<bool>(&value)) {
    out.type = PJRT_NamedValue_kBool;
    out.bool_value = *flag;
  } else if (const auto* integer = std::get_if<int64_t>(&value)) {
    out.type = PJRT_NamedValue_kInt64;
    out.int64_value = *integer;
  } else if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) {
    out.type = PJRT_NamedValue_kInt64List;
    out.int64_array_value = list->data();
    out.value_size = list->size();
  } else {
    out.type = PJRT_NamedValue_kFloat;
    out.float_value = std::get<float>(value);
  }
  return out;
}

}  // namespace

// --- Compiling

PJRT_Error* PJRT_Client_Compile(PJRT_Client_Compile_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_Compile);
  SFT_CHECK_NOT_NULL(args->client);
  SFT_CHECK_NOT_NULL(args->program);
  PJRT_ASSIGN_OR_RETURN(xla::CompileOptions options,
                        ParseCompileOptions(args->compile_options, args->compile_options_size));
  PJRT_ASSIGN_OR_RETURN(const xla::XlaComputation computation, ParseProgram(*args->program));
  PJRT_ASSIGN_OR_RETURN(std::unique_ptr<xla::PjRtLoadedExecutable> executable,
                        args->client->client->CompileAndLoad(computation, std::move(options)));
  PJRT_ASSIGN_OR_RETURN(args->executable, Wrap(std::move(executable), args->client));
  return nullptr;
}

PJRT_Error* PJRT_Executable_DeserializeAndLoad(PJRT_Executable_DeserializeAndLoad_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_DeserializeAndLoad);
  SFT_CHECK_NOT_NULL(args->client);
  std::optional<xla::CompileOptions> options;
  if (args->overridden_serialized_compile_options != nullptr) {
    PJRT_ASSIGN_OR_RETURN(options, ParseCompileOptions(args->overridden_serialized_compile_options,
                                                       args->overridden_serialized_compile_options_size));
  }
  PJRT_ASSIGN_OR_RETURN(
      std::unique_ptr<xla::PjRtLoadedExecutable> executable,
      args->client->client->LoadSerializedExecutable(
          absl::string_view(args->serialized_executable, args->serialized_executable_size), std::move(options),
          xla::LoadOptions()));
  PJRT_ASSIGN_OR_RETURN(args->loaded_executable, Wrap(std::move(executable), args->client));
  return nullptr;
}

// --- Describing

PJRT_Error* PJRT_Executable_Destroy(PJRT_Executable_Destroy_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_Destroy);
  delete args->executable;
  return nullptr;
}

PJRT_Error* PJRT_Executable_Name(PJRT_Executable_Name_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_Name);
  SFT_CHECK_NOT_NULL(args->executable);
  const absl::string_view name = args->executable->get()->name();
  args->executable_name = name.data();
  args->executable_name_size = name.size();
  return nullptr;
}

PJRT_Error* PJRT_Executable_NumReplicas(PJRT_Executable_NumReplicas_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_NumReplicas);
  SFT_CHECK_NOT_NULL(args->executable);
  args->num_replicas = args->executable->get()->num_replicas();
  return nullptr;
}

PJRT_Error* PJRT_Executable_NumPartitions(PJRT_Executable_NumPartitions_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_NumPartitions);
  SFT_CHECK_NOT_NULL(args->executable);
  args->num_partitions = args->executable->get()->num_partitions();
  return nullptr;
}

PJRT_Error* PJRT_Executable_NumOutputs(PJRT_Executable_NumOutputs_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_NumOutputs);
  SFT_CHECK_NOT_NULL(args->executable);
  PJRT_ASSIGN_OR_RETURN(const xla::Shape shape, OnlyModule(args->executable->get()->GetOutputShapes()));
  args->num_outputs = shape.IsTuple() ? shape.tuple_shapes().size() : 1;
  return nullptr;
}

PJRT_Error* PJRT_Executable_SizeOfGeneratedCodeInBytes(PJRT_Executable_SizeOfGeneratedCodeInBytes_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_SizeOfGeneratedCodeInBytes);
  SFT_CHECK_NOT_NULL(args->executable);
  args->size_in_bytes = args->executable->get()->SizeOfGeneratedCodeInBytes();
  return nullptr;
}

PJRT_Error* PJRT_Executable_Fingerprint(PJRT_Executable_Fingerprint_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_Fingerprint);
  SFT_CHECK_NOT_NULL(args->executable);
  absl::MutexLock lock(&args->executable->mutex);
  if (!args->executable->fingerprint.ok()) {
    args->executable->fingerprint = args->executable->get()->FingerprintExecutable();
  }
  if (!args->executable->fingerprint.ok()) return ToError(args->executable->fingerprint.status());
  args->executable_fingerprint = args->executable->fingerprint->data();
  args->executable_fingerprint_size = args->executable->fingerprint->size();
  return nullptr;
}

PJRT_Error* PJRT_Executable_GetCostAnalysis(PJRT_Executable_GetCostAnalysis_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_GetCostAnalysis);
  SFT_CHECK_NOT_NULL(args->executable);
  PJRT_Executable* executable = args->executable;
  absl::MutexLock lock(&executable->mutex);
  if (!executable->cost_analysis_ran) {
    // XLA:CPU does not analyse its executables itself, but what it has compiled can be.
    xla::HloCostAnalysis analysis;
    PJRT_ASSIGN_OR_RETURN(const auto properties,
                          xla::PjRtExecutableUtil::RunHloCostAnalysis(*executable->get(), &analysis));
    // Names and values are kept by the executable, in the order of the names.
    for (const auto& [name, value] : properties) {
      if (std::holds_alternative<float>(value)) executable->cost_analysis_names.push_back(name);
    }
    absl::c_sort(executable->cost_analysis_names);
    for (const std::string& name : executable->cost_analysis_names) {
      executable->cost_analysis_properties.push_back(ToNamedValue(name, properties.at(name)));
    }
    executable->cost_analysis_ran = true;
  }
  args->properties = executable->cost_analysis_properties.data();
  args->num_properties = executable->cost_analysis_properties.size();
  return nullptr;
}

PJRT_Error* PJRT_Executable_GetCompiledMemoryStats(PJRT_Executable_GetCompiledMemoryStats_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_GetCompiledMemoryStats);
  SFT_CHECK_NOT_NULL(args->executable);
  PJRT_ASSIGN_OR_RETURN(const xla::CompiledMemoryStats stats, args->executable->get()->GetCompiledMemoryStats());
  args->generated_code_size_in_bytes = stats.generated_code_size_in_bytes;
  args->argument_size_in_bytes = stats.argument_size_in_bytes;
  args->output_size_in_bytes = stats.output_size_in_bytes;
  args->alias_size_in_bytes = stats.alias_size_in_bytes;
  args->temp_size_in_bytes = stats.temp_size_in_bytes;
  args->host_generated_code_size_in_bytes = stats.host_generated_code_size_in_bytes;
  args->host_argument_size_in_bytes = stats.host_argument_size_in_bytes;
  args->host_output_size_in_bytes = stats.host_output_size_in_bytes;
  args->host_alias_size_in_bytes = stats.host_alias_size_in_bytes;
  args->host_temp_size_in_bytes = stats.host_temp_size_in_bytes;
  args->peak_memory_in_bytes = stats.peak_memory_in_bytes;
  args->total_size_in_bytes = stats.total_size_in_bytes;
  return nullptr;
}

PJRT_Error* PJRT_Executable_OutputElementTypes(PJRT_Executable_OutputElementTypes_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_OutputElementTypes);
  SFT_CHECK_NOT_NULL(args->executable);
  PJRT_Executable* executable = args->executable;
  absl::MutexLock lock(&executable->mutex);
  if (!executable->out_type_ran) {
    PJRT_ASSIGN_OR_RETURN(const auto types, OnlyModule(executable->get()->GetOutputElementTypes()));
    for (xla::PrimitiveType type : types) executable->out_types.push_back(pjrt::ConvertToPjRtBufferType(type));
    executable->out_type_ran = true;
  }
  args->output_types = executable->out_types.data();
  args->num_output_types = executable->out_types.size();
  return nullptr;
}

PJRT_Error* PJRT_Executable_OutputDimensions(PJRT_Executable_OutputDimensions_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_OutputDimensions);
  SFT_CHECK_NOT_NULL(args->executable);
  PJRT_Executable* executable = args->executable;
  absl::MutexLock lock(&executable->mutex);
  if (!executable->out_dimension_ran) {
    PJRT_ASSIGN_OR_RETURN(const auto outputs, OnlyModule(executable->get()->GetOutputDimensions()));
    for (const auto& dims : outputs) {
      executable->out_dimensions.insert(executable->out_dimensions.end(), dims.begin(), dims.end());
      executable->out_dimension_sizes.push_back(dims.size());
    }
    executable->out_dimension_ran = true;
  }
  args->num_outputs = executable->out_dimension_sizes.size();
  args->dims = executable->out_dimensions.data();
  args->dim_sizes = executable->out_dimension_sizes.data();
  return nullptr;
}

PJRT_Error* PJRT_Executable_OptimizedProgram(PJRT_Executable_OptimizedProgram_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_OptimizedProgram);
  SFT_CHECK_NOT_NULL(args->executable);
  SFT_CHECK_NOT_NULL(args->program);
  PJRT_ASSIGN_OR_RETURN(const std::shared_ptr<xla::HloModule> module,
                        OnlyModule(args->executable->get()->GetHloModules()));
  xla::HloModuleProtoWithConfig proto;
  module->ToProtoWithConfig(&proto);
  const size_t size = proto.ByteSizeLong();
  args->program->format = kOptimizedProgramFormat.data();
  args->program->format_size = kOptimizedProgramFormat.size();
  if (args->program->code == nullptr) {  // The caller asks for the size.
    args->program->code_size = size;
    return nullptr;
  }
  if (args->program->code_size < size) {
    return ToError(absl::InvalidArgumentError(
        absl::StrCat("the program takes ", size, " bytes, the destination has ", args->program->code_size)));
  }
  if (!proto.SerializeToArray(args->program->code, static_cast<int>(size))) {
    return ToError(absl::InternalError("the program cannot be serialized"));
  }
  return nullptr;
}

PJRT_Error* PJRT_Executable_Serialize(PJRT_Executable_Serialize_Args* args) {
  SFT_CHECK_ARGS(PJRT_Executable_Serialize);
  SFT_CHECK_NOT_NULL(args->executable);
  PJRT_ASSIGN_OR_RETURN(std::string bytes, args->executable->get()->SerializeExecutable());
  auto* serialized = new PJRT_SerializedExecutable{std::move(bytes)};
  args->serialized_bytes = serialized->serialized.data();
  args->serialized_bytes_size = serialized->serialized.size();
  args->serialized_executable = serialized;
  args->serialized_executable_deleter = [](PJRT_SerializedExecutable* executable) { delete executable; };
  return nullptr;
}

// --- Loaded programs

PJRT_Error* PJRT_LoadedExecutable_Destroy(PJRT_LoadedExecutable_Destroy_Args* args) {
  SFT_CHECK_ARGS(PJRT_LoadedExecutable_Destroy);
  delete static_cast<LoadedProgram*>(args->executable);  // Wrap makes no others.
  return nullptr;
}

PJRT_Error* PJRT_LoadedExecutable_GetExecutable(PJRT_LoadedExecutable_GetExecutable_Args* args) {
  SFT_CHECK_ARGS(PJRT_LoadedExecutable_GetExecutable);
  SFT_CHECK_NOT_NULL(args->loaded_executable);
  // The description belongs to the loaded program: it shares ownership of that.
  const std::shared_ptr<xla::PjRtLoadedExecutable>& loaded = args->loaded_executable->executable;
  args->executable = new PJRT_Executable(std::shared_ptr<xla::PjRtExecutable>(loaded, loaded->GetExecutable()));
  return nullptr;
}

PJRT_Error* PJRT_LoadedExecutable_AddressableDevices(PJRT_LoadedExecutable_AddressableDevices_Args* args) {
  SFT_CHECK_ARGS(PJRT_LoadedExecutable_AddressableDevices);
  SFT_CHECK_NOT_NULL(args->executable);
  args->addressable_devices = args->executable->addressable_devices.data();
  args->num_addressable_devices = args->executable->addressable_devices.size();
  return nullptr;
}

PJRT_Error* PJRT_LoadedExecutable_Delete(PJRT_LoadedExecutable_Delete_Args* args) {
  SFT_CHECK_ARGS(PJRT_LoadedExecutable_Delete);
  SFT_CHECK_NOT_NULL(args->executable);
  args->executable->get()->Delete();
  return nullptr;
}

PJRT_Error* PJRT_LoadedExecutable_IsDeleted(PJRT_LoadedExecutable_IsDeleted_Args* args) {
  SFT_CHECK_ARGS(PJRT_LoadedExecutable_IsDeleted);
  SFT_CHECK_NOT_NULL(args->executable);
  args->is_deleted = args->executable->get()->IsDeleted();
  return nullptr;
}

PJRT_Error* PJRT_LoadedExecutable_Execute(PJRT_LoadedExecutable_Execute_Args* args) {
  SFT_CHECK_ARGS(PJRT_LoadedExecutable_Execute);
  SFT_CHECK_NOT_NULL(args->executable);
  SFT_CHECK_NOT_NULL(args->options);
  if (args->options->num_send_ops != 0 || args->options->num_recv_ops != 0) {
    return ToError(absl::UnimplementedError("send and receive callbacks are not supported"));
  }
  if (args->execute_device != nullptr) {
    return ToError(absl::UnimplementedError("executing on one chosen device is not supported"));
  }
  if (args->num_devices != args->executable->addressable_devices.size()) {
    return ToError(absl::InvalidArgumentError(
        absl::StrCat("the program runs on ", args->executable->addressable_devices.size(),
                     " devices of this process, got arguments for ", args->num_devices)));
  }
  xla::ExecuteOptions options;
  options.launch_id = args->options->launch_id;
  options.strict_shape_checking = true;
  options.non_donatable_input_indices.insert(
      args->options->non_donatable_input_indices,
      args->options->non_donatable_input_indices + args->options->num_non_donatable_input_indices);

  const auto& parameters = static_cast<LoadedProgram*>(args->executable)->parameters;
  std::vector<std::vector<xla::PjRtBuffer*>> inputs(args->num_devices);
  for (size_t device = 0; device < args->num_devices; ++device) {
    PJRT_RETURN_IF_ERROR(CheckArguments(parameters, args->argument_lists[device], args->num_args));
    for (size_t i = 0; i < args->num_args; ++i) {
      inputs[device].push_back(args->argument_lists[device][i]->buffer.get());
    }
  }
  std::optional<std::vector<xla::Future<>>> done;
  if (args->device_complete_events != nullptr) done.emplace();
  PJRT_ASSIGN_OR_RETURN(auto outputs, args->executable->get()->Execute(inputs, options, done));
  for (size_t device = 0; device < outputs.size(); ++device) {
    for (size_t i = 0; i < outputs[device].size(); ++i) {
      args->output_lists[device][i] = new PJRT_Buffer{std::move(outputs[device][i]), args->executable->client};
    }
  }
  if (done.has_value()) {
    for (size_t device = 0; device < done->size(); ++device) {
      args->device_complete_events[device] = new PJRT_Event{std::move((*done)[device])};
    }
  }
  return nullptr;
}

}  // namespace sft
