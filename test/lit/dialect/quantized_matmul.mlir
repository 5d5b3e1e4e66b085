// A quantized matmul's scales and zero points are operands that its attributes ask for.
// RUN: ingot-opt %s --split-input-file --verify-diagnostics

"ingot.func"() ({
^bb0(%x: tensor<4x96xf16>, %w: tensor<96x8xi4>, %s: tensor<3x8xf16>, %z: tensor<3x8xf16>):
  %r = "ingot.matmul"(%x, %w, %s, %z) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 32, b_zero} : (tensor<4x96xf16>, tensor<96x8xi4>, tensor<3x8xf16>, tensor<3x8xf16>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s", "z"], input_types = ["float16", "int4", "float16", "float16"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xf16>, %w: tensor<96x8xi4>, %s: tensor<3x8xf16>):
  // expected-error @+1 {{operand 2 has shape [3, 8], expected [6, 8]}}
  %r = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 16} : (tensor<4x96xf16>, tensor<96x8xi4>, tensor<3x8xf16>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s"], input_types = ["float16", "int4", "float16"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xf16>, %w: tensor<96x8xi4>, %s: tensor<3x8xf16>):
  // expected-error @+1 {{has 3 operands, its attributes ask for 2}}
  %r = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x96xf16>, tensor<96x8xi4>, tensor<3x8xf16>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s"], input_types = ["float16", "int4", "float16"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xf16>, %w: tensor<96x8xi4>, %s: tensor<3x8xf16>):
  // expected-error @+1 {{a matmul with zero points of b has no scales of b}}
  %r = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_zero} : (tensor<4x96xf16>, tensor<96x8xi4>, tensor<3x8xf16>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s"], input_types = ["float16", "int4", "float16"]} : () -> ()
