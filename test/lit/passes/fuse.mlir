// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-fuse)' --split-input-file | filecheck %s
// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-fuse{max-ops=0})' --split-input-file | filecheck %s --check-prefix=NONE

// Fires: bias, activation and residual join the product's epilogue, through the reshape between them; the reshape follows the
// result. With no room for operations only what costs nothing is fused.
// CHECK:      ^bb0(%[[X:.*]]: tensor<6x4xf32>, %[[H:.*]]: tensor<2x3x4xf32>)
// CHECK:      %[[HR:.*]] = "ingot.reshape"(%[[H]]) : (tensor<2x3x4xf32>) -> tensor<6x4xf32>
// CHECK-NEXT: %[[Y:.*]] = "ingot.matmul"
// CHECK-NEXT: ^bb0(%[[A:.*]]: f32):
// CHECK-NEXT:   %[[BE:.*]] = "ingot.load"
// CHECK-NEXT:   %[[S:.*]] = "ingot.addf"(%[[A]], %[[BE]])
// CHECK-NEXT:   %[[T:.*]] = "ingot.tanh"(%[[S]])
// CHECK-NEXT:   %[[HE:.*]] = "ingot.load"(%[[HR]])
// CHECK-NEXT:   %[[R:.*]] = "ingot.addf"(%[[T]], %[[HE]])
// CHECK-NEXT:   "ingot.yield"(%[[R]])
// CHECK:      %[[V:.*]] = "ingot.reshape"(%[[Y]]) : (tensor<6x4xf32>) -> tensor<2x3x4xf32>
// CHECK-NEXT: "ingot.output"(%[[V]])
// NONE-COUNT-2: "ingot.pointwise"
"ingot.func"() ({
^bb0(%x: tensor<6x4xf32>, %h: tensor<2x3x4xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<4xf32>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<6x4xf32>, tensor<4x4xf32>) -> tensor<6x4xf32>
  %r = "ingot.reshape"(%p) : (tensor<6x4xf32>) -> tensor<2x3x4xf32>
  %act = "ingot.pointwise"() ({
    %e = "ingot.load"(%r) : (tensor<2x3x4xf32>) -> f32
    %be = "ingot.load"(%b) : (tensor<4xf32>) -> f32
    %s = "ingot.addf"(%e, %be) : (f32, f32) -> f32
    %t = "ingot.tanh"(%s) : (f32) -> f32
    "ingot.yield"(%t) : (f32) -> ()
  }) : () -> tensor<2x3x4xf32>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%act) : (tensor<2x3x4xf32>) -> f32
    %he = "ingot.load"(%h) : (tensor<2x3x4xf32>) -> f32
    %s = "ingot.addf"(%e, %he) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<2x3x4xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<2x3x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "h"], input_types = ["float", "float"]} : () -> ()

// -----

