// What --verify-diagnostics says where comments and diagnostics differ.

// RUN: not ingot-opt %s --split-input-file --verify-diagnostics 2>&1 >/dev/null | filecheck %s

// CHECK: verify_diagnostics_fails.mlir:[[# @LINE + 2]]:1: error: unexpected error: use of undeclared SSA value name
func.func @unexpected(%x: i32) -> i32 {
  return %y : i32
}

// -----

// CHECK: verify_diagnostics_fails.mlir:[[# @LINE + 1]]:1: error: expected error "never" was not produced
// expected-error @+1 {{never}}
func.func @missing(%x: i32) -> i32 {
  return %x : i32
}

// -----

// CHECK: verify_diagnostics_fails.mlir:[[# @LINE + 4]]:1: error: unexpected error: use of undeclared
// CHECK: verify_diagnostics_fails.mlir:[[# @LINE + 1]]:1: error: expected error "undeclared" was not produced
// expected-error @+1 {{undeclared}}
func.func @wrong_line(%x: i32) -> i32 {
  return %y : i32
}

// CHECK-NOT: error
