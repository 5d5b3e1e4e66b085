// RUN: ingot-opt %s -p ingot-split-stages --split-input-file --verify-diagnostics --mlir-print-local-scope | filecheck %s

// Fires: memory depends on a number that is computed. What follows is a function of its own; it repeats the weight, the view and
// the symbols that it uses, and takes what was computed. An output stays with the stage that computes it.
// CHECK-LABEL: "ingot.func"() ({
// CHECK-NEXT:  ^bb0(%[[X:.*]]: tensor<?x4xf32, #ingot.dims<["N"]>>, %[[R:.*]]: tensor<1xi64>):
// CHECK-NEXT:    "ingot.host_read"(%[[R]]) {symbol = "rows"}
// CHECK-NEXT:    "ingot.define"() {expression = "min(N, rows)", symbol = "K"}
// CHECK:         %[[M:.*]] = "ingot.reduce"(%{{.*}}) ({
// CHECK:         %[[S:.*]] = "ingot.pointwise"() ({
// CHECK:         "ingot.output"(%[[S]]) {name = "s", type = "float"}
// CHECK-DAG:     "ingot.output"(%[[M]]) {name = "~{{[01]}}", type = "int64"}
// CHECK-DAG:     "ingot.output"(%[[S]]) {name = "~{{[01]}}", type = "float"}
// CHECK:         "ingot.return"
// CHECK-NEXT:  }) {ingot.outputs = ["y", "s"], input_types = ["float", "int64"], inputs = ["x", "r"], sym_name = "main"}
// CHECK:       "ingot.func"() ({
// CHECK:         "ingot.host_read"(%{{.*}}) {symbol = "rows"} : (tensor<1xi64>) -> ()
// CHECK-NEXT:    "ingot.define"() {expression = "min(N, rows)", symbol = "K"}
// CHECK-NEXT:    %[[W:.*]] = "ingot.weight"() {name = "w"} : () -> tensor<4xf32>
// CHECK-NEXT:    "ingot.host_read"(%{{.*}}) {symbol = "longest"} : (tensor<1xi64>) -> ()
// CHECK-NEXT:    "ingot.define"() {expression = "max(longest, 0)", symbol = "L"}
// CHECK-NEXT:    %[[V:.*]] = "ingot.slice"(%{{.*}}) {starts = ["0", "0"], steps = array<i64: 1, 1>}
// CHECK-SAME:      -> tensor<?x4xf32, #ingot.dims<["K"]>>
// CHECK-NEXT:    %[[Y:.*]] = "ingot.pointwise"() ({
// CHECK-DAG:       "ingot.load"(%[[V]])
// CHECK-DAG:       "ingot.load"(%[[W]])
// CHECK:         }) : () -> tensor<?x?x4xf32, #ingot.dims<["L", "K"]>>
// CHECK-NEXT:    "ingot.output"(%[[Y]]) {name = "y", type = "float"}
// CHECK:       }) {ingot.stage = 1 : i64
// CHECK-SAME:  sym_name = "stage_1"}
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>, %r: tensor<1xi64>):
  "ingot.host_read"(%r) {symbol = "rows"} : (tensor<1xi64>) -> ()
  "ingot.define"() {symbol = "K", expression = "min(N, rows)"} : () -> ()
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4xf32>
  %m = "ingot.reduce"(%r) ({
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }, {
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }) {axes = array<i64: 0>, kind = "max"} : (tensor<1xi64>) -> tensor<1xi64>
  %s = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.load"(%w) : (tensor<4xf32>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
  "ingot.host_read"(%m) {symbol = "longest"} : (tensor<1xi64>) -> ()
  "ingot.define"() {symbol = "L", expression = "max(longest, 0)"} : () -> ()
  %v = "ingot.slice"(%s) {starts = ["0", "0"], steps = array<i64: 1, 1>} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> tensor<?x4xf32, #ingot.dims<["K"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%v) : (tensor<?x4xf32, #ingot.dims<["K"]>>) -> f32
    %f = "ingot.load"(%w) : (tensor<4xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x?x4xf32, #ingot.dims<["L", "K"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x?x4xf32, #ingot.dims<["L", "K"]>>) -> ()
  "ingot.output"(%s) {name = "s", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "r"], input_types = ["float", "int64"]} : () -> ()

// -----

// Fires: a part is moved into memory that an earlier stage wrote; a copy is written, not the input.
// CHECK:       sym_name = "second"
// CHECK:       ^bb0(%{{.*}}: tensor<1xi64>, %[[X:.*]]: tensor<4xf32>, %[[A:.*]]: tensor<8xf32>):
// CHECK:         %[[C:.*]] = "ingot.move"(%[[A]]) ({
// CHECK:         "ingot.move"(%[[X]], %[[C]]) ({
"ingot.func"() ({
^bb0(%x: tensor<4xf32>, %i: tensor<3xi64>):
  %e = "ingot.empty"() : () -> tensor<8xf32>
  %a = "ingot.move"(%x, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0"]} : (tensor<4xf32>, tensor<8xf32>) -> tensor<8xf32>
  %m = "ingot.reduce"(%i) ({
  ^bb0(%v: i64):
    "ingot.yield"(%v) : (i64) -> ()
  }, {
  ^bb0(%v: i64):
    "ingot.yield"(%v) : (i64) -> ()
  }) {axes = array<i64: 0>, kind = "max"} : (tensor<3xi64>) -> tensor<1xi64>
  "ingot.host_read"(%m) {symbol = "n"} : (tensor<1xi64>) -> ()
  %b = "ingot.move"(%x, %a) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["4"]} : (tensor<4xf32>, tensor<8xf32>) -> tensor<8xf32>
  %y = "ingot.expand"(%b) : (tensor<8xf32>) -> tensor<?x8xf32, #ingot.dims<["n"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x8xf32, #ingot.dims<["n"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "second", inputs = ["x", "i"], input_types = ["float", "int64"]} : () -> ()

// -----

// Must not fire: inputs give all numbers on which memory depends; a loop's trip count, and where a view begins, need none.
// CHECK:       }) {input_types = ["float", "int64", "int64"], inputs = ["x", "n", "z"], sym_name = "whole"}
// CHECK-NOT:   sym_name
"ingot.func"() ({
^bb0(%x: tensor<8xf32>, %n: tensor<1xi64>, %z: tensor<?xi64, #ingot.dims<["N"]>>):
  "ingot.host_read"(%n) {symbol = "n"} : (tensor<1xi64>) -> ()
  %m = "ingot.reduce"(%z) ({
  ^bb0(%v: i64):
    "ingot.yield"(%v) : (i64) -> ()
  }, {
  ^bb0(%v: i64):
    "ingot.yield"(%v) : (i64) -> ()
  }) {axes = array<i64: 0>, kind = "max"} : (tensor<?xi64, #ingot.dims<["N"]>>) -> tensor<1xi64>
  "ingot.host_read"(%m) {symbol = "begin"} : (tensor<1xi64>) -> ()
  %s = "ingot.slice"(%x) {starts = ["min(begin, 4)"], steps = array<i64: 1>} : (tensor<8xf32>) -> tensor<4xf32>
  %y = "ingot.expand"(%s) : (tensor<4xf32>) -> tensor<?x4xf32, #ingot.dims<["n"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4xf32, #ingot.dims<["n"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "whole", inputs = ["x", "n", "z"], input_types = ["float", "int64", "int64"]} : () -> ()
