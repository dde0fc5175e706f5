// Buffers: transfers from and to the host, and what a buffer knows about itself.
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "support.h"
#include "xla/layout.h"
#include "xla/layout_util.h"
#include "xla/literal.h"
#include "xla/primitive_util.h"
#include "xla/shape.h"
#include "xla/shape_util.h"

namespace sft {
namespace {

// The library does not export the conversion from C types, but it does export the inverse.
absl::StatusOr<xla::PrimitiveType> FromBufferType(PJRT_Buffer_Type type) {
  for (xla::PrimitiveType candidate :
       {xla::PRED, xla::S8, xla::S16, xla::S32, xla::S64, xla::U8, xla::U16, xla::U32, xla::U64, xla::F16, xla::BF16,
        xla::F32, xla::F64, xla::C64, xla::C128}) {
    if (pjrt::ConvertToPjRtBufferType(candidate) == type) return candidate;
  }
  return absl::UnimplementedError(absl::StrCat("element type ", static_cast<int>(type), " is not supported"));
}

// Checked because XLA aborts on a layout that does not fit its shape.
absl::StatusOr<std::vector<int64_t>> CheckedMinorToMajor(absl::Span<const int64_t> minor_to_major, size_t rank) {
  std::vector<bool> seen(rank, false);
  bool valid = minor_to_major.size() == rank;
  for (int64_t dimension : minor_to_major) {
    valid = valid && dimension >= 0 && dimension < static_cast<int64_t>(rank) && !seen[dimension];
    if (valid) seen[dimension] = true;
  }
  if (!valid) return absl::InvalidArgumentError("the layout is not a permutation of the dimensions");
  return std::vector<int64_t>(minor_to_major.begin(), minor_to_major.end());
}

// The order of dimensions, fastest first, of a dense array with these strides.
absl::StatusOr<std::vector<int64_t>> MinorToMajorFromStrides(absl::Span<const int64_t> strides,
                                                             absl::Span<const int64_t> dims, int64_t item_bytes) {
  if (strides.size() != dims.size()) return absl::InvalidArgumentError("one stride per dimension is needed");
  std::vector<int64_t> order(dims.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = order.size() - 1 - i;
  absl::c_stable_sort(order, [&](int64_t a, int64_t b) { return strides[a] < strides[b]; });
  int64_t expected = item_bytes;
  for (int64_t dimension : order) {
    if (dims[dimension] != 1 && strides[dimension] != expected) {
      return absl::UnimplementedError("strides of an array with gaps are not supported");
    }
    expected *= dims[dimension];
  }
  return order;
}

// The dimensions, fastest first, that a caller asks for; row-major if it does not say.
absl::StatusOr<std::vector<int64_t>> MinorToMajor(const PJRT_Buffer_MemoryLayout* layout, absl::Span<const int64_t> dims,
                                                  xla::PrimitiveType type) {
  if (layout == nullptr) {
    std::vector<int64_t> row_major(dims.size());
    for (size_t i = 0; i < row_major.size(); ++i) row_major[i] = row_major.size() - 1 - i;
    return row_major;
  }
  switch (layout->type) {
    case PJRT_Buffer_MemoryLayout_Type_Tiled:
      if (layout->tiled.num_tiles != 0) return absl::UnimplementedError("tiled layouts are not supported");
      return CheckedMinorToMajor(absl::MakeConstSpan(layout->tiled.minor_to_major, layout->tiled.minor_to_major_size),
                                 dims.size());
    case PJRT_Buffer_MemoryLayout_Type_Strides:
      return MinorToMajorFromStrides(
          absl::MakeConstSpan(layout->strides.byte_strides, layout->strides.num_byte_strides), dims,
          xla::primitive_util::ByteWidth(type));
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown layout type ", static_cast<int>(layout->type)));
}

absl::StatusOr<xla::Shape> HostShape(const PJRT_Buffer_MemoryLayout* layout, const xla::PjRtBuffer& buffer) {
  if (buffer.IsTuple()) return absl::UnimplementedError("tuples cannot be copied to the host");
  TF_ASSIGN_OR_RETURN(std::vector<int64_t> order, MinorToMajor(layout, buffer.dimensions(), buffer.element_type()));
  return xla::ShapeUtil::MakeShapeWithDenseLayout(buffer.element_type(), buffer.dimensions(), order);
}

PJRT_Event* MakeEvent(xla::Future<> future) { return new PJRT_Event{std::move(future)}; }

}  // namespace

PJRT_Error* PJRT_Client_BufferFromHostBuffer(PJRT_Client_BufferFromHostBuffer_Args* args) {
  SFT_CHECK_ARGS(PJRT_Client_BufferFromHostBuffer);
  SFT_CHECK_NOT_NULL(args->client);
  PJRT_ASSIGN_OR_RETURN(const xla::PrimitiveType type, FromBufferType(args->type));
  const auto dims = absl::MakeConstSpan(args->dims, args->num_dims);
  PJRT_ASSIGN_OR_RETURN(const xla::Shape shape, xla::ShapeUtil::MakeValidatedShape(type, dims));
  if (xla::ShapeUtil::ByteSizeOf(shape) > 0) SFT_CHECK_NOT_NULL(args->data);

  xla::PjRtMemorySpace* memory = nullptr;
  if (args->memory != nullptr) {
    memory = args->memory->memory_space;
  } else {
    SFT_CHECK_NOT_NULL(args->device);
    PJRT_ASSIGN_OR_RETURN(memory, args->device->device->default_memory_space());
  }
  std::optional<absl::Span<const int64_t>> strides;
  if (args->byte_strides != nullptr) {
    if (args->num_byte_strides != args->num_dims) {
      return ToError(absl::InvalidArgumentError("one stride per dimension is needed"));
    }
    strides = absl::MakeConstSpan(args->byte_strides, args->num_byte_strides);
  }
  xla::Layout layout;
  if (args->device_layout != nullptr) {
    PJRT_ASSIGN_OR_RETURN(const std::vector<int64_t> order, MinorToMajor(args->device_layout, dims, type));
    layout = xla::LayoutUtil::MakeLayout(order);
  }
  if (args->host_buffer_semantics < PJRT_HostBufferSemantics_kImmutableOnlyDuringCall ||
      args->host_buffer_semantics > PJRT_HostBufferSemantics_kMutableZeroCopy) {
    return ToError(absl::InvalidArgumentError("unknown host_buffer_semantics"));
  }

  auto [promise, done] = xla::MakePromise<>();
  auto shared_promise = std::move(promise).ToShared();
  PJRT_ASSIGN_OR_RETURN(
      std::unique_ptr<xla::PjRtBuffer> buffer,
      args->client->client->BufferFromHostBuffer(
          args->data, type, dims, strides,
          // The enumerators have the same order in C and C++.
          static_cast<xla::PjRtClient::HostBufferSemantics>(args->host_buffer_semantics),
          [shared_promise]() { shared_promise->Set(); }, memory, args->device_layout != nullptr ? &layout : nullptr));
  args->buffer = new PJRT_Buffer{std::move(buffer), args->client};
  args->done_with_host_buffer = MakeEvent(std::move(done));
  return nullptr;
}

PJRT_Error* PJRT_Buffer_Destroy(PJRT_Buffer_Destroy_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_Destroy);
  delete args->buffer;
  return nullptr;
}

PJRT_Error* PJRT_Buffer_ElementType(PJRT_Buffer_ElementType_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_ElementType);
  SFT_CHECK_NOT_NULL(args->buffer);
  args->type = pjrt::ConvertToPjRtBufferType(args->buffer->buffer->element_type());
  return nullptr;
}

PJRT_Error* PJRT_Buffer_Dimensions(PJRT_Buffer_Dimensions_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_Dimensions);
  SFT_CHECK_NOT_NULL(args->buffer);
  const auto dims = args->buffer->buffer->dimensions();
  args->dims = dims.data();
  args->num_dims = dims.size();
  return nullptr;
}

