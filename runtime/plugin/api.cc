// The table of functions through which a host drives this plugin.
#include <cstring>

#include "functions.h"

// Everything the C API has that functions.h does not list.
#define SFT_UNIMPLEMENTED_FUNCTIONS(F) \
  F(PJRT_Executable_OutputMemoryKinds) \
  F(PJRT_LoadedExecutable_Fingerprint) \
  F(PJRT_Buffer_IncreaseExternalReferenceCount) \
  F(PJRT_Buffer_DecreaseExternalReferenceCount) \
  F(PJRT_Buffer_OpaqueDeviceMemoryDataPointer) \
  F(PJRT_CopyToDeviceStream_Destroy) \
  F(PJRT_CopyToDeviceStream_AddChunk) \
  F(PJRT_CopyToDeviceStream_TotalBytes) \
  F(PJRT_CopyToDeviceStream_GranuleSize) \
  F(PJRT_CopyToDeviceStream_CurrentBytes) \
  F(PJRT_TopologyDescription_Create) \
  F(PJRT_TopologyDescription_Serialize) \
  F(PJRT_TopologyDescription_Attributes) \
  F(PJRT_Compile) \
  F(PJRT_Client_CreateViewOfDeviceBuffer) \
  F(PJRT_ExecuteContext_Create) \
  F(PJRT_ExecuteContext_Destroy) \
  F(PJRT_AsyncHostToDeviceTransferManager_Destroy) \
  F(PJRT_AsyncHostToDeviceTransferManager_TransferData) \
  F(PJRT_Client_CreateBuffersForAsyncHostToDevice) \
  F(PJRT_AsyncHostToDeviceTransferManager_RetrieveBuffer) \
  F(PJRT_AsyncHostToDeviceTransferManager_Device) \
  F(PJRT_AsyncHostToDeviceTransferManager_BufferCount) \
  F(PJRT_AsyncHostToDeviceTransferManager_BufferSize) \
  F(PJRT_AsyncHostToDeviceTransferManager_SetBufferError) \
  F(PJRT_AsyncHostToDeviceTransferManager_AddMetadata) \
  F(PJRT_Client_DmaMap) \
  F(PJRT_Client_DmaUnmap) \
  F(PJRT_Client_CreateUninitializedBuffer) \
  F(PJRT_Client_UpdateGlobalProcessInfo) \
  F(PJRT_TopologyDescription_Deserialize) \
  F(PJRT_Client_CreateAliasBuffer) \
  F(PJRT_Client_FulfillAliasBuffer) \
  F(PJRT_LoadedExecutable_GetDeviceAssignment) \
  F(PJRT_Client_CreateErrorBuffer) \
  F(PJRT_AsyncHostToDeviceTransferManager_TransferLiteral) \
  F(PJRT_Buffer_CopyRawToHostFuture) \
  F(PJRT_Device_PoisonExecution) \
  F(PJRT_Device_CreateAsyncTrackingEvent) \
  F(PJRT_AsyncTrackingEvent_Destroy) \
  F(PJRT_Executable_GetCompileOptions) \
  F(PJRT_Buffer_DonateWithControlDependency)

namespace {

PJRT_Api MakeApi() {
  PJRT_Api api;
  std::memset(&api, 0, sizeof(api));
  api.struct_size = PJRT_Api_STRUCT_SIZE;
  api.pjrt_api_version.struct_size = PJRT_Api_Version_STRUCT_SIZE;
  api.pjrt_api_version.major_version = PJRT_API_MAJOR;
  api.pjrt_api_version.minor_version = PJRT_API_MINOR;
  api.PJRT_Error_Destroy = sft::PJRT_Error_Destroy;
  api.PJRT_Error_Message = sft::PJRT_Error_Message;
#define SFT_SET(name) api.name = sft::name;
  SFT_IMPLEMENTED_FUNCTIONS(SFT_SET)
#undef SFT_SET
#define SFT_SET_UNIMPLEMENTED(name) \
  api.name = [](name##_Args*) -> PJRT_Error* { return sft::UnimplementedFunction(#name); };
  SFT_UNIMPLEMENTED_FUNCTIONS(SFT_SET_UNIMPLEMENTED)
#undef SFT_SET_UNIMPLEMENTED
  return api;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const PJRT_Api* GetPjrtApi() {
  static const PJRT_Api api = MakeApi();
  return &api;
}
