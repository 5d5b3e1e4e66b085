// Options of every type, and what is said about wrong ones.

// RUN: ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=arith.addi tag="my.tag" limit=1 scales=0.5,2 quiet}, cse' | filecheck %s
// RUN: ingot-opt %s --load=%S/Inputs/passes.py --pass-pipeline='builtin.module(test-tag{op=arith.addi tag=my.tag limit=1},func.func(cse))' | filecheck %s
// CHECK-LABEL: func.func @f
// CHECK-NEXT:    arith.addi %arg0, %arg0 {my.tag}
// CHECK-NEXT:    arith.subi
// CHECK-NEXT:    arith.addi %{{.*}}, %arg0 : i32
func.func @f(%x: i32) -> i32 {
  %a = arith.addi %x, %x : i32
  %b = arith.subi %a, %x : i32
  %c = arith.addi %b, %x : i32
  return %c : i32
}

// RUN: ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=arith.addi tag=my.tag order=backward limit=1}' | filecheck %s --check-prefix=BACK
// BACK:     arith.addi %arg0, %arg0 : i32
// BACK:     arith.addi {{.*}} {my.tag}

// RUN: ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=arith.addi limit=none}' | filecheck %s --check-prefix=ALL
// ALL-COUNT-2: arith.addi {{.*}} {tag}

// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p test-tag 2>&1 | filecheck %s --check-prefix=REQUIRED
// REQUIRED: ingot-opt: error: pass test-tag needs its option 'op' (write test-tag{op=VALUE}, VALUE being str)
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=a limits=3}' 2>&1 | filecheck %s --check-prefix=UNKNOWN
// UNKNOWN: pass test-tag has no option 'limits' (did you mean 'limit'?)
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=a limit=x}' 2>&1 | filecheck %s --check-prefix=TYPE
// TYPE: option 'limit' of pass test-tag expects int or none, got 'x' (its default is none)
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=a order=sideways}' 2>&1 | filecheck %s --check-prefix=LITERAL
// LITERAL: option 'order' of pass test-tag expects one of forward, backward, got 'sideways'
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tag{op=a op=b}' 2>&1 | filecheck %s --check-prefix=TWICE
// TWICE: option 'op' of pass test-tag is given twice
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-tug{op=a}' 2>&1 | filecheck %s --check-prefix=NEAR
// NEAR: no pass is named 'test-tug' (did you mean 'test-tag'?)
// RUN: not ingot-opt %s -p canonicalise 2>&1 | filecheck %s --check-prefix=CPP
// CPP: no pass is named 'canonicalise' (did you mean 'canonicalize'?)
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'func.func(test-fail)' 2>&1 | filecheck %s --check-prefix=NESTED
// NESTED: pass test-fail cannot be nested in func.func(...)
// RUN: not ingot-opt %s -p 'cse,,cse' 2>&1 | filecheck %s --check-prefix=EMPTY
// EMPTY: a pipeline has an empty element
// RUN: not ingot-opt %s -p 'func.func(cse' 2>&1 | filecheck %s --check-prefix=OPEN
// OPEN: missing ')' in pipeline

// RUN: ingot-opt --load=%S/Inputs/passes.py --list-passes | filecheck %s --check-prefix=LIST
// LIST:      test-fail
// LIST-NEXT:   Fail in one of the ways in which a pass can.
// LIST-NEXT:   how: one of defect, model, invalid, crash, default defect
// LIST-NEXT: test-tag
// LIST-NEXT:   Put a unit attribute on operations of one name.
// LIST-NEXT:   op: str, required
// LIST-NEXT:   tag: str, default tag
// LIST-NEXT:   limit: int or none, default none
// LIST-NEXT:   order: one of forward, backward, default forward
// LIST-NEXT:   scales: list of float, default
// LIST-NEXT:   quiet: bool, default false
