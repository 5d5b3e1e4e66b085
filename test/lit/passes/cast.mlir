// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-cast{to=fp16})' --split-input-file | filecheck %s

// Fires, with dynamic shapes: operands of the product are narrowed, the result of the first is stored in f16, regions compute in
// f32, and the output stays what the model says.
// CHECK:      ^bb0(%[[X:.*]]: tensor<?x4xf32
// CHECK:      "ingot.load"(%[[X]])
// CHECK-NEXT: "ingot.truncf"(%{{.*}}) : (f32) -> f16
// CHECK:      %[[W16:.*]] = "ingot.pointwise"
// CHECK:      tensor<4x4xf16>
// CHECK:      %[[A:.*]] = "ingot.matmul"(%{{.*}}, %[[W16]])
// CHECK-NEXT: ^bb0(%[[E:.*]]: f32):
// CHECK-NEXT:   %[[T:.*]] = "ingot.tanh"(%[[E]])
// CHECK-NEXT:   %[[N:.*]] = "ingot.truncf"(%[[T]]) : (f32) -> f16
// CHECK-NEXT:   "ingot.yield"(%[[N]])
// CHECK:      acc = "f32"
// CHECK:      "ingot.normalize"(%[[A]])
// CHECK-NEXT: ^bb0(%[[H:.*]]: f16):
// CHECK-NEXT:   "ingot.extf"(%[[H]])
// CHECK:      -> tensor<?x4xf16
// CHECK:      %[[WT:.*]] = "ingot.transpose"(%[[W16]])
// CHECK:      "ingot.matmul"(%{{.*}}, %[[WT]])
// CHECK:        "ingot.load"(%[[A]]) : (tensor<?x4xf16
// CHECK-NEXT:   "ingot.extf"
// CHECK:      -> tensor<?x4xf32
// CHECK:      {name = "y", type = "float"}
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
  %a = "ingot.matmul"(%x, %w) ({
  ^bb0(%e: f32):
    %t = "ingot.tanh"(%e) : (f32) -> f32
    "ingot.yield"(%t) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %n = "ingot.normalize"(%a) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "layer", epsilon = 1.0e-5} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %wt = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %y = "ingot.matmul"(%n, %wt) ({
  ^bb0(%e: f32):
    %f = "ingot.load"(%a) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: a mask made of positions, and numbers that f16 does not hold; integers; a reduction.
// CHECK-NOT:  f16
"ingot.func"() ({
^bb0(%x: tensor<4x4xf32>, %i: tensor<4xi64>):
  %m = "ingot.pointwise"() ({
    %p = "ingot.index"() {axis = 0 : i64} : () -> i64
    %q = "ingot.sitofp"(%p) : (i64) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<4xf32>
  %b = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x4xf32>) -> f32
    %f = "ingot.load"(%m) : (tensor<4xf32>) -> f32
    %c = "ingot.const"() {value = -1.0e9 : f32} : () -> f32
    %g = "ingot.fma"(%e, %f, %c) : (f32, f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %r = "ingot.reduce"(%b) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "sum"} : (tensor<4x4xf32>) -> tensor<4x1xf32>
  %j = "ingot.pointwise"() ({
    %e = "ingot.load"(%i) : (tensor<4xi64>) -> i64
    %f = "ingot.addi"(%e, %e) : (i64, i64) -> i64
    "ingot.yield"(%f) : (i64) -> ()
  }) : () -> tensor<4xi64>
  %s = "ingot.pointwise"() ({
    %e = "ingot.load"(%r) : (tensor<4x1xf32>) -> f32
    %f = "ingot.load"(%j) : (tensor<4xi64>) -> i64
    %g = "ingot.sitofp"(%f) : (i64) -> f32
    %h = "ingot.addf"(%e, %g) : (f32, f32) -> f32
    "ingot.yield"(%h) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  "ingot.output"(%s) {name = "s", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "i"], input_types = ["float", "int64"]} : () -> ()

// -----

// Fires: what both branches give has one type, and so has what they capture; what a loop carries stays f32, and is narrowed where
// a product reads it; its scan output, which no sum is kept in, is stored in f16.
// CHECK:      %[[H:.*]] = "ingot.pointwise"
// CHECK:      -> tensor<4x4xf16>
// CHECK:      %[[R:.*]] = "ingot.if"(%{{.*}}, %[[H]], %{{.*}}) ({
// CHECK-NEXT: ^bb0(%[[A:.*]]: tensor<4x4xf16>, %[[X:.*]]: tensor<4x4xf32>):
// CHECK:      "ingot.tanh"
// CHECK-NEXT: "ingot.truncf"
// CHECK:      "ingot.result"(%{{.*}}) : (tensor<4x4xf16>)
// CHECK:      ^bb0(%{{.*}}: tensor<4x4xf16>, %[[Y:.*]]: tensor<4x4xf32>):
// CHECK:      "ingot.load"(%[[Y]])
// CHECK-NEXT: "ingot.truncf"
// CHECK:      "ingot.result"(%{{.*}}) : (tensor<4x4xf16>)
// CHECK:      : (tensor<i1>, tensor<4x4xf16>, tensor<4x4xf32>) -> tensor<4x4xf16>
// CHECK:      %[[E:.*]] = "ingot.empty"() : () -> tensor<3x4x4xf16>
// CHECK:      %[[W:.*]] = "ingot.pointwise"
// CHECK:      "ingot.load"(%[[R]]) : (tensor<4x4xf16>) -> f16
// CHECK-NEXT: "ingot.extf"
// CHECK:      %{{.*}}:2 = "ingot.loop"(%[[W]], %[[E]]) ({
// CHECK-NEXT: ^bb0(%[[C:.*]]: tensor<4x4xf32>, %[[S:.*]]: tensor<3x4x4xf16>):
// CHECK:      "ingot.load"(%[[C]])
// CHECK-NEXT: "ingot.truncf"
// CHECK:      %[[P:.*]] = "ingot.matmul"
// CHECK:      (tensor<4x4xf16>, tensor<4x4xf16>) -> tensor<4x4xf32>
// CHECK:      "ingot.move"(%{{.*}}, %[[S]])
// CHECK:      "ingot.result"(%[[P]]) : (tensor<4x4xf32>)
// CHECK-NEXT: "ingot.result"(%{{.*}}) : (tensor<3x4x4xf16>)
// CHECK:      : (tensor<4x4xf32>, tensor<3x4x4xf16>) -> (tensor<4x4xf32>, tensor<3x4x4xf16>)
#in = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#two = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#one = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<4x4xf32>, %c: tensor<i1>):
  %h = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x4xf32>) -> f32
    %f = "ingot.exp"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %r = "ingot.if"(%c, %h, %x) ({
  ^bb0(%a: tensor<4x4xf32>, %b: tensor<4x4xf32>):
    %y = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x4xf32>) -> f32
      %f = "ingot.tanh"(%e) : (f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) : () -> tensor<4x4xf32>
    "ingot.result"(%y) : (tensor<4x4xf32>) -> ()
    "ingot.return"() : () -> ()
  }, {
  ^bb0(%a: tensor<4x4xf32>, %b: tensor<4x4xf32>):
    "ingot.result"(%b) : (tensor<4x4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {operandSegmentSizes = #in, resultSegmentSizes = #one} : (tensor<i1>, tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %m = "ingot.empty"() : () -> tensor<3x4x4xf32>
  %l:2 = "ingot.loop"(%r, %m) ({
  ^bb0(%a: tensor<4x4xf32>, %b: tensor<3x4x4xf32>):
    %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
    %p = "ingot.matmul"(%a, %w) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {acc = "f32"} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %one = "ingot.reshape"(%p) : (tensor<4x4xf32>) -> tensor<1x4x4xf32>
    %s = "ingot.move"(%one, %b) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {offsets = ["i", "0", "0"]} : (tensor<1x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
    "ingot.result"(%p) : (tensor<4x4xf32>) -> ()
    "ingot.result"(%s) : (tensor<3x4x4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 2, operandSegmentSizes = #two, resultSegmentSizes = #two}
    : (tensor<4x4xf32>, tensor<3x4x4xf32>) -> (tensor<4x4xf32>, tensor<3x4x4xf32>)
  %y = "ingot.reduce"(%l#1) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 0>, kind = "sum"} : (tensor<3x4x4xf32>) -> tensor<1x4x4xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<1x4x4xf32>) -> ()
  "ingot.output"(%l#0) {name = "z", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c"], input_types = ["float", "bool"]} : () -> ()

// -----

// Fires: positions, and their product with the frequencies of a rotary embedding, stay in f32 until the sine is taken; so does a
// time step that a pointwise operation multiplies. The sines themselves, and what is multiplied by them, are narrow.
// CHECK:      ^bb0(%[[P:.*]]: tensor<?x1xf32, #ingot.dims<["S"]>>, %[[T:.*]]: tensor<1xf32>
// CHECK:      %[[F:.*]] = "ingot.weight"() {name = "frequencies"} : () -> tensor<1x4xf32>
// CHECK:      %[[S:.*]] = "ingot.matmul"(%[[P]], %[[F]])
// CHECK:        "ingot.sin"
// CHECK-NEXT:   "ingot.truncf"
// CHECK:      -> tensor<?x4xf16
// CHECK:      "ingot.load"(%[[T]]) : (tensor<1xf32>) -> f32
// CHECK:      -> tensor<4xf32>
// CHECK:      "ingot.cos"
// CHECK:      -> tensor<?x4xf16
"ingot.func"() ({
^bb0(%p: tensor<?x1xf32, #ingot.dims<["S"]>>, %t: tensor<1xf32>, %x: tensor<?x4xf32, #ingot.dims<["S"]>>):
  %f = "ingot.weight"() {name = "frequencies"} : () -> tensor<1x4xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
  %s = "ingot.matmul"(%p, %f) ({
  ^bb0(%a: f32):
    %v = "ingot.sin"(%a) : (f32) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x1xf32, #ingot.dims<["S"]>>, tensor<1x4xf32>) -> tensor<?x4xf32, #ingot.dims<["S"]>>
  %g = "ingot.reshape"(%f) : (tensor<1x4xf32>) -> tensor<4xf32>
  %h = "ingot.pointwise"() ({
    %e = "ingot.load"(%t) : (tensor<1xf32>) -> f32
    %k = "ingot.load"(%g) : (tensor<4xf32>) -> f32
    %m = "ingot.mulf"(%e, %k) : (f32, f32) -> f32
    "ingot.yield"(%m) : (f32) -> ()
  }) : () -> tensor<4xf32>
  %c = "ingot.pointwise"() ({
    %e = "ingot.load"(%h) : (tensor<4xf32>) -> f32
    %k = "ingot.load"(%s) : (tensor<?x4xf32, #ingot.dims<["S"]>>) -> f32
    %b = "ingot.load"(%x) : (tensor<?x4xf32, #ingot.dims<["S"]>>) -> f32
    %v = "ingot.cos"(%e) : (f32) -> f32
    %m = "ingot.mulf"(%v, %k) : (f32, f32) -> f32
    %n = "ingot.mulf"(%m, %b) : (f32, f32) -> f32
    "ingot.yield"(%n) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["S"]>>
  %y = "ingot.matmul"(%c, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["S"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["p", "t", "x"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: what a product over more than one k gives is an activation, also where a sine is taken of it.
// CHECK:      "ingot.matmul"
// CHECK:      "ingot.truncf"
// CHECK:      -> tensor<?x4xf16
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["S"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
  %h = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["S"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["S"]>>
  %y = "ingot.matmul"(%h, %w) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%h) : (tensor<?x4xf32, #ingot.dims<["S"]>>) -> f32
    %v = "ingot.negf"(%e) : (f32) -> f32
    %b = "ingot.addf"(%a, %v) : (f32, f32) -> f32
    "ingot.yield"(%b) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["S"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["S"]>>
  %z = "ingot.pointwise"() ({
    %e = "ingot.load"(%h) : (tensor<?x4xf32, #ingot.dims<["S"]>>) -> f32
    %v = "ingot.sin"(%e) : (f32) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.output"(%z) {name = "z", type = "float"} : (tensor<?x4xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires: elements of an activation are replaced in the narrow type; what it begins as is cast. Positions stay what they are.
// CHECK:      "ingot.scatter"
// CHECK:      "ingot.truncf"
// CHECK:      {axes = array<i64: 0>, kind = "set"} : (tensor<?x4xf16, #ingot.dims<["S"]>>, tensor<1x4xf32>) -> tensor<?x4xf16
// CHECK:      "ingot.topk"
// CHECK-NEXT: ^bb0(%{{.*}}: f16):
// CHECK-NEXT: "ingot.extf"
// CHECK:      -> tensor<?x2xi64
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["S"]>>, %u: tensor<1x4xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
  %s = "ingot.scatter"(%x, %u) ({
    %z = "ingot.const"() {value = 0 : i64} : () -> i64
    %c = "ingot.index"() {axis = 1} : () -> i64
    "ingot.yield"(%z, %c) : (i64, i64) -> ()
  }, {
    %v = "ingot.load"(%u) : (tensor<1x4xf32>) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "set", axes = array<i64: 0>} : (tensor<?x4xf32, #ingot.dims<["S"]>>, tensor<1x4xf32>) -> tensor<?x4xf32, #ingot.dims<["S"]>>
  %m = "ingot.matmul"(%s, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["S"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["S"]>>
  %t = "ingot.topk"(%m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axis = 1 : i64} : (tensor<?x4xf32, #ingot.dims<["S"]>>) -> tensor<?x2xi64, #ingot.dims<["S"]>>
  "ingot.output"(%t) {name = "t", type = "int64"} : (tensor<?x2xi64, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "u"], input_types = ["float", "float"]} : () -> ()
