// How ingot-opt prints.

// RUN: ingot-opt %s | filecheck %s --check-prefix=PLAIN
// PLAIN-NOT: loc(
// PLAIN:     %0 = arith.addi %arg0, %arg0 : i32
// RUN: ingot-opt %s --mlir-print-debuginfo --mlir-print-local-scope | filecheck %s --check-prefix=LOC
// LOC: arith.addi %arg0, %arg0 : i32 loc("sum")
// RUN: ingot-opt %s --mlir-print-op-generic | filecheck %s --check-prefix=GENERIC
// GENERIC: "arith.addi"(%arg0, %arg0)
// RUN: ingot-opt %s --mlir-use-nameloc-as-prefix | filecheck %s --check-prefix=PREFIX
// PREFIX: %sum = arith.addi
func.func @f(%x: i32) -> i32 {
  %a = arith.addi %x, %x : i32 loc("sum")
  return %a : i32
}
