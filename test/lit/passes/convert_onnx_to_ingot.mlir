// RUN: ingot-opt %s -p ingot-convert-onnx-to-ingot --split-input-file --verify-diagnostics --mlir-print-local-scope | filecheck %s

// Fires: a convolution is channels-last between transposes, with the bias in its epilogue.
// CHECK-NOT: onnx.
// CHECK:      %[[W:.*]] = "ingot.weight"() {name = "w"} : () -> tensor<8x3x3x3xf32>
// CHECK-NEXT: %[[B:.*]] = "ingot.weight"() {name = "b"} : () -> tensor<8xf32>
// CHECK-NEXT: %[[WT:.*]] = "ingot.transpose"(%[[W]]) {perm = array<i64: 0, 2, 3, 1>}
// CHECK-NEXT: %[[XT:.*]] = "ingot.transpose"(%arg0) {perm = array<i64: 0, 2, 3, 1>}
// CHECK-NEXT: %[[Y:.*]] = "ingot.conv"(%[[XT]], %[[WT]]) ({
// CHECK-NEXT: ^bb0(%[[ACC:.*]]: f32):
// CHECK-NEXT:   %[[L:.*]] = "ingot.load"(%[[B]]) : (tensor<8xf32>) -> f32
// CHECK-NEXT:   %[[S:.*]] = "ingot.addf"(%[[ACC]], %[[L]])
// CHECK-NEXT:   "ingot.yield"(%[[S]])
// CHECK-NEXT: }) {acc = "f32", dilations = array<i64: 1, 1>, groups = 1 : i64, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
// CHECK-SAME: -> tensor<?x?x?x8xf32, #ingot.dims<["N", "floordiv(H - 1, 2) + 1", "floordiv(W - 1, 2) + 1"]>>
// CHECK-NEXT: %[[YT:.*]] = "ingot.transpose"(%[[Y]]) {perm = array<i64: 0, 3, 1, 2>}
// CHECK-NEXT: "ingot.output"(%[[YT]]) {name = "y", type = "float"}
// CHECK-NEXT: "ingot.return"
// CHECK-NEXT: }) {input_types = ["float"], inputs = ["x"], sym_name = "main"}
"onnx.Graph"() ({
^bb0(%x: tensor<?x3x?x?xf32, #ingot.dims<["N", "H", "W"]>>):
  %w = "onnx.Weight"() {name = "w"} : () -> tensor<8x3x3x3xf32>
  %b = "onnx.Weight"() {name = "b"} : () -> tensor<8xf32>
  %y = "onnx.Conv"(%x, %w, %b) {pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>, operandSegmentSizes = array<i32: 1, 1, 1>} : (tensor<?x3x?x?xf32, #ingot.dims<["N", "H", "W"]>>, tensor<8x3x3x3xf32>, tensor<8xf32>) -> tensor<?x8x?x?xf32, #ingot.dims<["N", "floordiv(H - 1, 2) + 1", "floordiv(W - 1, 2) + 1"]>>
  "onnx.Output"(%y) {name = "y"} : (tensor<?x8x?x?xf32, #ingot.dims<["N", "floordiv(H - 1, 2) + 1", "floordiv(W - 1, 2) + 1"]>>) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x"]} : () -> ()

// -----

// Fires: half precision is computed in f32 and rounded at each operator; a known scalar is a constant of the region.
// CHECK:      %[[Y:.*]] = "ingot.pointwise"() ({
// CHECK-NEXT:   %[[L:.*]] = "ingot.load"(%arg0) : (tensor<4xf16>) -> f16
// CHECK-NEXT:   %[[E:.*]] = "ingot.extf"(%[[L]]) : (f16) -> f32
// CHECK-NEXT:   %[[C:.*]] = "ingot.const"() {value = 2.000000e+00 : f32}
// CHECK-NEXT:   %[[M:.*]] = "ingot.mulf"(%[[E]], %[[C]])
// CHECK-NEXT:   %[[T:.*]] = "ingot.truncf"(%[[M]]) : (f32) -> f16
// CHECK-NEXT:   "ingot.yield"(%[[T]])
// CHECK:      "ingot.output"(%[[Y]]) {name = "y", type = "float16"}
"onnx.Graph"() ({
^bb0(%x: tensor<4xf16>):
  %two = "onnx.Constant"() {value = dense<2.0> : tensor<f16>} : () -> tensor<f16>
  %y = "onnx.Mul"(%x, %two) : (tensor<4xf16>, tensor<f16>) -> tensor<4xf16>
  "onnx.Output"(%y) {name = "y"} : (tensor<4xf16>) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x"]} : () -> ()

// -----

// Fires: unsigned integers are signless, and the operation says which they are.
// CHECK: ^bb0(%arg0: tensor<4xi8>):
// CHECK: "ingot.divui"
// CHECK: "ingot.output"(%{{.*}}) {name = "y", type = "uint8"} : (tensor<4xi8>)
"onnx.Graph"() ({
^bb0(%x: tensor<4xui8>):
  %y = "onnx.Div"(%x, %x) : (tensor<4xui8>, tensor<4xui8>) -> tensor<4xui8>
  "onnx.Output"(%y) {name = "y"} : (tensor<4xui8>) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x"]} : () -> ()

// -----

// Fires: guards come first; a concatenation is a chain of moves into one tensor; values known from sizes are no operations.
// CHECK:      ^bb0
// CHECK-NEXT: "ingot.guard"() {left = "T", message = "m", relation = "eq", right = "S"}
// CHECK-NEXT: %[[E:.*]] = "ingot.empty"() : () -> tensor<?x?xf32, #ingot.dims<["S", "M + N"]>>
// CHECK-NEXT: %[[A:.*]] = "ingot.move"(%arg0, %[[E]]) ({
// CHECK:      }) {offsets = ["0", "0"]}
// CHECK-NEXT: %[[B:.*]] = "ingot.move"(%arg1, %[[A]]) ({
// CHECK:      }) {offsets = ["0", "N"]}
// CHECK-NEXT: %[[R:.*]] = "ingot.reshape"(%[[B]])
// CHECK-NEXT: "ingot.output"(%[[R]])
"onnx.Graph"() ({
^bb0(%a: tensor<?x?xf32, #ingot.dims<["S", "N"]>>, %b: tensor<?x?xf32, #ingot.dims<["S", "M"]>>):
  %s = "onnx.Shape"(%a) {ingot.values = [["S", "N"]]} : (tensor<?x?xf32, #ingot.dims<["S", "N"]>>) -> tensor<2xi64>
  %t = "onnx.Neg"(%s) {ingot.values = [["-1"]]} : (tensor<2xi64>) -> tensor<1xi64>
  %c = "onnx.Concat"(%a, %b) {axis = 1 : i64, ingot.guards = [["T", "eq", "S", "m"]], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x?xf32, #ingot.dims<["S", "N"]>>, tensor<?x?xf32, #ingot.dims<["S", "M"]>>) -> tensor<?x?xf32, #ingot.dims<["S", "M + N"]>>
  %r = "onnx.Reshape"(%c, %t) : (tensor<?x?xf32, #ingot.dims<["S", "M + N"]>>, tensor<1xi64>) -> tensor<?xf32, #ingot.dims<["M*S + N*S"]>>
  "onnx.Output"(%r) {name = "y"} : (tensor<?xf32, #ingot.dims<["M*S + N*S"]>>) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["a", "b"]} : () -> ()

// -----

// Fires: an embedding reads at computed positions, negative ones from the end; unused values stay out.
// CHECK-NOT: "ingot.exp"
// CHECK:      %[[W:.*]] = "ingot.weight"
// CHECK-NEXT: %[[I:.*]] = "ingot.reshape"(%arg0)
// CHECK-NEXT: "ingot.pointwise"
// CHECK-NEXT:   %[[P:.*]] = "ingot.load"(%[[I]])
// CHECK:        %[[C:.*]] = "ingot.index"() {axis = 1 : i64}
// CHECK-NEXT:   "ingot.load_at"(%[[W]], %{{.*}}, %[[C]]) : (tensor<100x8xf32>, i64, i64) -> f32
"onnx.Graph"() ({
^bb0(%i: tensor<?xi64, #ingot.dims<["S"]>>):
  %w = "onnx.Weight"() {name = "w"} : () -> tensor<100x8xf32>
  %unused = "onnx.Exp"(%w) : (tensor<100x8xf32>) -> tensor<100x8xf32>
  %y = "onnx.Gather"(%w, %i) : (tensor<100x8xf32>, tensor<?xi64, #ingot.dims<["S"]>>) -> tensor<?x8xf32, #ingot.dims<["S"]>>
  "onnx.Output"(%y) {name = "y"} : (tensor<?x8xf32, #ingot.dims<["S"]>>) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["i"]} : () -> ()

// -----

// Must not fire: an operator without a lowering, and types that nobody inferred.
"onnx.Graph"() ({
^bb0(%x: tensor<3x3xf32>):
  // expected-error @unknown {{2 nodes are not supported}}
  %d = "onnx.Det"(%x) : (tensor<3x3xf32>) -> tensor<f32>
  %y = "onnx.Relu"(%x) : (tensor<3x3xf32>) -> !onnx.Unknown
  "onnx.Output"(%y) {name = "y"} : (!onnx.Unknown) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["x"]} : () -> ()

// -----

// Fires, with dynamic shapes: a dequantization has one form. A zero point that is zero is no operation; scales of an axis are
// aligned with it.
// CHECK:      %[[S:.*]] = "ingot.weight"() {name = "s"}
// CHECK:      %[[SR:.*]] = "ingot.reshape"(%[[S]]) : (tensor<200xf32>) -> tensor<200x1x1xf32>
// CHECK-NEXT: "ingot.pointwise"() ({
// CHECK-NEXT:   %[[Q:.*]] = "ingot.load"(%arg0)
// CHECK-NEXT:   %[[F:.*]] = "ingot.sitofp"(%[[Q]]) : (i8) -> f32
// CHECK-NEXT:   %[[L:.*]] = "ingot.load"(%[[SR]]) : (tensor<200x1x1xf32>) -> f32
// CHECK-NEXT:   %[[M:.*]] = "ingot.mulf"(%[[F]], %[[L]])
// CHECK-NEXT:   "ingot.yield"(%[[M]])
"onnx.Graph"() ({
^bb0(%q: tensor<?x200x?x4xi8, #ingot.dims<["N", "H"]>>):
  %s = "onnx.Weight"() {name = "s"} : () -> tensor<200xf32>
  %z = "onnx.Constant"() {value = dense<0> : tensor<i8>} : () -> tensor<i8>
  %y = "onnx.DequantizeLinear"(%q, %s, %z) {axis = 1 : i64} : (tensor<?x200x?x4xi8, #ingot.dims<["N", "H"]>>, tensor<200xf32>, tensor<i8>) -> tensor<?x200x?x4xf32, #ingot.dims<["N", "H"]>>
  "onnx.Output"(%y) {name = "y"} : (tensor<?x200x?x4xf32, #ingot.dims<["N", "H"]>>) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["q"]} : () -> ()

// -----

// Fires: unsigned elements with zero points, in blocks, to half precision; each block of the axis is an axis of its own.
// CHECK:      %[[SR:.*]] = "ingot.reshape"(%{{.*}}) : (tensor<2x48xf16>) -> tensor<2x1x48xf16>
// CHECK-NEXT: %[[ZR:.*]] = "ingot.reshape"(%arg1) : (tensor<2x48xi4>) -> tensor<2x1x48xi4>
// CHECK-NEXT: %[[QR:.*]] = "ingot.reshape"(%arg0) : (tensor<64x48xi4>) -> tensor<2x32x48xi4>
// CHECK-NEXT: %[[Y:.*]] = "ingot.pointwise"() ({
// CHECK-NEXT:   %[[Q:.*]] = "ingot.load"(%[[QR]])
// CHECK-NEXT:   %[[F:.*]] = "ingot.uitofp"(%[[Q]]) : (i4) -> f32
// CHECK-NEXT:   %[[Z:.*]] = "ingot.load"(%[[ZR]])
// CHECK-NEXT:   %[[G:.*]] = "ingot.uitofp"(%[[Z]]) : (i4) -> f32
// CHECK-NEXT:   %[[D:.*]] = "ingot.subf"(%[[F]], %[[G]])
// CHECK-NEXT:   %[[L:.*]] = "ingot.load"(%[[SR]])
// CHECK-NEXT:   %[[E:.*]] = "ingot.extf"(%[[L]]) : (f16) -> f32
// CHECK-NEXT:   %[[M:.*]] = "ingot.mulf"(%[[D]], %[[E]])
// CHECK-NEXT:   %[[T:.*]] = "ingot.truncf"(%[[M]]) : (f32) -> f16
// CHECK-NEXT:   "ingot.yield"(%[[T]])
// CHECK:      "ingot.reshape"(%[[Y]]) : (tensor<2x32x48xf16>) -> tensor<64x48xf16>
"onnx.Graph"() ({
^bb0(%q: tensor<64x48xui4>, %z: tensor<2x48xui4>):
  %s = "onnx.Weight"() {name = "s"} : () -> tensor<2x48xf16>
  %y = "onnx.DequantizeLinear"(%q, %s, %z) {axis = 0 : i64, block_size = 32 : i64} : (tensor<64x48xui4>, tensor<2x48xf16>, tensor<2x48xui4>) -> tensor<64x48xf16>
  "onnx.Output"(%y) {name = "y"} : (tensor<64x48xf16>) -> ()
  "onnx.Return"() : () -> ()
}) {sym_name = "main", input_names = ["q", "z"]} : () -> ()

// -----

// Fires: a scan is a loop whose body reads views of what is scanned, backwards where it says so, and moves what it gives to
// where it is stacked.
// CHECK:      "ingot.guard"
// CHECK:      %[[Y:.*]] = "ingot.empty"() : () -> tensor<4x?xf32, #ingot.dims<["K"]>>
// CHECK:      %[[Z:.*]] = "ingot.empty"() : () -> tensor<?x4xf32, #ingot.dims<["K"]>>
// CHECK:      %[[R:.*]]:2 = "ingot.loop"(%[[Y]], %[[Z]], %{{.*}}, %{{.*}}) ({
// CHECK-NEXT: ^bb0(%[[A0:.*]]: tensor<4x?xf32, #ingot.dims<["K"]>>, %[[A1:.*]]: tensor<?x4xf32, #ingot.dims<["K"]>>, %[[V:.*]]: tensor<4x?xf32, #ingot.dims<["K"]>>, %[[X:.*]]: tensor<?x4xf32
// CHECK:      "ingot.slice"(%[[V]]) {starts = ["0", "K - t - 1"], steps = array<i64: 1, 1>} : {{.*}} -> tensor<4x1xf32>
// CHECK:      "ingot.slice"(%[[X]]) {starts = ["t", "0"], steps = array<i64: 1, 1>} : {{.*}} -> tensor<1x4xf32>
// CHECK:      "ingot.move"(%{{.*}}, %[[A0]])
// CHECK:      offsets = ["0", "t"]
// CHECK:      "ingot.move"(%{{.*}}, %[[A1]])
// CHECK:      offsets = ["K - t - 1", "0"]
// CHECK:      carried = 2 : i64
// CHECK-SAME: symbol = "t", trips = "K"
// CHECK:      "ingot.output"(%[[R]]#0)
#two = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"onnx.Graph"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>, %v: tensor<4x?xf32, #ingot.dims<["K"]>>):
  %r:2 = "onnx.Scan"(%v, %x) ({
  ^bb0(%a: tensor<4xf32>, %b: tensor<4xf32>):
    %s = "onnx.Add"(%a, %b) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %p = "onnx.Mul"(%a, %b) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    "onnx.Output"(%s) {name = "sum"} : (tensor<4xf32>) -> ()
    "onnx.Output"(%p) {name = "product"} : (tensor<4xf32>) -> ()
    "onnx.Return"() : () -> ()
  }) {ingot.guards = [["N", "eq", "K", "lengths"]], ingot.length = "K", ingot.symbol = "t", num_scan_inputs = 2 : i64, operandSegmentSizes = #two, resultSegmentSizes = #two,
       scan_input_axes = array<i64: 1, 0>, scan_input_directions = array<i64: 1, 0>,
       scan_output_axes = array<i64: -1, 0>, scan_output_directions = array<i64: 0, 1>}
    : (tensor<4x?xf32, #ingot.dims<["K"]>>, tensor<?x4xf32, #ingot.dims<["N"]>>) -> (tensor<4x?xf32, #ingot.dims<["K"]>>, tensor<?x4xf32, #ingot.dims<["K"]>>)
  "onnx.Output"(%r#0) {name = "y"} : (tensor<4x?xf32, #ingot.dims<["K"]>>) -> ()
  "onnx.Output"(%r#1) {name = "z"} : (tensor<?x4xf32, #ingot.dims<["K"]>>) -> ()
  "onnx.Return"() : () -> ()
}) {input_names = ["x", "v"], sym_name = "main"} : () -> ()

// -----

// Fires: what is read and what it defines comes first, then guards, which the sizes of all that follows stand on.
// CHECK:      ^bb0(%[[X:.*]]: tensor<?xf32, #ingot.dims<["N"]>>, %[[TO:.*]]: tensor<1xi32>):
// CHECK-NEXT:   "ingot.host_read"(%[[TO]]) {symbol = "to"} : (tensor<1xi32>) -> ()
// CHECK-NEXT:   "ingot.define"() {expression = "max(0, min(N, signed(to)))", symbol = "Slice_0"} : () -> ()
// CHECK-NEXT:   "ingot.guard"() {{.*}}message = "never negative"
// CHECK-NEXT:   %[[Y:.*]] = "ingot.slice"(%[[X]]) {starts = ["0"], steps = array<i64: 1>}
// CHECK-SAME:     -> tensor<?xf32, #ingot.dims<["Slice_0"]>>
// CHECK-NEXT:   "ingot.output"(%[[Y]])
"onnx.Graph"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>, %to: tensor<1xi32>):
  %from = "onnx.Constant"() {value = dense<0> : tensor<1xi64>} : () -> tensor<1xi64>
  %y = "onnx.Slice"(%x, %from, %to) {ingot.definitions = [["Slice_0", "max(0, min(N, signed(to)))"]], ingot.guards = [["0", "le", "signed(to)", "never negative"]], operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>} : (tensor<?xf32, #ingot.dims<["N"]>>, tensor<1xi64>, tensor<1xi32>) -> tensor<?xf32, #ingot.dims<["Slice_0"]>>
  "onnx.Output"(%y) {name = "y"} : (tensor<?xf32, #ingot.dims<["Slice_0"]>>) -> ()
  "onnx.Return"() : () -> ()
}) {ingot.reads = [[], ["signed(to)"]], sym_name = "main", input_names = ["x", "to"]} : () -> ()

// -----

// Fires: positions of which nothing is known at compile time are sizes of regions; elements that are known are no operations.
// CHECK:      "ingot.host_read"(%{{.*}}) {symbol = "n"}
// CHECK-NEXT: %[[Y:.*]] = "ingot.pointwise"() ({
// CHECK:        "ingot.dim"() {dim = "2*signed(n)"}
// CHECK:      "ingot.output"(%[[Y]])
"onnx.Graph"() ({
^bb0(%x: tensor<4xf32>, %n: tensor<i64>):
  %twice = "onnx.Add"(%n, %n) {ingot.values = [["2*signed(n)"]]} : (tensor<i64>, tensor<i64>) -> tensor<i64>
  "onnx.Output"(%twice) {name = "y"} : (tensor<i64>) -> ()
  "onnx.Return"() : () -> ()
}) {ingot.reads = [[], ["signed(n)"]], sym_name = "main", input_names = ["x", "n"]} : () -> ()
