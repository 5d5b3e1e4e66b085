// The roots scatter, scan and topk: their forms, and what the verifier refuses.
// RUN: ingot-opt %s --split-input-file --verify-diagnostics | filecheck %s

"ingot.func"() ({
^bb0(%x: tensor<?x6xf32, #ingot.dims<["N"]>>, %u: tensor<?x6xf32, #ingot.dims<["K"]>>, %i: tensor<?x1xi64, #ingot.dims<["K"]>>):
  // CHECK:      "ingot.scatter"(%{{.*}}, %{{.*}}) ({
  // CHECK:        "ingot.yield"(%{{.*}}, %{{.*}}) : (i64, i64) -> ()
  // CHECK:      }) {axes = array<i64: 0>, kind = "sum"}
  %s = "ingot.scatter"(%x, %u) ({
    %a = "ingot.load"(%i) : (tensor<?x1xi64, #ingot.dims<["K"]>>) -> i64
    %b = "ingot.index"() {axis = 1} : () -> i64
    "ingot.yield"(%a, %b) : (i64, i64) -> ()
  }, {
    %v = "ingot.load"(%u) : (tensor<?x6xf32, #ingot.dims<["K"]>>) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "sum", axes = array<i64: 0>} : (tensor<?x6xf32, #ingot.dims<["N"]>>, tensor<?x6xf32, #ingot.dims<["K"]>>) -> tensor<?x6xf32, #ingot.dims<["N"]>>
  // CHECK:      "ingot.scan"(%{{.*}}) ({
  // CHECK:      }) {axis = 0 : i64, exclusive, kind = "prod", reverse}
  %c = "ingot.scan"(%s) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "prod", axis = 0 : i64, exclusive, reverse} : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> tensor<?x6xf32, #ingot.dims<["N"]>>
  // CHECK:      "ingot.topk"(%{{.*}}) ({
  // CHECK:      }) {axis = 1 : i64} : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> tensor<?x4xi64, #ingot.dims<["N"]>>
  %t = "ingot.topk"(%c) ({
  ^bb0(%v: f32):
    %n = "ingot.negf"(%v) : (f32) -> f32
    "ingot.yield"(%n) : (f32) -> ()
  }) {axis = 1 : i64} : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> tensor<?x4xi64, #ingot.dims<["N"]>>
  "ingot.output"(%t) {name = "t", type = "int64"} : (tensor<?x4xi64, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "u", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %u: tensor<2x6xf32>):
  // expected-error @+1 {{region 'place' yields (i64), expected (i64, i64)}}
  %s = "ingot.scatter"(%x, %u) ({
    %b = "ingot.index"() {axis = 1} : () -> i64
    "ingot.yield"(%b) : (i64) -> ()
  }, {
    %v = "ingot.load"(%u) : (tensor<2x6xf32>) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "set", axes = array<i64: 0>} : (tensor<4x6xf32>, tensor<2x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "u"], input_types = ["float", "float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %u: tensor<2x6xf32>):
  // expected-error @+1 {{is of kind 'add', expected set, sum, prod, max, min}}
  %s = "ingot.scatter"(%x, %u) ({
    %b = "ingot.index"() {axis = 1} : () -> i64
    "ingot.yield"(%b, %b) : (i64, i64) -> ()
  }, {
    %v = "ingot.load"(%u) : (tensor<2x6xf32>) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "add", axes = array<i64: 0>} : (tensor<4x6xf32>, tensor<2x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "u"], input_types = ["float", "float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>):
  // expected-error @+1 {{has axis 2 of a tensor of 2}}
  %c = "ingot.scan"(%x) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }, {
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {kind = "sum", axis = 2 : i64} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>):
  // expected-error @+1 {{gives 7 positions of 6 elements}}
  %t = "ingot.topk"(%x) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axis = 1 : i64} : (tensor<4x6xf32>) -> tensor<4x7xi64>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>):
  // expected-error @+1 {{gives tensor<4x2xi32>, expected i64}}
  %t = "ingot.topk"(%x) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {axis = 1 : i64} : (tensor<4x6xf32>) -> tensor<4x2xi32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()
