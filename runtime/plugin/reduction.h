// Element-wise reductions of the blocks that the members of a collective contribute.
#ifndef SFT_RUNTIME_PLUGIN_REDUCTION_H_
#define SFT_RUNTIME_PLUGIN_REDUCTION_H_

#include <cstddef>
#include <vector>

#include "xla/core/collectives/reduction_kind.h"
#include "xla/xla_data.pb.h"

namespace sft {

bool IsReducible(xla::PrimitiveType type);

// out[i] = inputs[0][i] op inputs[1][i] op ..., from left to right: the result does not depend on who arrives when.
// Types narrower than 32 bits are rounded once, at the end. `out` may be one of `inputs`. `type` must be reducible.
void Reduce(xla::PrimitiveType type, xla::ReductionKind kind, const std::vector<const char*>& inputs, size_t count,
            char* out);

}  // namespace sft

#endif  // SFT_RUNTIME_PLUGIN_REDUCTION_H_
