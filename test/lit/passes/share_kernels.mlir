// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-share-kernels)' --split-input-file | filecheck %s

// Fires: products whose rows are dynamic.
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "f32", ingot.general}
"ingot.func"() ({
^bb0(%x: tensor<?x64xf32, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<64x128xf32>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x64xf32, #ingot.dims<["N"]>>, tensor<64x128xf32>) -> tensor<?x128xf32, #ingot.dims<["N"]>>
  "ingot.output"(%p) {name = "y", type = "float"} : (tensor<?x128xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: constant shapes get no kernels of their own later; other roots.
// CHECK-NOT: ingot.general
"ingot.func"() ({
^bb0(%x: tensor<4x64xf32>, %z: tensor<?xf32, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<64x128xf32>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x64xf32>, tensor<64x128xf32>) -> tensor<4x128xf32>
  %q = "ingot.pointwise"() ({
    %e = "ingot.load"(%z) : (tensor<?xf32, #ingot.dims<["N"]>>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["N"]>>
  "ingot.output"(%p) {name = "y", type = "float"} : (tensor<4x128xf32>) -> ()
  "ingot.output"(%q) {name = "q", type = "float"} : (tensor<?xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "z"], input_types = ["float", "float"]} : () -> ()