PJRT_Error* PJRT_Buffer_UnpaddedDimensions(PJRT_Buffer_UnpaddedDimensions_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_UnpaddedDimensions);
  SFT_CHECK_NOT_NULL(args->buffer);
  if (args->buffer->buffer->has_dynamic_dimensions()) {
    return ToError(absl::UnimplementedError("dynamic dimensions are not supported"));
  }
  const auto dims = args->buffer->buffer->dimensions();
  args->unpadded_dims = dims.data();
  args->num_dims = dims.size();
  return nullptr;
}

PJRT_Error* PJRT_Buffer_DynamicDimensionIndices(PJRT_Buffer_DynamicDimensionIndices_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_DynamicDimensionIndices);
  SFT_CHECK_NOT_NULL(args->buffer);
  if (args->buffer->buffer->has_dynamic_dimensions()) {
    return ToError(absl::UnimplementedError("dynamic dimensions are not supported"));
  }
  args->dynamic_dim_indices = nullptr;
  args->num_dynamic_dims = 0;
  return nullptr;
}

PJRT_Error* PJRT_Buffer_GetMemoryLayout(PJRT_Buffer_GetMemoryLayout_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_GetMemoryLayout);
  SFT_CHECK_NOT_NULL(args->buffer);
  absl::MutexLock lock(&args->buffer->mu);
  if (!args->buffer->layout_data.has_value()) {
    PJRT_ASSIGN_OR_RETURN(pjrt::BufferMemoryLayoutData data, pjrt::ConvertToBufferMemoryLayoutData(
                                                                 args->buffer->buffer->layout()->xla_layout()));
    args->buffer->layout_data.emplace(std::move(data));
  }
  args->layout = args->buffer->layout_data->c_layout;
  return nullptr;
}

