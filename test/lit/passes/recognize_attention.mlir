// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-fuse,ingot-recognize-attention,ingot-canonicalize)' --split-input-file | filecheck %s

// Fires, with dynamic shapes: keys repeated for grouped heads are read where they are; the scales of q, k and the scores join;
// the mask is the score region, and probabilities that are NaN weigh nothing.
// CHECK:      ^bb0(%[[Q:.*]]: tensor<?x8x?x16xf32{{.*}}, %[[K:.*]]: tensor<?x2x?x16xf32{{.*}}, %[[V:.*]]: tensor<?x2x?x16xf32{{.*}}, %[[M:.*]]: tensor
// CHECK-NEXT: "ingot.attention"(%[[Q]], %[[K]], %[[V]]) ({
// CHECK-NEXT: ^bb0(%[[S:.*]]: f32):
// CHECK-NEXT:   %[[ME:.*]] = "ingot.load"(%[[M]])
// CHECK-NEXT:   %[[SM:.*]] = "ingot.addf"(%[[S]], %[[ME]])
// CHECK-NEXT:   "ingot.yield"(%[[SM]])
// CHECK:      ^bb0(%[[A:.*]]: f32):
// CHECK-NEXT:   %[[U:.*]] = "ingot.cmpf_uno"(%[[A]], %[[A]])
// CHECK:        %[[R:.*]] = "ingot.select"(%[[U]], %{{.*}}, %[[A]])
// CHECK-NEXT:   "ingot.yield"(%[[R]])
// CHECK:      {scale = 2.500000e-01 : f64}
// CHECK-NOT:  "ingot.matmul"
"ingot.func"() ({
^bb0(%q: tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, %k: tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>,
     %v: tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>, %m: tensor<?x1x?x?xf32, #ingot.dims<["B", "S", "T"]>>):
  %qs = "ingot.pointwise"() ({
    %e = "ingot.load"(%q) : (tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>) -> f32
    %c = "ingot.const"() {value = 0.5 : f32} : () -> f32
    %f = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>
  %k5 = "ingot.reshape"(%k) : (tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x2x1x?x16xf32, #ingot.dims<["B", "T"]>>
  %kr = "ingot.expand"(%k5) : (tensor<?x2x1x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x2x4x?x16xf32, #ingot.dims<["B", "T"]>>
  %k8 = "ingot.reshape"(%kr) : (tensor<?x2x4x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x?x16xf32, #ingot.dims<["B", "T"]>>
  %kt = "ingot.transpose"(%k8) {perm = array<i64: 0, 1, 3, 2>} : (tensor<?x8x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x16x?xf32, #ingot.dims<["B", "T"]>>
  %ks = "ingot.pointwise"() ({
    %e = "ingot.load"(%kt) : (tensor<?x8x16x?xf32, #ingot.dims<["B", "T"]>>) -> f32
    %c = "ingot.const"() {value = 0.5 : f32} : () -> f32
    %f = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8x16x?xf32, #ingot.dims<["B", "T"]>>
  %v5 = "ingot.reshape"(%v) : (tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x2x1x?x16xf32, #ingot.dims<["B", "T"]>>
  %vr = "ingot.expand"(%v5) : (tensor<?x2x1x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x2x4x?x16xf32, #ingot.dims<["B", "T"]>>
  %v8 = "ingot.reshape"(%vr) : (tensor<?x2x4x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x?x16xf32, #ingot.dims<["B", "T"]>>
  %s = "ingot.matmul"(%qs, %ks) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, tensor<?x8x16x?xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>
  %sm = "ingot.pointwise"() ({
    %e = "ingot.load"(%s) : (tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> f32
    %f = "ingot.load"(%m) : (tensor<?x1x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> f32
    %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>
  %p = "ingot.normalize"(%sm) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 3>, kind = "softmax", epsilon = 0.0} : (tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>
  %pg = "ingot.pointwise"() ({
    %e = "ingot.load"(%p) : (tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> f32
    %n = "ingot.cmpf_uno"(%e, %e) : (f32, f32) -> i1
    %z = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %g = "ingot.select"(%n, %z, %e) : (i1, f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>
  %y = "ingot.matmul"(%pg, %v8) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>, tensor<?x8x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q", "k", "v", "m"], input_types = ["float", "float", "float", "float"]} : () -> ()

// -----

// Fires: products of rank 3, and a mask that hides exactly the later positions becomes `causal`.
// CHECK:      %[[Q:.*]] = "ingot.reshape"(%arg0) : (tensor<6x4x16xf32>) -> tensor<6x1x4x16xf32>
// CHECK:      "ingot.attention"(%[[Q]]
// CHECK-NEXT: ^bb0(%[[S:.*]]: f32):
// CHECK-NEXT:   "ingot.yield"(%[[S]])
// CHECK:      {causal, scale = 1.250000e-01 : f64}
"ingot.func"() ({
^bb0(%q: tensor<6x4x16xf32>, %k: tensor<6x16x4xf32>, %v: tensor<6x4x32xf32>):
  %s = "ingot.matmul"(%q, %k) ({
  ^bb0(%a: f32):
    %c = "ingot.const"() {value = 8.0 : f32} : () -> f32
    %f = "ingot.divf"(%a, %c) : (f32, f32) -> f32
    %i = "ingot.index"() {axis = 1 : i64} : () -> i64
    %j = "ingot.index"() {axis = 2 : i64} : () -> i64
    %t = "ingot.cmpi_sle"(%j, %i) : (i64, i64) -> i1
    %n = "ingot.const"() {value = -3.4e38 : f32} : () -> f32
    %g = "ingot.select"(%t, %f, %n) : (i1, f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) {acc = "f32"} : (tensor<6x4x16xf32>, tensor<6x16x4xf32>) -> tensor<6x4x4xf32>
  %p = "ingot.normalize"(%s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 2>, kind = "softmax", epsilon = 0.0} : (tensor<6x4x4xf32>) -> tensor<6x4x4xf32>
  %y = "ingot.matmul"(%p, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<6x4x4xf32>, tensor<6x4x32xf32>) -> tensor<6x4x32xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<6x4x32xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q", "k", "v"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: the probabilities are an output too.
// CHECK-NOT: "ingot.attention"
"ingot.func"() ({
^bb0(%q: tensor<6x4x16xf32>, %k: tensor<6x16x4xf32>, %v: tensor<6x4x32xf32>):
  %s = "ingot.matmul"(%q, %k) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<6x4x16xf32>, tensor<6x16x4xf32>) -> tensor<6x4x4xf32>
  %p = "ingot.normalize"(%s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 2>, kind = "softmax", epsilon = 0.0} : (tensor<6x4x4xf32>) -> tensor<6x4x4xf32>
  %y = "ingot.matmul"(%p, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<6x4x4xf32>, tensor<6x4x32xf32>) -> tensor<6x4x32xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<6x4x32xf32>) -> ()
  "ingot.output"(%p) {name = "p", type = "float"} : (tensor<6x4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q", "k", "v"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Fires in the body of a loop.
// CHECK:      "ingot.loop"
// CHECK-NOT:  "ingot.matmul"
// CHECK:      "ingot.attention"
// CHECK-NOT:  "ingot.matmul"
// CHECK:      "ingot.result"
#in = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#out = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%m_z0: tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, %m_q: tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, %m_k: tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>, %m_v: tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>, %m_m: tensor<?x1x?x?xf32, #ingot.dims<["B", "S", "T"]>>):
  %r = "ingot.loop"(%m_z0, %m_q, %m_k, %m_v, %m_m) ({
  ^bb0(%z0: tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, %q: tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, %k: tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>, %v: tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>, %m: tensor<?x1x?x?xf32, #ingot.dims<["B", "S", "T"]>>):
    %qs = "ingot.pointwise"() ({
      %e = "ingot.load"(%q) : (tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>) -> f32
      %c = "ingot.const"() {value = 0.5 : f32} : () -> f32
      %f = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) : () -> tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>
    %k5 = "ingot.reshape"(%k) : (tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x2x1x?x16xf32, #ingot.dims<["B", "T"]>>
    %kr = "ingot.expand"(%k5) : (tensor<?x2x1x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x2x4x?x16xf32, #ingot.dims<["B", "T"]>>
    %k8 = "ingot.reshape"(%kr) : (tensor<?x2x4x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x?x16xf32, #ingot.dims<["B", "T"]>>
    %kt = "ingot.transpose"(%k8) {perm = array<i64: 0, 1, 3, 2>} : (tensor<?x8x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x16x?xf32, #ingot.dims<["B", "T"]>>
    %ks = "ingot.pointwise"() ({
      %e = "ingot.load"(%kt) : (tensor<?x8x16x?xf32, #ingot.dims<["B", "T"]>>) -> f32
      %c = "ingot.const"() {value = 0.5 : f32} : () -> f32
      %f = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) : () -> tensor<?x8x16x?xf32, #ingot.dims<["B", "T"]>>
    %v5 = "ingot.reshape"(%v) : (tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x2x1x?x16xf32, #ingot.dims<["B", "T"]>>
    %vr = "ingot.expand"(%v5) : (tensor<?x2x1x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x2x4x?x16xf32, #ingot.dims<["B", "T"]>>
    %v8 = "ingot.reshape"(%vr) : (tensor<?x2x4x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x?x16xf32, #ingot.dims<["B", "T"]>>
    %s = "ingot.matmul"(%qs, %ks) ({
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }) {acc = "f32"} : (tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, tensor<?x8x16x?xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>
    %sm = "ingot.pointwise"() ({
      %e = "ingot.load"(%s) : (tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> f32
      %f = "ingot.load"(%m) : (tensor<?x1x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> f32
      %g = "ingot.addf"(%e, %f) : (f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>
    %p = "ingot.normalize"(%sm) ({
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }, {
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }) {axes = array<i64: 3>, kind = "softmax", epsilon = 0.0} : (tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>
    %pg = "ingot.pointwise"() ({
      %e = "ingot.load"(%p) : (tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> f32
      %n = "ingot.cmpf_uno"(%e, %e) : (f32, f32) -> i1
      %z = "ingot.const"() {value = 0.0 : f32} : () -> f32
      %g = "ingot.select"(%n, %z, %e) : (i1, f32, f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>
    %y = "ingot.matmul"(%pg, %v8) ({
    ^bb0(%a: f32):
      "ingot.yield"(%a) : (f32) -> ()
    }) {acc = "f32"} : (tensor<?x8x?x?xf32, #ingot.dims<["B", "S", "T"]>>, tensor<?x8x?x16xf32, #ingot.dims<["B", "T"]>>) -> tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>
    "ingot.result"(%y) : (tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 1, operandSegmentSizes = #in, resultSegmentSizes = #out}
    : (tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>, tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>, tensor<?x2x?x16xf32, #ingot.dims<["B", "T"]>>, tensor<?x1x?x?xf32, #ingot.dims<["B", "S", "T"]>>) -> tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?x8x?x16xf32, #ingot.dims<["B", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["z0", "q", "k", "v", "m"], input_types = ["float", "float", "float", "float", "float"]} : () -> ()

// -----

// Fires: the scale that ends a product's epilogue joins the attention's, and the product keeps its bias. Keys are an output too,
// so theirs stays.
// CHECK:      %[[Q:.*]] = "ingot.matmul"(%arg0
// CHECK:        %[[B:.*]] = "ingot.addf"
// CHECK-NEXT:   "ingot.yield"(%[[B]])
// CHECK:      "ingot.matmul"(%arg0
// CHECK:        "ingot.mulf"
// CHECK:      "ingot.attention"
// CHECK:      {scale = 5.000000e-01 : f64}
"ingot.func"() ({
^bb0(%x: tensor<2x5x16xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<16x16xf32>
  %b = "ingot.weight"() {name = "b"} : () -> tensor<16xf32>
  %q = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    %e = "ingot.load"(%b) : (tensor<16xf32>) -> f32
    %s = "ingot.addf"(%a, %e) : (f32, f32) -> f32
    %c = "ingot.const"() {value = 0.5 : f32} : () -> f32
    %f = "ingot.mulf"(%s, %c) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x5x16xf32>, tensor<16x16xf32>) -> tensor<2x5x16xf32>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<16x16xf32>
  %k = "ingot.matmul"(%x, %v) ({
  ^bb0(%a: f32):
    %c = "ingot.const"() {value = 0.25 : f32} : () -> f32
    %f = "ingot.mulf"(%a, %c) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x5x16xf32>, tensor<16x16xf32>) -> tensor<2x5x16xf32>
  %t = "ingot.transpose"(%k) {perm = array<i64: 0, 2, 1>} : (tensor<2x5x16xf32>) -> tensor<2x16x5xf32>
  %s = "ingot.matmul"(%q, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x5x16xf32>, tensor<2x16x5xf32>) -> tensor<2x5x5xf32>
  %p = "ingot.normalize"(%s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 2>, kind = "softmax", epsilon = 0.0} : (tensor<2x5x5xf32>) -> tensor<2x5x5xf32>
  %y = "ingot.matmul"(%p, %x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<2x5x5xf32>, tensor<2x5x16xf32>) -> tensor<2x5x16xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<2x5x16xf32>) -> ()
  "ingot.output"(%k) {name = "k", type = "float"} : (tensor<2x5x16xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires: probabilities that are rounded to 8-bit floats are not rounded; the sum is divided and multiplied by the scales instead,
// after it is made 0 where it is NaN.
// CHECK:      "ingot.attention"
// CHECK-NEXT: ^bb0(%[[S:.*]]: f32):
// CHECK-NEXT:   "ingot.yield"(%[[S]])
// CHECK:      ^bb0(%[[A:.*]]: f32):
// CHECK-NEXT:   %[[U:.*]] = "ingot.cmpf_uno"(%[[A]], %[[A]])
// CHECK:        %[[G:.*]] = "ingot.select"(%[[U]], %{{.*}}, %[[A]])
// CHECK:        %[[D:.*]] = "ingot.divf"(%[[G]]
// CHECK:        %[[M:.*]] = "ingot.mulf"(%[[D]]
// CHECK-NEXT:   "ingot.yield"(%[[M]])
// CHECK-NOT:  "ingot.matmul"
// CHECK:      "ingot.output"
"ingot.func"() ({
^bb0(%q: tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>, %k: tensor<?x4x16x?xf32, #ingot.dims<["N", "S"]>>, %v: tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>):
  %s = "ingot.matmul"(%q, %k) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>, tensor<?x4x16x?xf32, #ingot.dims<["N", "S"]>>) -> tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>
  %p = "ingot.normalize"(%s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    %n = "ingot.cmpf_uno"(%a, %a) : (f32, f32) -> i1
    %z = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %g = "ingot.select"(%n, %z, %a) : (i1, f32, f32) -> f32
    %c = "ingot.const"() {value = 0.002232143 : f32} : () -> f32
    %e = "ingot.divf"(%g, %c) : (f32, f32) -> f32
    %r = "ingot.truncf"(%e) : (f32) -> f8E4M3FN
    "ingot.yield"(%r) : (f8E4M3FN) -> ()
  }) {axes = array<i64: 3>, kind = "softmax", epsilon = 0.0} : (tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>) -> tensor<?x4x?x?xf8E4M3FN, #ingot.dims<["N", "S", "S"]>>
  %w = "ingot.pointwise"() ({
    %l = "ingot.load"(%p) : (tensor<?x4x?x?xf8E4M3FN, #ingot.dims<["N", "S", "S"]>>) -> f8E4M3FN
    %e = "ingot.extf"(%l) : (f8E4M3FN) -> f32
    %c = "ingot.const"() {value = 0.002232143 : f32} : () -> f32
    %r = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
    "ingot.yield"(%r) : (f32) -> ()
  }) : () -> tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>
  %y = "ingot.matmul"(%w, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>, tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>) -> tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q", "k", "v"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: the largest number of the grid is 0.045, beyond which probabilities are clipped.
// CHECK-NOT: "ingot.attention"
"ingot.func"() ({
^bb0(%q: tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>, %k: tensor<?x4x16x?xf32, #ingot.dims<["N", "S"]>>, %v: tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>):
  %s = "ingot.matmul"(%q, %k) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>, tensor<?x4x16x?xf32, #ingot.dims<["N", "S"]>>) -> tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>
  %p = "ingot.normalize"(%s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    %n = "ingot.cmpf_uno"(%a, %a) : (f32, f32) -> i1
    %z = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %g = "ingot.select"(%n, %z, %a) : (i1, f32, f32) -> f32
    %c = "ingot.const"() {value = 1.0e-4 : f32} : () -> f32
    %e = "ingot.divf"(%g, %c) : (f32, f32) -> f32
    %r = "ingot.truncf"(%e) : (f32) -> f8E4M3FN
    "ingot.yield"(%r) : (f8E4M3FN) -> ()
  }) {axes = array<i64: 3>, kind = "softmax", epsilon = 0.0} : (tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>) -> tensor<?x4x?x?xf8E4M3FN, #ingot.dims<["N", "S", "S"]>>
  %w = "ingot.pointwise"() ({
    %l = "ingot.load"(%p) : (tensor<?x4x?x?xf8E4M3FN, #ingot.dims<["N", "S", "S"]>>) -> f8E4M3FN
    %e = "ingot.extf"(%l) : (f8E4M3FN) -> f32
    %c = "ingot.const"() {value = 1.0e-4 : f32} : () -> f32
    %r = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
    "ingot.yield"(%r) : (f32) -> ()
  }) : () -> tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>
  %y = "ingot.matmul"(%w, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>, tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>) -> tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q", "k", "v"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: the grid's least number is 0.002, and what is less than half of it is made 0.
// CHECK-NOT: "ingot.attention"
"ingot.func"() ({
^bb0(%q: tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>, %k: tensor<?x4x16x?xf32, #ingot.dims<["N", "S"]>>, %v: tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>):
  %s = "ingot.matmul"(%q, %k) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>, tensor<?x4x16x?xf32, #ingot.dims<["N", "S"]>>) -> tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>
  %p = "ingot.normalize"(%s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    %n = "ingot.cmpf_uno"(%a, %a) : (f32, f32) -> i1
    %z = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %g = "ingot.select"(%n, %z, %a) : (i1, f32, f32) -> f32
    %c = "ingot.const"() {value = 1.0 : f32} : () -> f32
    %e = "ingot.divf"(%g, %c) : (f32, f32) -> f32
    %r = "ingot.truncf"(%e) : (f32) -> f8E4M3FN
    "ingot.yield"(%r) : (f8E4M3FN) -> ()
  }) {axes = array<i64: 3>, kind = "softmax", epsilon = 0.0} : (tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>) -> tensor<?x4x?x?xf8E4M3FN, #ingot.dims<["N", "S", "S"]>>
  %w = "ingot.pointwise"() ({
    %l = "ingot.load"(%p) : (tensor<?x4x?x?xf8E4M3FN, #ingot.dims<["N", "S", "S"]>>) -> f8E4M3FN
    %e = "ingot.extf"(%l) : (f8E4M3FN) -> f32
    %c = "ingot.const"() {value = 1.0 : f32} : () -> f32
    %r = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
    "ingot.yield"(%r) : (f32) -> ()
  }) : () -> tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>
  %y = "ingot.matmul"(%w, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>, tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>) -> tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q", "k", "v"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: the quantizer's scale is not known.
// CHECK-NOT: "ingot.attention"
"ingot.func"() ({
^bb0(%q: tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>, %k: tensor<?x4x16x?xf32, #ingot.dims<["N", "S"]>>, %v: tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>):
  %u = "ingot.weight"() {name = "u"} : () -> tensor<f32>
  %s = "ingot.matmul"(%q, %k) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>, tensor<?x4x16x?xf32, #ingot.dims<["N", "S"]>>) -> tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>
  %p = "ingot.normalize"(%s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    %n = "ingot.cmpf_uno"(%a, %a) : (f32, f32) -> i1
    %z = "ingot.const"() {value = 0.0 : f32} : () -> f32
    %g = "ingot.select"(%n, %z, %a) : (i1, f32, f32) -> f32
    %t = "ingot.load"(%u) : (tensor<f32>) -> f32
    %c = "ingot.absf"(%t) : (f32) -> f32
    %e = "ingot.divf"(%g, %c) : (f32, f32) -> f32
    %r = "ingot.truncf"(%e) : (f32) -> f8E4M3FN
    "ingot.yield"(%r) : (f8E4M3FN) -> ()
  }) {axes = array<i64: 3>, kind = "softmax", epsilon = 0.0} : (tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>) -> tensor<?x4x?x?xf8E4M3FN, #ingot.dims<["N", "S", "S"]>>
  %w = "ingot.pointwise"() ({
    %l = "ingot.load"(%p) : (tensor<?x4x?x?xf8E4M3FN, #ingot.dims<["N", "S", "S"]>>) -> f8E4M3FN
    %e = "ingot.extf"(%l) : (f8E4M3FN) -> f32
    %t = "ingot.load"(%u) : (tensor<f32>) -> f32
    %c = "ingot.absf"(%t) : (f32) -> f32
    %r = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
    "ingot.yield"(%r) : (f32) -> ()
  }) : () -> tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>
  %y = "ingot.matmul"(%w, %v) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x4x?x?xf32, #ingot.dims<["N", "S", "S"]>>, tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>) -> tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x4x?x16xf32, #ingot.dims<["N", "S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["q", "k", "v"], input_types = ["float", "float", "float"]} : () -> ()
