// RUN: ingot-opt %s -p ingot-infer-shapes --split-input-file --verify-diagnostics --mlir-print-local-scope | filecheck %s

// Fires: shapes computed from sizes become shape expressions; their elements stay on the operations.
// CHECK: "onnx.Shape"
// CHECK-SAME: ingot.values = {{\[\[}}"N", "3", "H"]]
// CHECK-SAME: -> tensor<3xi64>
// CHECK: "onnx.Concat"
// CHECK-SAME: ingot.values = {{\[\[}}"N", "-1"]]
// CHECK: "onnx.Reshape"
// CHECK-NOT: ingot.guards
// CHECK-SAME: -> tensor<?x?xf32, #ingot.dims<["N", "3*H"]>>
// CHECK: "onnx.Relu"
// CHECK-SAME: -> tensor<?x?xf32, #ingot.dims<["N", "3*H"]>>
"onnx.Graph"() ({
^bb0(%x: tensor<?x3x?xf32, #ingot.dims<["N", "H"]>>):
  %zero = "onnx.Constant"() {value = dense<0> : tensor<1xi64>} : () -> tensor<1xi64>
  %rest = "onnx.Constant"() {value = dense<-1> : tensor<1xi64>} : () -> tensor<1xi64>
  %s = "onnx.Shape"(%x) : (tensor<?x3x?xf32, #ingot.dims<["N", "H"]>>) -> !onnx.Unknown
  %n = "onnx.Gather"(%s, %zero) : (!onnx.Unknown, tensor<1xi64>) -> !onnx.Unknown
  %t = "onnx.Concat"(%n, %rest) {axis = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (!onnx.Unknown, tensor<1xi64>) -> !onnx.Unknown
  %r = "onnx.Reshape"(%x, %t) : (tensor<?x3x?xf32, #ingot.dims<["N", "H"]>>, !onnx.Unknown) -> !onnx.Unknown
  %y = "onnx.Relu"(%r) : (!onnx.Unknown) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x"]} : () -> ()

// -----

// Fires: windows of a convolution over symbolic sizes; element types follow ONNX's rules.
// CHECK: "onnx.Conv"
// CHECK-SAME: -> tensor<?x8x?x?xf32, #ingot.dims<["N", "floordiv(H - 1, 2) + 1", "floordiv(W - 1, 2) + 1"]>>
// CHECK: "onnx.Greater"
// CHECK-SAME: -> tensor<?x8x?x?xi1, #ingot.dims<["N", "floordiv(H - 1, 2) + 1", "floordiv(W - 1, 2) + 1"]>>
"onnx.Graph"() ({
^bb0(%x: tensor<?x3x?x?xf32, #ingot.dims<["N", "H", "W"]>>, %c: tensor<f32>):
  %w = "onnx.Weight"() {name = "w"} : () -> tensor<8x3x3x3xf32>
  %y = "onnx.Conv"(%x, %w) {pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>, operandSegmentSizes = array<i32: 1, 1, 0>} : (tensor<?x3x?x?xf32, #ingot.dims<["N", "H", "W"]>>, tensor<8x3x3x3xf32>) -> !onnx.Unknown
  %g = "onnx.Greater"(%y, %c) : (!onnx.Unknown, tensor<f32>) -> !onnx.Unknown
  "onnx.Output"(%g) {name = "g"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x", "c"]} : () -> ()

// -----

// Fires: inner sizes that must be equal and are not proven to be are guarded, once.
// CHECK: "onnx.MatMul"
// CHECK-SAME: ingot.guards = {{\[\[}}"T", "eq", "S", "{{.*}}: inner sizes S and T differ"]]
// CHECK: "onnx.MatMul"
// CHECK-NOT: ingot.guards
// CHECK: "onnx.Output"
"onnx.Graph"() ({
^bb0(%a: tensor<?x?xf32, #ingot.dims<["N", "S"]>>, %b: tensor<?x4xf32, #ingot.dims<["T"]>>):
  %y = "onnx.MatMul"(%a, %b) : (tensor<?x?xf32, #ingot.dims<["N", "S"]>>, tensor<?x4xf32, #ingot.dims<["T"]>>) -> !onnx.Unknown
  %z = "onnx.MatMul"(%a, %b) : (tensor<?x?xf32, #ingot.dims<["N", "S"]>>, tensor<?x4xf32, #ingot.dims<["T"]>>) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Output"(%z) {name = "z"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["a", "b"]} : () -> ()

// -----

// Must not unify: two sizes of which either may be 1. Each is guarded to be 1 or the result's.
// CHECK: "onnx.Add"
// CHECK-SAME: "select(S, 1, bcast(S, T), S)", "eq", "bcast(S, T)"
// CHECK-SAME: "select(T, 1, bcast(S, T), T)", "eq", "bcast(S, T)"
// CHECK-SAME: -> tensor<?xf32, #ingot.dims<["bcast(S, T)"]>>
"onnx.Graph"() ({
^bb0(%a: tensor<?xf32, #ingot.dims<["S"]>>, %b: tensor<?xf32, #ingot.dims<["T"]>>):
  %y = "onnx.Add"(%a, %b) : (tensor<?xf32, #ingot.dims<["S"]>>, tensor<?xf32, #ingot.dims<["T"]>>) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["a", "b"]} : () -> ()

// -----

// Fires: a slice that keeps at most 512 of S elements, added to S of them, has all of them; the view before the guard's node too.
// CHECK: "onnx.Slice"
// CHECK-SAME: -> tensor<1x?xf32, #ingot.dims<["S"]>>
// CHECK: "onnx.Add"
// CHECK-SAME: ingot.guards = {{\[\[}}"min(512, S)", "eq", "S"
// CHECK-SAME: -> tensor<?x?xf32, #ingot.dims<["N", "S"]>>
"onnx.Graph"() ({
^bb0(%x: tensor<?x?xf32, #ingot.dims<["N", "S"]>>):
  %w = "onnx.Weight"() {name = "positions"} : () -> tensor<1x512xf32>
  %zero = "onnx.Constant"() {value = dense<0> : tensor<1xi64>} : () -> tensor<1xi64>
  %one = "onnx.Constant"() {value = dense<1> : tensor<1xi64>} : () -> tensor<1xi64>
  %s = "onnx.Shape"(%x) {start = 1 : i64} : (tensor<?x?xf32, #ingot.dims<["N", "S"]>>) -> !onnx.Unknown
  %p = "onnx.Slice"(%w, %zero, %s, %one) {operandSegmentSizes = array<i32: 1, 1, 1, 1, 0>} : (tensor<1x512xf32>, tensor<1xi64>, !onnx.Unknown, tensor<1xi64>) -> !onnx.Unknown
  %y = "onnx.Add"(%x, %p) : (tensor<?x?xf32, #ingot.dims<["N", "S"]>>, !onnx.Unknown) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x"]} : () -> ()

// -----

// Fires: a shape depends on data; what computes it is read. The number is a size, and guarded.
// CHECK:      "onnx.ArgMax"(%{{.*}}) {axis = 1 : i64, ingot.reads = {{\[\[}}"ArgMax_0", "ArgMax_1"]], keepdims = 0 : i64}
// CHECK:      "onnx.Expand"
// CHECK-SAME: ingot.guards = {{\[\[}}"0", "le", "signed(ArgMax_0)"
// CHECK-SAME: -> tensor<?x?xf32, #ingot.dims<["ArgMax_0", "ArgMax_1"]>>
"onnx.Graph"() ({
^bb0(%x: tensor<1xf32>, %d: tensor<2x5xf32>):
  %s = "onnx.ArgMax"(%d) {axis = 1 : i64, keepdims = 0 : i64} : (tensor<2x5xf32>) -> !onnx.Unknown
  %y = "onnx.Expand"(%x, %s) : (tensor<1xf32>, !onnx.Unknown) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x", "d"]} : () -> ()

// -----

// Must not fire: the rank of the result depends on data.
// CHECK-NOT: "onnx.GlobalMaxPool"
"onnx.Graph"() ({
^bb0(%x: tensor<1xf32>, %d: tensor<?x5xf32, #ingot.dims<["N"]>>, %e: tensor<1x1x1xf32>):
  %p = "onnx.GlobalMaxPool"(%e) : (tensor<1x1x1xf32>) -> !onnx.Unknown
  %s = "onnx.ArgMax"(%d) {axis = 1 : i64, keepdims = 0 : i64} : (tensor<?x5xf32, #ingot.dims<["N"]>>) -> !onnx.Unknown
  // expected-error @+1 {{input 1 is computed from data at run time, but shapes depend on it}}
  %y = "onnx.Expand"(%x, %s) : (tensor<1xf32>, !onnx.Unknown) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x", "d", "e"]} : () -> ()

// -----

// Fires: elements of an input are sizes, by symbols of their own, and are guarded.
// CHECK:      "onnx.Expand"
// CHECK-SAME: ingot.guards = {{\[\[}}"0", "le", "signed(s_0)", "{{.*}}element 0 of input 1 is negative"], ["0", "le", "signed(s_1)"
// CHECK-SAME: -> tensor<?x?xf32, #ingot.dims<["s_0", "s_1"]>>
// CHECK:      ingot.reads = {{\[\[}}], ["s_0", "s_1"]]
"onnx.Graph"() ({
^bb0(%x: tensor<1xf32>, %s: tensor<2xi64>):
  %y = "onnx.Expand"(%x, %s) : (tensor<1xf32>, tensor<2xi64>) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x", "s"]} : () -> ()

// -----

// Fires: positions may be negative, and the size that they give has a symbol. An input that decides nothing is not read.
// CHECK:      "onnx.Slice"
// CHECK-SAME: ingot.definitions = {{\[\[}}"Slice_0", "max({{.*}}signed(_from){{.*}}signed(to){{.*}})"]]
// CHECK-SAME: -> tensor<?xf32, #ingot.dims<["Slice_0"]>>
// CHECK:      ingot.reads = {{\[\[}}], ["signed(_from)"], ["signed(to)"], []]
"onnx.Graph"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["begin"]>>, %from: tensor<1xi64>, %to: tensor<1xi64>, %n: tensor<1xi64>):
  %y = "onnx.Slice"(%x, %from, %to) {operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>} : (tensor<?xf32, #ingot.dims<["begin"]>>, tensor<1xi64>, tensor<1xi64>) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Output"(%n) {name = "n"} : (tensor<1xi64>) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x", "from", "to", "count"]} : () -> ()

// -----

// Must not fire: axes have to be constant.
// CHECK-NOT: "onnx.ReduceSum"
"onnx.Graph"() ({
^bb0(%x: tensor<2x3xf32>, %a: tensor<1xi64>):
  // expected-error @+1 {{input 1, which decides what is computed, is not constant (make it a constant; or give the value of axes when compiling}}
  %y = "onnx.ReduceSum"(%x, %a) : (tensor<2x3xf32>, tensor<1xi64>) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x", "axes"]} : () -> ()

// -----

// Fires: an input takes the constant size that a node wants of it, and no guard is left.
// CHECK:      ^bb0(%{{.*}}: tensor<?x4xf32, #ingot.dims<["N"]>>):
// CHECK:      "onnx.MatMul"
// CHECK-NOT:  ingot.guards
// CHECK-SAME: -> tensor<?x5xf32, #ingot.dims<["N"]>>
// CHECK:      "onnx.Output"
"onnx.Graph"() ({
^bb0(%x: tensor<?x?xf32, #ingot.dims<["N", "K"]>>):
  %w = "onnx.Weight"() {name = "w"} : () -> tensor<4x5xf32>
  %y = "onnx.MatMul"(%x, %w) : (tensor<?x?xf32, #ingot.dims<["N", "K"]>>, tensor<4x5xf32>) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x"]} : () -> ()

// -----

// Fires: a scan runs along axes that must have one length, which its stacked outputs have; elements lack the axis.
// CHECK:      %{{.*}}:2 = "onnx.Scan"
// CHECK-NEXT: ^bb0(%{{.*}}: tensor<4xf32>, %{{.*}}: tensor<4xf32>):
// CHECK:      ingot.guards = {{\[\[}}"N", "eq", "K", "{{.*}}operands are scanned to different lengths"]], ingot.length = "K", ingot.symbol = "iteration_0"
// CHECK:      -> (tensor<4x?xf32, #ingot.dims<["K"]>>, tensor<?x4xf32, #ingot.dims<["K"]>>)
#two = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"onnx.Graph"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>, %v: tensor<4x?xf32, #ingot.dims<["K"]>>):
  %r:2 = "onnx.Scan"(%v, %x) ({
  ^bb0(%a: tensor<4xf32>, %b: tensor<4xf32>):
    %s = "onnx.Add"(%a, %b) : (tensor<4xf32>, tensor<4xf32>) -> tensor<*xf32>
    %p = "onnx.Mul"(%a, %b) : (tensor<4xf32>, tensor<4xf32>) -> tensor<*xf32>
    "onnx.Output"(%s) {name = "sum"} : (tensor<*xf32>) -> ()
    "onnx.Output"(%p) {name = "product"} : (tensor<*xf32>) -> ()
    "onnx.Return"() : () -> ()
  }) {num_scan_inputs = 2 : i64, operandSegmentSizes = #two, resultSegmentSizes = #two,
       scan_input_axes = array<i64: 1, 0>, scan_input_directions = array<i64: 1, 0>,
       scan_output_axes = array<i64: -1, 0>, scan_output_directions = array<i64: 0, 1>}
    : (tensor<4x?xf32, #ingot.dims<["K"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>) -> (tensor<*xf32>, tensor<*xf32>)
  "onnx.Output"(%r#0) {name = "y"} : (tensor<*xf32>) -> ()
  "onnx.Output"(%r#1) {name = "z"} : (tensor<*xf32>) -> ()
  "onnx.Return"() : () -> ()
}) {input_names = ["x", "v"], sym_name = "main"} : () -> ()

// -----

// Must not fire: what a scan carries grows.
"onnx.Graph"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>, %v: tensor<4xf32>):
  // expected-error @+1 {{Scan: carried value 0 is float[4] before an iteration and float[8] after it}}
  %r = "onnx.Scan"(%v, %x) ({
  ^bb0(%a: tensor<4xf32>, %b: tensor<4xf32>):
    %s = "onnx.Concat"(%a, %b) {axis = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<*xf32>
    "onnx.Output"(%s) {name = "s"} : (tensor<*xf32>) -> ()
    "onnx.Return"() : () -> ()
  }) {num_scan_inputs = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>}
    : (tensor<4xf32>, tensor<?x4xf32, #ingot.dims<["N"]>>) -> tensor<*xf32>
  "onnx.Output"(%r) {name = "y"} : (tensor<*xf32>) -> ()
  "onnx.Return"() : () -> ()
}) {input_names = ["x", "v"], sym_name = "main"} : () -> ()

// -----

// Fires: a sequence disappears; one of its tensors is what it was split into, another that is not read stays dead.
// CHECK:      %[[PARTS:.*]]:2 = "onnx.Split"
// CHECK-SAME: -> (tensor<?x2xf32, #ingot.dims<["N"]>>, tensor<?x1xf32, #ingot.dims<["N"]>>)
// CHECK-NOT:  Sequence
// CHECK:      "onnx.Output"(%[[PARTS]]#1) {name = "y"
// CHECK-NOT:  Sequence
"onnx.Graph"() ({
^bb0(%x: tensor<?x3xf32, #ingot.dims<["N"]>>):
  %two = "onnx.Constant"() {value = dense<2> : tensor<i64>} : () -> tensor<i64>
  %last = "onnx.Constant"() {value = dense<-1> : tensor<i64>} : () -> tensor<i64>
  %s = "onnx.SplitToSequence"(%x, %two) {axis = 1 : i64} : (tensor<?x3xf32, #ingot.dims<["N"]>>, tensor<i64>) -> !onnx.Seq<tensor<*xf32>>
  %y = "onnx.SequenceAt"(%s, %last) : (!onnx.Seq<tensor<*xf32>>, tensor<i64>) -> tensor<*xf32>
  "onnx.Output"(%y) {name = "y"} : (tensor<*xf32>) -> ()
  "onnx.Return"() : () -> ()
}) {input_names = ["x"], sym_name = "main"} : () -> ()

// -----

// Must not fire: where in a sequence is computed.
"onnx.Graph"() ({
^bb0(%x: tensor<?x2xf32, #ingot.dims<["N"]>>, %v: tensor<4xf32>):
  %i = "onnx.ArgMax"(%v) {keepdims = 0 : i64} : (tensor<4xf32>) -> tensor<i64>
  %s = "onnx.SplitToSequence"(%x) {axis = 1 : i64} : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> !onnx.Seq<tensor<*xf32>>
  // expected-error @+1 {{SequenceAt: input 1, which decides what is computed, is not constant}}
  %y = "onnx.SequenceAt"(%s, %i) : (!onnx.Seq<tensor<*xf32>>, tensor<i64>) -> tensor<*xf32>
  "onnx.Output"(%y) {name = "y"} : (tensor<*xf32>) -> ()
  "onnx.Return"() : () -> ()
}) {input_names = ["x", "v"], sym_name = "main"} : () -> ()
