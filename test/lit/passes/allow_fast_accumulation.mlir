// RUN: ingot-opt %s -p ingot-allow-fast-accumulation --split-input-file | filecheck %s

// Fires on products of 8-bit floats, of static and dynamic shapes; not where an operand is of another type.
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "f32", fast_accumulation} : (tensor<?x32xf8E4M3FN
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "f32", fast_accumulation} : (tensor<4x32xf8E5M2>
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "f32"} : (tensor<4x32xf16>
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "i32"} : (tensor<4x32xi8>
"ingot.func"() ({
^bb0(%x: tensor<?x32xf8E4M3FN, #ingot.dims<["N"]>>, %y: tensor<4x32xf8E5M2>, %w: tensor<32x8xf8E4M3FN>, %h: tensor<4x32xf16>, %i: tensor<4x32xi8>, %j: tensor<32x8xi8>):
  %a = "ingot.matmul"(%x, %w) ({
  ^bb0(%acc: f32):
    "ingot.yield"(%acc) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x32xf8E4M3FN, #ingot.dims<["N"]>>, tensor<32x8xf8E4M3FN>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %b = "ingot.matmul"(%y, %w) ({
  ^bb0(%acc: f32):
    "ingot.yield"(%acc) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x32xf8E5M2>, tensor<32x8xf8E4M3FN>) -> tensor<4x8xf32>
  %c = "ingot.matmul"(%h, %w) ({
  ^bb0(%acc: f32):
    "ingot.yield"(%acc) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x32xf16>, tensor<32x8xf8E4M3FN>) -> tensor<4x8xf32>
  %d = "ingot.matmul"(%i, %j) ({
  ^bb0(%acc: i32):
    "ingot.yield"(%acc) : (i32) -> ()
  }) {acc = "i32"} : (tensor<4x32xi8>, tensor<32x8xi8>) -> tensor<4x8xi32>
  "ingot.output"(%a) {name = "a", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%b) {name = "b", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.output"(%c) {name = "c", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.output"(%d) {name = "d", type = "int32"} : (tensor<4x8xi32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "w", "h", "i", "j"], input_types = ["float8e4m3fn", "float8e5m2", "float8e4m3fn", "float16", "int8", "int8"]} : () -> ()

// -----

// Fires on a convolution.
// CHECK:      "ingot.conv"
// CHECK:      fast_accumulation
"ingot.func"() ({
^bb0(%x: tensor<?x8x8x16xf8E4M3FN, #ingot.dims<["N"]>>, %w: tensor<4x1x1x16xf8E4M3FN>):
  %a = "ingot.conv"(%x, %w) ({
  ^bb0(%acc: f32):
    "ingot.yield"(%acc) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1}
    : (tensor<?x8x8x16xf8E4M3FN, #ingot.dims<["N"]>>, tensor<4x1x1x16xf8E4M3FN>) -> tensor<?x8x8x4xf32, #ingot.dims<["N"]>>
  "ingot.output"(%a) {name = "a", type = "float"} : (tensor<?x8x8x4xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w"], input_types = ["float8e4m3fn", "float8e4m3fn"]} : () -> ()
