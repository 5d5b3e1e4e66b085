// Every construct of the dialect survives text and bytecode.
// RUN: ingot-opt %s | filecheck %s
// RUN: ingot-opt %s --emit-bytecode | ingot-opt | filecheck %s

// CHECK-LABEL: "onnx.Graph"() ({
// CHECK-NEXT: ^bb0(%[[X:.*]]: tensor<?x?x4xf32, #ingot.dims<["batch", "2*seq + 1"]>>, %[[C:.*]]: tensor<i1>):
"onnx.Graph"() ({
^bb0(%x: tensor<?x?x4xf32, #ingot.dims<["batch", "2*seq + 1"]>>, %c: tensor<i1>):
  // Weights are named, small tensors are there; unsigned types keep their signs.
  // CHECK: "onnx.Weight"() {name = "w"} : () -> tensor<4x64xbf16>
  %w = "onnx.Weight"() {name = "w"} : () -> tensor<4x64xbf16>
  // CHECK: "onnx.Constant"() {value = dense<[1, 255]> : tensor<2xui8>} : () -> tensor<2xui8>
  %k = "onnx.Constant"() {value = dense<[1, 255]> : tensor<2xui8>} : () -> tensor<2xui8>
  // CHECK: "onnx.Constant"() {value = {shape = array<i64: 1>, strings = ["a"]}} : () -> tensor<1x!onnx.String>
  %s = "onnx.Constant"() {value = {shape = array<i64: 1>, strings = ["a"]}} : () -> tensor<1x!onnx.String>

  // Absent optional operands and results.
  // CHECK: "onnx.Clip"(%[[X]], %{{.*}}) {operandSegmentSizes = array<i32: 1, 0, 1>}
  %max = "onnx.Constant"() {value = dense<6.0> : tensor<f32>} : () -> tensor<f32>
  %y = "onnx.Clip"(%x, %max) {operandSegmentSizes = array<i32: 1, 0, 1>} : (tensor<?x?x4xf32, #ingot.dims<["batch", "2*seq + 1"]>>, tensor<f32>) -> !onnx.Unknown
  // CHECK: %{{.*}}:2 = "onnx.LayerNormalization"(%{{.*}}, %{{.*}}) {resultSegmentSizes = array<i32: 1, 0, 1>}
  %norm, %inverse = "onnx.LayerNormalization"(%y, %max) {resultSegmentSizes = array<i32: 1, 0, 1>} : (!onnx.Unknown, tensor<f32>) -> (!onnx.Unknown, tensor<*xf32>)

  // Names with dots, and attributes of each kind.
  // CHECK: "onnx.com.microsoft.QuickGelu"(%{{.*}}) {alpha = 1.000000e+00 : f32}
  %gelu = "onnx.com.microsoft.QuickGelu"(%y) {alpha = 1.0 : f32} : (!onnx.Unknown) -> tensor<*xf32>
  // CHECK: "onnx.Transpose"(%{{.*}}) {perm = array<i64: 0, 2, 1>}
  %t = "onnx.Transpose"(%y) {perm = array<i64: 0, 2, 1>} : (!onnx.Unknown) -> tensor<?x4x?xf32>

  // Regions capture values of the graph around them.
  // CHECK: "onnx.If"(%[[C]]) ({
  %if = "onnx.If"(%c) ({
    // CHECK-NEXT: %[[N:.*]] = "onnx.Neg"(%{{.*}})
    %n = "onnx.Neg"(%t) : (tensor<?x4x?xf32>) -> tensor<?x4x?xf32>
    // CHECK-NEXT: "onnx.Output"(%[[N]])
    // CHECK-NEXT: "onnx.Return"()
    "onnx.Output"(%n) : (tensor<?x4x?xf32>) -> ()
    "onnx.Return"() : () -> ()
  }, {
    "onnx.Output"(%t) : (tensor<?x4x?xf32>) -> ()
    "onnx.Return"() : () -> ()
  }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<i1>) -> tensor<?x4x?xf32>
  // CHECK: !onnx.Seq<tensor<?x4x?xf32>>
  %seq0 = "onnx.SequenceEmpty"() : () -> !onnx.Seq<tensor<?x4x?xf32>>
  %seq = "onnx.SequenceInsert"(%seq0, %if) : (!onnx.Seq<tensor<?x4x?xf32>>, tensor<?x4x?xf32>) -> !onnx.Seq<tensor<?x4x?xf32>>
  // CHECK: "onnx.Output"(%{{.*}}) {name = "y", type = tensor<?x4x?xf32, #ingot.dims<["batch", "n"]>>}
  "onnx.Output"(%if) {name = "y", type = tensor<?x4x?xf32, #ingot.dims<["batch", "n"]>>} : (tensor<?x4x?xf32>) -> ()
  "onnx.Return"() : () -> ()
// CHECK: }) {input_names = ["x", "c"], sym_name = "main"} : () -> ()
}) {input_names = ["x", "c"], sym_name = "main"} : () -> ()
