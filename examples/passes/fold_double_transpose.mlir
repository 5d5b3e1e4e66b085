// RUN: ingot-opt --load=%S/fold_double_transpose.py -p my-fold-double-transpose %s | filecheck %s

// Two transposes that undo each other are gone.
// CHECK-LABEL: ^bb0(%arg0: tensor<2x3xf32>)
// CHECK-NEXT:    "ingot.output"(%arg0)
"ingot.func"() ({
^bb0(%x: tensor<2x3xf32>):
  %t = "ingot.transpose"(%x) {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %u = "ingot.transpose"(%t) {perm = [1, 0]} : (tensor<3x2xf32>) -> tensor<2x3xf32>
  "ingot.output"(%u) {name = "y", type = "float"} : (tensor<2x3xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "folds", inputs = ["x"], input_types = ["float"]} : () -> ()

// These two rotate the axes twice, which is no identity: they stay. The sizes are named, not constant.
// CHECK-LABEL: ^bb0(%arg0: tensor<2x?x4xf32, #ingot.dims<["N"]>>)
// CHECK-COUNT-2: "ingot.transpose"
"ingot.func"() ({
^bb0(%x: tensor<2x?x4xf32, #ingot.dims<["N"]>>):
  %t = "ingot.transpose"(%x) {perm = [1, 2, 0]} : (tensor<2x?x4xf32, #ingot.dims<["N"]>>) -> tensor<?x4x2xf32, #ingot.dims<["N"]>>
  %u = "ingot.transpose"(%t) {perm = [1, 2, 0]} : (tensor<?x4x2xf32, #ingot.dims<["N"]>>) -> tensor<4x2x?xf32, #ingot.dims<["N"]>>
  "ingot.output"(%u) {name = "y", type = "float"} : (tensor<4x2x?xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "stays", inputs = ["x"], input_types = ["float"]} : () -> ()