// Fires: two results, for %x is still read by what follows; a producer joins the map of a reduction.
// CHECK:      %[[C:.*]]:2 = "ingot.conv"
// CHECK:        "ingot.yield"(%{{.*}}, %{{.*}}) : (f32, f32) -> ()
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      "ingot.reduce"(%arg1)
// CHECK-NEXT: ^bb0(%[[E:.*]]: f32):
// CHECK-NEXT:   "ingot.mulf"(%[[E]], %[[E]])
// CHECK:      "ingot.output"(%[[C]]#0)
// CHECK:      "ingot.output"(%[[C]]#1)
"ingot.func"() ({
^bb0(%i: tensor<1x8x3xf32>, %z: tensor<4x4xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3x3xf32>
  %x = "ingot.conv"(%i, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = [1], dilations = [1], pads = [0, 0], groups = 1} : (tensor<1x8x3xf32>, tensor<2x3x3xf32>) -> tensor<1x6x2xf32>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<1x6x2xf32>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<1x6x2xf32>
  %sq = "ingot.pointwise"() ({
    %e = "ingot.load"(%z) : (tensor<4x4xf32>) -> f32
    %s = "ingot.mulf"(%e, %e) : (f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %n = "ingot.reduce"(%sq) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = [0], kind = "sum"} : (tensor<4x4xf32>) -> tensor<1x4xf32>
  "ingot.output"(%x) {name = "x", type = "float"} : (tensor<1x6x2xf32>) -> ()
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<1x6x2xf32>) -> ()
  "ingot.output"(%n) {name = "n", type = "float"} : (tensor<1x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["i", "z"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire, with dynamic shapes: nothing is computed in a product's loads; %t, which has two readers, is computed once;
// %row would be computed again for every one of N rows. A cast with two readers is repeated.
// CHECK:      %[[T:.*]] = "ingot.pointwise"
// CHECK:        "ingot.tanh"
// CHECK:      %[[R:.*]] = "ingot.pointwise"
// CHECK:        "ingot.exp"
// CHECK:      "ingot.pointwise"
// CHECK:        "ingot.load"(%[[T]])
// CHECK:        "ingot.load"(%[[R]])
// CHECK:        "ingot.load"(%arg1)
// CHECK-NEXT:   "ingot.extf"
// CHECK:      "ingot.matmul"(%[[T]]
// CHECK:        "ingot.load"(%arg1)
// CHECK-NEXT:   "ingot.extf"
// CHECK-NOT:  "ingot.pointwise"
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>, %half: tensor<?x4xf16, #ingot.dims<["N"]>>, %v: tensor<4xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
  %t = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %s = "ingot.tanh"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %row = "ingot.pointwise"() ({
    %e = "ingot.load"(%v) : (tensor<4xf32>) -> f32
    %s = "ingot.exp"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<4xf32>
  %c = "ingot.pointwise"() ({
    %e = "ingot.load"(%half) : (tensor<?x4xf16, #ingot.dims<["N"]>>) -> f16
    %s = "ingot.extf"(%e) : (f16) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%t) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %r = "ingot.load"(%row) : (tensor<4xf32>) -> f32
    %s = "ingot.mulf"(%e, %r) : (f32, f32) -> f32
    %l = "ingot.load"(%c) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %z = "ingot.mulf"(%s, %l) : (f32, f32) -> f32
    "ingot.yield"(%z) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %p = "ingot.matmul"(%t, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %q = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %l = "ingot.load"(%c) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %z = "ingot.mulf"(%e, %l) : (f32, f32) -> f32
    "ingot.yield"(%z) : (f32) -> ()
  }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q) {name = "q", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "half", "v"], input_types = ["float", "float16", "float"]} : () -> ()

// -----

// Must not fire: elements of which a byte holds two are written and read in a stream by pointwise operations alone.
// CHECK:      "ingot.normalize"
// CHECK:      %[[Q:.*]] = "ingot.pointwise"
// CHECK:        "ingot.truncf"
// CHECK:      "ingot.reduce"(%{{.*}})
// CHECK-NEXT: ^bb0(%{{.*}}: f32)
"ingot.func"() ({
^bb0(%x: tensor<?x16xf32, #ingot.dims<["N"]>>):
  %n = "ingot.normalize"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "rms", epsilon = 0.0} : (tensor<?x16xf32, #ingot.dims<["N"]>>) -> tensor<?x16xf32, #ingot.dims<["N"]>>
  %q = "ingot.pointwise"() ({
    %e = "ingot.load"(%n) : (tensor<?x16xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.truncf"(%e) : (f32) -> f4E2M1FN
    "ingot.yield"(%f) : (f4E2M1FN) -> ()
  }) : () -> tensor<?x16xf4E2M1FN, #ingot.dims<["N"]>>
  %d = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<?x16xf4E2M1FN, #ingot.dims<["N"]>>) -> f4E2M1FN
    %f = "ingot.extf"(%e) : (f4E2M1FN) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x16xf32, #ingot.dims<["N"]>>
  %s = "ingot.reduce"(%d) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "max"} : (tensor<?x16xf32, #ingot.dims<["N"]>>) -> tensor<?x1xf32, #ingot.dims<["N"]>>
  "ingot.output"(%s) {name = "s", type = "float"} : (tensor<?x1xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q) {name = "q", type = "float4e2m1"} : (tensor<?x16xf4E2M1FN, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires, with dynamic shapes: a concatenation of two halves, one of them negated, is computed where it is read (a rotary
// embedding), through a transpose too. Its axis is two there, and the halves are one view, backwards along the first of them.
// CHECK:      ^bb0(%[[X:.*]]: tensor<?x2x16xf32{{.*}}, %[[C:.*]]: tensor<
// CHECK-DAG:  %[[SPLIT:.*]] = "ingot.reshape"(%[[X]]) {{.*}} -> tensor<?x2x2x8xf32
// CHECK:      %[[BACK:.*]] = "ingot.slice"(%[[SPLIT]]) {starts = ["0", "0", "1", "0"], steps = array<i64: 1, 1, -1, 1>}
// CHECK:      %[[T:.*]] = "ingot.transpose"(%[[BACK]])
// CHECK:      "ingot.pointwise"
// CHECK-NEXT:   "ingot.load"(%[[T]])
// CHECK-NEXT:   "ingot.negf"
// CHECK:        "ingot.index"() {axis = 2
// CHECK:        "ingot.select"
// CHECK:      -> tensor<2x?x2x8xf32
// CHECK-NOT:  "ingot.move"
// CHECK-NOT:  "ingot.empty"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x2x16xf32, #ingot.dims<["S"]>>, %c: tensor<?x16xf32, #ingot.dims<["S"]>>):
  %a = "ingot.slice"(%x) {starts = ["0", "0", "8"], steps = array<i64: 1, 1, 1>} : (tensor<?x2x16xf32, #ingot.dims<["S"]>>) -> tensor<?x2x8xf32, #ingot.dims<["S"]>>
  %b = "ingot.slice"(%x) {starts = ["0", "0", "0"], steps = array<i64: 1, 1, 1>} : (tensor<?x2x16xf32, #ingot.dims<["S"]>>) -> tensor<?x2x8xf32, #ingot.dims<["S"]>>
  %n = "ingot.pointwise"() ({
    %e = "ingot.load"(%a) : (tensor<?x2x8xf32, #ingot.dims<["S"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x2x8xf32, #ingot.dims<["S"]>>
  %e = "ingot.empty"() : () -> tensor<?x2x16xf32, #ingot.dims<["S"]>>
  %m = "ingot.move"(%n, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0"]} : (tensor<?x2x8xf32, #ingot.dims<["S"]>>, tensor<?x2x16xf32, #ingot.dims<["S"]>>) -> tensor<?x2x16xf32, #ingot.dims<["S"]>>
  %r = "ingot.move"(%b, %m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "8"]} : (tensor<?x2x8xf32, #ingot.dims<["S"]>>, tensor<?x2x16xf32, #ingot.dims<["S"]>>) -> tensor<?x2x16xf32, #ingot.dims<["S"]>>
  %t = "ingot.transpose"(%r) {perm = array<i64: 1, 0, 2>} : (tensor<?x2x16xf32, #ingot.dims<["S"]>>) -> tensor<2x?x16xf32, #ingot.dims<["S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%t) : (tensor<2x?x16xf32, #ingot.dims<["S"]>>) -> f32
    %k = "ingot.load"(%c) : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> f32
    %p = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%p) : (f32) -> ()
  }) : () -> tensor<2x?x16xf32, #ingot.dims<["S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<2x?x16xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire: a concatenation that is an output too, and one along an axis whose parts' sizes are not constants.
// CHECK-COUNT-4: "ingot.move"
// CHECK-COUNT-2: "ingot.pointwise"
"ingot.func"() ({
^bb0(%x: tensor<4xf32>, %u: tensor<?xf32, #ingot.dims<["N"]>>):
  %e = "ingot.empty"() : () -> tensor<8xf32>
  %m = "ingot.move"(%x, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0"]} : (tensor<4xf32>, tensor<8xf32>) -> tensor<8xf32>
  %r = "ingot.move"(%x, %m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["4"]} : (tensor<4xf32>, tensor<8xf32>) -> tensor<8xf32>
  %f = "ingot.empty"() : () -> tensor<?xf32, #ingot.dims<["N + 4"]>>
  %o = "ingot.move"(%x, %f) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0"]} : (tensor<4xf32>, tensor<?xf32, #ingot.dims<["N + 4"]>>) -> tensor<?xf32, #ingot.dims<["N + 4"]>>
  %q = "ingot.move"(%u, %o) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["4"]} : (tensor<?xf32, #ingot.dims<["N"]>>, tensor<?xf32, #ingot.dims<["N + 4"]>>) -> tensor<?xf32, #ingot.dims<["N + 4"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%r) : (tensor<8xf32>) -> f32
    %p = "ingot.negf"(%l) : (f32) -> f32
    "ingot.yield"(%p) : (f32) -> ()
  }) : () -> tensor<8xf32>
  %z = "ingot.pointwise"() ({
    %l = "ingot.load"(%q) : (tensor<?xf32, #ingot.dims<["N + 4"]>>) -> f32
    %p = "ingot.negf"(%l) : (f32) -> f32
    "ingot.yield"(%p) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["N + 4"]>>
  "ingot.output"(%r) {name = "r", type = "float"} : (tensor<8xf32>) -> ()
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<8xf32>) -> ()
  "ingot.output"(%z) {name = "z", type = "float"} : (tensor<?xf32, #ingot.dims<["N + 4"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "u"], input_types = ["float", "float"]} : () -> ()

// -----

// Fires: a scan takes its operand's computation into its map, what loads its result into its last region; a top k and a scatter
// take in what their regions load.
// CHECK:      "ingot.scan"(%arg0) ({
// CHECK:        "ingot.negf"
// CHECK:        "ingot.absf"
// CHECK:      "ingot.scatter"
// CHECK:        "ingot.addi"
// CHECK-NOT:  "ingot.pointwise"
"ingot.func"() ({
^bb0(%x: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<?x6xi64, #ingot.dims<["N"]>>):
  %n = "ingot.pointwise"() ({
    %l = "ingot.load"(%x) : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> f32
    %m = "ingot.negf"(%l) : (f32) -> f32
    "ingot.yield"(%m) : (f32) -> ()
  }) : () -> tensor<?x6xf32, #ingot.dims<["N"]>>
  %c = "ingot.scan"(%n) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "sum", axis = 1 : i64} : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> tensor<?x6xf32, #ingot.dims<["N"]>>
  %a = "ingot.pointwise"() ({
    %l = "ingot.load"(%c) : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> f32
    %m = "ingot.absf"(%l) : (f32) -> f32
    "ingot.yield"(%m) : (f32) -> ()
  }) : () -> tensor<?x6xf32, #ingot.dims<["N"]>>
  %j = "ingot.pointwise"() ({
    %l = "ingot.load"(%i) : (tensor<?x6xi64, #ingot.dims<["N"]>>) -> i64
    %o = "ingot.const"() {value = 1 : i64} : () -> i64
    %m = "ingot.addi"(%l, %o) : (i64, i64) -> i64
    "ingot.yield"(%m) : (i64) -> ()
  }) : () -> tensor<?x6xi64, #ingot.dims<["N"]>>
  %s = "ingot.scatter"(%x, %a) ({
    %r = "ingot.index"() {axis = 0} : () -> i64
    %p = "ingot.load"(%j) : (tensor<?x6xi64, #ingot.dims<["N"]>>) -> i64
    "ingot.yield"(%r, %p) : (i64, i64) -> ()
  }, {
    %v = "ingot.load"(%a) : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "set", axes = array<i64: 1>} : (tensor<?x6xf32, #ingot.dims<["N"]>>, tensor<?x6xf32, #ingot.dims<["N"]>>) -> tensor<?x6xf32, #ingot.dims<["N"]>>
  "ingot.output"(%s) {name = "y", type = "float"} : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "i"], input_types = ["float", "int64"]} : () -> ()

// -----

// Fires, with dynamic shapes: interleaved pairs turned by cos and sin tables are one pointwise operation over [..., D/2, 2].
// CHECK:      %[[SPLIT:.*]] = "ingot.reshape"(%arg0) {{.*}} -> tensor<?x?x4x2xf32
// CHECK:      "ingot.slice"(%[[SPLIT]]) {starts = ["0", "0", "0", "1"], steps = array<i64: 1, 1, 1, -1>}
// CHECK:      "ingot.pointwise"
// CHECK-COUNT-4: "ingot.load"
// CHECK-NOT:  "ingot.load"
// CHECK-NOT:  "ingot.pointwise"
// CHECK-NOT:  "ingot.move"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %c: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %s: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>):
  %p = "ingot.reshape"(%x) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %even = "ingot.slice"(%p) {starts = ["0", "0", "0", "0"], steps = array<i64: 1, 1, 1, 1>} : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %odd = "ingot.slice"(%p) {starts = ["0", "0", "0", "1"], steps = array<i64: 1, 1, 1, 1>} : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %n = "ingot.pointwise"() ({
    %e = "ingot.load"(%odd) : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %e = "ingot.empty"() : () -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %m = "ingot.move"(%n, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0", "0"]} : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %r = "ingot.move"(%even, %m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0", "1"]} : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %turned = "ingot.reshape"(%r) : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %xc = "ingot.pointwise"() ({
    %l = "ingot.load"(%x) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%c) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %xs = "ingot.pointwise"() ({
    %l = "ingot.load"(%turned) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%s) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%xc) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%xs) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.addf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%y) {name = "o0", type = "float"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires, with dynamic shapes: after an RMS normalization it is the epilogue of that, which computes the pairs' other elements
// from the row's scale; the weight is read backwards, too.
// CHECK:      "ingot.normalize"
// CHECK:      ^bb0(%[[Y:.*]]: f32, %[[SCALE:.*]]: f32):
// CHECK:        "ingot.load"(%{{.*}}) : (tensor<1x1x4x2xf32>) -> f32
// CHECK:        "ingot.mulf"(%{{.*}}, %[[SCALE]])
// CHECK:        "ingot.load"(%{{.*}}) : (tensor<1x1x4x2xf32>) -> f32
// CHECK:      axes = array<i64: 2, 3>
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %c: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %s: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>):
  %g = "ingot.weight"() {name = "g"} : () -> tensor<8xf32>
  %y0 = "ingot.normalize"(%x) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axes = array<i64: 2>, epsilon = 1.0e-6 : f64, kind = "rms"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %z = "ingot.pointwise"() ({
    %l = "ingot.load"(%y0) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%g) : (tensor<8xf32>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %p = "ingot.reshape"(%z) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %even = "ingot.slice"(%p) {starts = ["0", "0", "0", "0"], steps = array<i64: 1, 1, 1, 1>} : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %odd = "ingot.slice"(%p) {starts = ["0", "0", "0", "1"], steps = array<i64: 1, 1, 1, 1>} : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %n = "ingot.pointwise"() ({
    %e = "ingot.load"(%odd) : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %e = "ingot.empty"() : () -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %m = "ingot.move"(%n, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0", "0"]} : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %r = "ingot.move"(%even, %m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0", "1"]} : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %turned = "ingot.reshape"(%r) : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %xc = "ingot.pointwise"() ({
    %l = "ingot.load"(%z) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%c) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %xs = "ingot.pointwise"() ({
    %l = "ingot.load"(%turned) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%s) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%xc) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%xs) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.addf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%y) {name = "o0", type = "float"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires: after a layer normalization, whose mean it takes as well; what the normalization alone gives is an output too.
// CHECK:      "ingot.normalize"
// CHECK:      ^bb0(%{{.*}}: f32, %[[MEAN:.*]]: f32, %[[SCALE:.*]]: f32):
// CHECK:        %[[D:.*]] = "ingot.subf"(%{{.*}}, %[[MEAN]])
// CHECK:        "ingot.mulf"(%[[D]], %[[SCALE]])
// CHECK:        "ingot.yield"(%{{.*}}, %{{.*}}) : (f32, f32)
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %c: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %s: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>):
  %g = "ingot.weight"() {name = "g"} : () -> tensor<8xf32>
  %y0 = "ingot.normalize"(%x) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axes = array<i64: 2>, epsilon = 1.0e-6 : f64, kind = "layer"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %z = "ingot.pointwise"() ({
    %l = "ingot.load"(%y0) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%g) : (tensor<8xf32>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %p = "ingot.reshape"(%z) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %even = "ingot.slice"(%p) {starts = ["0", "0", "0", "0"], steps = array<i64: 1, 1, 1, 1>} : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %odd = "ingot.slice"(%p) {starts = ["0", "0", "0", "1"], steps = array<i64: 1, 1, 1, 1>} : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %n = "ingot.pointwise"() ({
    %e = "ingot.load"(%odd) : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %e = "ingot.empty"() : () -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %m = "ingot.move"(%n, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0", "0"]} : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %r = "ingot.move"(%even, %m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0", "1"]} : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %turned = "ingot.reshape"(%r) : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %xc = "ingot.pointwise"() ({
    %l = "ingot.load"(%z) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%c) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %xs = "ingot.pointwise"() ({
    %l = "ingot.load"(%turned) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%s) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%xc) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%xs) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.addf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%y) {name = "o0", type = "float"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.output"(%z) {name = "o1", type = "float"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: pairs that lie in different rows of a normalization. They are turned by one pointwise operation.
// CHECK:      "ingot.normalize"
// CHECK:      ^bb0(%{{.*}}: f32):
// CHECK:      ^bb0(%{{.*}}: f32):
// CHECK:      axes = array<i64: 1>
// CHECK-COUNT-1: "ingot.pointwise"
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %c: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %s: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>):
  %g = "ingot.weight"() {name = "g"} : () -> tensor<8xf32>
  %y0 = "ingot.normalize"(%x) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axes = array<i64: 1>, epsilon = 1.0e-6 : f64, kind = "rms"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %z = "ingot.pointwise"() ({
    %l = "ingot.load"(%y0) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%g) : (tensor<8xf32>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %p = "ingot.reshape"(%z) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %even = "ingot.slice"(%p) {starts = ["0", "0", "0", "0"], steps = array<i64: 1, 1, 1, 1>} : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %odd = "ingot.slice"(%p) {starts = ["0", "0", "0", "1"], steps = array<i64: 1, 1, 1, 1>} : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %n = "ingot.pointwise"() ({
    %e = "ingot.load"(%odd) : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>
  %e = "ingot.empty"() : () -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %m = "ingot.move"(%n, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0", "0"]} : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %r = "ingot.move"(%even, %m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0", "1"]} : (tensor<?x?x4x1xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>
  %turned = "ingot.reshape"(%r) : (tensor<?x?x4x2xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %xc = "ingot.pointwise"() ({
    %l = "ingot.load"(%z) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%c) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %xs = "ingot.pointwise"() ({
    %l = "ingot.load"(%turned) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%s) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%xc) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%xs) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.addf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%y) {name = "o0", type = "float"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires, with dynamic shapes: halves that are computed each from both halves, with tables of half the size, which repeat.
// CHECK:      ^bb0(%[[X:.*]]: tensor<?x?x8xf32{{.*}}, %[[C:.*]]: tensor<?x?x8xf32{{.*}}, %[[S:.*]]: tensor<?x?x8xf32
// CHECK-DAG:  "ingot.slice"(%{{.*}}) {starts = ["0", "0", "1", "0"], steps = array<i64: 1, 1, -1, 1>}
// CHECK:      "ingot.pointwise"
// CHECK-DAG:    "ingot.load"(%{{.*}}) : (tensor<?x?x2x4xf32
// CHECK-DAG:    "ingot.load"(%{{.*}}) : (tensor<?x?x1x4xf32
// CHECK-NOT:  "ingot.pointwise"
// CHECK-NOT:  "ingot.move"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %c: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %s: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>):
  %a = "ingot.slice"(%x) {starts = ["0", "0", "0"], steps = array<i64: 1, 1, 1>} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %b = "ingot.slice"(%x) {starts = ["0", "0", "4"], steps = array<i64: 1, 1, 1>} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %ch = "ingot.slice"(%c) {starts = ["0", "0", "0"], steps = array<i64: 1, 1, 1>} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %sh = "ingot.slice"(%s) {starts = ["0", "0", "0"], steps = array<i64: 1, 1, 1>} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %first = "ingot.pointwise"() ({
    %u = "ingot.load"(%a) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%ch) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %p = "ingot.mulf"(%u, %k) : (f32, f32) -> f32
    %w = "ingot.load"(%b) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %l = "ingot.load"(%sh) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%w, %l) : (f32, f32) -> f32
    %r = "ingot.subf"(%p, %q) : (f32, f32) -> f32
    "ingot.yield"(%r) : (f32) -> ()
  }) : () -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %second = "ingot.pointwise"() ({
    %u = "ingot.load"(%b) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%ch) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %p = "ingot.mulf"(%u, %k) : (f32, f32) -> f32
    %w = "ingot.load"(%a) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %l = "ingot.load"(%sh) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%w, %l) : (f32, f32) -> f32
    %r = "ingot.addf"(%p, %q) : (f32, f32) -> f32
    "ingot.yield"(%r) : (f32) -> ()
  }) : () -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %e = "ingot.empty"() : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %m = "ingot.move"(%first, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0"]} : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %r = "ingot.move"(%second, %m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "4"]} : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%r) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.const"() {value = 0.125 : f32} : () -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%y) {name = "o0", type = "float"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires: a reduction's domain stays as it is, so that what it reads backwards is read at computed positions.
// CHECK:      "ingot.reduce"
// CHECK:        "ingot.shrui"
// CHECK:        "ingot.andi"
// CHECK:      axes = array<i64: 2>
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %c: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %s: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>):
  %a = "ingot.slice"(%x) {starts = ["0", "0", "0"], steps = array<i64: 1, 1, 1>} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %b = "ingot.slice"(%x) {starts = ["0", "0", "4"], steps = array<i64: 1, 1, 1>} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %first = "ingot.pointwise"() ({
    %u = "ingot.load"(%b) : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>) -> f32
    %n = "ingot.negf"(%u) : (f32) -> f32
    "ingot.yield"(%n) : (f32) -> ()
  }) : () -> tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>
  %e = "ingot.empty"() : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %m = "ingot.move"(%first, %e) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "0"]} : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %r = "ingot.move"(%a, %m) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0", "4"]} : (tensor<?x?x4xf32, #ingot.dims<["B", "S"]>>, tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%r) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%c) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %t = "ingot.reduce"(%y) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axes = array<i64: 2>, kind = "sum"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x1xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%t) {name = "o0", type = "float"} : (tensor<?x?x1xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires: 1 + scale, which every row reads, is computed in the epilogue of an adaptive normalization.
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      "ingot.normalize"
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %c: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %s: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>):
  %g = "ingot.weight"() {name = "g"} : () -> tensor<8xf32>
  %one = "ingot.slice"(%c) {starts = ["0", "0", "0"], steps = array<i64: 1, 1, 1>} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x1x8xf32, #ingot.dims<["B"]>>
  %scale = "ingot.pointwise"() ({
    %l = "ingot.load"(%one) : (tensor<?x1x8xf32, #ingot.dims<["B"]>>) -> f32
    %k = "ingot.const"() {value = 1.0 : f32} : () -> f32
    %q = "ingot.addf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x1x8xf32, #ingot.dims<["B"]>>
  %y0 = "ingot.normalize"(%x) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axes = array<i64: 2>, epsilon = 1.0e-6 : f64, kind = "rms"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %z = "ingot.pointwise"() ({
    %l = "ingot.load"(%y0) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%g) : (tensor<8xf32>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%z) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%scale) : (tensor<?x1x8xf32, #ingot.dims<["B"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%y) {name = "o0", type = "float"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: tanh(1 + scale) is computed once.
// CHECK:      "ingot.pointwise"
// CHECK:      "ingot.normalize"
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %c: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>, %s: tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>):
  %g = "ingot.weight"() {name = "g"} : () -> tensor<8xf32>
  %one = "ingot.slice"(%c) {starts = ["0", "0", "0"], steps = array<i64: 1, 1, 1>} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x1x8xf32, #ingot.dims<["B"]>>
  %scale = "ingot.pointwise"() ({
    %l = "ingot.load"(%one) : (tensor<?x1x8xf32, #ingot.dims<["B"]>>) -> f32
    %k = "ingot.const"() {value = 1.0 : f32} : () -> f32
    %q = "ingot.addf"(%l, %k) : (f32, f32) -> f32
    %t = "ingot.tanh"(%q) : (f32) -> f32
    "ingot.yield"(%t) : (f32) -> ()
  }) : () -> tensor<?x1x8xf32, #ingot.dims<["B"]>>
  %y0 = "ingot.normalize"(%x) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axes = array<i64: 2>, epsilon = 1.0e-6 : f64, kind = "rms"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %z = "ingot.pointwise"() ({
    %l = "ingot.load"(%y0) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%g) : (tensor<8xf32>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  %y = "ingot.pointwise"() ({
    %l = "ingot.load"(%z) : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> f32
    %k = "ingot.load"(%scale) : (tensor<?x1x8xf32, #ingot.dims<["B"]>>) -> f32
    %q = "ingot.mulf"(%l, %k) : (f32, f32) -> f32
    "ingot.yield"(%q) : (f32) -> ()
  }) : () -> tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%y) {name = "o0", type = "float"} : (tensor<?x?x8xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires: a cast of what others read, too, as a result of a second type. Must not fire: a cast to a third.
// CHECK:      %[[P:.*]]:2 = "ingot.matmul"
// CHECK:      "ingot.yield"(%{{.*}}, %{{.*}}) : (f32, f16)
// CHECK:      (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf16, #ingot.dims<["N"]>>)
// CHECK:      %[[Q:.*]] = "ingot.pointwise"
// CHECK:      "ingot.load"(%[[P]]#0)
// CHECK-NEXT: "ingot.truncf"{{.*}} -> f8E4M3FN
"ingot.func"() ({
^bb0(%x: tensor<?x8xf32, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<8x4xf32>
  %q = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<8x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %q1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %g = "ingot.truncf"(%e) : (f32) -> f16
    "ingot.yield"(%g) : (f16) -> ()
  }) : () -> tensor<?x4xf16, #ingot.dims<["N"]>>
  %q2 = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
    %g = "ingot.truncf"(%e) : (f32) -> f8E4M3FN
    "ingot.yield"(%g) : (f8E4M3FN) -> ()
  }) : () -> tensor<?x4xf8E4M3FN, #ingot.dims<["N"]>>
  "ingot.output"(%q) {name = "q", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q1) {name = "q1", type = "float16"} : (tensor<?x4xf16, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q2) {name = "q2", type = "float8e4m3fn"} : (tensor<?x4xf8E4M3FN, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: a product read as it is and transposed; a sum with what comes later than the product, which others read; a
// position in axes that the product does not have; an exponential that is read as it is and transposed, by a sum over elements
// and by a reduction.
// CHECK:      %[[P:.*]] = "ingot.matmul"
// CHECK-NEXT: ^bb0
// CHECK-NEXT: "ingot.yield"
// CHECK:      "ingot.load"(%[[P]])
// CHECK:      %[[R:.*]] = "ingot.matmul"
// CHECK-NEXT: ^bb0
// CHECK-NEXT: "ingot.yield"
// CHECK:      %[[S:.*]] = "ingot.move"
// CHECK-NEXT: ^bb0
// CHECK-NEXT: "ingot.truncf"
// CHECK-NEXT: "ingot.yield"
// CHECK-DAG:  "ingot.load"(%[[R]])
// CHECK-DAG:  "ingot.load"(%[[S]])
// CHECK:      %[[T:.*]] = "ingot.matmul"
// CHECK-NEXT: ^bb0
// CHECK-NEXT: "ingot.yield"
// CHECK:      "ingot.index"() {axis = 0
// CHECK:      %[[E:.*]] = "ingot.pointwise"
// CHECK:      "ingot.exp"
// CHECK:      %[[F:.*]] = "ingot.pointwise"
// CHECK:      "ingot.exp"
// CHECK:      "ingot.load"(%[[E]])
// CHECK:      "ingot.reduce"(%[[F]])
// CHECK-NOT:  "ingot.exp"
"ingot.func"() ({
^bb0(%x: tensor<4x8xf32>, %y: tensor<4x4xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<8x4xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<8x6xf32>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %pt = "ingot.transpose"(%p) {perm = [1, 0]} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %p1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<4x4xf32>) -> f32
    %f = "ingot.load"(%pt) : (tensor<4x4xf32>) -> f32
    %g = "ingot.subf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %r = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %yt = "ingot.transpose"(%y) {perm = [1, 0]} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %s = "ingot.move"(%yt) ({
  ^bb0(%a: f32):
    %h = "ingot.truncf"(%a) : (f32) -> f16
    "ingot.yield"(%h) : (f16) -> ()
  }) : (tensor<4x4xf32>) -> tensor<4x4xf16>
  %r1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%r) : (tensor<4x4xf32>) -> f32
    %h = "ingot.load"(%s) : (tensor<4x4xf16>) -> f16
    %f = "ingot.extf"(%h) : (f16) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %t = "ingot.matmul"(%x, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x6xf32>) -> tensor<4x6xf32>
  %tr = "ingot.reshape"(%t) : (tensor<4x6xf32>) -> tensor<2x2x6xf32>
  %t1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%tr) : (tensor<2x2x6xf32>) -> f32
    %i = "ingot.index"() {axis = 0} : () -> i64
    %f = "ingot.sitofp"(%i) : (i64) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x2x6xf32>
  %e1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%y) : (tensor<4x4xf32>) -> f32
    %f = "ingot.exp"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %et = "ingot.transpose"(%e1) {perm = [1, 0]} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %f1 = "ingot.pointwise"() ({
    %n = "ingot.load"(%y) : (tensor<4x4xf32>) -> f32
    %e = "ingot.negf"(%n) : (f32) -> f32
    %f = "ingot.exp"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %ft = "ingot.transpose"(%f1) {perm = [1, 0]} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %e2 = "ingot.pointwise"() ({
    %e = "ingot.load"(%e1) : (tensor<4x4xf32>) -> f32
    %f = "ingot.load"(%et) : (tensor<4x4xf32>) -> f32
    %g = "ingot.subf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %f2 = "ingot.reduce"(%f1) ({
  ^bb0(%e: f32):
    %f = "ingot.load"(%ft) : (tensor<4x4xf32>) -> f32
    %g = "ingot.subf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = [1], kind = "sum"} : (tensor<4x4xf32>) -> tensor<4x1xf32>
  "ingot.output"(%p1) {name = "p1", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%r) {name = "r", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%s) {name = "s", type = "float16"} : (tensor<4x4xf16>) -> ()
  "ingot.output"(%r1) {name = "r1", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%t1) {name = "t1", type = "float"} : (tensor<2x2x6xf32>) -> ()
  "ingot.output"(%e2) {name = "e2", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%f2) {name = "f2", type = "float"} : (tensor<4x1xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire: a product that is read at another position besides its own; a table read at a position, which two read.
// CHECK:      %[[P:.*]] = "ingot.matmul"
// CHECK-NEXT: ^bb0
// CHECK-NEXT: "ingot.yield"
// CHECK:      "ingot.load"(%[[P]])
// CHECK:      "ingot.load_at"(%[[P]]
// CHECK:      %[[Q:.*]] = "ingot.pointwise"
// CHECK-COUNT-1: "ingot.load_at"
// CHECK:      "ingot.load"(%[[Q]])
// CHECK:      "ingot.load"(%[[Q]])
// CHECK-NOT:  "ingot.load_at"
"ingot.func"() ({
^bb0(%x: tensor<4x8xf32>, %h: tensor<4x4xi64>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<8x4xf32>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %p1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<4x4xf32>) -> f32
    %i = "ingot.index"() {axis = 0} : () -> i64
    %z = "ingot.const"() {value = 0 : i64} : () -> i64
    %f = "ingot.load_at"(%p, %i, %z) : (tensor<4x4xf32>, i64, i64) -> f32
    %g = "ingot.subf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %q = "ingot.pointwise"() ({
    %i = "ingot.index"() {axis = 0} : () -> i64
    %z = "ingot.const"() {value = 1 : i64} : () -> i64
    %f = "ingot.load_at"(%h, %i, %z) : (tensor<4x4xi64>, i64, i64) -> i64
    "ingot.yield"(%f) : (i64) -> ()
  }) : () -> tensor<4x4xi64>
  %q1 = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<4x4xi64>) -> i64
    %f = "ingot.sitofp"(%e) : (i64) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  %q2 = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<4x4xi64>) -> i64
    %f = "ingot.sitofp"(%e) : (i64) -> f32
    %m = "ingot.negf"(%f) : (f32) -> f32
    "ingot.yield"(%m) : (f32) -> ()
  }) : () -> tensor<4x4xf32>
  "ingot.output"(%p1) {name = "p1", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%q1) {name = "q1", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%q2) {name = "q2", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "h"], input_types = ["float", "int64"]} : () -> ()
