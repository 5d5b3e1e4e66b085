// Every construct of the ingot dialect round-trips through text and bytecode.
// RUN: ingot-opt %s | filecheck %s
// RUN: ingot-opt %s --emit-bytecode | ingot-opt | filecheck %s

// CHECK:      "ingot.func"() ({
// CHECK-NEXT: ^bb0(%[[X:.*]]: tensor<?x8x8x4xf32, #ingot.dims<["N"]>>, %[[I:.*]]: tensor<?xi64, #ingot.dims<["N"]>>):
"ingot.func"() ({
^bb0(%x: tensor<?x8x8x4xf32, #ingot.dims<["N"]>>, %i: tensor<?xi64, #ingot.dims<["N"]>>):
  // CHECK-NEXT: "ingot.guard"() {left = "N", message = "batch", relation = "le", right = "64"} : () -> ()
  "ingot.guard"() {left = "N", right = "64", relation = "le", message = "batch"} : () -> ()
  // CHECK-NEXT: "ingot.weight"() {name = "w"} : () -> tensor<6x3x3x4xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<6x3x3x4xf32>
  // CHECK-NEXT: "ingot.weight"() {name = "t"} : () -> tensor<4x2x2x6xbf16>
  %t = "ingot.weight"() {name = "t"} : () -> tensor<4x2x2x6xbf16>
  // CHECK-NEXT: %[[C:.*]]:2 = "ingot.conv"(%[[X]], %{{.*}}) ({
  // CHECK-NEXT: ^bb0(%[[A:.*]]: f32):
  // CHECK:        "ingot.yield"(%[[A]], %{{.*}}) : (f32, f32) -> ()
  // CHECK-NEXT: }) {acc = "f32", dilations = array<i64: 1, 1>, groups = 1 : i64, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
  %c:2 = "ingot.conv"(%x, %w) ({
  ^bb0(%a: f32):
    %z = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %r = "ingot.maxf"(%a, %z) : (f32, f32) -> f32
    "ingot.yield"(%a, %r) : (f32, f32) -> ()
  }) {acc = "f32", strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, groups = 1}
    : (tensor<?x8x8x4xf32, #ingot.dims<["N"]>>, tensor<6x3x3x4xf32>)
    -> (tensor<?x4x4x6xf32, #ingot.dims<["N"]>>, tensor<?x4x4x6xf32, #ingot.dims<["N"]>>)
  // CHECK:      "ingot.conv"
  // CHECK:      output_padding = array<i64: 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 2, 2>, transposed
  %up = "ingot.conv"(%x, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1, transposed,
      output_padding = array<i64: 0, 0>}
    : (tensor<?x8x8x4xf32, #ingot.dims<["N"]>>, tensor<4x2x2x6xbf16>) -> tensor<?x16x16x6xf32, #ingot.dims<["N"]>>
  // CHECK:      "ingot.pool"
  // CHECK:      count_include_pad
  %p = "ingot.pool"(%c#0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {kind = "average", kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>,
      pads = array<i64: 0, 0, 0, 0>, count_include_pad}
    : (tensor<?x4x4x6xf32, #ingot.dims<["N"]>>) -> tensor<?x2x2x6xf32, #ingot.dims<["N"]>>
  // CHECK:      "ingot.reshape"(%{{.*}}) : (tensor<?x2x2x6xf32, #ingot.dims<["N"]>>) -> tensor<?x6xf32, #ingot.dims<["4*N"]>>
  %rows = "ingot.reshape"(%p) : (tensor<?x2x2x6xf32, #ingot.dims<["N"]>>) -> tensor<?x6xf32, #ingot.dims<["4*N"]>>
  // CHECK-NEXT: "ingot.transpose"(%{{.*}}) {perm = array<i64: 1, 0>}
  %cols = "ingot.transpose"(%rows) {perm = array<i64: 1, 0>} : (tensor<?x6xf32, #ingot.dims<["4*N"]>>) -> tensor<6x?xf32, #ingot.dims<["4*N"]>>
  // CHECK-NEXT: "ingot.slice"(%{{.*}}) {starts = ["5", "3*N"], steps = array<i64: -2, 1>}
  %s = "ingot.slice"(%cols) {starts = ["5", "3*N"], steps = array<i64: -2, 1>} : (tensor<6x?xf32, #ingot.dims<["4*N"]>>) -> tensor<3x?xf32, #ingot.dims<["N"]>>
  // CHECK-NEXT: "ingot.expand"
  %e = "ingot.expand"(%s) : (tensor<3x?xf32, #ingot.dims<["N"]>>) -> tensor<2x3x?xf32, #ingot.dims<["N"]>>
  // CHECK:      "ingot.matmul"
  // CHECK:      ^bb0(%{{.*}}: f32):
  // CHECK-NEXT:   "ingot.truncf"
  %m = "ingot.matmul"(%cols, %rows) ({
  ^bb0(%a: f32):
    %h = "ingot.truncf"(%a) : (f32) -> f16
    "ingot.yield"(%h) : (f16) -> ()
  }) {acc = "f32"} : (tensor<6x?xf32, #ingot.dims<["4*N"]>>, tensor<?x6xf32, #ingot.dims<["4*N"]>>) -> tensor<6x6xf16>
  // CHECK:      "ingot.reduce"
  // CHECK:      axes = array<i64: 0, 2>, kind = "max"
  %r = "ingot.reduce"(%e) ({
  ^bb0(%a: f32):
    %b = "ingot.absf"(%a) : (f32) -> f32
    "ingot.yield"(%b) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 0, 2>, kind = "max"} : (tensor<2x3x?xf32, #ingot.dims<["N"]>>) -> tensor<1x3x1xf32>
  // CHECK:      "ingot.normalize"
  // CHECK:      ^bb0(%{{.*}}: f16):
  // CHECK:      ^bb0(%{{.*}}: f32):
  // CHECK:      kind = "softmax"
  %n = "ingot.normalize"(%m) ({
  ^bb0(%a: f16):
    %f = "ingot.extf"(%a) : (f16) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "softmax", epsilon = 0.0} : (tensor<6x6xf16>) -> tensor<6x6xf32>
  // CHECK:      "ingot.normalize"
  // CHECK:      ^bb0(%{{.*}}: f32, %{{.*}}: f32, %{{.*}}: f32):
  // CHECK:      kind = "layer"
  %ln = "ingot.normalize"(%m) ({
  ^bb0(%a: f16):
    %f = "ingot.extf"(%a) : (f16) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }, {
  ^bb0(%a: f32, %mean: f32, %scale: f32):
    %ms = "ingot.mulf"(%mean, %scale) : (f32, f32) -> f32
    %md = "ingot.addf"(%a, %ms) : (f32, f32) -> f32
    "ingot.yield"(%md) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "layer", epsilon = 0.0} : (tensor<6x6xf16>) -> tensor<6x6xf32>
  // CHECK:      "ingot.pointwise"() ({
  // CHECK-NEXT:   "ingot.index"() {axis = 0 : i64} : () -> i64
  // CHECK-NEXT:   "ingot.dim"() {dim = "4*N"} : () -> i64
  // CHECK:        "ingot.load_at"(%[[I]], %{{.*}}) : (tensor<?xi64, #ingot.dims<["N"]>>, i64) -> i64
  // CHECK:        "ingot.load"
  %g = "ingot.pointwise"() ({
    %k = "ingot.index"() {axis = 0 : i64} : () -> i64
    %d = "ingot.dim"() {dim = "4*N"} : () -> i64
    %four = "ingot.const"() {value = 4 : i64} : () -> i64
    %q = "ingot.floordivsi"(%k, %four) : (i64, i64) -> i64
    %v = "ingot.load_at"(%i, %q) : (tensor<?xi64, #ingot.dims<["N"]>>, i64) -> i64
    %in = "ingot.cmpi_slt"(%v, %d) : (i64, i64) -> i1
    %f = "ingot.load"(%rows) : (tensor<?x6xf32, #ingot.dims<["4*N"]>>) -> f32
    %z = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %sel = "ingot.select"(%in, %f, %z) : (i1, f32, f32) -> f32
    "ingot.yield"(%sel) : (f32) -> ()
  }) : () -> tensor<?x6xf32, #ingot.dims<["4*N"]>>
  // CHECK:      "ingot.empty"() : () -> tensor<7x6xf32>
  %b = "ingot.empty"() : () -> tensor<7x6xf32>
  // CHECK-NEXT: "ingot.move"(%{{.*}}, %{{.*}}) ({
  // CHECK:      offsets = ["1", "0"]
  %b0 = "ingot.move"(%n, %b) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["1", "0"]} : (tensor<6x6xf32>, tensor<7x6xf32>) -> tensor<7x6xf32>
  // CHECK:      "ingot.move"(%{{.*}}) ({
  %f = "ingot.move"(%b0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) : (tensor<7x6xf32>) -> tensor<7x6xf32>
  // CHECK:      "ingot.attention"
  // CHECK:      causal, scale = 5.000000e-01 : f64
  %qkv = "ingot.reshape"(%up) : (tensor<?x16x16x6xf32, #ingot.dims<["N"]>>) -> tensor<?x2x128x6xf32, #ingot.dims<["N"]>>
  %att = "ingot.attention"(%qkv, %qkv, %qkv) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 0.5, causal} : (tensor<?x2x128x6xf32, #ingot.dims<["N"]>>, tensor<?x2x128x6xf32, #ingot.dims<["N"]>>, tensor<?x2x128x6xf32, #ingot.dims<["N"]>>)
    -> tensor<?x2x128x6xf32, #ingot.dims<["N"]>>
  // CHECK:      "ingot.output"(%{{.*}}) {name = "y", type = "float"}
  "ingot.output"(%f) {name = "y", type = "float"} : (tensor<7x6xf32>) -> ()
  "ingot.output"(%att) {name = "a", type = "float"} : (tensor<?x2x128x6xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r) {name = "r", type = "float"} : (tensor<1x3x1xf32>) -> ()
  "ingot.output"(%g) {name = "g", type = "float"} : (tensor<?x6xf32, #ingot.dims<["4*N"]>>) -> ()
  "ingot.output"(%c#1) {name = "c", type = "float"} : (tensor<?x4x4x6xf32, #ingot.dims<["N"]>>) -> ()
  // CHECK:      "ingot.return"() : () -> ()
  "ingot.return"() : () -> ()
  // CHECK-NEXT: }) {input_types = ["float", "uint64"], inputs = ["x", "i"], sym_name = "main"} : () -> ()
}) {sym_name = "main", inputs = ["x", "i"], input_types = ["float", "uint64"]} : () -> ()
// CHECK-NEXT: "ingot.func"() ({
"ingot.func"() ({
  %v = "ingot.weight"() {name = "v"} : () -> tensor<2xi4>
  "ingot.output"(%v) {name = "v#1", type = "uint4"} : (tensor<2xi4>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "weights", inputs = [], input_types = []} : () -> ()
