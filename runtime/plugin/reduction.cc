#include "reduction.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "xla/types.h"

namespace sft {
namespace {

using xla::ReductionKind;

struct Sum {
  template <typename T>
  T operator()(T a, T b) const {
    return a + b;
  }
};

struct Product {
  template <typename T>
  T operator()(T a, T b) const {
    return a * b;
  }
};

// A NaN on either side wins, as in the programs' own minimum and maximum.
struct Min {
  template <typename T>
  T operator()(T a, T b) const {
    return a != a || a < b ? a : b;
  }
};

struct Max {
  template <typename T>
  T operator()(T a, T b) const {
    return a != a || a > b ? a : b;
  }
};

// Elements a block: its accumulators stay in the nearest cache while the inputs pass one after the other.
constexpr size_t kBlock = 1024;

template <typename T, typename Accumulator, typename Op>
void ReduceWith(Op op, const std::vector<const char*>& inputs, size_t count, char* out) {
  Accumulator block[kBlock];
  for (size_t start = 0; start < count; start += kBlock) {
    const size_t n = std::min(kBlock, count - start);
    const T* first = reinterpret_cast<const T*>(inputs[0]) + start;
    for (size_t i = 0; i < n; ++i) block[i] = static_cast<Accumulator>(first[i]);
    for (size_t input = 1; input < inputs.size(); ++input) {
      const T* next = reinterpret_cast<const T*>(inputs[input]) + start;
      for (size_t i = 0; i < n; ++i) block[i] = op(block[i], static_cast<Accumulator>(next[i]));
    }
    T* result = reinterpret_cast<T*>(out) + start;
    for (size_t i = 0; i < n; ++i) result[i] = static_cast<T>(block[i]);
  }
}

template <typename T, typename Accumulator = T>
void ReduceAs(ReductionKind kind, const std::vector<const char*>& inputs, size_t count, char* out) {
  switch (kind) {
    case ReductionKind::SUM:
      return ReduceWith<T, Accumulator>(Sum(), inputs, count, out);
    case ReductionKind::PRODUCT:
      return ReduceWith<T, Accumulator>(Product(), inputs, count, out);
    case ReductionKind::MIN:
      return ReduceWith<T, Accumulator>(Min(), inputs, count, out);
    case ReductionKind::MAX:
      return ReduceWith<T, Accumulator>(Max(), inputs, count, out);
  }
}

// Booleans are bytes of 0 or 1: a sum is "or", a product "and".
void ReducePred(ReductionKind kind, const std::vector<const char*>& inputs, size_t count, char* out) {
  const bool any = kind == ReductionKind::SUM || kind == ReductionKind::MAX;
  ReduceAs<uint8_t>(any ? ReductionKind::MAX : ReductionKind::MIN, inputs, count, out);
}

}  // namespace

bool IsReducible(xla::PrimitiveType type) {
  switch (type) {
    case xla::PRED:
    case xla::S8:
    case xla::U8:
    case xla::S16:
    case xla::U16:
    case xla::S32:
    case xla::U32:
    case xla::S64:
    case xla::U64:
    case xla::F16:
    case xla::BF16:
    case xla::F32:
    case xla::F64:
      return true;
    default:
      return false;
  }
}

void Reduce(xla::PrimitiveType type, ReductionKind kind, const std::vector<const char*>& inputs, size_t count,
            char* out) {
  switch (type) {
    case xla::PRED:
      return ReducePred(kind, inputs, count, out);
    case xla::S8:
      return ReduceAs<int8_t>(kind, inputs, count, out);
    case xla::U8:
      return ReduceAs<uint8_t>(kind, inputs, count, out);
    case xla::S16:
      return ReduceAs<int16_t>(kind, inputs, count, out);
    case xla::U16:
      return ReduceAs<uint16_t>(kind, inputs, count, out);
    case xla::S32:  // Unsigned arithmetic wraps around as two's complement does, without overflow.
      return kind == ReductionKind::SUM || kind == ReductionKind::PRODUCT
                 ? ReduceAs<uint32_t>(kind, inputs, count, out)
                 : ReduceAs<int32_t>(kind, inputs, count, out);
    case xla::U32:
      return ReduceAs<uint32_t>(kind, inputs, count, out);
    case xla::S64:
      return kind == ReductionKind::SUM || kind == ReductionKind::PRODUCT
                 ? ReduceAs<uint64_t>(kind, inputs, count, out)
                 : ReduceAs<int64_t>(kind, inputs, count, out);
    case xla::U64:
      return ReduceAs<uint64_t>(kind, inputs, count, out);
    case xla::F16:
      return ReduceAs<xla::half, float>(kind, inputs, count, out);
    case xla::BF16:
      return ReduceAs<xla::bfloat16, float>(kind, inputs, count, out);
    case xla::F32:
      return ReduceAs<float>(kind, inputs, count, out);
    case xla::F64:
      return ReduceAs<double>(kind, inputs, count, out);
    default:
      return;
  }
}

}  // namespace sft
