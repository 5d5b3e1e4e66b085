// The verifier says in ONNX's words what a schema refuses, at the node.
// RUN: ingot-opt %s --split-input-file --verify-diagnostics

"onnx.Graph"() ({
^bb0(%x: tensor<2xf32>):
  // expected-error @+1 {{unrecognized attribute: slope for operator Relu}}
  %y = "onnx.Relu"(%x) {slope = 1 : i64} : (tensor<2xf32>) -> tensor<2xf32>
  "onnx.Return"() : () -> ()
}) {input_names = ["x"], sym_name = "g"} : () -> ()

// -----

"onnx.Graph"() ({
^bb0(%x: tensor<2xf32>):
  // expected-error @+1 {{attribute 'axis' is expected to have field of kind INT}}
  %y = "onnx.Softmax"(%x) {axis = 1.0 : f32} : (tensor<2xf32>) -> tensor<2xf32>
  "onnx.Return"() : () -> ()
}) {input_names = ["x"], sym_name = "g"} : () -> ()

// -----

"onnx.Graph"() ({
^bb0(%x: tensor<2xf32>):
  // expected-error @+1 {{required attribute 'to' is missing}}
  %y = "onnx.Cast"(%x) : (tensor<2xf32>) -> tensor<2xf32>
  "onnx.Return"() : () -> ()
}) {input_names = ["x"], sym_name = "g"} : () -> ()

// -----

"onnx.Graph"() ({
^bb0(%x: tensor<2xf32>):
  // expected-error @+1 {{op expects exactly 2 operands, but got 1}}
  %y = "onnx.Add"(%x) : (tensor<2xf32>) -> tensor<2xf32>
  "onnx.Return"() : () -> ()
}) {input_names = ["x"], sym_name = "g"} : () -> ()

// -----

// expected-error @+1 {{required attribute 'input_names' is missing or has another type}}
"onnx.Graph"() ({
^bb0(%x: tensor<2xf32>):
  "onnx.Return"() : () -> ()
}) {sym_name = "g"} : () -> ()

// -----

// Operations of the main graph see only what is in it.
"builtin.module"() ({
  %k = "onnx.Constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  // expected-note @+1 {{required by region isolation constraints}}
  "onnx.Graph"() ({
    // expected-error @+1 {{using value defined outside the region}}
    %y = "onnx.Relu"(%k) : (tensor<f32>) -> tensor<f32>
    "onnx.Return"() : () -> ()
  }) {input_names = [], sym_name = "g"} : () -> ()
}) : () -> ()
