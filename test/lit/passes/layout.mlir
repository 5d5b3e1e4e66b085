// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-layout,ingot-canonicalize)' --split-input-file | filecheck %s

// Fires: between two convolutions no transpose is left, neither around the sum with a bias, nor the concatenation, nor the
// group normalization, whose axes are renamed.
// CHECK:      %[[C:.*]] = "ingot.conv"
// CHECK-NOT:  "ingot.transpose"
// CHECK:      "ingot.load"(%[[C]]) : (tensor<1x6x4xf32>) -> f32
// CHECK:      "ingot.move"(%{{.*}}, %{{.*}})
// CHECK:      offsets = ["0", "0", "4"]
// CHECK:      "ingot.reshape"(%{{.*}}) : (tensor<1x6x8xf32>) -> tensor<1x6x2x4xf32>
// CHECK:      "ingot.normalize"
// CHECK:      axes = array<i64: 1, 3>
// CHECK-NOT:  "ingot.transpose"
// CHECK:      "ingot.conv"
// CHECK:      %[[T:.*]] = "ingot.transpose"{{.*}} {perm = array<i64: 0, 2, 1>}
// CHECK-NEXT: "ingot.output"(%[[T]])
"ingot.func"() ({
^bb0(%x: tensor<1x8x4xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4x3x4xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<4x3x8xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<4x1xf32>
  %c = "ingot.conv"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 1} : (tensor<1x8x4xf32>, tensor<4x3x4xf32>) -> tensor<1x6x4xf32>
  %t = "ingot.transpose"(%c) {perm = array<i64: 0, 2, 1>} : (tensor<1x6x4xf32>) -> tensor<1x4x6xf32>
  %s = "ingot.pointwise"() ({
    %e = "ingot.load"(%t) : (tensor<1x4x6xf32>) -> f32
    %f = "ingot.load"(%b) : (tensor<4x1xf32>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<1x4x6xf32>
  %e = "ingot.empty"() : () -> tensor<1x8x6xf32>
  %e0 = "ingot.move"(%t, %e) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "0", "0"]} : (tensor<1x4x6xf32>, tensor<1x8x6xf32>) -> tensor<1x8x6xf32>
  %e1 = "ingot.move"(%s, %e0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "4", "0"]} : (tensor<1x4x6xf32>, tensor<1x8x6xf32>) -> tensor<1x8x6xf32>
  %g = "ingot.reshape"(%e1) : (tensor<1x8x6xf32>) -> tensor<1x2x4x6xf32>
  %n = "ingot.normalize"(%g) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 2, 3>, kind = "layer", epsilon = 1.0e-5} : (tensor<1x2x4x6xf32>) -> tensor<1x2x4x6xf32>
  %m = "ingot.reshape"(%n) : (tensor<1x2x4x6xf32>) -> tensor<1x8x6xf32>
  %back = "ingot.transpose"(%m) {perm = array<i64: 0, 2, 1>} : (tensor<1x8x6xf32>) -> tensor<1x6x8xf32>
  %d = "ingot.conv"(%back, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 1} : (tensor<1x6x8xf32>, tensor<4x3x8xf32>) -> tensor<1x4x4xf32>
  %y = "ingot.transpose"(%d) {perm = array<i64: 0, 2, 1>} : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<1x4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: as many operands are in the other layout, and no convolution asks for this one; a concatenation of parts in
// two layouts.
// CHECK:      "ingot.transpose"(%arg0)
// CHECK-NEXT: "ingot.pointwise"
// CHECK:      "ingot.move"(%arg1
// CHECK-NOT:  "ingot.transpose"
"ingot.func"() ({
^bb0(%x: tensor<4x8xf32>, %y: tensor<8x4xf32>):
  %t = "ingot.transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<4x8xf32>) -> tensor<8x4xf32>
  %s = "ingot.pointwise"() ({
    %e = "ingot.load"(%t) : (tensor<8x4xf32>) -> f32
    %f = "ingot.load"(%y) : (tensor<8x4xf32>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<8x4xf32>
  %e = "ingot.empty"() : () -> tensor<16x4xf32>
  %e0 = "ingot.move"(%y, %e) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "0"]} : (tensor<8x4xf32>, tensor<16x4xf32>) -> tensor<16x4xf32>
  %e1 = "ingot.move"(%t, %e0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["8", "0"]} : (tensor<8x4xf32>, tensor<16x4xf32>) -> tensor<16x4xf32>
  "ingot.output"(%s) {name = "s", type = "float"} : (tensor<8x4xf32>) -> ()
  "ingot.output"(%e1) {name = "c", type = "float"} : (tensor<16x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y"], input_types = ["float", "float"]} : () -> ()

// -----

// Dynamic shapes: a slice and a sum sink below the transpose; reducing renames its axes.
// CHECK:      %[[S:.*]] = "ingot.slice"(%arg0) {starts = ["0", "1", "0"]
// CHECK:      "ingot.reduce"(%[[S]])
// CHECK:      axes = array<i64: 1>
// CHECK-SAME: -> tensor<?x1x4xf32, #ingot.dims<["N"]>>
// CHECK-NEXT: "ingot.reshape"
// CHECK-NOT:  "ingot.transpose"
"ingot.func"() ({
^bb0(%x: tensor<?x?x4xf32, #ingot.dims<["N", "H"]>>):
  %t = "ingot.transpose"(%x) {perm = array<i64: 0, 2, 1>} : (tensor<?x?x4xf32, #ingot.dims<["N", "H"]>>) -> tensor<?x4x?xf32, #ingot.dims<["N", "H"]>>
  %s = "ingot.slice"(%t) {starts = ["0", "0", "1"], steps = array<i64: 1, 1, 1>} : (tensor<?x4x?xf32, #ingot.dims<["N", "H"]>>) -> tensor<?x4x?xf32, #ingot.dims<["N", "H - 1"]>>
  %r = "ingot.reduce"(%s) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 2>, kind = "max"} : (tensor<?x4x?xf32, #ingot.dims<["N", "H - 1"]>>) -> tensor<?x4x1xf32, #ingot.dims<["N"]>>
  %f = "ingot.reshape"(%r) : (tensor<?x4x1xf32, #ingot.dims<["N"]>>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  "ingot.output"(%f) {name = "y", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires in the body of a loop: between its convolutions no transpose is left, and what it carries is transposed at both ends.
// CHECK:      "ingot.loop"
// CHECK-NEXT: ^bb0(%[[X:.*]]: tensor<?x4x6xf32
// CHECK:      %[[T:.*]] = "ingot.transpose"(%[[X]]) {perm = array<i64: 0, 2, 1>}
// CHECK:      %[[C:.*]] = "ingot.conv"(%[[T]]
// CHECK-NOT:  "ingot.transpose"
// CHECK:      "ingot.load"(%[[C]]) : (tensor<?x6x4xf32
// CHECK-NOT:  "ingot.transpose"
// CHECK:      "ingot.conv"
// CHECK:      %[[R:.*]] = "ingot.transpose"{{.*}} {perm = array<i64: 0, 2, 1>}
// CHECK-NEXT: "ingot.result"(%[[R]])
#carried = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<?x4x6xf32, #ingot.dims<["N"]>>):
  %r = "ingot.loop"(%x) ({
  ^bb0(%a: tensor<?x4x6xf32, #ingot.dims<["N"]>>):
    %w = "ingot.weight"() {name = "w"} : () -> tensor<4x3x4xf32>
    %b = "ingot.weight"() {name = "b"} : () -> tensor<4x1xf32>
    %at = "ingot.transpose"(%a) {perm = array<i64: 0, 2, 1>} : (tensor<?x4x6xf32, #ingot.dims<["N"]>>) -> tensor<?x6x4xf32, #ingot.dims<["N"]>>
    %c = "ingot.conv"(%at, %w) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 1, 1>, groups = 1}
      : (tensor<?x6x4xf32, #ingot.dims<["N"]>>, tensor<4x3x4xf32>) -> tensor<?x6x4xf32, #ingot.dims<["N"]>>
    %ct = "ingot.transpose"(%c) {perm = array<i64: 0, 2, 1>} : (tensor<?x6x4xf32, #ingot.dims<["N"]>>) -> tensor<?x4x6xf32, #ingot.dims<["N"]>>
    %s = "ingot.pointwise"() ({
      %e = "ingot.load"(%ct) : (tensor<?x4x6xf32, #ingot.dims<["N"]>>) -> f32
      %f = "ingot.load"(%b) : (tensor<4x1xf32>) -> f32
      %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<?x4x6xf32, #ingot.dims<["N"]>>
    %st = "ingot.transpose"(%s) {perm = array<i64: 0, 2, 1>} : (tensor<?x4x6xf32, #ingot.dims<["N"]>>) -> tensor<?x6x4xf32, #ingot.dims<["N"]>>
    %d = "ingot.conv"(%st, %w) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 1, 1>, groups = 1}
      : (tensor<?x6x4xf32, #ingot.dims<["N"]>>, tensor<4x3x4xf32>) -> tensor<?x6x4xf32, #ingot.dims<["N"]>>
    %dt = "ingot.transpose"(%d) {perm = array<i64: 0, 2, 1>} : (tensor<?x6x4xf32, #ingot.dims<["N"]>>) -> tensor<?x4x6xf32, #ingot.dims<["N"]>>
    "ingot.result"(%dt) : (tensor<?x4x6xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 1, operandSegmentSizes = #carried, resultSegmentSizes = #carried} : (tensor<?x4x6xf32, #ingot.dims<["N"]>>) -> tensor<?x4x6xf32, #ingot.dims<["N"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?x4x6xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()
