// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-recognize-norms,ingot-canonicalize)' --split-input-file | filecheck %s

// Fires, with dynamic shapes: x * (1 / sqrt(mean(x * x) + e)) * w, written in five operations as PyTorch's exporter does.
// CHECK:      ^bb0(%[[X:.*]]: tensor<?x8xf32
// CHECK-NOT:  "ingot.reduce"
// CHECK:      "ingot.normalize"(%[[X]]) ({
// CHECK-NEXT: ^bb0(%[[E:.*]]: f32):
// CHECK-NEXT:   "ingot.yield"(%[[E]])
// CHECK:      ^bb0(%[[N:.*]]: f32):
// CHECK:        %[[P:.*]] = "ingot.mulf"(%{{.*}}, %[[N]])
// CHECK-NEXT:   "ingot.yield"(%[[P]])
// CHECK:      {axes = array<i64: 1>, epsilon = {{9.9.*E-6|1.0.*E-5}} : f64, kind = "rms"}
// CHECK-NOT:  "ingot.pointwise"
"ingot.func"() ({
^bb0(%x: tensor<?x8xf32, #ingot.dims<["N"]>>, %w: tensor<8xf32>):
  %sq = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.mulf"(%e, %e) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %m = "ingot.reduce"(%sq) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    %c = "ingot.const"() {value = 0.125 : f32} : () -> f32
    %f = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "sum"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> tensor<?x1xf32, #ingot.dims<["N"]>>
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%m) : (tensor<?x1xf32, #ingot.dims<["N"]>>) -> f32
    %c = "ingot.const"() {value = 1.0e-5 : f32} : () -> f32
    %f = "ingot.addf"(%e, %c) : (f32, f32) -> f32
    %g = "ingot.sqrt"(%f) : (f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<?x1xf32, #ingot.dims<["N"]>>
  %i = "ingot.pointwise"() ({
    %e = "ingot.load"(%r) : (tensor<?x1xf32, #ingot.dims<["N"]>>) -> f32
    %c = "ingot.const"() {value = 1.0 : f32} : () -> f32
    %f = "ingot.divf"(%c, %e) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) : () -> tensor<?x1xf32, #ingot.dims<["N"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
    %f = "ingot.load"(%i) : (tensor<?x1xf32, #ingot.dims<["N"]>>) -> f32
    %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
    %h = "ingot.load"(%w) : (tensor<8xf32>) -> f32
    %k = "ingot.mulf"(%h, %g) : (f32, f32) -> f32
    "ingot.yield"(%k) : (f32) -> ()
  }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w"], input_types = ["float", "float"]} : () -> ()

// -----

// Fires: (x - mean) / pow(mean((x - mean)^2) + e, 0.5) is a layer normalization of x, over axes of unknown size.
// CHECK:      "ingot.normalize"(%arg0)
// CHECK:      kind = "layer"
// CHECK-NOT:  "ingot.reduce"
// CHECK-NOT:  "ingot.pointwise"
"ingot.func"() ({
^bb0(%x: tensor<2x?xf32, #ingot.dims<["C"]>>):
  %m = "ingot.reduce"(%x) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    %d = "ingot.dim"() {dim = "C"} : () -> i64
    %c = "ingot.sitofp"(%d) : (i64) -> f32
    %f = "ingot.divf"(%e, %c) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "sum"} : (tensor<2x?xf32, #ingot.dims<["C"]>>) -> tensor<2x1xf32>
  %c = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<2x?xf32, #ingot.dims<["C"]>>) -> f32
    %f = "ingot.load"(%m) : (tensor<2x1xf32>) -> f32
    %g = "ingot.subf"(%e, %f) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x?xf32, #ingot.dims<["C"]>>
  %v = "ingot.reduce"(%c) ({
  ^bb0(%e: f32):
    %two = "ingot.const"() {value = 2.0 : f32} : () -> f32
    %f = "ingot.pow"(%e, %two) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    %d = "ingot.dim"() {dim = "C"} : () -> i64
    %c0 = "ingot.sitofp"(%d) : (i64) -> f32
    %f = "ingot.divf"(%e, %c0) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "sum"} : (tensor<2x?xf32, #ingot.dims<["C"]>>) -> tensor<2x1xf32>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%c) : (tensor<2x?xf32, #ingot.dims<["C"]>>) -> f32
    %f = "ingot.load"(%v) : (tensor<2x1xf32>) -> f32
    %k = "ingot.const"() {value = 1.0e-5 : f32} : () -> f32
    %s = "ingot.addf"(%f, %k) : (f32, f32) -> f32
    %half = "ingot.const"() {value = 0.5 : f32} : () -> f32
    %r = "ingot.pow"(%s, %half) : (f32, f32) -> f32
    %g = "ingot.divf"(%e, %r) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<2x?xf32, #ingot.dims<["C"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<2x?xf32, #ingot.dims<["C"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires: group normalization of [N, 2, 12], channels and positions merged, runs over [N, 2, 2, 6].
// CHECK:      %[[G:.*]] = "ingot.reshape"(%arg0) : (tensor<3x4x6xf32>) -> tensor<3x2x2x6xf32>
// CHECK-NEXT: "ingot.normalize"(%[[G]])
// CHECK:      axes = array<i64: 2, 3>
"ingot.func"() ({
^bb0(%x: tensor<3x4x6xf32>):
  %g = "ingot.reshape"(%x) : (tensor<3x4x6xf32>) -> tensor<3x2x12xf32>
  %n = "ingot.normalize"(%g) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 2>, kind = "layer", epsilon = 1.0e-5} : (tensor<3x2x12xf32>) -> tensor<3x2x12xf32>
  %y = "ingot.reshape"(%n) : (tensor<3x2x12xf32>) -> tensor<3x4x6xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<3x4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: a sum of squares is not their mean.
// CHECK:      "ingot.reduce"
// CHECK-NOT:  "ingot.normalize"
"ingot.func"() ({
^bb0(%x: tensor<4x8xf32>):
  %m = "ingot.reduce"(%x) ({
  ^bb0(%e: f32):
    %f = "ingot.mulf"(%e, %e) : (f32, f32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "sum"} : (tensor<4x8xf32>) -> tensor<4x1xf32>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x8xf32>) -> f32
    %f = "ingot.load"(%m) : (tensor<4x1xf32>) -> f32
    %s = "ingot.sqrt"(%f) : (f32) -> f32
    %g = "ingot.divf"(%e, %s) : (f32, f32) -> f32
    "ingot.yield"(%g) : (f32) -> ()
  }) : () -> tensor<4x8xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Fires in the body of a loop.
// CHECK:      "ingot.loop"
// CHECK-NOT:  "ingot.reduce"
// CHECK:      "ingot.normalize"
// CHECK:      kind = "rms"
// CHECK-NOT:  "ingot.pointwise"
// CHECK:      "ingot.result"
#in = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#out = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%m_z0: tensor<?x8xf32, #ingot.dims<["N"]>>, %m_x: tensor<?x8xf32, #ingot.dims<["N"]>>, %m_w: tensor<8xf32>):
  %r = "ingot.loop"(%m_z0, %m_x, %m_w) ({
  ^bb0(%z0: tensor<?x8xf32, #ingot.dims<["N"]>>, %x: tensor<?x8xf32, #ingot.dims<["N"]>>, %w: tensor<8xf32>):
    %sq = "ingot.pointwise"() ({
      %e = "ingot.load"(%x) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
      %f = "ingot.mulf"(%e, %e) : (f32, f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
    %m = "ingot.reduce"(%sq) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }, {
    ^bb0(%e: f32):
      %c = "ingot.const"() {value = 0.125 : f32} : () -> f32
      %f = "ingot.mulf"(%e, %c) : (f32, f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) {axes = array<i64: 1>, kind = "sum"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> tensor<?x1xf32, #ingot.dims<["N"]>>
    %r = "ingot.pointwise"() ({
      %e = "ingot.load"(%m) : (tensor<?x1xf32, #ingot.dims<["N"]>>) -> f32
      %c = "ingot.const"() {value = 1.0e-5 : f32} : () -> f32
      %f = "ingot.addf"(%e, %c) : (f32, f32) -> f32
      %g = "ingot.sqrt"(%f) : (f32) -> f32
      "ingot.yield"(%g) : (f32) -> ()
    }) : () -> tensor<?x1xf32, #ingot.dims<["N"]>>
    %i = "ingot.pointwise"() ({
      %e = "ingot.load"(%r) : (tensor<?x1xf32, #ingot.dims<["N"]>>) -> f32
      %c = "ingot.const"() {value = 1.0 : f32} : () -> f32
      %f = "ingot.divf"(%c, %e) : (f32, f32) -> f32
      "ingot.yield"(%f) : (f32) -> ()
    }) : () -> tensor<?x1xf32, #ingot.dims<["N"]>>
    %y = "ingot.pointwise"() ({
      %e = "ingot.load"(%x) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> f32
      %f = "ingot.load"(%i) : (tensor<?x1xf32, #ingot.dims<["N"]>>) -> f32
      %g = "ingot.mulf"(%e, %f) : (f32, f32) -> f32
      %h = "ingot.load"(%w) : (tensor<8xf32>) -> f32
      %k = "ingot.mulf"(%h, %g) : (f32, f32) -> f32
      "ingot.yield"(%k) : (f32) -> ()
    }) : () -> tensor<?x8xf32, #ingot.dims<["N"]>>
    "ingot.result"(%y) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 1, operandSegmentSizes = #in, resultSegmentSizes = #out}
    : (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["z0", "x", "w"], input_types = ["float", "float", "float"]} : () -> ()

// -----

// Must not fire: a normalization computes in f32, and these are doubles.
// CHECK:      ^bb0(%{{.*}}: tensor<?x8xf64
// CHECK-NOT:  "ingot.normalize"
// CHECK:      sym_name = "main"
"ingot.func"() ({
^bb0(%x: tensor<?x8xf64, #ingot.dims<["N"]>>):
  %sum = "ingot.reduce"(%x) ({
  ^bb0(%e: f64):
    %s = "ingot.mulf"(%e, %e) : (f64, f64) -> f64
    "ingot.yield"(%s) : (f64) -> ()
  }, {
  ^bb0(%e: f64):
    %n = "ingot.const"() {value = 8.0 : f64} : () -> f64
    %m = "ingot.divf"(%e, %n) : (f64, f64) -> f64
    "ingot.yield"(%m) : (f64) -> ()
  }) {axes = [1], kind = "sum"} : (tensor<?x8xf64, #ingot.dims<["N"]>>) -> tensor<?x1xf64, #ingot.dims<["N"]>>
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<?x8xf64, #ingot.dims<["N"]>>) -> f64
    %m = "ingot.load"(%sum) : (tensor<?x1xf64, #ingot.dims<["N"]>>) -> f64
    %c = "ingot.const"() {value = 1.0e-5 : f64} : () -> f64
    %a = "ingot.addf"(%m, %c) : (f64, f64) -> f64
    %r = "ingot.sqrt"(%a) : (f64) -> f64
    %q = "ingot.divf"(%e, %r) : (f64, f64) -> f64
    "ingot.yield"(%q) : (f64) -> ()
  }) : () -> tensor<?x8xf64, #ingot.dims<["N"]>>
  "ingot.output"(%y) {name = "y", type = "double"} : (tensor<?x8xf64, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["double"]} : () -> ()
