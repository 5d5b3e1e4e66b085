// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-canonicalize)' --split-input-file | filecheck %s

// Fires: views compose; a transpose of axes of size 1 is a reshape; the region folds to one load and one multiplication, reads
// the bias without the views that only repeat it, and what nothing uses goes.
// CHECK:      ^bb0(%[[X:.*]]: tensor<4x1x6xf32>, %[[B:.*]]: tensor<6xf32>)
// CHECK-NEXT: %[[R:.*]] = "ingot.reshape"(%[[X]]) : (tensor<4x1x6xf32>) -> tensor<2x2x6xf32>
// CHECK-NEXT: "ingot.pointwise"
// CHECK-NEXT:   %[[E:.*]] = "ingot.load"(%[[R]])
// CHECK-NEXT:   %[[L:.*]] = "ingot.load"(%[[B]])
// CHECK-NEXT:   %[[P:.*]] = "ingot.mulf"(%[[E]], %[[L]])
// CHECK-NEXT:   "ingot.yield"(%[[P]])
// CHECK:      "ingot.output"
"ingot.func"() ({
^bb0(%x: tensor<4x1x6xf32>, %bias: tensor<6xf32>):
  %t = "ingot.transpose"(%x) {perm = [1, 0, 2]} : (tensor<4x1x6xf32>) -> tensor<1x4x6xf32>
  %r = "ingot.reshape"(%t) : (tensor<1x4x6xf32>) -> tensor<2x2x6xf32>
  %a = "ingot.transpose"(%r) {perm = [2, 0, 1]} : (tensor<2x2x6xf32>) -> tensor<6x2x2xf32>
  %b = "ingot.transpose"(%a) {perm = [1, 2, 0]} : (tensor<6x2x2xf32>) -> tensor<2x2x6xf32>
  %wide = "ingot.reshape"(%bias) : (tensor<6xf32>) -> tensor<1x6xf32>
  %all = "ingot.expand"(%wide) : (tensor<1x6xf32>) -> tensor<2x2x6xf32>
  %unused = "ingot.slice"(%all) {starts = ["0", "0", "1"], steps = [1, 1, 1]} : (tensor<2x2x6xf32>) -> tensor<2x2x2xf32>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%b) : (tensor<2x2x6xf32>) -> f32
    %one = "ingot.const"() {value = 1.0 : f32} : () -> f32
    %two = "ingot.addf"(%one, %one) : (f32, f32) -> f32
    %half = "ingot.divf"(%one, %two) : (f32, f32) -> f32
    %scale = "ingot.mulf"(%two, %half) : (f32, f32) -> f32
    %s = "ingot.mulf"(%scale, %e) : (f32, f32) -> f32
    %w = "ingot.extf"(%s) : (f32) -> f64
    %n = "ingot.truncf"(%w) : (f64) -> f32
    %bb = "ingot.load"(%all) : (tensor<2x2x6xf32>) -> f32
    %p = "ingot.mulf"(%n, %bb) : (f32, f32) -> f32
    "ingot.yield"(%p) : (f32) -> ()
  }) : () -> tensor<2x2x6xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<2x2x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "bias"], input_types = ["float", "float"]} : () -> ()

// -----

