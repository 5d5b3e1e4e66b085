// What the verifier of the ingot dialect refuses, at the operation at fault, with the values.
// RUN: ingot-opt %s --split-input-file --verify-diagnostics

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{requires attribute 'perm'}}
  %r = "ingot.transpose"(%x) : (tensor<4x6xf32>) -> tensor<6x4xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{attribute 'perm' is "10", expected an array of integers}}
  %r = "ingot.transpose"(%x) {perm = "10"} : (tensor<4x6xf32>) -> tensor<6x4xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{has perm [0, 0], which is no permutation of 2 axes}}
  %r = "ingot.transpose"(%x) {perm = array<i64: 0, 0>} : (tensor<4x6xf32>) -> tensor<4x4xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{result has shape [4, 6], expected [6, 4]}}
  %r = "ingot.transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{reshapes [4, 6] to [5, 5], which has another number of elements}}
  %r = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<5x5xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{views f32 as f16}}
  %r = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<24xf16>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{reads position 4 of an axis of size 4}}
  %r = "ingot.slice"(%x) {starts = ["1", "0"], steps = array<i64: 1, 1>} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{has a step of 0}}
  %r = "ingot.slice"(%x) {starts = ["1", "0"], steps = array<i64: 0, 1>} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{has 1 starts and 2 steps for 2 axes}}
  %r = "ingot.slice"(%x) {starts = ["1"], steps = array<i64: 1, 1>} : (tensor<4x6xf32>) -> tensor<3x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{'N +' is not a shape expression}}
  %r = "ingot.slice"(%x) {starts = ["N +", "0"], steps = array<i64: 1, 1>} : (tensor<4x6xf32>) -> tensor<3x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{expands [4, 6] to [8, 6]}}
  %r = "ingot.expand"(%x) : (tensor<4x6xf32>) -> tensor<8x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{has a dynamic dimension without an expression}}
  %r = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<?xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{multiplies [4, 6] and [4, 6]: 6 is not 4}}
  %r = "ingot.matmul"(%x, %x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %t = "ingot.transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<4x6xf32>) -> tensor<6x4xf32>
  // expected-error @+1 {{region 'epilogue' takes (f32), expected (i32)}}
  %r = "ingot.matmul"(%x, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "i32"} : (tensor<4x6xf32>, tensor<6x4xf32>) -> tensor<4x4xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %t = "ingot.transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<4x6xf32>) -> tensor<6x4xf32>
  // expected-error @+1 {{region 'epilogue' yields (f32), expected (f16)}}
  %r = "ingot.matmul"(%x, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x6xf32>, tensor<6x4xf32>) -> tensor<4x4xf16>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{result has shape [1, 6], expected [4, 1]}}
  %r = "ingot.reduce"(%x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "sum"} : (tensor<4x6xf32>) -> tensor<1x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{has axes [2] of a tensor of 2}}
  %r = "ingot.reduce"(%x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 2>, kind = "sum"} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{is of kind 'mean', expected sum, max, min, prod}}
  %r = "ingot.reduce"(%x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "mean"} : (tensor<4x6xf32>) -> tensor<4x1xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{is of kind 'batch', expected softmax, log_softmax, layer, rms}}
  %r = "ingot.normalize"(%x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "batch", epsilon = 0.0} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{region 'epilogue' takes (f32, f32), expected (f32, f32, f32)}}
  %r = "ingot.normalize"(%x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32, %scale: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "layer", epsilon = 0.0} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{region 'epilogue' takes (f32, f32), expected (f32)}}
  %r = "ingot.normalize"(%x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32, %scale: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "softmax", epsilon = 0.0} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{loads tensor<4x6xf32> over the domain [4, 5]}}
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x5xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{reads index 2 of a domain of 2 axes}}
  %r = "ingot.pointwise"() ({
    %e = "ingot.index"() {axis = 2 : i64} : () -> i64
    "ingot.yield"(%e) : (i64) -> ()
  }) : () -> tensor<4x5xi64>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{expected 'tensor<4x6xf32>' but got 'tensor<4x6xf16>'}}
  %r:2 = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    %f = "ingot.truncf"(%e) : (f32) -> f16
    "ingot.yield"(%e, %f) : (f32, f16) -> ()
  }) : () -> (tensor<4x6xf32>, tensor<4x6xf16>)
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x8xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<8x6xf32>
  // expected-error @+1 {{has results of several shapes: [4, 6], [4, 1]}}
  %r:2 = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    %f = "ingot.truncf"(%a) : (f32) -> f16
    "ingot.yield"(%a, %f) : (f32, f16) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x6xf32>) -> (tensor<4x6xf32>, tensor<4x1xf16>)
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{takes `into` and `offsets` together}}
  %r = "ingot.move"(%x) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "0"]} : (tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %e = "ingot.empty"() : () -> tensor<4x6xf32>
  // expected-error @+1 {{beyond [4, 6]}}
  %r = "ingot.move"(%x, %e) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "1"]} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{has sizes that are not constant: [N]}}
  %r = "ingot.weight"() {name = "w"} : () -> tensor<?xf32, #ingot.dims<["N"]>>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{has relation 'lt', expected eq or le}}
  "ingot.guard"() {left = "N", right = "4", relation = "lt", message = ""} : () -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{output 'o' of type int32 is stored as i32, not as f32}}
  "ingot.output"(%x) {name = "o", type = "int32"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  // expected-error @+1 {{output 'o' is of type 'half', which ONNX does not have}}
  "ingot.output"(%x) {name = "o", type = "half"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    // expected-error @+1 {{loads f32, its result is f16}}
    %q = "ingot.load"(%x) : (tensor<4x6xf32>) -> f16
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    // expected-error @+1 {{takes 2 i64 indices, one for each axis, got none}}
    %q = "ingot.load_at"(%x) : (tensor<4x6xf32>) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    // expected-error @+1 {{takes integers, got f32}}
    %q = "ingot.addi"(%e, %e) : (f32, f32) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    // expected-error @+1 {{gives i1, its result is f32}}
    %q = "ingot.cmpf_olt"(%e, %e) : (f32, f32) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    // expected-error @+1 {{cannot cast f32 to f16}}
    %q = "ingot.extf"(%e) : (f32) -> f16
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    // expected-error @+1 {{takes an i1 first, got f32}}
    %q = "ingot.select"(%e, %e, %e) : (f32, f32, f32) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    // expected-error @+1 {{has value 1 : i64, its result is f32}}
    %q = "ingot.const"() {value = 1 : i64} : () -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    %h = "ingot.truncf"(%e) : (f32) -> f16
    // expected-error @+1 {{computes in f32 or f64, got f16: extend it first}}
    %q = "ingot.negf"(%h) : (f16) -> f16
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %r = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<4x6xf32>) -> f32
    %h = "ingot.cmpf_oeq"(%e, %e) : (f32, f32) -> i1
    // expected-error @+1 {{cannot cast i1 to f32 (an i1 extends by extui)}}
    %q = "ingot.sitofp"(%h) : (i1) -> f32
    "ingot.yield"(%e) : (f32) -> ()
  }) : () -> tensor<4x6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %c = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x6x4xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3x3xf32>
  // expected-error @+1 {{convolves [1, 6, 4] with [2, 3, 3] in 1 groups: 4 channels are not 3}}
  %r = "ingot.conv"(%c, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 1} : (tensor<1x6x4xf32>, tensor<2x3x3xf32>) -> tensor<1x4x2xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %c = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x6x4xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3x4xf32>
  // expected-error @+1 {{result has size 5 on axis 1, expected 4}}
  %r = "ingot.conv"(%c, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 1} : (tensor<1x6x4xf32>, tensor<2x3x4xf32>) -> tensor<1x5x2xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %c = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x6x4xf32>
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3x4xf32>
  // expected-error @+1 {{has pads [0], expected 2 of them}}
  %r = "ingot.conv"(%c, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0>, groups = 1} : (tensor<1x6x4xf32>, tensor<2x3x4xf32>) -> tensor<1x4x2xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %c = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x6x4xf32>
  // expected-error @+1 {{is of kind 'l2', expected max, average, sum}}
  %r = "ingot.pool"(%c) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {kind = "l2", kernel = array<i64: 1>, strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>} : (tensor<1x6x4xf32>) -> tensor<1x6x4xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %y: tensor<?x6xf32, #ingot.dims<["N"]>>, %i: tensor<4xi64>):
  %q = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x4x3x2xf32>
  %k = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x3x4x2xf32>
  // expected-error @+1 {{k [1, 3, 4, 2], v [1, 3, 4, 2], which do not fit}}
  %r = "ingot.attention"(%q, %k, %k) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 1.0} : (tensor<1x4x3x2xf32>, tensor<1x3x4x2xf32>, tensor<1x3x4x2xf32>) -> tensor<1x4x3x2xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "i"], input_types = ["float", "float", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %i: tensor<4xi64>, %f: tensor<1xf32>):
  %q = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x4x3x2xf32>
  // expected-error @+1 {{takes lengths tensor<4xi64>, expected i32 or i64 [1]}}
  %r = "ingot.attention"(%q, %q, %q, %i) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 1.0, ragged} : (tensor<1x4x3x2xf32>, tensor<1x4x3x2xf32>, tensor<1x4x3x2xf32>, tensor<4xi64>) -> tensor<1x4x3x2xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "i", "f"], input_types = ["float", "int64", "float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %i: tensor<4xi64>, %f: tensor<1xf32>):
  %q = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x4x3x2xf32>
  // expected-error @+1 {{takes lengths tensor<1xf32>, expected i32 or i64 [1]}}
  %r = "ingot.attention"(%q, %q, %q, %f) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 1.0, ragged} : (tensor<1x4x3x2xf32>, tensor<1x4x3x2xf32>, tensor<1x4x3x2xf32>, tensor<1xf32>) -> tensor<1x4x3x2xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "i", "f"], input_types = ["float", "int64", "float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %i: tensor<4xi64>, %f: tensor<1xf32>):
  %q = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x4x3x2xf32>
  // expected-error @+1 {{is ragged without lengths}}
  %r = "ingot.attention"(%q, %q, %q) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 1.0, ragged} : (tensor<1x4x3x2xf32>, tensor<1x4x3x2xf32>, tensor<1x4x3x2xf32>) -> tensor<1x4x3x2xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "i", "f"], input_types = ["float", "int64", "float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %i: tensor<4xi64>, %f: tensor<1xf32>):
  %q = "ingot.reshape"(%x) : (tensor<4x6xf32>) -> tensor<1x4x3x2xf32>
  // expected-error @+1 {{has lengths, but is not ragged}}
  %r = "ingot.attention"(%q, %q, %q, %f) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }, {
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {scale = 1.0} : (tensor<1x4x3x2xf32>, tensor<1x4x3x2xf32>, tensor<1x4x3x2xf32>, tensor<1xf32>) -> tensor<1x4x3x2xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "i", "f"], input_types = ["float", "int64", "float"]} : () -> ()

// -----

// expected-error @+1 {{has 1 arguments, 0 names and 0 types of inputs}}
"ingot.func"() ({
^bb0(%x: tensor<4xf32>):
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = [], input_types = []} : () -> ()

// -----

// expected-error @+1 {{input 'x' of type int8 is stored as i8, not as f32}}
"ingot.func"() ({
^bb0(%x: tensor<4xf32>):
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["int8"]} : () -> ()

// -----

// Sizes that may be equal are accepted.
"ingot.func"() ({
^bb0(%x: tensor<?x6xf32, #ingot.dims<["N"]>>, %y: tensor<?xf32, #ingot.dims<["M"]>>):
  %s = "ingot.slice"(%x) {starts = ["M", "0"], steps = array<i64: 1, 1>} : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> tensor<4x6xf32>
  %r = "ingot.reshape"(%x) : (tensor<?x6xf32, #ingot.dims<["N"]>>) -> tensor<?xf32, #ingot.dims<["M"]>>
  %e = "ingot.expand"(%y) : (tensor<?xf32, #ingot.dims<["M"]>>) -> tensor<6xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y"], input_types = ["float", "float"]} : () -> ()
