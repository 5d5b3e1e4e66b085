// RUN: ingot-opt %s --split-input-file --verify-diagnostics --load=%S/Inputs/passes.py -p 'test-tag{op=arith.muli},test-fail{how=model}' --remarks | filecheck %s

// Every kind of place, in parts of their own whose lines count from the file's beginning. A part that fails prints nothing.
// CHECK-COUNT-1: func.func @fine
// CHECK-NOT:     func.func

func.func @same_line(%x: i32) -> i32 {
  return %y : i32 // expected-error {{use of undeclared SSA value name}}
}

// -----

// expected-error @+2 {{addition is not supported}}
func.func @after(%x: i32) -> i32 {
  %a = arith.addi %x, %x : i32
  return %a : i32
}

// -----

func.func @before(%x: i32) -> i32 {
  return %y : i32
  // expected-error @-1 {{undeclared}}
}

// -----

func.func @nearest(%x: i32) -> i32 {
  // expected-remark-re @below {{tagged arith\.(muli|divsi)}}
  // expected-error @+2 {{addition is not supported}}
  %a = arith.muli %x, %x : i32
  %b = arith.addi %a, %x : i32
  return %b : i32
}

// -----

// A named operation is no line of the file.
// expected-error @unknown {{addition is not supported}}
func.func @named(%x: i32) -> i32 {
  %a = arith.addi %x, %x : i32 loc("/layer/Add")
  return %a : i32
}

// -----

func.func @fine(%x: i32) -> i32 {
  return %x : i32
}