// Must not fire: a sum with 0.0 changes -0.0, narrowing and widening changes values, exp is not folded, and a dimension that
// is only known at run time may be 1 or not.
// CHECK: "ingot.expand"
// CHECK: "ingot.truncf"
// CHECK: "ingot.extf"
// CHECK: "ingot.addf"
// CHECK: "ingot.exp"
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>, %z: tensor<?xf32, #ingot.dims<["M"]>>):
  %wide = "ingot.expand"(%z) : (tensor<?xf32, #ingot.dims<["M"]>>) -> tensor<?xf32, #ingot.dims<["bcast(M, N)"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<?xf32, #ingot.dims<["N"]>>) -> f32
    %h = "ingot.truncf"(%e) : (f32) -> f16
    %w = "ingot.extf"(%h) : (f16) -> f32
    %zero = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %s = "ingot.addf"(%w, %zero) : (f32, f32) -> f32
    %one = "ingot.const"() {value = 1.0 : f32} : () -> f32
    %c = "ingot.exp"(%one) : (f32) -> f32
    %p = "ingot.mulf"(%s, %c) : (f32, f32) -> f32
    %l = "ingot.load"(%wide) : (tensor<?xf32, #ingot.dims<["bcast(M, N)"]>>) -> f32
    %r = "ingot.mulf"(%p, %l) : (f32, f32) -> f32
    "ingot.yield"(%r) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["bcast(M, N)"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?xf32, #ingot.dims<["bcast(M, N)"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "z"], input_types = ["float", "float"]} : () -> ()

// -----

// Dynamic shapes: slices of slices add up, an identity move goes, `dim` of a known size is a constant, and what is left
// copies its operand.
// CHECK:      ^bb0(%[[X:.*]]: tensor{{.*}}, %{{.*}}: tensor
// CHECK-NEXT: %[[S:.*]] = "ingot.slice"(%[[X]]) {starts = ["3*N - 2"], steps = array<i64: -4>}
// CHECK-NEXT: "ingot.output"(%[[S]])
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["4*N"]>>, %n: tensor<?xi1, #ingot.dims<["N"]>>):
  %a = "ingot.slice"(%x) {starts = ["3*N"], steps = [-2]} : (tensor<?xf32, #ingot.dims<["4*N"]>>) -> tensor<?xf32, #ingot.dims<["N"]>>
  %b = "ingot.slice"(%a) {starts = ["1"], steps = [2]} : (tensor<?xf32, #ingot.dims<["N"]>>) -> tensor<?xf32, #ingot.dims<["floordiv(N, 2)"]>>
  %m = "ingot.move"(%b) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) : (tensor<?xf32, #ingot.dims<["floordiv(N, 2)"]>>) -> tensor<?xf32, #ingot.dims<["floordiv(N, 2)"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%m) : (tensor<?xf32, #ingot.dims<["floordiv(N, 2)"]>>) -> f32
    %d = "ingot.dim"() {dim = "1"} : () -> i64
    %f = "ingot.sitofp"(%d) : (i64) -> f32
    %p = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%p) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["floordiv(N, 2)"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?xf32, #ingot.dims<["floordiv(N, 2)"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "n"], input_types = ["float", "bool"]} : () -> ()

// -----

// Fires: what no branch uses is not captured. What a loop carries stays, used or not.
// CHECK:      "ingot.if"(%{{.*}}, %[[X:.*]]) ({
// CHECK-NEXT: ^bb0(%[[A:.*]]: tensor<4xf32>):
// CHECK-NEXT:   "ingot.result"(%[[A]])
// CHECK:      ^bb0(%[[B:.*]]: tensor<4xf32>):
// CHECK-NEXT:   "ingot.pointwise"
// CHECK:      "ingot.load"(%[[B]])
// CHECK:      : (tensor<i1>, tensor<4xf32>) -> tensor<4xf32>
// CHECK:      "ingot.loop"(%{{.*}}, %{{.*}}) ({
// CHECK-NEXT: ^bb0(%{{.*}}: tensor<4xf32>, %[[C:.*]]: tensor<4xf32>):
// CHECK-NEXT:   "ingot.result"(%[[C]])
#in = array<i32: 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#loop = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#out = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%x: tensor<4xf32>, %u: tensor<4xf32>, %c: tensor<i1>):
  %r = "ingot.if"(%c, %u, %x, %u) ({
  ^bb0(%a0: tensor<4xf32>, %a1: tensor<4xf32>, %a2: tensor<4xf32>):
    "ingot.result"(%a1) : (tensor<4xf32>) -> ()
    "ingot.return"() : () -> ()
  }, {
  ^bb0(%a0: tensor<4xf32>, %a1: tensor<4xf32>, %a2: tensor<4xf32>):
    %y = "ingot.pointwise"() ({
      %e = "ingot.load"(%a1) : (tensor<4xf32>) -> f32
      %f = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) : () -> tensor<4xf32>
    "ingot.result"(%y) : (tensor<4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {operandSegmentSizes = #in, resultSegmentSizes = #out} : (tensor<i1>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %l = "ingot.loop"(%r, %u, %x) ({
  ^bb0(%a0: tensor<4xf32>, %a1: tensor<4xf32>, %a2: tensor<4xf32>):
    "ingot.result"(%a2) : (tensor<4xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 1, operandSegmentSizes = #loop, resultSegmentSizes = #out}
    : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  "ingot.output"(%l) {name = "y", type = "float"} : (tensor<4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "u", "c"], input_types = ["float", "float", "bool"]} : () -> ()

// -----

// Fires: what is read and defined, and used by nothing, is neither. What a used size is made of stays.
// CHECK:      ^bb0(%[[X:.*]]: tensor<?xf32, #ingot.dims<["N"]>>, %[[S:.*]]: tensor<4xi64>):
// CHECK-NEXT:   %[[A:.*]] = "ingot.slice"(%[[S]]) {starts = ["0"]
// CHECK-NEXT:   "ingot.host_read"(%[[A]]) {symbol = "a"}
// CHECK-NEXT:   "ingot.define"() {expression = "max(min(N, signed(a)), 0)", symbol = "K"}
// CHECK-NEXT:   %[[Y:.*]] = "ingot.slice"(%[[X]])
// CHECK-NEXT:   "ingot.output"(%[[Y]])
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>, %s: tensor<4xi64>):
  %a = "ingot.slice"(%s) {starts = ["0"], steps = array<i64: 1>} : (tensor<4xi64>) -> tensor<1xi64>
  "ingot.host_read"(%a) {symbol = "a"} : (tensor<1xi64>) -> ()
  %b = "ingot.slice"(%s) {starts = ["1"], steps = array<i64: 1>} : (tensor<4xi64>) -> tensor<1xi64>
  "ingot.host_read"(%b) {symbol = "b"} : (tensor<1xi64>) -> ()
  %c = "ingot.slice"(%s) {starts = ["2"], steps = array<i64: 1>} : (tensor<4xi64>) -> tensor<1xi64>
  "ingot.host_read"(%c) {symbol = "c"} : (tensor<1xi64>) -> ()
  "ingot.define"() {symbol = "K", expression = "max(min(N, signed(a)), 0)"} : () -> ()
  "ingot.define"() {symbol = "L", expression = "max(signed(c), 0)"} : () -> ()
  %y = "ingot.slice"(%x) {starts = ["0"], steps = array<i64: 1>} : (tensor<?xf32, #ingot.dims<["N"]>>) -> tensor<?xf32, #ingot.dims<["K"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?xf32, #ingot.dims<["K"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "s"], input_types = ["float", "int64"]} : () -> ()
