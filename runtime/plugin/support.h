// What the files that implement the C API share: turning `absl::Status` into `PJRT_Error`, and checks of arguments.
#ifndef SFT_RUNTIME_PLUGIN_SUPPORT_H_
#define SFT_RUNTIME_PLUGIN_SUPPORT_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "functions.h"
#include "xla/pjrt/c/pjrt_c_api_wrapper_impl.h"

namespace sft {

// Takes the error out of a status; null if it is OK.
inline PJRT_Error* ToError(absl::Status status) { return status.ok() ? nullptr : new PJRT_Error{std::move(status)}; }

// A struct that is shorter than the fields this plugin reads comes from a caller built for another version.
inline absl::Status CheckArgs(const char* name, const void* args, size_t size, size_t expected) {
  if (args == nullptr) return absl::InvalidArgumentError(absl::StrCat(name, ": no arguments"));
  if (size < expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": the caller passes a struct of ", size, " bytes, this plugin reads ", expected));
  }
  return absl::OkStatus();
}

inline absl::Status NotNull(const void* pointer, const char* what) {
  return pointer != nullptr ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat(what, " is null"));
}

}  // namespace sft

// First line of every function: refuses arguments that cannot be read.
#define SFT_CHECK_ARGS(name)                                                                                   \
  do {                                                                                                         \
    absl::Status checked = ::sft::CheckArgs(#name, args, args ? args->struct_size : 0, name##_Args_STRUCT_SIZE); \
    if (!checked.ok()) return ::sft::ToError(std::move(checked));                                               \
  } while (false)

#define SFT_CHECK_NOT_NULL(pointer) PJRT_RETURN_IF_ERROR(::sft::NotNull(pointer, #pointer))

#endif  // SFT_RUNTIME_PLUGIN_SUPPORT_H_
