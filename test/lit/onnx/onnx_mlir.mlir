// What onnx-mlir --EmitONNXIR emits becomes ONNX of ours: absent values, constants and terminators in their own syntax,
// properties, superseded versions, contributed operators, names of values and of dimensions.
// RUN: ingot-opt %s --mlir-use-nameloc-as-prefix --mlir-print-debuginfo | filecheck %s

// CHECK-LABEL: "onnx.Graph"() ({
// CHECK:      ^bb0(%image: tensor<?x3x8x8xf32, #ingot.dims<["batch"]>> loc({{.*}}), %flag: tensor<i1> loc
// CHECK-DAG:    %[[W:.*]] = "onnx.Weight"() {name = "{{.*}}"} : () -> tensor<4x3x1x1xf32>
// CHECK-DAG:    %[[BIG:.*]] = "onnx.Weight"() {name = "table"} : () -> tensor<4x1x5xf32>
// CHECK:        %[[CONV:.*]] = "onnx.Conv"(%image, %[[W]]) {auto_pad = "NOTSET", group = 1 : i64, kernel_shape = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>} : (tensor<?x3x8x8xf32, {{.*}}>, tensor<4x3x1x1xf32>) -> tensor<?x4x8x8xf32>
// CHECK:        %[[POOL:.*]] = "onnx.MaxPool"(%[[CONV]]) {kernel_shape = array<i64: 8, 8>
// The absent second input of version 11 of Clip stays absent; its third input follows.
// CHECK:        %[[CLIP:.*]] = "onnx.Clip"(%[[POOL]], %{{.*}}) {operandSegmentSizes = array<i32: 1, 0, 1>}
// Squeeze of version 11 had its axes in an attribute.
// CHECK:        %[[AXES:.*]] = "onnx.Constant"() {value = dense<[2, 3]> : tensor<2xi64>}
// CHECK-NEXT:   %[[SQUEEZE:.*]] = "onnx.Squeeze"(%[[CLIP]], %[[AXES]])
// CHECK:        %[[GELU:.*]] = "onnx.com.microsoft.QuickGelu"(%[[SQUEEZE]]) {alpha = 2.000000e+00 : f32}
// CHECK:        %[[CAST:.*]] = "onnx.Cast"(%[[GELU]]) {saturate = 1 : i64, to = 2 : i64}
// CHECK:        %[[DIM:.*]] = "onnx.Shape"(%image) {end = 1 : i64, start = 0 : i64}
// CHECK:        %[[IF:.*]] = "onnx.If"(%flag) ({
// CHECK-NEXT:     %[[NEG:.*]] = "onnx.Neg"(%[[GELU]])
// CHECK-NEXT:     "onnx.Output"(%[[NEG]])
// CHECK-NEXT:     "onnx.Return"()
// CHECK:        }, {
// CHECK-NEXT:     %[[SAME:.*]] = "onnx.Identity"(%[[GELU]])
// CHECK-NEXT:     "onnx.Output"(%[[SAME]])
// CHECK:        "onnx.Output"(%[[IF]]) {name = "probabilities", type = tensor<?x4xf32>}
// CHECK:        "onnx.Output"(%[[CAST]]) {name = "levels", type = tensor<?x4xui8>}
// CHECK:        "onnx.Output"(%[[DIM]]) {name = "count", type = tensor<1xi64>}
// CHECK:        "onnx.Output"(%[[BIG]]) {name = "table", type = tensor<4x1x5xf32>}
// CHECK:        "onnx.Return"()
// CHECK:      }) {input_names = ["image", "flag"], sym_name = "main_graph"}
// CHECK:      loc("/stem/conv/Conv")
// CHECK:      loc("/stem/clip/v11")
module attributes {llvm.target_triple = "x86_64-unknown-linux-gnu"} {
  func.func @main_graph(%arg0: tensor<?x3x8x8xf32> {onnx.dim_params = "0:batch", onnx.name = "image"}, %arg1: tensor<i1> {onnx.name = "flag"}) -> (tensor<?x4xf32> {onnx.name = "probabilities"}, tensor<?x4xui8> {onnx.name = "levels"}, tensor<1xi64> {onnx.name = "count"}, tensor<4x1x5xf32> {onnx.name = "table"}) {
    %0 = onnx.Constant dense<5.000000e-01> : tensor<4x3x1x1xf32>
    %1 = onnx.Constant dense<6.000000e+00> : tensor<f32>
    %2 = "onnx.Constant"() {value = dense<1.000000e+00> : tensor<4x1x5xf32>} : () -> tensor<4x1x5xf32>
    %3 = "onnx.NoValue"() {value} : () -> none
    %4 = "onnx.Conv"(%arg0, %0, %3) <{auto_pad = "NOTSET", group = 1 : si64, kernel_shape = [1, 1], pads = [0, 0, 0, 0]}> {onnx_node_name = "/stem/conv/Conv"} : (tensor<?x3x8x8xf32>, tensor<4x3x1x1xf32>, none) -> tensor<?x4x8x8xf32>
    %5 = "onnx.MaxPoolSingleOut"(%4) {kernel_shape = [8, 8], onnx_node_name = "/stem/pool"} : (tensor<?x4x8x8xf32>) -> tensor<?x4x1x1xf32>
    %6 = "onnx.ClipV11"(%5, %3, %1) {onnx_node_name = "/stem/clip"} : (tensor<?x4x1x1xf32>, none, tensor<f32>) -> tensor<?x4x1x1xf32>
    %7 = "onnx.SqueezeV11"(%6) {axes = [2, 3], onnx_node_name = "/stem/squeeze"} : (tensor<?x4x1x1xf32>) -> tensor<?x4xf32>
    %8 = "onnx.Custom"(%7) {alpha = 2.000000e+00 : f32, domain_name = "com.microsoft", function_name = "QuickGelu", onnx_node_name = "/act"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
    %9 = "onnx.Cast"(%8) {onnx_node_name = "/cast", saturate = 1 : si64, to = ui8} : (tensor<?x4xf32>) -> tensor<?x4xui8>
    %10 = "onnx.Dim"(%arg0) {axis = 0 : si64} : (tensor<?x3x8x8xf32>) -> tensor<1xi64>
    %11 = "onnx.If"(%arg1) ({
      %12 = "onnx.Neg"(%8) {onnx_node_name = "/then/neg"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
      onnx.Yield %12 : tensor<?x4xf32>
    }, {
      onnx.Yield %8 : tensor<?x4xf32>
    }) {onnx_node_name = "/if"} : (tensor<i1>) -> tensor<?x4xf32>
    onnx.Return %11, %9, %10, %2 : tensor<?x4xf32>, tensor<?x4xui8>, tensor<1xi64>, tensor<4x1x5xf32>
  }
  "onnx.EntryPoint"() {func = @main_graph} : () -> ()
}
