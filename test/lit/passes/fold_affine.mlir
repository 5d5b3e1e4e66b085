// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-fold-affine)' --split-input-file | filecheck %s

// Fires, with dynamic shapes: a scale and a shift of each group, then of each channel. What follows stays.
// CHECK:      %[[S:.*]] = "ingot.pointwise"
// CHECK-NEXT:   "ingot.load"
// CHECK-NEXT:   "ingot.load"
// CHECK-NEXT:   "ingot.mulf"
// CHECK-NEXT:   "ingot.yield"
// CHECK-NEXT: }) : () -> tensor<1x4x2xf32>
// CHECK-NEXT: %[[B:.*]] = "ingot.pointwise"
// CHECK-NEXT:   "ingot.load"
// CHECK-NEXT:   "ingot.load"
// CHECK-NEXT:   "ingot.mulf"
// CHECK-NEXT:   "ingot.load"
// CHECK-NEXT:   "ingot.addf"
// CHECK-NEXT:   "ingot.yield"
// CHECK-NEXT: }) : () -> tensor<1x4x2xf32>
// CHECK-NEXT: "ingot.normalize"
// CHECK-NEXT: ^bb0
// CHECK-NEXT:   "ingot.yield"
// CHECK-NEXT: }, {
// CHECK-NEXT: ^bb0(%[[X:.*]]: f32):
// CHECK-NEXT:   %[[SE:.*]] = "ingot.load"(%[[S]])
// CHECK-NEXT:   %[[P:.*]] = "ingot.mulf"(%[[X]], %[[SE]])
// CHECK-NEXT:   %[[BE:.*]] = "ingot.load"(%[[B]])
// CHECK-NEXT:   %[[Y:.*]] = "ingot.addf"(%[[P]], %[[BE]])
// CHECK-NEXT:   %[[G:.*]] = "ingot.sigmoid"(%[[Y]])
// CHECK-NEXT:   %[[Z:.*]] = "ingot.mulf"(%[[Y]], %[[G]])
// CHECK-NEXT:   "ingot.yield"(%[[Z]])
"ingot.func"() ({
^bb0(%x: tensor<?x?x4x2xf32, #ingot.dims<["N", "H"]>>):
  %s1 = "ingot.weight"() {name = "s1"} : () -> tensor<4xf32>
  %s = "ingot.reshape"(%s1) : (tensor<4xf32>) -> tensor<4x1xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<4x1xf32>
  %t = "ingot.weight"() {name = "t"} : () -> tensor<1x4x2xf32>
  %c = "ingot.weight"() {name = "c"} : () -> tensor<1x4x2xf32>
  %y = "ingot.normalize"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    %l1 = "ingot.load"(%s) : (tensor<4x1xf32>) -> f32
    %v1 = "ingot.mulf"(%e, %l1) : (f32, f32) -> f32
    %l2 = "ingot.load"(%b) : (tensor<4x1xf32>) -> f32
    %v2 = "ingot.addf"(%v1, %l2) : (f32, f32) -> f32
    %l3 = "ingot.load"(%t) : (tensor<1x4x2xf32>) -> f32
    %v3 = "ingot.mulf"(%l3, %v2) : (f32, f32) -> f32
    %l4 = "ingot.load"(%c) : (tensor<1x4x2xf32>) -> f32
    %v4 = "ingot.addf"(%v3, %l4) : (f32, f32) -> f32
    %g = "ingot.sigmoid"(%v4) : (f32) -> f32
    %z = "ingot.mulf"(%v4, %g) : (f32, f32) -> f32
    "ingot.yield"(%z) : (f32) -> ()
  }) {axes = array<i64: 1, 3>, kind = "layer", epsilon = 1.0e-5} : (tensor<?x?x4x2xf32, #ingot.dims<["N", "H"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["N", "H"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x?x4x2xf32, #ingot.dims<["N", "H"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// A difference: the shift is the negated weight, times what multiplies the difference.
// CHECK:      "ingot.func"
// CHECK:      "ingot.pointwise"
// CHECK:      %[[B:.*]] = "ingot.pointwise"
// CHECK-NEXT:   %[[L:.*]] = "ingot.load"
// CHECK-NEXT:   %[[M:.*]] = "ingot.negf"(%[[L]])
// CHECK-NEXT:   %[[T:.*]] = "ingot.load"
// CHECK-NEXT:   %[[S:.*]] = "ingot.mulf"(%[[M]], %[[T]])
// CHECK-NEXT:   "ingot.yield"(%[[S]])
// CHECK:      "ingot.load"(%[[B]])
// CHECK-NEXT: "ingot.addf"
"ingot.func"() ({
^bb0(%x: tensor<3x4x2xf32>):
  %s = "ingot.weight"() {name = "s"} : () -> tensor<4x1xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<4x1xf32>
  %t = "ingot.weight"() {name = "t"} : () -> tensor<1x4x2xf32>
  %y = "ingot.normalize"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    %l1 = "ingot.load"(%s) : (tensor<4x1xf32>) -> f32
    %v1 = "ingot.mulf"(%e, %l1) : (f32, f32) -> f32
    %l2 = "ingot.load"(%b) : (tensor<4x1xf32>) -> f32
    %v2 = "ingot.subf"(%v1, %l2) : (f32, f32) -> f32
    %l3 = "ingot.load"(%t) : (tensor<1x4x2xf32>) -> f32
    %v3 = "ingot.mulf"(%v2, %l3) : (f32, f32) -> f32
    "ingot.yield"(%v3) : (f32) -> ()
  }) {axes = array<i64: 2>, kind = "layer", epsilon = 1.0e-5} : (tensor<3x4x2xf32>) -> tensor<3x4x2xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<3x4x2xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: one scale and one shift, which is all that a layer normalization has; and a scale that is no weight.
// CHECK-NOT: "ingot.pointwise"
"ingot.func"() ({
^bb0(%x: tensor<3x4xf32>, %a: tensor<3x1xf32>):
  %s = "ingot.weight"() {name = "s"} : () -> tensor<4xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<4xf32>
  %y = "ingot.normalize"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    %l1 = "ingot.load"(%s) : (tensor<4xf32>) -> f32
    %v1 = "ingot.mulf"(%e, %l1) : (f32, f32) -> f32
    %l2 = "ingot.load"(%b) : (tensor<4xf32>) -> f32
    %v2 = "ingot.addf"(%v1, %l2) : (f32, f32) -> f32
    %l3 = "ingot.load"(%a) : (tensor<3x1xf32>) -> f32
    %v3 = "ingot.mulf"(%v2, %l3) : (f32, f32) -> f32
    "ingot.yield"(%v3) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "layer", epsilon = 1.0e-5} : (tensor<3x4xf32>) -> tensor<3x4xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<3x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "a"], input_types = ["float", "float"]} : () -> ()