PJRT_Error* PJRT_Buffer_OnDeviceSizeInBytes(PJRT_Buffer_OnDeviceSizeInBytes_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_OnDeviceSizeInBytes);
  SFT_CHECK_NOT_NULL(args->buffer);
  PJRT_ASSIGN_OR_RETURN(args->on_device_size_in_bytes, args->buffer->buffer->GetOnDeviceSizeInBytes());
  return nullptr;
}

PJRT_Error* PJRT_Buffer_Device(PJRT_Buffer_Device_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_Device);
  SFT_CHECK_NOT_NULL(args->buffer);
  args->device = args->buffer->client->c_device_from_cpp_device.at(args->buffer->buffer->device());
  return nullptr;
}

PJRT_Error* PJRT_Buffer_Memory(PJRT_Buffer_Memory_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_Memory);
  SFT_CHECK_NOT_NULL(args->buffer);
  args->memory = args->buffer->client->c_memory_from_cpp_memory.at(args->buffer->buffer->memory_space());
  return nullptr;
}

PJRT_Error* PJRT_Buffer_Delete(PJRT_Buffer_Delete_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_Delete);
  SFT_CHECK_NOT_NULL(args->buffer);
  args->buffer->buffer->Delete();
  return nullptr;
}

PJRT_Error* PJRT_Buffer_IsDeleted(PJRT_Buffer_IsDeleted_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_IsDeleted);
  SFT_CHECK_NOT_NULL(args->buffer);
  args->is_deleted = args->buffer->buffer->IsDeleted();
  return nullptr;
}

PJRT_Error* PJRT_Buffer_CopyRawToHost(PJRT_Buffer_CopyRawToHost_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_CopyRawToHost);
  SFT_CHECK_NOT_NULL(args->buffer);
  SFT_CHECK_NOT_NULL(args->dst);
  PJRT_ASSIGN_OR_RETURN(const size_t bytes, args->buffer->buffer->GetOnDeviceSizeInBytes());
  if (args->offset < 0 || args->transfer_size < 0 || args->transfer_size > static_cast<int64_t>(bytes) ||
      args->offset > static_cast<int64_t>(bytes) - args->transfer_size) {
    return ToError(absl::OutOfRangeError(absl::StrCat("bytes ", args->offset, "+", args->transfer_size,
                                                      " lie outside of a buffer of ", bytes, " bytes")));
  }
  args->event = MakeEvent(args->buffer->buffer->CopyRawToHost(args->dst, args->offset, args->transfer_size));
  return nullptr;
}

