// What can be seen of a pipeline, for Python and C++ passes alike.

// RUN: ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=arith.addi},cse,test-tag{op=none.such}' --print-ir-after-all 2>&1 >/dev/null | filecheck %s --check-prefix=ALL
// ALL:     IR Dump After test-tag{op=arith.addi} //
// ALL:       arith.addi {{.*}} {tag}
// ALL:     IR Dump After cse //
// ALL:     IR Dump After test-tag{op=none.such} //

// RUN: ingot-opt %s --load=%S/Inputs/passes.py -p 'canonicalize,test-tag{op=arith.subi},cse,test-tag{op=arith.muli},test-tag{op=none.such}' --print-ir-after-change 2>&1 >/dev/null | filecheck %s --check-prefix=CHANGE
// CHANGE-NOT: IR Dump After canonicalize
// CHANGE-NOT: IR Dump After test-tag{op=arith.subi}
// CHANGE:     IR Dump After cse //
// CHANGE:     IR Dump After test-tag{op=arith.muli} //
// CHANGE-NOT: IR Dump After test-tag{op=none.such}

// RUN: rm -rf %t.dir && ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=arith.muli},cse,func.func(canonicalize)' --dump-dir=%t.dir -o %t.out
// RUN: ls %t.dir | filecheck %s --check-prefix=FILES
// FILES:      00_input.mlir
// FILES-NEXT: 01_test-tag.mlir
// FILES-NEXT: 02_cse.mlir
// FILES-NEXT: 03_func.func_canonicalize.mlir
// RUN: diff %t.dir/03_func.func_canonicalize.mlir %t.out
// RUN: filecheck %s --check-prefix=TAGGED < %t.dir/01_test-tag.mlir
// RUN: filecheck %s --check-prefix=UNTAGGED < %t.dir/00_input.mlir
// TAGGED-COUNT-2: arith.muli {{.*}} {tag}
// UNTAGGED-NOT:   {tag}

// RUN: ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=arith.muli quiet},cse' --time-passes 2>&1 >/dev/null | filecheck %s --check-prefix=TIME
// TIME:      ms{{ +}}share{{ +}}pass
// TIME-NEXT: {{[0-9.]+ +[0-9.]+%}}  test-tag  (2 tagged)
// TIME-NEXT: {{[0-9.]+ +[0-9.]+%}}  cse
// TIME-NEXT: {{[0-9.]+ +100.0%}}  total of 2 passes

// RUN: ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=arith.addi}' --remarks 2>&1 >/dev/null | filecheck %s --check-prefix=REMARK
// REMARK: observe.mlir:[[# @LINE + 3]]:8: remark: tagged arith.addi [test-tag]

func.func @f(%x: i32) -> i32 {
  %a = arith.addi %x, %x : i32
  %b = arith.muli %a, %x : i32
  %c = arith.muli %a, %x : i32
  %d = arith.addi %b, %c : i32
  return %d : i32
}
