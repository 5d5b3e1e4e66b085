// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-merge-products{max-columns=32},ingot-fold-constants)' --split-input-file | filecheck %s

// Fires: three products of one tensor, whose biases are weights of their own; the last one's weight is defined after the first
// product. Weights and biases are concatenated by the weights program. Sizes are dynamic.
// CHECK:      "ingot.matmul"(%arg0, %[[W:[0-9]+]])
// CHECK:      "ingot.load"
// CHECK:      tensor<16x32xf32>) -> tensor<?x32xf32, #ingot.dims<["N"]>>
// CHECK-DAG:  "ingot.slice"{{.*}}starts = ["0", "0"]
// CHECK-DAG:  "ingot.slice"{{.*}}starts = ["0", "16"]
// CHECK-DAG:  "ingot.slice"{{.*}}starts = ["0", "24"]
// CHECK-NOT:  "ingot.matmul"
// CHECK:      sym_name = "main"
// CHECK-COUNT-6: "ingot.move"
// CHECK:      sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<?x16xf32, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<16x16xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<16xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<16x8xf32>
  %c = "ingot.weight"() {name = "c"} : () -> tensor<8xf32>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%b) : (tensor<16xf32>) -> f32
    %s = "ingot.addf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x16xf32, #ingot.dims<["N"]>>, tensor<16x16xf32>) -> tensor<?x16xf32, #ingot.dims<["N"]>>
  %q = "ingot.matmul"(%x, %v) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%c) : (tensor<8xf32>) -> f32
    %s = "ingot.addf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x16xf32, #ingot.dims<["N"]>>, tensor<16x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %u = "ingot.weight"() {name = "u"} : () -> tensor<16x8xf32>
  %d = "ingot.weight"() {name = "d"} : () -> tensor<1xf32>
  %r = "ingot.matmul"(%x, %u) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%d) : (tensor<1xf32>) -> f32
    %s = "ingot.addf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x16xf32, #ingot.dims<["N"]>>, tensor<16x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.load"(%r) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %s = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %z = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<?x16xf32, #ingot.dims<["N"]>>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?x16xf32, #ingot.dims<["N"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%z) {name = "z", type = "float"} : (tensor<?x16xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires for weights that lie transposed, as those of a Gemm do: they stay so.
