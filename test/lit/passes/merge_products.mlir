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
