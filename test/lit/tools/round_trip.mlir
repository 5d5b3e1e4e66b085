// RUN: ingot-opt %s | filecheck %s
// RUN: ingot-opt %s --emit-bytecode | ingot-opt | filecheck %s
// RUN: ingot-opt %s -o %t.mlir && ingot-opt - < %t.mlir | filecheck %s

// CHECK-LABEL: func.func @f
// CHECK-NEXT:    arith.addi
func.func @f(%x: i32) -> i32 {
  %y = arith.addi %x, %x : i32
  return %y : i32
}