// CHECK:      %[[W:.*]] = "ingot.weight"() {name = "{{[vw]}}#1"} : () -> tensor<32x16xf32>
// CHECK-NEXT: %[[T:.*]] = "ingot.transpose"(%[[W]]) {perm = array<i64: 1, 0>}
// CHECK-NEXT: "ingot.matmul"(%arg0, %[[T]])
"ingot.func"() ({
^bb0(%x: tensor<4x16xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<16x16xf32>
  %wt = "ingot.transpose"(%w) {perm = [1, 0]} : (tensor<16x16xf32>) -> tensor<16x16xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<16x16xf32>
  %vt = "ingot.transpose"(%v) {perm = [1, 0]} : (tensor<16x16xf32>) -> tensor<16x16xf32>
  %p = "ingot.matmul"(%x, %wt) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
  %q = "ingot.matmul"(%x, %vt) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<4x16xf32>) -> f32
    %f = "ingot.load"(%q) : (tensor<4x16xf32>) -> f32
    %s = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x16xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<4x16xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires for quantized weights: their scales stand beside each other too.
// CHECK:      %[[S:.*]] = "ingot.weight"() {name = "s#1"} : () -> tensor<2x24xf32>
// CHECK:      "ingot.matmul"(%arg0, %{{.*}}, %[[S]])
// CHECK:      {acc = "f32", b_block = 32 : i64
// CHECK-SAME: (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x24xi4>, tensor<2x24xf32>) -> tensor<?x24xf32
// CHECK-NOT:  "ingot.matmul"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x64xf16, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<16x64xi4>
  %wt = "ingot.transpose"(%w) {perm = [1, 0]} : (tensor<16x64xi4>) -> tensor<64x16xi4>
  %s = "ingot.weight"() {name = "s"} : () -> tensor<2x16xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<8x64xi4>
  %vt = "ingot.transpose"(%v) {perm = [1, 0]} : (tensor<8x64xi4>) -> tensor<64x8xi4>
  %t = "ingot.weight"() {name = "t"} : () -> tensor<2x8xf32>
  %p = "ingot.matmul"(%x, %wt, %s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x16xi4>, tensor<2x16xf32>) -> tensor<?x16xf32, #ingot.dims<["N"]>>
  %q = "ingot.matmul"(%x, %vt, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x8xi4>, tensor<2x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %py = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<?x16xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x16xf32, #ingot.dims<["N"]>>
  %qy = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  "ingot.output"(%py) {name = "p", type = "float"} : (tensor<?x16xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%qy) {name = "q", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float16"]} : () -> ()

// -----

// Fires for zero points, which lie as scales do.
// CHECK-DAG:  %[[S:.*]] = "ingot.weight"() {name = "s{{[23]}}#1"} : () -> tensor<2x16xf32>
// CHECK-DAG:  %[[Z:.*]] = "ingot.weight"() {name = "z{{[23]}}#1"} : () -> tensor<2x16xf32>
// CHECK:      "ingot.matmul"(%arg0, %{{.*}}, %[[S]], %[[Z]])
// CHECK-NOT:  "ingot.matmul"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x64xf16, #ingot.dims<["N"]>>):
  %w2 = "ingot.weight"() {name = "w2"} : () -> tensor<8x64xi4>
  %wt2 = "ingot.transpose"(%w2) {perm = [1, 0]} : (tensor<8x64xi4>) -> tensor<64x8xi4>
  %w3 = "ingot.weight"() {name = "w3"} : () -> tensor<8x64xi4>
  %wt3 = "ingot.transpose"(%w3) {perm = [1, 0]} : (tensor<8x64xi4>) -> tensor<64x8xi4>
  %s2 = "ingot.weight"() {name = "s2"} : () -> tensor<2x8xf32>
  %z2 = "ingot.weight"() {name = "z2"} : () -> tensor<2x8xf32>
  %s3 = "ingot.weight"() {name = "s3"} : () -> tensor<2x8xf32>
  %z3 = "ingot.weight"() {name = "z3"} : () -> tensor<2x8xf32>
  %r = "ingot.matmul"(%x, %wt2, %s2, %z2) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32, b_zero} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x8xi4>, tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %u = "ingot.matmul"(%x, %wt3, %s3, %z3) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32, b_zero} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x8xi4>, tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %ry = "ingot.pointwise"() ({
    %e = "ingot.load"(%r) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %uy = "ingot.pointwise"() ({
    %e = "ingot.load"(%u) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  "ingot.output"(%ry) {name = "r", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%uy) {name = "u", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float16"]} : () -> ()

// -----

// Must not fire: blocks of another size, zero points beside none, and scales that are an input's.
// CHECK-COUNT-4: "ingot.matmul"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x64xf16, #ingot.dims<["N"]>>, %i: tensor<2x8xf32>):
  %w0 = "ingot.weight"() {name = "w0"} : () -> tensor<8x64xi4>
  %wt0 = "ingot.transpose"(%w0) {perm = [1, 0]} : (tensor<8x64xi4>) -> tensor<64x8xi4>
  %w1 = "ingot.weight"() {name = "w1"} : () -> tensor<8x64xi4>
  %wt1 = "ingot.transpose"(%w1) {perm = [1, 0]} : (tensor<8x64xi4>) -> tensor<64x8xi4>
  %w4 = "ingot.weight"() {name = "w4"} : () -> tensor<8x64xi4>
  %wt4 = "ingot.transpose"(%w4) {perm = [1, 0]} : (tensor<8x64xi4>) -> tensor<64x8xi4>
  %s0 = "ingot.weight"() {name = "s0"} : () -> tensor<2x8xf32>
  %s1 = "ingot.weight"() {name = "s1"} : () -> tensor<4x8xf32>
  %w2 = "ingot.weight"() {name = "w2"} : () -> tensor<8x64xi4>
  %wt2 = "ingot.transpose"(%w2) {perm = [1, 0]} : (tensor<8x64xi4>) -> tensor<64x8xi4>
  %s2 = "ingot.weight"() {name = "s2"} : () -> tensor<2x8xf32>
  %z2 = "ingot.weight"() {name = "z2"} : () -> tensor<2x8xf32>
  %r = "ingot.matmul"(%x, %wt2, %s2, %z2) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32, b_zero} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x8xi4>, tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %p = "ingot.matmul"(%x, %wt0, %s0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x8xi4>, tensor<2x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %q = "ingot.matmul"(%x, %wt1, %s1) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 16} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x8xi4>, tensor<4x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %m = "ingot.matmul"(%x, %wt4, %i) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x8xi4>, tensor<2x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %py = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %qy = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %my = "ingot.pointwise"() ({
    %e = "ingot.load"(%m) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %ry = "ingot.pointwise"() ({
    %e = "ingot.load"(%r) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  "ingot.output"(%ry) {name = "r", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%py) {name = "p", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%qy) {name = "q", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%my) {name = "m", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "i"], input_types = ["float16", "float"]} : () -> ()

// -----

// Must not fire: weights of which one lies transposed.
// CHECK-COUNT-2: "ingot.matmul"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<4x64xf16>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<16x64xi8>
  %wt = "ingot.transpose"(%w) {perm = [1, 0]} : (tensor<16x64xi8>) -> tensor<64x16xi8>
  %s = "ingot.weight"() {name = "s"} : () -> tensor<2x16xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<64x16xi8>
  %t = "ingot.weight"() {name = "t"} : () -> tensor<2x16xf32>
  %p = "ingot.matmul"(%x, %wt, %s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32} : (tensor<4x64xf16>, tensor<64x16xi8>, tensor<2x16xf32>) -> tensor<4x16xf32>
  %py = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<4x16xf32>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<4x16xf32>
  "ingot.output"(%py) {name = "p", type = "float"} : (tensor<4x16xf32>) -> ()
  %q = "ingot.matmul"(%x, %v, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32} : (tensor<4x64xf16>, tensor<64x16xi8>, tensor<2x16xf32>) -> tensor<4x16xf32>
  %qy = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<4x16xf32>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<4x16xf32>
  "ingot.output"(%qy) {name = "q", type = "float"} : (tensor<4x16xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float16"]} : () -> ()

// -----

// Must not fire: columns of weights that are no whole vectors, although scales and results are.
// CHECK-COUNT-2: "ingot.matmul"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<4x48xf16>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<8x48xi4>
  %wt = "ingot.transpose"(%w) {perm = [1, 0]} : (tensor<8x48xi4>) -> tensor<48x8xi4>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<8x48xi4>
  %vt = "ingot.transpose"(%v) {perm = [1, 0]} : (tensor<8x48xi4>) -> tensor<48x8xi4>
  %s = "ingot.weight"() {name = "s"} : () -> tensor<3x8xf32>
  %t = "ingot.weight"() {name = "t"} : () -> tensor<3x8xf32>
  %p = "ingot.matmul"(%x, %wt, %s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 16} : (tensor<4x48xf16>, tensor<48x8xi4>, tensor<3x8xf32>) -> tensor<4x8xf32>
  %py = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<4x8xf32>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<4x8xf32>
  "ingot.output"(%py) {name = "p", type = "float"} : (tensor<4x8xf32>) -> ()
  %q = "ingot.matmul"(%x, %vt, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 16} : (tensor<4x48xf16>, tensor<48x8xi4>, tensor<3x8xf32>) -> tensor<4x8xf32>
  %qy = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<4x8xf32>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<4x8xf32>
  "ingot.output"(%qy) {name = "q", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float16"]} : () -> ()

// -----

// Must not fire: epilogues that differ, an epilogue that reads the other product, a weight that is an input, an output of the
// model, and more columns than wanted.
// CHECK-COUNT-6: "ingot.matmul"
// CHECK-NOT: "ingot.slice"
"ingot.func"() ({
^bb0(%x: tensor<4x16xf32>, %i: tensor<16x16xf32>, %t: tensor<4x16xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<16x16xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<16x16xf32>
  %l = "ingot.weight"() {name = "l"} : () -> tensor<16x64xf32>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    %s = "ingot.exp"(%a) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
  %q = "ingot.matmul"(%x, %v) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%p) : (tensor<4x16xf32>) -> f32
    %s = "ingot.mulf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
  %r = "ingot.matmul"(%x, %i) ({
  ^bb0(%a: f32):
    %s = "ingot.exp"(%a) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
  %o = "ingot.matmul"(%t, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
  %n = "ingot.matmul"(%t, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
  %m = "ingot.matmul"(%t, %l) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x16xf32>, tensor<16x64xf32>) -> tensor<4x64xf32>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<4x16xf32>) -> f32
    %f = "ingot.load"(%r) : (tensor<4x16xf32>) -> f32
    %g = "ingot.load"(%n) : (tensor<4x16xf32>) -> f32
    %s = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    %u = "ingot.addf"(%s, %g) : (f32, f32) -> f32
    "ingot.yield"(%u) : (f32) -> ()
  }) : () -> tensor<4x16xf32>
  %z = "ingot.pointwise"() ({
    %e = "ingot.load"(%m) : (tensor<4x64xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x64xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<4x16xf32>) -> ()
  "ingot.output"(%z) {name = "z", type = "float"} : (tensor<4x64xf32>) -> ()
  "ingot.output"(%o) {name = "o", type = "float"} : (tensor<4x16xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "i", "t"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: epilogues that read the position, an input, a weight of all elements or of each row; columns that are no whole
// vectors; weights in a batch; two results; products of weights alone.
// CHECK-NOT:  "ingot.slice"
// CHECK-COUNT-14: "ingot.matmul"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<4x8xf32>, %t: tensor<1x4x8xf32>, %r: tensor<4xf32>):
  %h = "ingot.weight"() {name = "h"} : () -> tensor<4x8xf32>
  %i0 = "ingot.weight"() {name = "i0"} : () -> tensor<8x4xf32>
  %r0 = "ingot.weight"() {name = "r0"} : () -> tensor<8x4xf32>
  %f0 = "ingot.weight"() {name = "f0"} : () -> tensor<8x4xf32>
  %full0 = "ingot.weight"() {name = "full0"} : () -> tensor<4x4xf32>
  %c0 = "ingot.weight"() {name = "c0"} : () -> tensor<8x4xf32>
  %col0 = "ingot.weight"() {name = "col0"} : () -> tensor<4x1xf32>
  %n0 = "ingot.weight"() {name = "n0"} : () -> tensor<8x3xf32>
  %b0 = "ingot.weight"() {name = "b0"} : () -> tensor<1x8x4xf32>
  %k0 = "ingot.weight"() {name = "k0"} : () -> tensor<8x4xf32>
  %i1 = "ingot.weight"() {name = "i1"} : () -> tensor<8x4xf32>
  %r1 = "ingot.weight"() {name = "r1"} : () -> tensor<8x4xf32>
  %f1 = "ingot.weight"() {name = "f1"} : () -> tensor<8x4xf32>
  %full1 = "ingot.weight"() {name = "full1"} : () -> tensor<4x4xf32>
  %c1 = "ingot.weight"() {name = "c1"} : () -> tensor<8x4xf32>
  %col1 = "ingot.weight"() {name = "col1"} : () -> tensor<4x1xf32>
  %n1 = "ingot.weight"() {name = "n1"} : () -> tensor<8x3xf32>
  %b1 = "ingot.weight"() {name = "b1"} : () -> tensor<1x8x4xf32>
  %k1 = "ingot.weight"() {name = "k1"} : () -> tensor<8x4xf32>
  %pi0 = "ingot.matmul"(%x, %i0) ({
  ^bb0(%a: f32):
    %i = "ingot.index"() {axis = 1} : () -> i64
    %e = "ingot.sitofp"(%i) : (i64) -> f32
    %s = "ingot.addf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pi0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pi0) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pr0 = "ingot.matmul"(%x, %r0) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%r) : (tensor<4xf32>) -> f32
    %s = "ingot.subf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pr0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pr0) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pf0 = "ingot.matmul"(%x, %f0) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%full0) : (tensor<4x4xf32>) -> f32
    %s = "ingot.mulf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pf0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pf0) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pc0 = "ingot.matmul"(%x, %c0) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%col0) : (tensor<4x1xf32>) -> f32
    %s = "ingot.maxf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pc0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pc0) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pn0 = "ingot.matmul"(%x, %n0) ({
  ^bb0(%a: f32):

    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x3xf32>) -> tensor<4x3xf32>
  %pn0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pn0) : (tensor<4x3xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x3xf32>
  %pb0 = "ingot.matmul"(%t, %b0) ({
  ^bb0(%a: f32):

    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<1x4x8xf32>, tensor<1x8x4xf32>) -> tensor<1x4x4xf32>
  %pb0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pb0) : (tensor<1x4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  %pk0 = "ingot.matmul"(%h, %k0) ({
  ^bb0(%a: f32):

    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pk0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pk0) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pi1 = "ingot.matmul"(%x, %i1) ({
  ^bb0(%a: f32):
    %i = "ingot.index"() {axis = 1} : () -> i64
    %e = "ingot.sitofp"(%i) : (i64) -> f32
    %s = "ingot.addf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pi1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pi1) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pr1 = "ingot.matmul"(%x, %r1) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%r) : (tensor<4xf32>) -> f32
    %s = "ingot.subf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pr1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pr1) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pf1 = "ingot.matmul"(%x, %f1) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%full1) : (tensor<4x4xf32>) -> f32
    %s = "ingot.mulf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pf1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pf1) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pc1 = "ingot.matmul"(%x, %c1) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%col1) : (tensor<4x1xf32>) -> f32
    %s = "ingot.maxf"(%a, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pc1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pc1) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %pn1 = "ingot.matmul"(%x, %n1) ({
  ^bb0(%a: f32):

    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x3xf32>) -> tensor<4x3xf32>
  %pn1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pn1) : (tensor<4x3xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x3xf32>
  %pb1 = "ingot.matmul"(%t, %b1) ({
  ^bb0(%a: f32):

    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<1x4x8xf32>, tensor<1x8x4xf32>) -> tensor<1x4x4xf32>
  %pb1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pb1) : (tensor<1x4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  %pk1 = "ingot.matmul"(%h, %k1) ({
  ^bb0(%a: f32):

    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pk1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pk1) : (tensor<4x4xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %m0 = "ingot.weight"() {name = "m0"} : () -> tensor<8x4xf32>
  %pm0:2 = "ingot.matmul"(%x, %m0) ({
  ^bb0(%a: f32):
    %s = "ingot.negf"(%a) : (f32) -> f32
    "ingot.yield"(%a, %s) : (f32, f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>)
  %pm0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pm0#0) : (tensor<4x4xf32>) -> f32
    %f = "ingot.load"(%pm0#1) : (tensor<4x4xf32>) -> f32
    %s = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %m1 = "ingot.weight"() {name = "m1"} : () -> tensor<8x4xf32>
  %pm1:2 = "ingot.matmul"(%x, %m1) ({
  ^bb0(%a: f32):
    %s = "ingot.negf"(%a) : (f32) -> f32
    "ingot.yield"(%a, %s) : (f32, f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>)
  %pm1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%pm1#0) : (tensor<4x4xf32>) -> f32
    %f = "ingot.load"(%pm1#1) : (tensor<4x4xf32>) -> f32
    %s = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  "ingot.output"(%pm0n) {name = "pm0n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pm1n) {name = "pm1n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pi0n) {name = "pi0n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pr0n) {name = "pr0n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pf0n) {name = "pf0n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pc0n) {name = "pc0n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pn0n) {name = "pn0n", type = "float"} : (tensor<4x3xf32>) -> ()
  "ingot.output"(%pb0n) {name = "pb0n", type = "float"} : (tensor<1x4x4xf32>) -> ()
  "ingot.output"(%pk0n) {name = "pk0n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pi1n) {name = "pi1n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pr1n) {name = "pr1n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pf1n) {name = "pf1n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pc1n) {name = "pc1n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%pn1n) {name = "pn1n", type = "float"} : (tensor<4x3xf32>) -> ()
  "ingot.output"(%pb1n) {name = "pb1n", type = "float"} : (tensor<1x4x4xf32>) -> ()
  "ingot.output"(%pk1n) {name = "pk1n", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "t", "r"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires: one product's scale and shift are the same weight, the other's are two.
// CHECK:      "ingot.matmul"
// CHECK-NEXT: ^bb0(%[[A:.*]]: f32):
// CHECK-NEXT:   %[[E:.*]] = "ingot.load"(%[[S:.*]]) : (tensor<8xf32>) -> f32
// CHECK-NEXT:   %[[M:.*]] = "ingot.mulf"(%[[A]], %[[E]])
// CHECK-NEXT:   %[[F:.*]] = "ingot.load"(%[[B:.*]]) : (tensor<8xf32>) -> f32
// CHECK-NEXT:   "ingot.addf"(%[[M]], %[[F]])
// CHECK-NOT:  "ingot.matmul"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x8xf32, #ingot.dims<["N"]>>):
  %w0 = "ingot.weight"() {name = "w0"} : () -> tensor<8x4xf32>
  %s0 = "ingot.weight"() {name = "s0"} : () -> tensor<4xf32>
  %w1 = "ingot.weight"() {name = "w1"} : () -> tensor<8x4xf32>
  %s1 = "ingot.weight"() {name = "s1"} : () -> tensor<4xf32>
  %b1 = "ingot.weight"() {name = "b1"} : () -> tensor<4xf32>
  %p0 = "ingot.matmul"(%x, %w0) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%s0) : (tensor<4xf32>) -> f32
    %m = "ingot.mulf"(%a, %e) : (f32, f32) -> f32
    %f = "ingot.load"(%s0) : (tensor<4xf32>) -> f32
    %s = "ingot.addf"(%m, %f) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<8x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %p0n = "ingot.pointwise"() ({
    %e = "ingot.load"(%p0) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %p1 = "ingot.matmul"(%x, %w1) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%s1) : (tensor<4xf32>) -> f32
    %m = "ingot.mulf"(%a, %e) : (f32, f32) -> f32
    %f = "ingot.load"(%b1) : (tensor<4xf32>) -> f32
    %s = "ingot.addf"(%m, %f) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<8x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %p1n = "ingot.pointwise"() ({
    %e = "ingot.load"(%p1) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
  "ingot.output"(%p0n) {name = "p0n", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%p1n) {name = "p1n", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()
