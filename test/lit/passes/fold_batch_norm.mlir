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

// Fires: the columns of a product's weight and of a transposed convolution's are scaled, and nothing is added. Must not fire: of
// a transposed convolution in groups, of weights alone.
// CHECK:      ^bb0(%[[X:.*]]: tensor<?x4x2xf32
// CHECK-DAG:  %[[V:.*]] = "ingot.weight"() {name = "v#1"} : () -> tensor<2x2xf32>
// CHECK-DAG:  %[[W:.*]] = "ingot.weight"() {name = "w#1"} : () -> tensor<2x3x2xf32>
// CHECK-DAG:  %[[U:.*]] = "ingot.weight"() {name = "u"} : () -> tensor<2x3x1xf32>
// CHECK-DAG:  %[[M:.*]] = "ingot.matmul"(%[[X]], %[[V]])
// CHECK-DAG:  %[[C:.*]] = "ingot.conv"(%[[X]], %[[W]])
// CHECK-DAG:  %[[D:.*]] = "ingot.conv"(%[[X]], %[[U]])
// CHECK-NOT:    "ingot.addf"
// CHECK:      "ingot.output"(%[[M]])
// CHECK-NEXT: "ingot.output"(%[[C]])
// CHECK-NEXT: "ingot.output"(%[[D]])
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x4x2xf32, #ingot.dims<["N"]>>):
  %v = "ingot.weight"() {name = "v"} : () -> tensor<2x2xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3x2xf32>
  %u = "ingot.weight"() {name = "u"} : () -> tensor<2x3x1xf32>
  %scale = "ingot.weight"() {name = "scale"} : () -> tensor<2xf32>
  %m = "ingot.matmul"(%x, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x2xf32, #ingot.dims<["N"]>>, tensor<2x2xf32>) -> tensor<?x4x2xf32, #ingot.dims<["N"]>>
  %ms = "ingot.pointwise"() ({
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %e = "ingot.load"(%m) : (tensor<?x4x2xf32, #ingot.dims<["N"]>>) -> f32
    %g = "ingot.mulf"(%f, %e) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x4x2xf32, #ingot.dims<["N"]>>
  %c = "ingot.conv"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 1, transposed,
      output_padding = array<i64: 0>}
    : (tensor<?x4x2xf32, #ingot.dims<["N"]>>, tensor<2x3x2xf32>) -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
  %cs = "ingot.pointwise"() ({
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %e = "ingot.load"(%c) : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> f32
    %g = "ingot.mulf"(%f, %e) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
  %d = "ingot.conv"(%x, %u) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 2, transposed,
      output_padding = array<i64: 0>}
    : (tensor<?x4x2xf32, #ingot.dims<["N"]>>, tensor<2x3x1xf32>) -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
  %ds = "ingot.pointwise"() ({
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %e = "ingot.load"(%d) : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> f32
    %g = "ingot.mulf"(%f, %e) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x6x2xf32, #ingot.dims<["N"]>>
  %sum = "ingot.pointwise"() ({
    %e = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %f = "ingot.addf"(%e, %e) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<2xf32>
  "ingot.output"(%ms) {name = "ms", type = "float"} : (tensor<?x4x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%cs) {name = "cs", type = "float"} : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%ds) {name = "ds", type = "float"} : (tensor<?x6x2xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%sum) {name = "sum", type = "float"} : (tensor<2xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: the product's element enters twice; the scale is an input; there is one of each row, as many as columns, or of
// each element; it follows a maximum; one row of products serves all rows; the weight's elements are integers; the weight is shared.
// CHECK-DAG:  "ingot.weight"() {name = "w0"}
// CHECK-DAG:  %[[W1:.*]] = "ingot.weight"() {name = "w1"}
// CHECK-DAG:  "ingot.weight"() {name = "w2"}
// CHECK-DAG:  "ingot.weight"() {name = "w3"}
// CHECK-DAG:  "ingot.weight"() {name = "w4"}
// CHECK-DAG:  "ingot.weight"() {name = "w5"}
// CHECK-DAG:  "ingot.weight"() {name = "w6"}
// CHECK-DAG:  "ingot.weight"() {name = "z"}
// CHECK-DAG:  "ingot.matmul"(%{{.*}}, %[[W1]])
// CHECK:      sym_name = "main"
// CHECK-NOT:  sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<2x3xf32>, %row: tensor<1x3xf32>, %t: tensor<2xf32>):
  %w0 = "ingot.weight"() {name = "w0"} : () -> tensor<3x2xf32>
  %w1 = "ingot.weight"() {name = "w1"} : () -> tensor<3x2xf32>
  %w2 = "ingot.weight"() {name = "w2"} : () -> tensor<3x2xf32>
  %w3 = "ingot.weight"() {name = "w3"} : () -> tensor<3x2xf32>
  %w4 = "ingot.weight"() {name = "w4"} : () -> tensor<3x2xf32>
  %w5 = "ingot.weight"() {name = "w5"} : () -> tensor<3x2xf32>
  %w6 = "ingot.weight"() {name = "w6"} : () -> tensor<3x2xi8>
  %all = "ingot.weight"() {name = "all"} : () -> tensor<2x2xf32>
  %z = "ingot.weight"() {name = "z"} : () -> tensor<3x2xf32>
  %scale = "ingot.weight"() {name = "scale"} : () -> tensor<2xf32>
  %rows = "ingot.weight"() {name = "rows"} : () -> tensor<2x1xf32>
  %p0 = "ingot.matmul"(%x, %w0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  %q0 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p0) : (tensor<2x2xf32>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    %h = "ingot.mulf"(%g, %e) : (f32, f32) -> f32
    "ingot.yield"(%h) : (f32) -> ()
  }) : () -> tensor<2x2xf32>
  %p1 = "ingot.matmul"(%x, %w1) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  %q1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p1) : (tensor<2x2xf32>) -> f32
    %f = "ingot.load"(%t) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x2xf32>
  %p2 = "ingot.matmul"(%x, %w2) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  %q2 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p2) : (tensor<2x2xf32>) -> f32
    %f = "ingot.load"(%rows) : (tensor<2x1xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x2xf32>
  %p3 = "ingot.matmul"(%x, %w3) ({
  ^bb0(%a: f32):
    %zero = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %m = "ingot.maxf"(%a, %zero) : (f32, f32) -> f32
    "ingot.yield"(%m) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  %q3 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p3) : (tensor<2x2xf32>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x2xf32>
  %p4 = "ingot.matmul"(%row, %w4) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<1x3xf32>, tensor<3x2xf32>) -> tensor<1x2xf32>
  %q4 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p4) : (tensor<1x2xf32>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x2xf32>
  %p5 = "ingot.matmul"(%x, %w5) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  %q5 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p5) : (tensor<2x2xf32>) -> f32
    %f = "ingot.load"(%all) : (tensor<2x2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x2xf32>
  %p6 = "ingot.matmul"(%x, %w6) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x3xf32>, tensor<3x2xi8>) -> tensor<2x2xf32>
  %q6 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p6) : (tensor<2x2xf32>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x2xf32>
  %z0 = "ingot.matmul"(%x, %z) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  %z1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%z0) : (tensor<2x2xf32>) -> f32
    %f = "ingot.load"(%scale) : (tensor<2xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x2xf32>
  %z2 = "ingot.matmul"(%x, %z) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  "ingot.output"(%q0) {name = "q0", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.output"(%q1) {name = "q1", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.output"(%q2) {name = "q2", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.output"(%q3) {name = "q3", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.output"(%q4) {name = "q4", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.output"(%q5) {name = "q5", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.output"(%q6) {name = "q6", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.output"(%z1) {name = "z1", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.output"(%z2) {name = "z2", type = "float"} : (tensor<2x2xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "row", "t"], input_types = ["float", "float", "float"]} : () -> ()

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
