// The functions of the PJRT C API that this plugin implements, by the file that holds them.
//
// Each is declared in namespace `sft` under its C name. `api.cc` puts them into the table; whatever is not listed here
// answers with an UNIMPLEMENTED error that names the function.
#ifndef SFT_RUNTIME_PLUGIN_FUNCTIONS_H_
#define SFT_RUNTIME_PLUGIN_FUNCTIONS_H_

#include "xla/pjrt/c/pjrt_c_api.h"

#define SFT_CLIENT_FUNCTIONS(F)                   \
  F(PJRT_Error_GetCode)                           \
  F(PJRT_Plugin_Initialize)                       \
  F(PJRT_Plugin_Attributes)                       \
  F(PJRT_Event_Destroy)                           \
  F(PJRT_Event_IsReady)                           \
  F(PJRT_Event_Error)                             \
  F(PJRT_Event_Await)                             \
  F(PJRT_Event_OnReady)                           \
  F(PJRT_Event_Create)                            \
  F(PJRT_Event_Set)                               \
  F(PJRT_Client_Create)                           \
  F(PJRT_Client_Destroy)                          \
  F(PJRT_Client_PlatformName)                     \
  F(PJRT_Client_ProcessIndex)                     \
  F(PJRT_Client_PlatformVersion)                  \
  F(PJRT_Client_TopologyDescription)              \
  F(PJRT_Client_Devices)                          \
  F(PJRT_Client_AddressableDevices)               \
  F(PJRT_Client_LookupDevice)                     \
  F(PJRT_Client_LookupAddressableDevice)          \
  F(PJRT_Client_AddressableMemories)              \
  F(PJRT_Client_DefaultDeviceAssignment)          \
  F(PJRT_DeviceDescription_Id)                    \
  F(PJRT_DeviceDescription_ProcessIndex)          \
  F(PJRT_DeviceDescription_Attributes)            \
  F(PJRT_DeviceDescription_Kind)                  \
  F(PJRT_DeviceDescription_DebugString)           \
  F(PJRT_DeviceDescription_ToString)              \
  F(PJRT_Device_GetDescription)                   \
  F(PJRT_Device_IsAddressable)                    \
  F(PJRT_Device_LocalHardwareId)                  \
  F(PJRT_Device_AddressableMemories)              \
  F(PJRT_Device_DefaultMemory)                    \
  F(PJRT_Device_MemoryStats)                      \
  F(PJRT_Memory_Id)                               \
  F(PJRT_Memory_Kind)                             \
  F(PJRT_Memory_Kind_Id)                          \
  F(PJRT_Memory_DebugString)                      \
  F(PJRT_Memory_ToString)                         \
  F(PJRT_Memory_AddressableByDevices)             \
  F(PJRT_TopologyDescription_Destroy)             \
  F(PJRT_TopologyDescription_PlatformName)        \
  F(PJRT_TopologyDescription_PlatformVersion)     \
  F(PJRT_TopologyDescription_GetDeviceDescriptions)

#define SFT_BUFFER_FUNCTIONS(F)       \
  F(PJRT_Client_BufferFromHostBuffer) \
  F(PJRT_Buffer_Destroy)              \
  F(PJRT_Buffer_ElementType)          \
  F(PJRT_Buffer_Dimensions)           \
  F(PJRT_Buffer_UnpaddedDimensions)   \
  F(PJRT_Buffer_DynamicDimensionIndices) \
  F(PJRT_Buffer_GetMemoryLayout)      \
  F(PJRT_Buffer_OnDeviceSizeInBytes)  \
  F(PJRT_Buffer_Device)               \
  F(PJRT_Buffer_Memory)               \
  F(PJRT_Buffer_Delete)               \
  F(PJRT_Buffer_IsDeleted)            \
  F(PJRT_Buffer_CopyRawToHost)        \
  F(PJRT_Buffer_CopyToDevice)         \
  F(PJRT_Buffer_CopyToMemory)         \
  F(PJRT_Buffer_ToHostBuffer)         \
  F(PJRT_Buffer_IsOnCpu)              \
  F(PJRT_Buffer_ReadyEvent)           \
  F(PJRT_Buffer_UnsafePointer)

#define SFT_EXECUTABLE_FUNCTIONS(F)                 \
  F(PJRT_Client_Compile)                            \
  F(PJRT_Executable_Destroy)                        \
  F(PJRT_Executable_Name)                           \
  F(PJRT_Executable_NumReplicas)                    \
  F(PJRT_Executable_NumPartitions)                  \
  F(PJRT_Executable_NumOutputs)                     \
  F(PJRT_Executable_SizeOfGeneratedCodeInBytes)     \
  F(PJRT_Executable_Fingerprint)                    \
  F(PJRT_Executable_GetCostAnalysis)                \
  F(PJRT_Executable_GetCompiledMemoryStats)         \
  F(PJRT_Executable_OutputElementTypes)             \
  F(PJRT_Executable_OutputDimensions)               \
  F(PJRT_Executable_OptimizedProgram)               \
  F(PJRT_Executable_Serialize)                      \
  F(PJRT_Executable_DeserializeAndLoad)             \
  F(PJRT_LoadedExecutable_Destroy)                  \
  F(PJRT_LoadedExecutable_GetExecutable)            \
  F(PJRT_LoadedExecutable_AddressableDevices)       \
  F(PJRT_LoadedExecutable_Delete)                   \
  F(PJRT_LoadedExecutable_IsDeleted)                \
  F(PJRT_LoadedExecutable_Execute)

#define SFT_IMPLEMENTED_FUNCTIONS(F) \
  SFT_CLIENT_FUNCTIONS(F)            \
  SFT_BUFFER_FUNCTIONS(F)            \
  SFT_EXECUTABLE_FUNCTIONS(F)

namespace sft {

#define SFT_DECLARE(name) PJRT_Error* name(name##_Args* args);
SFT_IMPLEMENTED_FUNCTIONS(SFT_DECLARE)
#undef SFT_DECLARE

// These two return nothing.
void PJRT_Error_Destroy(PJRT_Error_Destroy_Args* args);
void PJRT_Error_Message(PJRT_Error_Message_Args* args);

// The answer of a function that is not implemented.
PJRT_Error* UnimplementedFunction(const char* name);

}  // namespace sft

#endif  // SFT_RUNTIME_PLUGIN_FUNCTIONS_H_
