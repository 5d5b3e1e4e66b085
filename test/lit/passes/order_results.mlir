// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-order-results,ingot-materialize-views,ingot-plan-buffers)' --split-input-file | filecheck %s

// Fires: heads are merged where the attention writes them, and the output is what it writes. The sizes are dynamic.
// CHECK:      "ingot.attention"
// CHECK:      ingot.buffers = ["output:0"], ingot.order = array<i64: 0, 2, 1, 3>
// CHECK-NOT:  ingot.move
// CHECK:      "ingot.output"
"ingot.func"() ({
^bb0(%q: tensor<?x4x?x16xf32, #ingot.dims<["B", "S"]>>, %k: tensor<?x4x?x16xf32, #ingot.dims<["B", "T"]>>):
  %y = "ingot.attention"(%q, %k, %k) ({
  ^bb0(%s: f32):
    "ingot.yield"(%s) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 0.25} : (tensor<?x4x?x16xf32, #ingot.dims<["B", "S"]>>, tensor<?x4x?x16xf32, #ingot.dims<["B", "T"]>>, tensor<?x4x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x4x?x16xf32, #ingot.dims<["B", "S"]>>
  %t = "ingot.transpose"(%y) {perm = [0, 2, 1, 3]} : (tensor<?x4x?x16xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x16xf32, #ingot.dims<["B", "S"]>>
  %m = "ingot.reshape"(%t) : (tensor<?x?x4x16xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x64xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%m) {name = "y", type = "float"} : (tensor<?x?x64xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q", "k"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire: something reads the result as it is.
// CHECK-NOT: ingot.order
"ingot.func"() ({
^bb0(%q: tensor<1x4x5x16xf32>):
  %y = "ingot.attention"(%q, %q, %q) ({
  ^bb0(%s: f32):
    "ingot.yield"(%s) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 0.25} : (tensor<1x4x5x16xf32>, tensor<1x4x5x16xf32>, tensor<1x4x5x16xf32>) -> tensor<1x4x5x16xf32>
  %t = "ingot.transpose"(%y) {perm = [0, 2, 1, 3]} : (tensor<1x4x5x16xf32>) -> tensor<1x5x4x16xf32>
  "ingot.output"(%t) {name = "y", type = "float"} : (tensor<1x5x4x16xf32>) -> ()
  "ingot.output"(%y) {name = "z", type = "float"} : (tensor<1x4x5x16xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: rows would no longer follow each other; results of other roots.
// CHECK-NOT: ingot.order
"ingot.func"() ({
^bb0(%q: tensor<1x4x5x16xf32>):
  %y = "ingot.attention"(%q, %q, %q) ({
  ^bb0(%s: f32):
    "ingot.yield"(%s) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 0.25} : (tensor<1x4x5x16xf32>, tensor<1x4x5x16xf32>, tensor<1x4x5x16xf32>) -> tensor<1x4x5x16xf32>
  %t = "ingot.transpose"(%y) {perm = [0, 1, 3, 2]} : (tensor<1x4x5x16xf32>) -> tensor<1x4x16x5xf32>
  %p = "ingot.matmul"(%q, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<1x4x5x16xf32>, tensor<1x4x16x5xf32>) -> tensor<1x4x5x5xf32>
  %u = "ingot.transpose"(%p) {perm = [0, 2, 1, 3]} : (tensor<1x4x5x5xf32>) -> tensor<1x5x4x5xf32>
  "ingot.output"(%u) {name = "y", type = "float"} : (tensor<1x5x4x5xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q"], input_types = ["float"]} : () -> ()