PJRT_Error* PJRT_Buffer_CopyToDevice(PJRT_Buffer_CopyToDevice_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_CopyToDevice);
  SFT_CHECK_NOT_NULL(args->buffer);
  SFT_CHECK_NOT_NULL(args->dst_device);
  PJRT_ASSIGN_OR_RETURN(xla::PjRtMemorySpace * memory, args->dst_device->device->default_memory_space());
  PJRT_ASSIGN_OR_RETURN(std::unique_ptr<xla::PjRtBuffer> copy, args->buffer->buffer->CopyToMemorySpace(memory));
  args->dst_buffer = new PJRT_Buffer{std::move(copy), args->dst_device->client};
  return nullptr;
}

PJRT_Error* PJRT_Buffer_CopyToMemory(PJRT_Buffer_CopyToMemory_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_CopyToMemory);
  SFT_CHECK_NOT_NULL(args->buffer);
  SFT_CHECK_NOT_NULL(args->dst_memory);
  PJRT_ASSIGN_OR_RETURN(std::unique_ptr<xla::PjRtBuffer> copy,
                        args->buffer->buffer->CopyToMemorySpace(args->dst_memory->memory_space));
  args->dst_buffer = new PJRT_Buffer{std::move(copy), args->dst_memory->client};
  return nullptr;
}

PJRT_Error* PJRT_Buffer_ToHostBuffer(PJRT_Buffer_ToHostBuffer_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_ToHostBuffer);
  SFT_CHECK_NOT_NULL(args->src);
  PJRT_ASSIGN_OR_RETURN(const xla::Shape shape, HostShape(args->host_layout, *args->src->buffer));
  const size_t bytes = xla::ShapeUtil::ByteSizeOf(shape);
  if (args->dst == nullptr) {  // The caller asks for the size.
    args->dst_size = bytes;
    args->event = nullptr;
    return nullptr;
  }
  if (args->dst_size < bytes) {
    return ToError(absl::InvalidArgumentError(
        absl::StrCat("the destination has ", args->dst_size, " bytes, the buffer needs ", bytes)));
  }
  auto literal = std::make_shared<xla::MutableBorrowingLiteral>(static_cast<const char*>(args->dst), shape);
  xla::Future<> future = args->src->buffer->ToLiteral(literal.get());
  future.OnReady([literal](absl::Status) {});  // The transfer writes through the literal until then.
  args->event = MakeEvent(std::move(future));
  return nullptr;
}

PJRT_Error* PJRT_Buffer_IsOnCpu(PJRT_Buffer_IsOnCpu_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_IsOnCpu);
  SFT_CHECK_NOT_NULL(args->buffer);
  args->is_on_cpu = args->buffer->buffer->IsOnCpu();
  return nullptr;
}

PJRT_Error* PJRT_Buffer_ReadyEvent(PJRT_Buffer_ReadyEvent_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_ReadyEvent);
  SFT_CHECK_NOT_NULL(args->buffer);
  args->event = MakeEvent(args->buffer->buffer->GetReadyFuture());
  return nullptr;
}

PJRT_Error* PJRT_Buffer_UnsafePointer(PJRT_Buffer_UnsafePointer_Args* args) {
  SFT_CHECK_ARGS(PJRT_Buffer_UnsafePointer);
  SFT_CHECK_NOT_NULL(args->buffer);
  PJRT_ASSIGN_OR_RETURN(args->buffer_pointer,
                        args->buffer->client->client->UnsafeBufferPointer(args->buffer->buffer.get()));
  return nullptr;
}

}  // namespace sft
