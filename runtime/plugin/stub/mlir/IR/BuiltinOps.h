// Stands in for MLIR's header of the same name: the wheel holds XLA's headers but not LLVM's, which MLIR's need.
//
// XLA's headers mention `mlir::ModuleOp` only in signatures of virtual functions that this plugin neither calls nor
// overrides. All that matters is that it is passed like the real one: a class around a single pointer.
#ifndef SFT_RUNTIME_PLUGIN_STUB_MLIR_IR_BUILTINOPS_H_
#define SFT_RUNTIME_PLUGIN_STUB_MLIR_IR_BUILTINOPS_H_

namespace mlir {

class MLIRContext;
class Operation;

class ModuleOp {
 public:
  ModuleOp() = default;

 private:
  Operation* operation_ = nullptr;
};

}  // namespace mlir

#endif  // SFT_RUNTIME_PLUGIN_STUB_MLIR_IR_BUILTINOPS_H_
