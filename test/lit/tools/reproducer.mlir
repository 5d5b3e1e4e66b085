// A failing pass leaves its input and the command that replays it.

// A defect of a Python pass: the input is the IR after cse.
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'cse,test-fail,canonicalize' --reproducer=%t.mlir 2>&1 | filecheck %s --check-prefix=ERROR
// ERROR: error: pass test-fail failed: KeyError: 'missing' (replay with: ingot-opt --load={{.*}}passes.py '--pass-pipeline=builtin.module(test-fail)' {{.*}}.mlir)
// RUN: filecheck %s --check-prefix=FILE < %t.mlir
// FILE:     // KeyError: 'missing'
// FILE:     // ingot-opt --load=
// FILE:     func.func @f
// FILE:     arith.muli
// FILE-NOT: arith.muli
// RUN: not ingot-opt --load=%S/Inputs/passes.py --pass-pipeline='builtin.module(test-fail)' %t.mlir 2>&1 | filecheck %s --check-prefix=ERROR

// Invalid IR that a pass leaves is that pass's failure, unless nobody looks.
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-fail{how=invalid},cse' --reproducer=%t.mlir 2>&1 | filecheck %s --check-prefix=INVALID
// INVALID: reproducer.mlir:[[# @LINE + 25]]:8: error: pass test-fail failed: operand #1 does not dominate this use
// RUN: ingot-opt %s --load=%S/Inputs/passes.py -p 'test-fail{how=invalid}' --verify-each=0 -o %t.out

// Where nobody looked, the next pass may get invalid IR, which text cannot hold: its bytecode is kept.
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-fail{how=invalid},test-fail' --verify-each=0 --reproducer=%t.mlir 2>&1 | filecheck %s --check-prefix=ERROR
// RUN: python -c "assert open('%t.mlir', 'rb').read(4) == bytes([77, 76, 239, 82])"

// A C++ pass, and a pass that needs the model's weights.
// RUN: not ingot-opt %examples/digits.onnx --load=%S/Inputs/passes.py -p 'canonicalize,one-shot-bufferize' --reproducer=%t.mlir 2>&1 | filecheck %s --check-prefix=CPP
// CPP: pass one-shot-bufferize failed: op was not bufferized (replay with: ingot-opt --weights={{.*}}digits.onnx '--pass-pipeline=builtin.module(one-shot-bufferize)' {{.*}}.mlir)

// The model's own faults are no defects: a reproducer only where one was asked for.
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-fail{how=model}' 2>&1 | filecheck %s --check-prefix=MODEL
// MODEL-NOT: replay
// MODEL:     reproducer.mlir:[[# @LINE + 11]]:8: error: addition is not supported (subtract the negative)
// MODEL-NOT: replay
// RUN: not ingot-opt %s --load=%S/Inputs/passes.py -p 'test-fail{how=model}' --reproducer=%t.mlir 2>&1 | filecheck %s --check-prefix=ASKED
// ASKED: replay with: ingot-opt

// A pass that ends the process; and no file is left where all went well.
// RUN: not --crash ingot-opt %s --load=%S/Inputs/passes.py -p 'cse,test-fail{how=crash}' --reproducer=%t.crash.mlir
// RUN: filecheck %s --check-prefix=CRASH < %t.crash.mlir
// CRASH: --pass-pipeline=builtin.module(test-fail{how=crash})
// RUN: ingot-opt %s -p cse --reproducer=%t.crash.mlir -o %t.out && not cat %t.crash.mlir
func.func @f(%x: i32) -> i32 {
  %a = arith.addi %x, %x : i32
  %b = arith.muli %a, %x : i32
  %c = arith.muli %a, %x : i32
  %d = arith.subi %b, %c : i32
  return %d : i32
}
