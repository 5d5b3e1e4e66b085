// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-plan-buffers)' --split-input-file | filecheck %s
// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-plan-buffers{in-place=false})' --split-input-file | filecheck %s --check-prefix=APART

// Fires: %b takes over %a, which dies there; the last result is written to the output.
// CHECK:       "ingot.reduce"
// CHECK:       ingot.buffers = ["arena:0"]
// CHECK:       "ingot.pointwise"
// CHECK:       ingot.buffers = ["arena:0"]
// CHECK:       "ingot.pointwise"
// CHECK:       ingot.buffers = ["output:0"]
// CHECK:       ingot.arena_bytes = "256", ingot.offsets = ["0"], ingot.slots = ["32"]
// APART:       ingot.buffers = ["arena:0"]
// APART:       ingot.buffers = ["arena:1"]
// APART:       ingot.arena_bytes = "512", ingot.offsets = ["0", "256"], ingot.slots = ["32", "32"]
"ingot.func"() ({
^bb0(%x: tensor<4x8xf32>):
  %a = "ingot.reduce"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = [0], kind = "sum"} : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %b = "ingot.pointwise"() ({
    %e = "ingot.load"(%a) : (tensor<1x8xf32>) -> f32
    %n = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%n) : (f32) -> ()
  }) : () -> tensor<1x8xf32>
  %c = "ingot.pointwise"() ({
    %e = "ingot.load"(%b) : (tensor<1x8xf32>) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x8xf32>
  %flat = "ingot.reshape"(%c) : (tensor<4x8xf32>) -> tensor<32xf32>
  "ingot.output"(%flat) {name = "y", type = "float"} : (tensor<32xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: %a is read in another order than it is written, so %b gets memory of its own; an output that is an input,
// and one that is another output's memory, are copied.
// CHECK:       "ingot.move"(%arg0)
// CHECK:       ingot.buffers = ["arena:0"]
// CHECK:       "ingot.pointwise"
// CHECK:       ingot.buffers = ["output:0"]
// CHECK:       "ingot.move"(%arg0)
// CHECK:       ingot.buffers = ["output:1"]
// CHECK:       "ingot.move"
// CHECK:       ingot.buffers = ["output:2"]
"ingot.func"() ({
^bb0(%x: tensor<8x8xf32>):
  %a = "ingot.move"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %t = "ingot.transpose"(%a) {perm = [1, 0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %b = "ingot.pointwise"() ({
    %e = "ingot.load"(%t) : (tensor<8x8xf32>) -> f32
    %n = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%n) : (f32) -> ()
  }) : () -> tensor<8x8xf32>
  "ingot.output"(%b) {name = "b", type = "float"} : (tensor<8x8xf32>) -> ()
  "ingot.output"(%x) {name = "x", type = "float"} : (tensor<8x8xf32>) -> ()
  "ingot.output"(%b) {name = "again", type = "float"} : (tensor<8x8xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Dynamic shapes: %big (2*N rows) and %small (N rows) never live at once, and N <= 2*N is known, so that they share a slot; %last
// (K rows) shares the other one, which is as large as the larger of K and M. The output `present` is the input `past` grown along axis 1.
// CHECK:       dim = "2*N"
// CHECK:       ingot.buffers = ["arena:0"]
// CHECK:       dim = "M"
// CHECK:       ingot.buffers = ["arena:1"]
// CHECK:       dim = "N"
// CHECK:       ingot.buffers = ["arena:0"]
// CHECK:       dim = "K"
// CHECK:       ingot.buffers = ["arena:1"]
// CHECK:       "ingot.empty"() {ingot.buffers = ["output:1"]}
// CHECK:       "ingot.move"(%arg0
// CHECK:       ingot.buffers = ["output:1"], ingot.state_copy = 0
// CHECK:       "ingot.move"
// CHECK:       ingot.buffers = ["output:1"]
// CHECK:       ingot.slots = ["8*N", "max(4*K, 4*M)"]
// CHECK-SAME:  ingot.states = {{\[}}[0, 1, 1, "P", "P + 1"]]
"ingot.func"() ({
^bb0(%past: tensor<2x?xf32, #ingot.dims<["P"]>>, %new: tensor<2x1xf32>, %n: tensor<?x?x?xi1, #ingot.dims<["N", "M", "K"]>>):
  %big = "ingot.pointwise"() ({
    %d = "ingot.dim"() {dim = "2*N"} : () -> i64
    %e = "ingot.sitofp"(%d) : (i64) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["2*N"]>>
  %m = "ingot.pointwise"() ({
    %d = "ingot.dim"() {dim = "M"} : () -> i64
    %b = "ingot.load_at"(%big, %d) : (tensor<?xf32, #ingot.dims<["2*N"]>>, i64) -> f32
    "ingot.yield"(%b) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["M"]>>
  %small = "ingot.pointwise"() ({
    %d = "ingot.dim"() {dim = "N"} : () -> i64
    %b = "ingot.load_at"(%m, %d) : (tensor<?xf32, #ingot.dims<["M"]>>, i64) -> f32
    "ingot.yield"(%b) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["N"]>>
  %last = "ingot.pointwise"() ({
    %d = "ingot.dim"() {dim = "K"} : () -> i64
    %b = "ingot.load_at"(%small, %d) : (tensor<?xf32, #ingot.dims<["N"]>>, i64) -> f32
    "ingot.yield"(%b) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["K"]>>
  %sum = "ingot.pointwise"() ({
    %c = "ingot.const"() {value = 0 : i64} : () -> i64
    %b = "ingot.load_at"(%last, %c) : (tensor<?xf32, #ingot.dims<["K"]>>, i64) -> f32
    "ingot.yield"(%b) : (f32) -> ()
  }) : () -> tensor<1xf32>
  "ingot.output"(%sum) {name = "sum", type = "float"} : (tensor<1xf32>) -> ()
  %e = "ingot.empty"() : () -> tensor<2x?xf32, #ingot.dims<["P + 1"]>>
  %p0 = "ingot.move"(%past, %e) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "0"]} : (tensor<2x?xf32, #ingot.dims<["P"]>>, tensor<2x?xf32, #ingot.dims<["P + 1"]>>)
     -> tensor<2x?xf32, #ingot.dims<["P + 1"]>>
  %p1 = "ingot.move"(%new, %p0) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "P"]} : (tensor<2x1xf32>, tensor<2x?xf32, #ingot.dims<["P + 1"]>>)
     -> tensor<2x?xf32, #ingot.dims<["P + 1"]>>
  "ingot.output"(%p1) {name = "present", type = "float"} : (tensor<2x?xf32, #ingot.dims<["P + 1"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["past", "new", "n"], input_types = ["float", "float", "bool"]} : () -> ()

// -----

// The branches of an `if` write its result where they compute it; what a branch only passes on is copied.
// CHECK:       "ingot.if"
// CHECK:       "ingot.pointwise"
// CHECK:       ingot.buffers = ["output:0"]
// CHECK:       }, {
// CHECK:       "ingot.move"
// CHECK:       ingot.buffers = ["output:0"]
// CHECK:       ingot.buffers = ["output:0"]
"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  %r = "ingot.if"(%c, %x) ({
  ^bb0(%a: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }, {
  ^bb0(%b: tensor<4x6xf32>):
    "ingot.result"(%b) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<i1>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

// What a loop carries has memory of its own, where an iteration replaces it element by element.
// CHECK:       "ingot.move"
// CHECK:       ingot.buffers = ["output:0"]
// CHECK:       "ingot.loop"
// CHECK:       %[[V:.*]] = "ingot.pointwise"
// CHECK-NOT:   "ingot.move"
// CHECK:       ingot.buffers = ["output:0"]
// CHECK:       "ingot.result"(%[[V]])
// CHECK:       ingot.buffers = ["output:0"]
"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  "ingot.host_read"(%m) {symbol = "M"} : (tensor<i64>) -> ()
  %r = "ingot.loop"(%x, %x) ({
  ^bb0(%a: tensor<4x6xf32>, %b: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "M", symbol = "i", carried = 1, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

// What a loop carries lies in memory of its own. The sum replaces an argument that nothing reads behind it, and two values that
// change places are copied before either is moved.
// CHECK:      "ingot.move"(%{{.*}}) ({
// CHECK:      ingot.buffers = ["output:0"]
// CHECK:      "ingot.move"
// CHECK:      ingot.buffers = ["output:1"]
// CHECK:      "ingot.move"
// CHECK:      ingot.buffers = ["output:2"]
// CHECK:      "ingot.loop"
// CHECK-NEXT: ^bb0(%[[X:.*]]: tensor<?x4xf32{{.*}}, %[[Y:.*]]: tensor<?x4xf32{{.*}}, %[[Z:.*]]: tensor<?x4xf32
// CHECK-NEXT: %[[P:.*]] = "ingot.pointwise"
// CHECK:      ingot.buffers = ["output:0"]
// CHECK:      %[[CZ:.*]] = "ingot.move"(%[[Z]])
// CHECK:      %[[CY:.*]] = "ingot.move"(%[[Y]])
// CHECK:      %[[R1:.*]] = "ingot.move"(%[[CZ]], %[[Y]])
// CHECK:      ingot.buffers = ["output:1"]
// CHECK:      %[[R2:.*]] = "ingot.move"(%[[CY]], %[[Z]])
// CHECK:      ingot.buffers = ["output:2"]
// CHECK:      "ingot.result"(%[[P]])
// CHECK-NEXT: "ingot.result"(%[[R1]])
// CHECK-NEXT: "ingot.result"(%[[R2]])
// CHECK:      ingot.buffers = ["output:0", "output:1", "output:2"]
#three = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>):
  %r:3 = "ingot.loop"(%x, %x, %x) ({
  ^bb0(%a: tensor<?x4xf32, #ingot.dims<["N"]>>, %b: tensor<?x4xf32, #ingot.dims<["N"]>>, %c: tensor<?x4xf32, #ingot.dims<["N"]>>):
    %p = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
      %f = "ingot.load"(%b) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
      %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
    "ingot.result"(%p) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.result"(%c) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.result"(%b) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 3, operandSegmentSizes = #three, resultSegmentSizes = #three}
    : (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>) -> (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>)
  "ingot.output"(%r#0) {name = "y0", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r#1) {name = "y1", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r#2) {name = "y2", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: a product reads all of its operand, and what is read behind its last write stays until the end; both are moved.
// The third is written where it lies, since nothing reads its argument any more.
// CHECK:      "ingot.loop"
// CHECK-NEXT: ^bb0(%[[X:.*]]: tensor<?x4xf32{{.*}}, %[[Y:.*]]: tensor<?x4xf32{{.*}}, %[[Z:.*]]: tensor<?x4xf32
// CHECK:      %[[P:.*]] = "ingot.matmul"(%[[X]]
// CHECK:      ingot.buffers = ["arena:{{[0-9]+}}"]
// CHECK:      %[[Q:.*]] = "ingot.pointwise"
// CHECK:      ingot.buffers = ["arena:{{[0-9]+}}"]
// CHECK:      %[[R:.*]] = "ingot.pointwise"
// CHECK:      ingot.buffers = ["output:2"]
// CHECK:      %[[M0:.*]] = "ingot.move"(%[[P]], %[[X]])
// CHECK:      %[[M1:.*]] = "ingot.move"(%[[Q]], %[[Y]])
// CHECK:      "ingot.result"(%[[M0]])
// CHECK-NEXT: "ingot.result"(%[[M1]])
// CHECK-NEXT: "ingot.result"(%[[R]])
#three = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>):
  %r:3 = "ingot.loop"(%x, %x, %x) ({
  ^bb0(%a: tensor<?x4xf32, #ingot.dims<["N"]>>, %b: tensor<?x4xf32, #ingot.dims<["N"]>>, %c: tensor<?x4xf32, #ingot.dims<["N"]>>):
    %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
    %p = "ingot.matmul"(%a, %w) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {acc = "f32"} : (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<4x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
    %q = "ingot.pointwise"() ({
      %e = "ingot.load"(%b) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
      %f = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
    %s = "ingot.pointwise"() ({
      %e = "ingot.load"(%b) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
      %f = "ingot.load"(%c) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> f32
      %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<?x4xf32, #ingot.dims<["N"]>>
    "ingot.result"(%p) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.result"(%q) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.result"(%s) : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 3, operandSegmentSizes = #three, resultSegmentSizes = #three}
    : (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>) -> (tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>)
  "ingot.output"(%r#0) {name = "y0", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r#1) {name = "y1", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r#2) {name = "y2", type = "float"} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires: a row is written into the memory that a loop carries, and nothing is moved beside it. Must not fire: the same tensor given
// for another argument is moved there.
// CHECK:      "ingot.loop"
// CHECK-NEXT: ^bb0(%[[A:.*]]: tensor<3x4xf32>, %[[B:.*]]: tensor<3x4xf32>, %[[X:.*]]: tensor<1x4xf32>
// CHECK-NEXT: %[[M:.*]] = "ingot.move"(%[[X]], %[[A]])
// CHECK:      ingot.buffers = ["output:0"], offsets = ["i", "0"]
// CHECK:      %[[C:.*]] = "ingot.move"(%[[M]])
// CHECK:      ingot.buffers = ["arena:{{[0-9]+}}"]
// CHECK:      %[[N:.*]] = "ingot.move"(%[[C]], %[[B]])
// CHECK:      ingot.buffers = ["output:1"]
// CHECK:      "ingot.result"(%[[M]])
// CHECK-NEXT: "ingot.result"(%[[N]])
#three = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#two = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<1x4xf32>, %z: tensor<3x4xf32>):
  %r:2 = "ingot.loop"(%z, %z, %x) ({
  ^bb0(%a: tensor<3x4xf32>, %b: tensor<3x4xf32>, %row: tensor<1x4xf32>):
    %m = "ingot.move"(%row, %a) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {offsets = ["i", "0"]} : (tensor<1x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
    "ingot.result"(%m) : (tensor<3x4xf32>) -> ()
    "ingot.result"(%m) : (tensor<3x4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 2, operandSegmentSizes = #three, resultSegmentSizes = #two}
    : (tensor<3x4xf32>, tensor<3x4xf32>, tensor<1x4xf32>) -> (tensor<3x4xf32>, tensor<3x4xf32>)
  "ingot.output"(%r#0) {name = "y0", type = "float"} : (tensor<3x4xf32>) -> ()
  "ingot.output"(%r#1) {name = "y1", type = "float"} : (tensor<3x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "z"], input_types = ["float", "float"]} : () -> ()

// -----

// What an iteration gives as it was stays where it lies.
// CHECK:      "ingot.loop"
// CHECK-NEXT: ^bb0(%[[A:.*]]: tensor<3x4xf32>, %[[B:.*]]: tensor<3x4xf32>):
// CHECK-NEXT: %[[P:.*]] = "ingot.pointwise"
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.result"(%[[P]])
// CHECK-NEXT: "ingot.result"(%[[B]])
// CHECK:      ingot.buffers = ["output:0", "output:1"]
#two = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<3x4xf32>, %z: tensor<3x4xf32>):
  %r:2 = "ingot.loop"(%z, %x) ({
  ^bb0(%a: tensor<3x4xf32>, %b: tensor<3x4xf32>):
    %m = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<3x4xf32>) -> f32
      %f = "ingot.load"(%b) : (tensor<3x4xf32>) -> f32
      %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<3x4xf32>
    "ingot.result"(%m) : (tensor<3x4xf32>) -> ()
    "ingot.result"(%b) : (tensor<3x4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 2, operandSegmentSizes = #two, resultSegmentSizes = #two}
    : (tensor<3x4xf32>, tensor<3x4xf32>) -> (tensor<3x4xf32>, tensor<3x4xf32>)
  "ingot.output"(%r#0) {name = "y0", type = "float"} : (tensor<3x4xf32>) -> ()
  "ingot.output"(%r#1) {name = "y1", type = "float"} : (tensor<3x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "z"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire: a product whose second operand is what the loop carries, and a copy made of it, are moved there.
// CHECK:      "ingot.loop"
// CHECK-NEXT: ^bb0(%[[A:.*]]: tensor<4x4xf32>, %[[B:.*]]: tensor<4x4xf32>):
// CHECK:      %[[P:.*]] = "ingot.matmul"(%{{.*}}, %[[A]])
// CHECK:      %[[Q:.*]] = "ingot.move"(%[[B]])
// CHECK:      "ingot.move"(%[[P]], %[[A]])
// CHECK:      "ingot.move"(%[[Q]], %[[B]])
#two = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<4x4xf32>):
  %r:2 = "ingot.loop"(%x, %x) ({
  ^bb0(%a: tensor<4x4xf32>, %b: tensor<4x4xf32>):
    %w = "ingot.weight"() {name = "w"} : () -> tensor<4x4xf32>
    %p = "ingot.matmul"(%w, %a) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {acc = "f32"} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %q = "ingot.move"(%b) ({
    ^bb0(%e: f32):
      %f = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) : (tensor<4x4xf32>) -> tensor<4x4xf32>
    "ingot.result"(%p) : (tensor<4x4xf32>) -> ()
    "ingot.result"(%q) : (tensor<4x4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 2, operandSegmentSizes = #two, resultSegmentSizes = #two}
    : (tensor<4x4xf32>, tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>)
  "ingot.output"(%r#0) {name = "y0", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.output"(%r#1) {name = "y1", type = "float"} : (tensor<4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: %a is read element by element, and in another order besides; %c is read backwards; %e is read for every element of
// a row, although the result has as many bytes.
// CHECK:       "ingot.reduce"
// CHECK:       ingot.buffers = ["arena:0"]
// CHECK:       "ingot.pointwise"
// CHECK:       ingot.buffers = ["arena:1"]
// CHECK:       "ingot.pointwise"
// CHECK:       ingot.buffers = ["arena:0"]
// CHECK:       "ingot.reduce"
// CHECK:       ingot.buffers = ["arena:{{[0-9]+}}"]
// CHECK:       "ingot.pointwise"
// CHECK:       ingot.buffers = ["output:1"]
"ingot.func"() ({
^bb0(%x: tensor<2x4x4xf32>, %y: tensor<8x1x2xf32>):
  %a = "ingot.reduce"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = [0], kind = "sum"} : (tensor<2x4x4xf32>) -> tensor<1x4x4xf32>
  %t = "ingot.transpose"(%a) {perm = [0, 2, 1]} : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %c = "ingot.pointwise"() ({
    %e = "ingot.load"(%a) : (tensor<1x4x4xf32>) -> f32
    %f = "ingot.load"(%t) : (tensor<1x4x4xf32>) -> f32
    %g = "ingot.subf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  %back = "ingot.slice"(%c) {starts = ["0", "3", "0"], steps = [1, -1, 1]} : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %d = "ingot.pointwise"() ({
    %e = "ingot.load"(%back) : (tensor<1x4x4xf32>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  %sum = "ingot.pointwise"() ({
    %e = "ingot.load"(%d) : (tensor<1x4x4xf32>) -> f32
    %f = "ingot.load"(%back) : (tensor<1x4x4xf32>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  "ingot.output"(%sum) {name = "sum", type = "float"} : (tensor<1x4x4xf32>) -> ()
  %e = "ingot.reduce"(%y) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axes = [2], kind = "sum"} : (tensor<8x1x2xf32>) -> tensor<8x1x1xf32>
  %column = "ingot.reshape"(%e) : (tensor<8x1x1xf32>) -> tensor<8x1xf32>
  %g = "ingot.pointwise"() ({
    %v = "ingot.load"(%column) : (tensor<8x1xf32>) -> f32
    %w = "ingot.fptosi"(%v) : (f32) -> i8
    "ingot.yield"(%w) : (i8) -> ()
  }) : () -> tensor<8x4xi8>
  %h = "ingot.reshape"(%g) : (tensor<8x4xi8>) -> tensor<4x8xi8>
  %turned = "ingot.transpose"(%h) {perm = [1, 0]} : (tensor<4x8xi8>) -> tensor<8x4xi8>
  "ingot.output"(%turned) {name = "turned", type = "int8"} : (tensor<8x4xi8>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y"], input_types = ["float", "float"]} : () -> ()

// -----

// Fires: memory that a loop alone is given is what it carries. Must not fire: memory that it is given twice is copied, and of one
// tensor given for two arguments, the second is moved.
// CHECK:      %[[ONE:.*]] = "ingot.empty"() {ingot.buffers = ["output:0"]}
// CHECK:      %[[TWO:.*]] = "ingot.empty"
// CHECK:      %[[C1:.*]] = "ingot.move"(%[[TWO]])
// CHECK:      ingot.buffers = ["output:1"]
// CHECK:      %[[C2:.*]] = "ingot.move"(%[[TWO]])
// CHECK:      ingot.buffers = ["output:2"]
// CHECK:      "ingot.loop"(%[[ONE]], %[[C1]], %[[C2]])
// CHECK-NEXT: ^bb0(%{{.*}}, %{{.*}}, %[[Z:.*]]: tensor<4x6xf32>)
// CHECK:      %[[P:.*]] = "ingot.pointwise"
// CHECK:      ingot.buffers = ["output:0"]
// CHECK:      %[[Q:.*]] = "ingot.pointwise"
// CHECK:      ingot.buffers = ["output:1"]
// CHECK:      %[[M:.*]] = "ingot.move"(%[[Q]], %[[Z]])
// CHECK:      ingot.buffers = ["output:2"]
// CHECK:      "ingot.result"(%[[P]])
// CHECK-NEXT: "ingot.result"(%[[Q]])
// CHECK-NEXT: "ingot.result"(%[[M]])
#three = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>):
  %one = "ingot.empty"() : () -> tensor<4x6xf32>
  %two = "ingot.empty"() : () -> tensor<4x6xf32>
  %r:3 = "ingot.loop"(%one, %two, %two) ({
  ^bb0(%a: tensor<4x6xf32>, %b: tensor<4x6xf32>, %c: tensor<4x6xf32>):
    %p = "ingot.pointwise"() ({
      %n = "ingot.const"() {value = 1.0 : f32} : () -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    %q = "ingot.pointwise"() ({
      %n = "ingot.const"() {value = 2.0 : f32} : () -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%p) : (tensor<4x6xf32>) -> ()
    "ingot.result"(%q) : (tensor<4x6xf32>) -> ()
    "ingot.result"(%q) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 3, operandSegmentSizes = #three, resultSegmentSizes = #three}
    : (tensor<4x6xf32>, tensor<4x6xf32>, tensor<4x6xf32>) -> (tensor<4x6xf32>, tensor<4x6xf32>, tensor<4x6xf32>)
  "ingot.output"(%r#0) {name = "y0", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.output"(%r#1) {name = "y1", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.output"(%r#2) {name = "y2", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires: nothing reads the grown cache afterwards, so that a scatter replaces rows where they lie. What it stores lies there too, and
// is copied before. The output is still the input `past` grown, and no other copy of it is made.
// CHECK:      %[[E:.*]] = "ingot.empty"() {ingot.buffers = ["output:0"]}
// CHECK:      %[[OLD:.*]] = "ingot.move"(%arg0, %[[E]])
// CHECK:      ingot.buffers = ["output:0"], ingot.state_copy = 0
// CHECK:      %[[ALL:.*]] = "ingot.move"(%arg1, %[[OLD]])
// CHECK:      ingot.buffers = ["output:0"]
// CHECK:      %[[OWN:.*]] = "ingot.slice"(%[[ALL]])
// CHECK-NEXT: %[[COPY:.*]] = "ingot.move"(%[[OWN]])
// CHECK:      ingot.buffers = ["arena:0"]
// CHECK:      %[[S:.*]] = "ingot.scatter"(%[[ALL]], %[[COPY]])
// CHECK:      "ingot.load"(%[[COPY]])
// CHECK:      in_place, ingot.buffers = ["output:0"]
// CHECK:      "ingot.output"(%[[S]])
// CHECK:      ingot.slots = ["16*B"], ingot.states = {{\[}}[0, 0, 1, "P", "P + 1"]]
"ingot.func"() ({
^bb0(%past: tensor<?x?x4xf32, #ingot.dims<["B", "P"]>>, %new: tensor<?x1x4xf32, #ingot.dims<["B"]>>, %at: tensor<?xi64, #ingot.dims<["B"]>>):
  %e = "ingot.empty"() : () -> tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>
  %old = "ingot.move"(%past, %e) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "0", "0"]} : (tensor<?x?x4xf32, #ingot.dims<["B", "P"]>>, tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>)
     -> tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>
  %all = "ingot.move"(%new, %old) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "P", "0"]} : (tensor<?x1x4xf32, #ingot.dims<["B"]>>, tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>)
     -> tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>
  %own = "ingot.slice"(%all) {starts = ["0", "P", "0"], steps = array<i64: 1, 1, 1>}
    : (tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>) -> tensor<?x1x4xf32, #ingot.dims<["B"]>>
  %s = "ingot.scatter"(%all, %own) ({
    %b = "ingot.index"() {axis = 0} : () -> i64
    %row = "ingot.load_at"(%at, %b) : (tensor<?xi64, #ingot.dims<["B"]>>, i64) -> i64
    %c = "ingot.index"() {axis = 2} : () -> i64
    "ingot.yield"(%b, %row, %c) : (i64, i64, i64) -> ()
  }, {
    %v = "ingot.load"(%own) : (tensor<?x1x4xf32, #ingot.dims<["B"]>>) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "set", axes = [1]} : (tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>, tensor<?x1x4xf32, #ingot.dims<["B"]>>)
    -> tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>
  "ingot.output"(%s) {name = "present", type = "float"} : (tensor<?x?x4xf32, #ingot.dims<["B", "P + 1"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["past", "new", "at"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

// Must not fire: one scatter replaces rows of an input that is read afterwards, the other of what is an output besides.
// CHECK-NOT:   in_place
// CHECK:       "ingot.output"(%{{.*}}) {name = "n"
"ingot.func"() ({
^bb0(%x: tensor<4x8xf32>, %u: tensor<2x8xf32>):
  %n = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x8xf32>) -> f32
    %m = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%m) : (f32) -> ()
  }) : () -> tensor<4x8xf32>
  %s = "ingot.scatter"(%x, %u) ({
    %r = "ingot.index"() {axis = 0} : () -> i64
    %c = "ingot.index"() {axis = 1} : () -> i64
    "ingot.yield"(%r, %c) : (i64, i64) -> ()
  }, {
    %v = "ingot.load"(%u) : (tensor<2x8xf32>) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "set", axes = [0]} : (tensor<4x8xf32>, tensor<2x8xf32>) -> tensor<4x8xf32>
  %t = "ingot.scatter"(%n, %u) ({
    %r = "ingot.index"() {axis = 0} : () -> i64
    %c = "ingot.index"() {axis = 1} : () -> i64
    "ingot.yield"(%r, %c) : (i64, i64) -> ()
  }, {
    %r = "ingot.index"() {axis = 0} : () -> i64
    %v = "ingot.load_at"(%x, %r, %r) : (tensor<4x8xf32>, i64, i64) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "sum", axes = [0]} : (tensor<4x8xf32>, tensor<2x8xf32>) -> tensor<4x8xf32>
  "ingot.output"(%s) {name = "s", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.output"(%t) {name = "t", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.output"(%n) {name = "n", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "u"], input_types = ["float", "float"]} : () -> ()

// -----

// Fires: an output is an input with rows replaced, which nothing reads afterwards. A copy is made, which a donated buffer saves.
// CHECK:      %[[C:.*]] = "ingot.move"(%arg0)
// CHECK:      ingot.buffers = ["output:0"], ingot.state_copy = 0
// CHECK:      "ingot.scatter"(%[[C]], %arg1)
// CHECK:      in_place, ingot.buffers = ["output:0"]
// CHECK:      ingot.states = {{\[}}[0, 0, 0, "N", "N"]]
"ingot.func"() ({
^bb0(%x: tensor<?x8xf32, #ingot.dims<["N"]>>, %u: tensor<2x8xf32>):
  %s = "ingot.scatter"(%x, %u) ({
    %r = "ingot.index"() {axis = 0} : () -> i64
    %c = "ingot.index"() {axis = 1} : () -> i64
    "ingot.yield"(%r, %c) : (i64, i64) -> ()
  }, {
    %v = "ingot.load"(%u) : (tensor<2x8xf32>) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "set", axes = [0]} : (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<2x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  "ingot.output"(%s) {name = "s", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "u"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire: what a pointwise operation reads backwards, for every element of a row, or at places of its own is not replaced,
// although nothing reads it afterwards and the result has as many bytes.
// CHECK:      "ingot.reduce"
// CHECK:      ingot.buffers = ["arena:0"]
// CHECK:      "ingot.pointwise"
// CHECK:      ingot.buffers = ["arena:1"]
// CHECK:      "ingot.output"(%{{.*}}) {name = "backwards"
// CHECK:      "ingot.reduce"
// CHECK:      ingot.buffers = ["arena:0"]
// CHECK:      "ingot.pointwise"
// CHECK:      ingot.buffers = ["arena:1"]
// CHECK:      "ingot.output"(%{{.*}}) {name = "repeated"
// CHECK:      "ingot.reduce"
// CHECK:      ingot.buffers = ["arena:0"]
// CHECK:      "ingot.pointwise"
// CHECK:      ingot.buffers = ["arena:1"]
// CHECK:      "ingot.output"(%{{.*}}) {name = "turned"
"ingot.func"() ({
^bb0(%x: tensor<2x4x4xf32>, %y: tensor<8x2xf32>):
  %a = "ingot.reduce"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = [0], kind = "sum"} : (tensor<2x4x4xf32>) -> tensor<1x4x4xf32>
  %back = "ingot.slice"(%a) {starts = ["0", "3", "0"], steps = [1, -1, 1]} : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %b = "ingot.pointwise"() ({
    %e = "ingot.load"(%back) : (tensor<1x4x4xf32>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  %c = "ingot.pointwise"() ({
    %e = "ingot.load"(%b) : (tensor<1x4x4xf32>) -> f32
    %f = "ingot.sqrt"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  "ingot.output"(%c) {name = "backwards", type = "float"} : (tensor<1x4x4xf32>) -> ()
  %d = "ingot.reduce"(%y) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = [1], kind = "sum"} : (tensor<8x2xf32>) -> tensor<8x1xf32>
  %g = "ingot.pointwise"() ({
    %e = "ingot.load"(%d) : (tensor<8x1xf32>) -> f32
    %f = "ingot.fptosi"(%e) : (f32) -> i8
    "ingot.yield"(%f) : (i8) -> ()
  }) : () -> tensor<8x4xi8>
  %h = "ingot.pointwise"() ({
    %e = "ingot.load"(%g) : (tensor<8x4xi8>) -> i8
    %f = "ingot.sitofp"(%e) : (i8) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<8x4xf32>
  "ingot.output"(%h) {name = "repeated", type = "float"} : (tensor<8x4xf32>) -> ()
  %m = "ingot.reduce"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = [0], kind = "max"} : (tensor<2x4x4xf32>) -> tensor<1x4x4xf32>
  %n = "ingot.pointwise"() ({
    %zero = "ingot.index"() {axis = 0} : () -> i64
    %i = "ingot.index"() {axis = 1} : () -> i64
    %j = "ingot.index"() {axis = 2} : () -> i64
    %e = "ingot.load_at"(%m, %zero, %j, %i) : (tensor<1x4x4xf32>, i64, i64, i64) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  %o = "ingot.pointwise"() ({
    %e = "ingot.load"(%n) : (tensor<1x4x4xf32>) -> f32
    %f = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<1x4x4xf32>
  "ingot.output"(%o) {name = "turned", type = "float"} : (tensor<1x4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y"], input_types = ["float", "float"]} : () -> ()
