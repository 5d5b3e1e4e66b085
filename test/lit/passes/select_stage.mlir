// RUN: ingot-opt %s -p 'ingot-select-stage{number=1}' --split-input-file --verify-diagnostics | filecheck %s

// Fires: the stage is what a launch program is built from; the weights program stays.
// CHECK-NOT: sym_name = "main"
// CHECK:     sym_name = "stage_1"
// CHECK:     sym_name = "weights"
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>):
  "ingot.output"(%x) {name = "~0", type = "float"} : (tensor<?xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"], ingot.outputs = ["y"]} : () -> ()
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>):
  "ingot.output"(%x) {name = "y", type = "float"} : (tensor<?xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "stage_1", inputs = ["~0"], input_types = ["float"], ingot.stage = 1 : i64} : () -> ()
"ingot.func"() ({
  "ingot.return"() : () -> ()
}) {sym_name = "weights", inputs = [], input_types = []} : () -> ()

// -----

// Must not fire: there is no such stage.
// expected-error @+1 {{there is no stage 1 of 1}}
"ingot.func"() ({
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = [], input_types = []} : () -> ()
