// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-fold-batch-norm,ingot-fold-constants,ingot-fuse)' --split-input-file | filecheck %s

// Fires, with dynamic shapes: a bias and a batch normalization become one derived weight and one derived bias.
// CHECK:      ^bb0(%[[X:.*]]: tensor<?x8x4xf32
// CHECK-DAG:  %[[W:.*]] = "ingot.weight"() {name = "w#1"} : () -> tensor<2x3x4xf32>
// CHECK-DAG:  %[[B:.*]] = "ingot.weight"() {name = "{{.*}}#1"} : () -> tensor<2xf32>
// CHECK:      "ingot.conv"(%[[X]], %[[W]]) ({
// CHECK-NEXT: ^bb0(%[[A:.*]]: f32):
// CHECK-NEXT:   %[[L:.*]] = "ingot.load"(%[[B]])
// CHECK-NEXT:   %[[S:.*]] = "ingot.addf"(%[[A]], %[[L]])
// CHECK-NEXT:   "ingot.yield"(%[[S]])
// CHECK:      sym_name = "main"
// CHECK:      "ingot.sqrt"
// CHECK:      sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<?x8x4xf32, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3x4xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<2xf32>
  %scale = "ingot.weight"() {name = "scale"} : () -> tensor<2xf32>
  %bias = "ingot.weight"() {name = "bias"} : () -> tensor<2xf32>
  %mean = "ingot.weight"() {name = "mean"} : () -> tensor<2xf32>
  %var = "ingot.weight"() {name = "var"} : () -> tensor<2xf32>
  %c = "ingot.conv"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 1}
    : (tensor<?x8x4xf32, #ingot.dims<["N"]>>, tensor<2x3x4xf32>) -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
  %d = "ingot.pointwise"() ({
    %e = "ingot.load"(%c) : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.load"(%b) : (tensor<2xf32>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%d) : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> f32
    %m = "ingot.load"(%mean) : (tensor<2xf32>) -> f32
    %v = "ingot.load"(%var) : (tensor<2xf32>) -> f32
    %s = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %o = "ingot.load"(%bias) : (tensor<2xf32>) -> f32
    %eps = "ingot.const"() {value = 1.0e-5 : f32} : () -> f32
    %ve = "ingot.addf"(%v, %eps) : (f32, f32) -> f32
    %dev = "ingot.sqrt"(%ve) : (f32) -> f32
    %xm = "ingot.subf"(%e, %m) : (f32, f32) -> f32
    %n = "ingot.divf"(%xm, %dev) : (f32, f32) -> f32
    %ns = "ingot.mulf"(%n, %s) : (f32, f32) -> f32
    %r = "ingot.addf"(%ns, %o) : (f32, f32) -> f32
    "ingot.yield"(%r) : (f32) -> ()
  }) : () -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: the product is read by something else too; its element enters twice; the scale is an input;
// the weight is shared.
// CHECK:      "ingot.weight"() {name = "w"}
// CHECK-NOT:  sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<4x3xf32>, %t: tensor<2xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<3x2xf32>
  %scale = "ingot.weight"() {name = "scale"} : () -> tensor<2xf32>
  %c = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  %d = "ingot.pointwise"() ({
    %e = "ingot.load"(%c) : (tensor<4x2xf32>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x2xf32>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  %q = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<4x2xf32>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    %h = "ingot.mulf"(%g, %e) : (f32, f32) -> f32
    "ingot.yield"(%h) : (f32) -> ()
  }) : () -> tensor<4x2xf32>
  %u = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  %v = "ingot.pointwise"() ({
    %e = "ingot.load"(%u) : (tensor<4x2xf32>) -> f32
    %f = "ingot.load"(%t) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x2xf32>
  %z = "ingot.weight"() {name = "z"} : () -> tensor<3x2xf32>
  %z0 = "ingot.matmul"(%x, %z) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  %z1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%z0) : (tensor<4x2xf32>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x2xf32>
  %z2 = "ingot.matmul"(%x, %z) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  "ingot.output"(%z1) {name = "z1", type = "float"} : (tensor<4x2xf32>) -> ()
  "ingot.output"(%z2) {name = "z2", type = "float"} : (tensor<4x2xf32>) -> ()
  "ingot.output"(%c) {name = "c", type = "float"} : (tensor<4x2xf32>) -> ()
  "ingot.output"(%d) {name = "d", type = "float"} : (tensor<4x2xf32>) -> ()
  "ingot.output"(%q) {name = "q", type = "float"} : (tensor<4x2xf32>) -> ()
  "ingot.output"(%v) {name = "v", type = "float"} : (tensor<4x2xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "t"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire: the product, or what stands between it and the scale, is an output too.
// CHECK-DAG:  "ingot.weight"() {name = "v"}
// CHECK-DAG:  "ingot.weight"() {name = "w"}
// CHECK:      "ingot.matmul"
// CHECK:      "ingot.matmul"
// CHECK-NOT:  sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<?x3xf32, #ingot.dims<["N"]>>):
  %v = "ingot.weight"() {name = "v"} : () -> tensor<3x2xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<3x2xf32>
  %scale = "ingot.weight"() {name = "scale"} : () -> tensor<2xf32>
  %c = "ingot.matmul"(%x, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x3xf32, #ingot.dims<["N"]>>, tensor<3x2xf32>) -> tensor<?x2xf32, #ingot.dims<["N"]>>
  %d = "ingot.pointwise"() ({
    %e = "ingot.load"(%c) : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x2xf32, #ingot.dims<["N"]>>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x3xf32, #ingot.dims<["N"]>>, tensor<3x2xf32>) -> tensor<?x2xf32, #ingot.dims<["N"]>>
  %q = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x2xf32, #ingot.dims<["N"]>>
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x2xf32, #ingot.dims<["N"]>>
  "ingot.output"(%c) {name = "c", type = "float"} : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%d) {name = "d", type = "float"} : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q) {name = "q", type = "float"} : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r) {name = "r", type = "float"} : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: the sum of two products scales neither of them.
// CHECK:      %[[V:.*]] = "ingot.weight"() {name = "v"} : () -> tensor<4x4xf32>
// CHECK:      "ingot.matmul"(%{{.*}}, %[[V]])
// CHECK:      "ingot.addf"
// CHECK-NOT:  sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>):
  %v = "ingot.weight"() {name = "v"} : () -> tensor<4x4xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
  %a = "ingot.matmul"(%x, %v) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %b = "ingot.matmul"(%x, %w) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%a) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.load"(%b) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires in the body of a loop.
// CHECK:      "ingot.loop"
// CHECK-NEXT: ^bb0(%{{.*}}, %[[X:.*]]: tensor<?x8x4xf32
// CHECK-DAG:  %[[W:.*]] = "ingot.weight"() {name = "w#1"} : () -> tensor<2x3x4xf32>
// CHECK-DAG:  %[[B:.*]] = "ingot.weight"() {name = "{{.*}}#1"} : () -> tensor<2xf32>
// CHECK:      "ingot.conv"(%[[X]], %[[W]]) ({
// CHECK-NEXT: ^bb0(%[[A:.*]]: f32):
// CHECK-NEXT:   %[[L:.*]] = "ingot.load"(%[[B]])
// CHECK-NEXT:   %[[S:.*]] = "ingot.addf"(%[[A]], %[[L]])
// CHECK-NEXT:   "ingot.yield"(%[[S]])
// CHECK:      "ingot.result"
#in = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#out = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%m_z0: tensor<?x6x2xf32, #ingot.dims<["N"]>>, %m_x: tensor<?x8x4xf32, #ingot.dims<["N"]>>):
  %r = "ingot.loop"(%m_z0, %m_x) ({
  ^bb0(%z0: tensor<?x6x2xf32, #ingot.dims<["N"]>>, %x: tensor<?x8x4xf32, #ingot.dims<["N"]>>):
    %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3x4xf32>
    %b = "ingot.weight"() {name = "b"} : () -> tensor<2xf32>
    %scale = "ingot.weight"() {name = "scale"} : () -> tensor<2xf32>
    %bias = "ingot.weight"() {name = "bias"} : () -> tensor<2xf32>
    %mean = "ingot.weight"() {name = "mean"} : () -> tensor<2xf32>
    %var = "ingot.weight"() {name = "var"} : () -> tensor<2xf32>
    %c = "ingot.conv"(%x, %w) ({
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 1}
      : (tensor<?x8x4xf32, #ingot.dims<["N"]>>, tensor<2x3x4xf32>) -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
    %d = "ingot.pointwise"() ({
      %e = "ingot.load"(%c) : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> f32
      %f = "ingot.load"(%b) : (tensor<2xf32>) -> f32
      %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
    %y = "ingot.pointwise"() ({
      %e = "ingot.load"(%d) : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> f32
      %m = "ingot.load"(%mean) : (tensor<2xf32>) -> f32
      %v = "ingot.load"(%var) : (tensor<2xf32>) -> f32
      %s = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
      %o = "ingot.load"(%bias) : (tensor<2xf32>) -> f32
      %eps = "ingot.const"() {value = 1.0e-5 : f32} : () -> f32
      %ve = "ingot.addf"(%v, %eps) : (f32, f32) -> f32
      %dev = "ingot.sqrt"(%ve) : (f32) -> f32
      %xm = "ingot.subf"(%e, %m) : (f32, f32) -> f32
      %n = "ingot.divf"(%xm, %dev) : (f32, f32) -> f32
      %ns = "ingot.mulf"(%n, %s) : (f32, f32) -> f32
      %r = "ingot.addf"(%ns, %o) : (f32, f32) -> f32
      "ingot.yield"(%r) : (f32) -> ()
    }) : () -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
    "ingot.result"(%y) : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 1, operandSegmentSizes = #in, resultSegmentSizes = #out}
    : (tensor<?x6x2xf32, #ingot.dims<["N"]>>, tensor<?x8x4xf32, #ingot.dims<["N"]>>) -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["z0", "x"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire: the other branch reads the same weight, which would stay in memory beside the scaled one.
// CHECK:      "ingot.if"
// CHECK:      "ingot.weight"() {name = "w"}
// CHECK:      "ingot.matmul"
// CHECK:        "ingot.mulf"
// CHECK:      "ingot.weight"() {name = "w"}
// CHECK:      sym_name = "main"
#in = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#out = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<4x3xf32>, %c: tensor<i1>):
  %r = "ingot.if"(%c, %x) ({
  ^bb0(%a: tensor<4x3xf32>):
    %w = "ingot.weight"() {name = "w"} : () -> tensor<3x2xf32>
    %s = "ingot.weight"() {name = "s"} : () -> tensor<2xf32>
    %p = "ingot.matmul"(%a, %w) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
    %y = "ingot.pointwise"() ({
      %e = "ingot.load"(%p) : (tensor<4x2xf32>) -> f32
      %f = "ingot.load"(%s) : (tensor<2xf32>) -> f32
      %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<4x2xf32>
    "ingot.result"(%y) : (tensor<4x2xf32>) -> ()
    "ingot.return"() : () -> ()
  }, {
  ^bb0(%a: tensor<4x3xf32>):
    %w = "ingot.weight"() {name = "w"} : () -> tensor<3x2xf32>
    %p = "ingot.matmul"(%a, %w) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {acc = "f32"} : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
    "ingot.result"(%p) : (tensor<4x2xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {operandSegmentSizes = #in, resultSegmentSizes = #out} : (tensor<i1>, tensor<4x3xf32>) -> tensor<4x2xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x2xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c"], input_types = ["float", "bool"]} : () -> ()
