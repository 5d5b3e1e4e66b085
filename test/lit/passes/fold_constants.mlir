// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-fold-constants)' --split-input-file | filecheck %s
// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-fold-constants,ingot-fold-constants)' --split-input-file | filecheck %s

// Fires: a sum of two weights through a transpose, and a concatenation of weights. The transpose of what stays a source is not
// copied, and what the main function does not read is no part of the program.
// CHECK:      ^bb0(%[[X:.*]]: tensor<4x3xf32>)
// CHECK:      %[[V:.*]] = "ingot.weight"() {name = "v"}
// CHECK:      %[[VT:.*]] = "ingot.transpose"(%[[V]])
// CHECK:      %[[D:.*]] = "ingot.weight"() {name = "w#1"} : () -> tensor<3x2xf32>
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      "ingot.matmul"(%[[X]], %[[D]])
// CHECK:      "ingot.matmul"(%{{.*}}, %[[VT]])
// CHECK:      %[[C:.*]] = "ingot.weight"() {name = "b#1"} : () -> tensor<4xf32>
// CHECK:      "ingot.output"(%[[C]])
// CHECK:      "ingot.return"
// CHECK:      "ingot.weight"() {name = "b"} : () -> tensor<2xf32>
// CHECK:      %[[W:.*]] = "ingot.weight"() {name = "w"} : () -> tensor<2x3xf32>
// CHECK:      "ingot.transpose"(%[[W]])
// CHECK:      %[[P:.*]] = "ingot.pointwise"
// CHECK:      "ingot.output"(%[[P]]) {name = "w#1", type = "float"}
// CHECK:      "ingot.output"(%{{.*}}) {name = "b#1", type = "float"}
// CHECK:      sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<4x3xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<2xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<5x2xf32>
  %wt = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %vt = "ingot.transpose"(%v) {perm = array<i64: 1, 0>} : (tensor<5x2xf32>) -> tensor<2x5xf32>
  %s = "ingot.pointwise"() ({
    %e = "ingot.load"(%wt) : (tensor<3x2xf32>) -> f32
    %f = "ingot.load"(%b) : (tensor<2xf32>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<3x2xf32>
  %y = "ingot.matmul"(%x, %s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  %z = "ingot.matmul"(%y, %vt) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x2xf32>, tensor<2x5xf32>) -> tensor<4x5xf32>
  %e = "ingot.empty"() : () -> tensor<4xf32>
  %e0 = "ingot.move"(%b, %e) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0"]} : (tensor<2xf32>, tensor<4xf32>) -> tensor<4xf32>
  %e1 = "ingot.move"(%b, %e0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["2"]} : (tensor<2xf32>, tensor<4xf32>) -> tensor<4xf32>
  "ingot.output"(%z) {name = "z", type = "float"} : (tensor<4x5xf32>) -> ()
  "ingot.output"(%e1) {name = "c", type = "float"} : (tensor<4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire, with dynamic shapes: exp differs between machines; one row repeated is much larger than its source; sizes that
// are not known; a concatenation of a weight with something else.
// CHECK:      "ingot.exp"
// CHECK:      tensor<4096x2xf32>
// CHECK:      dim = "N"
// CHECK:      "ingot.empty"
// CHECK-NOT:  sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>, %y: tensor<2xf32>):
  %b = "ingot.weight"() {name = "b"} : () -> tensor<2xf32>
  %p = "ingot.pointwise"() ({
    %f = "ingot.load"(%b) : (tensor<2xf32>) -> f32
    %g = "ingot.exp"(%f) : (f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2xf32>
  %q = "ingot.pointwise"() ({
    %f = "ingot.load"(%b) : (tensor<2xf32>) -> f32
    %g = "ingot.negf"(%f) : (f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4096x2xf32>
  %r = "ingot.pointwise"() ({
    %f = "ingot.load"(%b) : (tensor<2xf32>) -> f32
    %d = "ingot.dim"() {dim = "N"} : () -> i64
    %e = "ingot.sitofp"(%d) : (i64) -> f32
    %g = "ingot.addf"(%f, %e) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2xf32>
  %e = "ingot.empty"() : () -> tensor<4xf32>
  %e0 = "ingot.move"(%b, %e) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0"]} : (tensor<2xf32>, tensor<4xf32>) -> tensor<4xf32>
  %e1 = "ingot.move"(%y, %e0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["2"]} : (tensor<2xf32>, tensor<4xf32>) -> tensor<4xf32>
  "ingot.output"(%p) {name = "p", type = "float"} : (tensor<2xf32>) -> ()
  "ingot.output"(%q) {name = "q", type = "float"} : (tensor<4096x2xf32>) -> ()
  "ingot.output"(%r) {name = "r", type = "float"} : (tensor<2xf32>) -> ()
  "ingot.output"(%e1) {name = "c", type = "float"} : (tensor<4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y"], input_types = ["float", "float"]} : () -> ()

// -----

// Fires: a sum of integers, which is the same in every order, over an axis of a weight. Must not fire: a sum of floats.
// CHECK:      %[[W:.*]] = "ingot.weight"() {name = "w"}
// CHECK-NOT:  "ingot.extsi"
// CHECK:      "ingot.weight"() {name = "q#1"} : () -> tensor<1x2xi32>
// CHECK:      "ingot.reduce"(%[[W]])
// CHECK:      "ingot.reduce"
// CHECK:      "ingot.extsi"
// CHECK:      sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<1x2xi32>):
  %q = "ingot.weight"() {name = "q"} : () -> tensor<8x2xi8>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<8x2xf32>
  %a = "ingot.reduce"(%q) ({
  ^bb0(%e: i8):
    %f = "ingot.extsi"(%e) : (i8) -> i32
    "ingot.yield"(%f) : (i32) -> ()
  }, {
  ^bb0(%e: i32):
    "ingot.yield"(%e) : (i32) -> ()
  }) {axes = array<i64: 0>, kind = "sum"} : (tensor<8x2xi8>) -> tensor<1x2xi32>
  %b = "ingot.reduce"(%w) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 0>, kind = "sum"} : (tensor<8x2xf32>) -> tensor<1x2xf32>
  "ingot.output"(%a) {name = "a", type = "int32"} : (tensor<1x2xi32>) -> ()
  "ingot.output"(%b) {name = "b", type = "float"} : (tensor<1x2xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["int32"]} : () -> ()

// -----

// Fires in the body of a loop.
// CHECK:      "ingot.loop"
// CHECK:      %[[V:.*]] = "ingot.weight"() {name = "v"}
// CHECK:      %[[VT:.*]] = "ingot.transpose"(%[[V]])
// CHECK:      %[[D:.*]] = "ingot.weight"() {name = "w#1"} : () -> tensor<3x2xf32>
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      "ingot.matmul"(%{{.*}}, %[[D]])
// CHECK:      "ingot.matmul"(%{{.*}}, %[[VT]])
// CHECK:      "ingot.result"
// CHECK:      sym_name = "main"
// CHECK:      %[[P:.*]] = "ingot.pointwise"
// CHECK:      "ingot.output"(%[[P]]) {name = "w#1", type = "float"}
// CHECK:      sym_name = "weights"
#in = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#out = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%m_z0: tensor<4x5xf32>, %m_z1: tensor<4xf32>, %m_x: tensor<4x3xf32>):
  %r:2 = "ingot.loop"(%m_z0, %m_z1, %m_x) ({
  ^bb0(%z0: tensor<4x5xf32>, %z1: tensor<4xf32>, %x: tensor<4x3xf32>):
    %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3xf32>
    %b = "ingot.weight"() {name = "b"} : () -> tensor<2xf32>
    %v = "ingot.weight"() {name = "v"} : () -> tensor<5x2xf32>
    %wt = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
    %vt = "ingot.transpose"(%v) {perm = array<i64: 1, 0>} : (tensor<5x2xf32>) -> tensor<2x5xf32>
    %s = "ingot.pointwise"() ({
      %e = "ingot.load"(%wt) : (tensor<3x2xf32>) -> f32
      %f = "ingot.load"(%b) : (tensor<2xf32>) -> f32
      %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<3x2xf32>
    %y = "ingot.matmul"(%x, %s) ({
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
    %z = "ingot.matmul"(%y, %vt) ({
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }) {acc = "f32"} : (tensor<4x2xf32>, tensor<2x5xf32>) -> tensor<4x5xf32>
    %e = "ingot.empty"() : () -> tensor<4xf32>
    %e0 = "ingot.move"(%b, %e) ({
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }) {offsets = ["0"]} : (tensor<2xf32>, tensor<4xf32>) -> tensor<4xf32>
    %e1 = "ingot.move"(%b, %e0) ({
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }) {offsets = ["2"]} : (tensor<2xf32>, tensor<4xf32>) -> tensor<4xf32>
    "ingot.result"(%z) : (tensor<4x5xf32>) -> ()
    "ingot.result"(%e1) : (tensor<4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 2, operandSegmentSizes = #in, resultSegmentSizes = #out}
    : (tensor<4x5xf32>, tensor<4xf32>, tensor<4x3xf32>) -> (tensor<4x5xf32>, tensor<4xf32>)
  "ingot.output"(%r#0) {name = "z", type = "float"} : (tensor<4x5xf32>) -> ()
  "ingot.output"(%r#1) {name = "c", type = "float"} : (tensor<4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["z0", "z1", "x"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires: a weight that a branch captures, and one that is derived outside, are read by name inside, through the same views; an
// input is captured still.
// CHECK:      "ingot.if"
// CHECK-NEXT: ^bb0(%[[X:.*]]: tensor<?x3xf32, {{.*}}, %{{.*}}: tensor<3x2xf32>, %{{.*}}: tensor<3x2xf32>):
// CHECK-DAG:  %[[W:.*]] = "ingot.weight"() {name = "w"} : () -> tensor<2x3xf32>
// CHECK-DAG:  %[[WT:.*]] = "ingot.transpose"(%[[W]])
// CHECK-DAG:  %[[N:.*]] = "ingot.weight"() {name = "v#1"} : () -> tensor<3x2xf32>
// CHECK:      "ingot.matmul"(%[[X]], %[[WT]])
// CHECK-NEXT: ^bb0
// CHECK:      "ingot.load_at"(%[[N]]
// CHECK:      "ingot.result"
// CHECK:      "ingot.weight"() {name = "v#1"} : () -> tensor<3x2xf32>
// CHECK:      "ingot.result"
// CHECK:      sym_name = "weights"
#in = array<i32: 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#out = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<?x3xf32, #ingot.dims<["N"]>>, %c: tensor<i1>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<3x2xf32>
  %wt = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %n = "ingot.pointwise"() ({
    %e = "ingot.load"(%v) : (tensor<3x2xf32>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<3x2xf32>
  %r = "ingot.if"(%c, %x, %wt, %n) ({
  ^bb0(%a: tensor<?x3xf32, #ingot.dims<["N"]>>, %b: tensor<3x2xf32>, %d: tensor<3x2xf32>):
    %y = "ingot.matmul"(%a, %b) ({
    ^bb0(%p: f32):
      %i = "ingot.const"() {value = 0 : i64} : () -> i64
      %l = "ingot.load_at"(%d, %i, %i) : (tensor<3x2xf32>, i64, i64) -> f32
      %s = "ingot.addf"(%p, %l) : (f32, f32) -> f32
      "ingot.yield"(%s) : (f32) -> ()
    }) {acc = "f32"} : (tensor<?x3xf32, #ingot.dims<["N"]>>, tensor<3x2xf32>) -> tensor<?x2xf32, #ingot.dims<["N"]>>
    "ingot.result"(%y) : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.return"() : () -> ()
  }, {
  ^bb0(%a: tensor<?x3xf32, #ingot.dims<["N"]>>, %b: tensor<3x2xf32>, %d: tensor<3x2xf32>):
    %y = "ingot.matmul"(%a, %d) ({
    ^bb0(%p: f32):
      "ingot.yield"(%p) : (f32) -> ()
    }) {acc = "f32"} : (tensor<?x3xf32, #ingot.dims<["N"]>>, tensor<3x2xf32>) -> tensor<?x2xf32, #ingot.dims<["N"]>>
    "ingot.result"(%y) : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.return"() : () -> ()
  }) {operandSegmentSizes = #in, resultSegmentSizes = #out}
    : (tensor<i1>, tensor<?x3xf32, #ingot.dims<["N"]>>, tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<?x2xf32, #ingot.dims<["N"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c"], input_types = ["float", "bool"]} : () -> ()
