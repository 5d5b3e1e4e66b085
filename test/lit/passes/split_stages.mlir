// RUN: ingot-opt %s -p ingot-split-stages --split-input-file --verify-diagnostics --mlir-print-local-scope | filecheck %s

// Fires: memory depends on a number that is computed. What follows is a function of its own; it repeats the weight and the
// symbols that it uses, and takes what was computed. An output stays with the stage that computes it.
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
// CHECK-NEXT:  "ingot.func"() ({
// CHECK-NEXT:  ^bb0(%{{.*}}: tensor<1xi64>, %{{.*}}: tensor<?x4xf32, #ingot.dims<["N"]>>, %{{.*}}: tensor<1xi64>):
// CHECK-NEXT:    "ingot.host_read"(%{{.*}}) {symbol = "rows"} : (tensor<1xi64>) -> ()
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
// CHECK-NEXT:    "ingot.return"
// CHECK-NEXT:  }) {ingot.stage = 1 : i64, {{.*}}sym_name = "stage_1"}
// CHECK-NEXT: }
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

// -----

// Fires twice: what two reads in a row give is one stage, and its shapes and those of the next are bound by the first input that has
// them. A view is repeated in each stage that reads it, above what a stage gives another once; an input may be an output.
// CHECK:       "ingot.output"(%arg0) {name = "same", type = "float"}
// CHECK-NEXT:  "ingot.output"(%{{.*}}) {name = "~1", type = "float"} : (tensor<?xf32, #ingot.dims<["2*N"]>>) -> ()
// CHECK-NEXT:  "ingot.output"(%{{.*}}) {name = "~2", type = "int64"}
// CHECK-NEXT:  "ingot.return"
// CHECK-NEXT:  }) {ingot.outputs = ["same", "p", "y"], input_types = ["float", "float", "int64"], inputs = ["x", "z", "i"], sym_name = "thrice"}
// CHECK-NEXT:  "ingot.func"() ({
// CHECK-NEXT:  ^bb0(%[[M:.*]]: tensor<1xi64>, %[[S:.*]]: tensor<?xf32, #ingot.dims<["2*N"]>>, %[[I:.*]]: tensor<3xi64>, %{{.*}}: tensor<?xf32, #ingot.dims<["N"]>>):
// CHECK-NEXT:    "ingot.host_read"(%[[M]]) {symbol = "n"}
// CHECK-NEXT:    "ingot.host_read"(%[[M]]) {symbol = "k"}
// CHECK-NEXT:    %[[V:.*]] = "ingot.slice"(%[[S]])
// CHECK-NEXT:    %[[P:.*]] = "ingot.pointwise"() ({
// CHECK-NEXT:      "ingot.load"(%[[V]])
// CHECK:         %[[Q:.*]] = "ingot.reduce"(%[[I]])
// CHECK:         "ingot.output"(%[[P]]) {name = "p", type = "float"}
// CHECK-NEXT:    "ingot.output"(%[[Q]]) {name = "~0", type = "int64"}
// CHECK-NEXT:    "ingot.return"
// CHECK-NEXT:  }) {ingot.stage = 1 : i64, input_types = ["int64", "float", "int64", "float"], inputs = ["~2", "~1", "i", "x"], sym_name = "stage_1"}
// CHECK-NEXT:  "ingot.func"() ({
// CHECK-NEXT:  ^bb0(%[[Q:.*]]: tensor<1xi64>, %[[S:.*]]: tensor<?xf32, #ingot.dims<["2*N"]>>, %{{.*}}: tensor<?xf32, #ingot.dims<["N"]>>, %[[M:.*]]: tensor<1xi64>):
// CHECK-NEXT:    "ingot.define"() {expression = "N + 1", symbol = "B"}
// CHECK-NEXT:    "ingot.define"() {expression = "2*B", symbol = "A"}
// CHECK-NEXT:    "ingot.host_read"(%[[M]]) {symbol = "k"}
// CHECK-NEXT:    %[[V:.*]] = "ingot.slice"(%[[S]])
// CHECK-NEXT:    "ingot.host_read"(%[[Q]]) {symbol = "l"}
// CHECK-NEXT:    %[[Y:.*]] = "ingot.pointwise"() ({
// CHECK:           "ingot.load_at"(%[[V]]
// CHECK-NEXT:      "ingot.load_at"(%[[S]]
// CHECK:         "ingot.output"(%[[Y]]) {name = "y", type = "float"}
// CHECK-NEXT:    "ingot.return"
// CHECK-NEXT:  }) {ingot.stage = 2 : i64, input_types = ["int64", "float", "float", "int64"], inputs = ["~0", "~1", "x", "~2"], sym_name = "stage_2"}
// CHECK-NEXT: }
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>, %z: tensor<?xf32, #ingot.dims<["N"]>>, %i: tensor<3xi64>):
  "ingot.define"() {symbol = "B", expression = "N + 1"} : () -> ()
  "ingot.define"() {symbol = "A", expression = "2*B"} : () -> ()
  %m = "ingot.reduce"(%i) ({
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }, {
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }) {axes = array<i64: 0>, kind = "max"} : (tensor<3xi64>) -> tensor<1xi64>
  %s = "ingot.pointwise"() ({
    %c = "ingot.const"() {value = 0 : i64} : () -> i64
    %e = "ingot.load_at"(%x, %c) : (tensor<?xf32, #ingot.dims<["N"]>>, i64) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["2*N"]>>
  "ingot.host_read"(%m) {symbol = "n"} : (tensor<1xi64>) -> ()
  "ingot.host_read"(%m) {symbol = "k"} : (tensor<1xi64>) -> ()
  %v = "ingot.slice"(%s) {starts = ["0"], steps = array<i64: 1>} : (tensor<?xf32, #ingot.dims<["2*N"]>>) -> tensor<?xf32, #ingot.dims<["N"]>>
  %p = "ingot.pointwise"() ({
    %e = "ingot.load"(%v) : (tensor<?xf32, #ingot.dims<["N"]>>) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<?x?x?xf32, #ingot.dims<["n", "k", "N"]>>
  %q = "ingot.reduce"(%i) ({
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }, {
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }) {axes = array<i64: 0>, kind = "min"} : (tensor<3xi64>) -> tensor<1xi64>
  "ingot.host_read"(%q) {symbol = "l"} : (tensor<1xi64>) -> ()
  %y = "ingot.pointwise"() ({
    %c = "ingot.const"() {value = 0 : i64} : () -> i64
    %e = "ingot.load_at"(%v, %c) : (tensor<?xf32, #ingot.dims<["N"]>>, i64) -> f32
    %f = "ingot.load_at"(%s, %c) : (tensor<?xf32, #ingot.dims<["2*N"]>>, i64) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x?x?xf32, #ingot.dims<["l", "k", "A"]>>
  "ingot.output"(%x) {name = "same", type = "float"} : (tensor<?xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%p) {name = "p", type = "float"} : (tensor<?x?x?xf32, #ingot.dims<["n", "k", "N"]>>) -> ()
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x?x?xf32, #ingot.dims<["l", "k", "A"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "thrice", inputs = ["x", "z", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

// Must not fire: a weight gives a number before anything is computed, and an input at any place.
// CHECK:       sym_name = "known"
// CHECK-NEXT: }
"ingot.func"() ({
^bb0(%x: tensor<4xf32>, %i: tensor<3xi64>, %n: tensor<1xi64>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<1xi64>
  "ingot.host_read"(%w) {symbol = "a"} : (tensor<1xi64>) -> ()
  %s = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4xf32>) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["a"]>>
  "ingot.host_read"(%n) {symbol = "b"} : (tensor<1xi64>) -> ()
  %y = "ingot.expand"(%s) : (tensor<?x4xf32, #ingot.dims<["a"]>>) -> tensor<?x?x4xf32, #ingot.dims<["b", "a"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x?x4xf32, #ingot.dims<["b", "a"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "known", inputs = ["x", "i", "n"], input_types = ["float", "int64", "int64"]} : () -> ()

// -----

// Must not fire: nothing is read.
// CHECK:       sym_name = "no_reads"
// CHECK-NEXT: }
"ingot.func"() ({
^bb0(%x: tensor<4xf32>):
  "ingot.output"(%x) {name = "y", type = "float"} : (tensor<4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "no_reads", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires: memory that nothing wrote yet is a stage's own, so that what is moved into it needs no copy; nor does what a product or the
// regions of a control operation read.
// CHECK:       sym_name = "written"
// CHECK:       ^bb0(%[[X:.*]]: tensor<4x4xf32>, %[[S:.*]]: tensor<4x4xf32>, %[[C:.*]]: tensor<i1>):
// CHECK-NEXT:    "ingot.weight"
// CHECK-NEXT:    %[[E:.*]] = "ingot.empty"
// CHECK-NEXT:    "ingot.host_read"
// CHECK-NEXT:    %[[P:.*]] = "ingot.matmul"(%[[X]], %[[S]]) ({
// CHECK:         "ingot.move"(%[[P]], %[[E]]) ({
// CHECK:         "ingot.if"(%[[C]], %[[S]]) ({
// CHECK-NEXT:    ^bb0(%[[A:.*]]: tensor<4x4xf32>):
// CHECK:           "ingot.load"(%[[A]])
"ingot.func"() ({
^bb0(%x: tensor<4x4xf32>, %c: tensor<i1>):
  %e = "ingot.empty"() : () -> tensor<8x4xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<1xi64>
  %s = "ingot.pointwise"() ({
    %a = "ingot.load"(%x) : (tensor<4x4xf32>) -> f32
    %b = "ingot.negf"(%a) : (f32) -> f32
    "ingot.yield"(%b) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  "ingot.host_read"(%w) {symbol = "n"} : (tensor<1xi64>) -> ()
  %p = "ingot.matmul"(%x, %s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %m = "ingot.move"(%p, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0"]} : (tensor<4x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %i = "ingot.if"(%c, %s) ({
  ^bb0(%a: tensor<4x4xf32>):
    %t = "ingot.pointwise"() ({
      %b = "ingot.load"(%a) : (tensor<4x4xf32>) -> f32
      "ingot.yield"(%b) : (f32) -> ()
    }) : () -> tensor<4x4xf32>
    "ingot.result"(%t) : (tensor<4x4xf32>) -> ()
    "ingot.return"() : () -> ()
  }, {
  ^bb0(%a: tensor<4x4xf32>):
    %t = "ingot.pointwise"() ({
      %b = "ingot.load"(%a) : (tensor<4x4xf32>) -> f32
      %d = "ingot.absf"(%b) : (f32) -> f32
      "ingot.yield"(%d) : (f32) -> ()
    }) : () -> tensor<4x4xf32>
    "ingot.result"(%t) : (tensor<4x4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<i1>, tensor<4x4xf32>) -> tensor<4x4xf32>
  "ingot.output"(%i) {name = "i", type = "float"} : (tensor<4x4xf32>) -> ()
  %r = "ingot.expand"(%m) : (tensor<8x4xf32>) -> tensor<?x8x4xf32, #ingot.dims<["n"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?x8x4xf32, #ingot.dims<["n"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "written", inputs = ["x", "c"], input_types = ["float", "bool"]} : () -> ()

// -----

// Fires: a stage that needs no inputs.
// CHECK:       sym_name = "no_inputs"
// CHECK-NEXT:  "ingot.func"() ({
// CHECK-NEXT:    %[[W:.*]] = "ingot.weight"
// CHECK-NEXT:    "ingot.host_read"(%[[W]])
// CHECK:       sym_name = "stage_1"
"ingot.func"() ({
^bb0(%x: tensor<4xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<1xi64>
  %s = "ingot.pointwise"() ({
    %a = "ingot.load"(%x) : (tensor<4xf32>) -> f32
    "ingot.yield"(%a) : (f32) -> ()
  }) : () -> tensor<4xf32>
  "ingot.output"(%s) {name = "s", type = "float"} : (tensor<4xf32>) -> ()
  "ingot.host_read"(%w) {symbol = "n"} : (tensor<1xi64>) -> ()
  %r = "ingot.pointwise"() ({
    %c = "ingot.const"() {value = 1.0 : f32} : () -> f32
    "ingot.yield"(%c) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["n"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?xf32, #ingot.dims<["n"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "no_inputs", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// What no input's size is.
// expected-error@below {{nothing binds N in stage 1}}
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["2*N"]>>, %i: tensor<3xi64>):
  %m = "ingot.reduce"(%i) ({
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }, {
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }) {axes = array<i64: 0>, kind = "max"} : (tensor<3xi64>) -> tensor<1xi64>
  "ingot.host_read"(%m) {symbol = "n"} : (tensor<1xi64>) -> ()
  %r = "ingot.expand"(%x) : (tensor<?xf32, #ingot.dims<["2*N"]>>) -> tensor<?x?xf32, #ingot.dims<["n", "2*N"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?x?xf32, #ingot.dims<["n", "2*N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "unbound", inputs = ["x", "i"], input_types = ["float", "int64"]} : () -> ()

// -----

// A number that an earlier stage needs.
"ingot.func"() ({
^bb0(%x: tensor<4xf32>, %i: tensor<3xi64>):
  %m = "ingot.reduce"(%i) ({
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }, {
  ^bb0(%e: i64):
    "ingot.yield"(%e) : (i64) -> ()
  }) {axes = array<i64: 0>, kind = "max"} : (tensor<3xi64>) -> tensor<1xi64>
  "ingot.host_read"(%m) {symbol = "n"} : (tensor<1xi64>) -> ()
  %r = "ingot.pointwise"() ({
    %a = "ingot.load"(%x) : (tensor<4xf32>) -> f32
    "ingot.yield"(%a) : (f32) -> ()
  }) : () -> tensor<?x?x4xf32, #ingot.dims<["n", "k"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?x?x4xf32, #ingot.dims<["n", "k"]>>) -> ()
  // expected-error@below {{k is used before it is read (report the model: a pass moved an operation)}}
  "ingot.host_read"(%m) {symbol = "k"} : (tensor<1xi64>) -> ()
  %t = "ingot.pointwise"() ({
    %a = "ingot.load"(%x) : (tensor<4xf32>) -> f32
    "ingot.yield"(%a) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["k"]>>
  "ingot.output"(%t) {name = "z", type = "float"} : (tensor<?x4xf32, #ingot.dims<["k"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "late", inputs = ["x", "i"], input_types = ["float", "int64"]} : () -> ()
