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

// -----

// Both operands in blocks, and a product of integers whose scale is the epilogue's.
"ingot.func"() ({
^bb0(%x: tensor<4x32xf4E2M1FN>, %w: tensor<32x8xf4E2M1FN>, %s: tensor<4x2xf8E4M3FN>, %t: tensor<2x8xf8E4M3FN>, %q: tensor<4x32xi8>, %v: tensor<32x8xi8>):
  %r = "ingot.scaled_matmul"(%x, %w, %s, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", a_block = 16, b_block = 16} : (tensor<4x32xf4E2M1FN>, tensor<32x8xf4E2M1FN>, tensor<4x2xf8E4M3FN>, tensor<2x8xf8E4M3FN>) -> tensor<4x8xf32>
  %y = "ingot.matmul"(%q, %v) ({
  ^bb0(%a: i32):
    %f = "ingot.sitofp"(%a) : (i32) -> f32
    "ingot.yield"(%f) : (f32) -> ()
  }) {acc = "i32", a_unsigned} : (tensor<4x32xi8>, tensor<32x8xi8>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s", "t", "q", "v"], input_types = ["float4e2m1", "float4e2m1", "float8e4m3fn", "float8e4m3fn", "uint8", "int8"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xi8>, %w: tensor<96x8xi8>, %s: tensor<4x3xf32>):
  // expected-error @+1 {{has attribute 'a_block': that is scaled_matmul's}}
  %r = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%a: f32):
    %c = "ingot.const"() {value = 0.0 : f32} : () -> f32
    "ingot.yield"(%c) : (f32) -> ()
  }) {acc = "f32", a_block = 16} : (tensor<4x96xi8>, tensor<96x8xi8>, tensor<4x3xf32>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s"], input_types = ["int8", "int8", "float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xf32>, %w: tensor<96x8xf32>, %s: tensor<6x8xf32>):
  // expected-error @+1 {{has scales of b, which is f32: f4E2M1FN, f8E4M3FN, f8E5M2, i4, i8 have scales}}
  %r = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%a: f32):
    %c = "ingot.const"() {value = 0.0 : f32} : () -> f32
    "ingot.yield"(%c) : (f32) -> ()
  }) {acc = "f32", b_block = 16} : (tensor<4x96xf32>, tensor<96x8xf32>, tensor<6x8xf32>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s"], input_types = ["float", "float", "float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xf32>, %w: tensor<96x8xi8>, %s: tensor<6x8xi8>):
  // expected-error @+1 {{has scales of b of type i8: they are bf16, f16, f32, f8E4M3FN, f8E8M0FNU}}
  %r = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%a: f32):
    %c = "ingot.const"() {value = 0.0 : f32} : () -> f32
    "ingot.yield"(%c) : (f32) -> ()
  }) {acc = "f32", b_block = 16} : (tensor<4x96xf32>, tensor<96x8xi8>, tensor<6x8xi8>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s"], input_types = ["float", "int8", "int8"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xi8>, %w: tensor<96x8xi8>, %s: tensor<6x8xf32>):
  // expected-error @+1 {{accumulates i8 times i8 with scales in i32: that is f32 or f64}}
  %r = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%a: i32):
    %c = "ingot.const"() {value = 0.0 : f32} : () -> f32
    "ingot.yield"(%c) : (f32) -> ()
  }) {acc = "i32", b_block = 16} : (tensor<4x96xi8>, tensor<96x8xi8>, tensor<6x8xf32>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s"], input_types = ["int8", "int8", "float"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xi8>, %w: tensor<96x8xi8>):
  // expected-error @+1 {{accumulates i8 times i8 in f32: that is i32 or i64}}
  %r = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    %c = "ingot.const"() {value = 0.0 : f32} : () -> f32
    "ingot.yield"(%c) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x96xi8>, tensor<96x8xi8>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w"], input_types = ["int8", "int8"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xf32>, %w: tensor<96x8xi8>):
  // expected-error @+1 {{has attribute 'a_unsigned', but a is f32}}
  %r = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    %c = "ingot.const"() {value = 0.0 : f32} : () -> f32
    "ingot.yield"(%c) : (f32) -> ()
  }) {acc = "f32", a_unsigned} : (tensor<4x96xf32>, tensor<96x8xi8>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w"], input_types = ["float", "int8"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<1x4x8xi8>, %w: tensor<8x1x8xi8>):
  // expected-error @+1 {{accumulates i8 times i8 in f32: that is i32 or i64}}
  %r = "ingot.conv"(%x, %w) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = array<i64: 1>, dilations = array<i64: 1>, pads = array<i64: 0, 0>, groups = 1} : (tensor<1x4x8xi8>, tensor<8x1x8xi8>) -> tensor<1x4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w"], input_types = ["int8", "int8"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x96xi8>, %w: tensor<96x8xi8>, %s: tensor<4x3xf32>, %t: tensor<6x8xf16>):
  // expected-error @+1 {{operand 2 has shape [4, 3], expected [4, 6]}}
  %r = "ingot.scaled_matmul"(%x, %w, %s, %t) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", a_block = 16, b_block = 16} : (tensor<4x96xi8>, tensor<96x8xi8>, tensor<4x3xf32>, tensor<6x8xf16>) -> tensor<4x8xf32>
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "w", "s", "t"], input_types = ["int8", "int8", "float", "float16"]} : () -> ()
