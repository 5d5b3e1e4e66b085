// RUN: ingot-opt %s -p ingot-allow-tf32 --split-input-file | filecheck %s

// Fires on products of f32, of static and dynamic shapes; not on those of another type, nor on other operations.
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "f32", tf32} : (tensor<?x8xf32
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "f32", tf32} : (tensor<4x8xf32>
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "f32"} : (tensor<4x8xf16>
// CHECK:      "ingot.reduce"
// CHECK-NOT:  tf32
"ingot.func"() ({
^bb0(%x: tensor<?x8xf32, #ingot.dims<["N"]>>, %y: tensor<4x8xf32>, %w: tensor<8x8xf32>, %h: tensor<4x8xf16>, %g: tensor<8x8xf16>):
  %a = "ingot.matmul"(%x, %w) ({
  ^bb0(%acc: f32):
    "ingot.yield"(%acc) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<8x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %b = "ingot.matmul"(%y, %w) ({
  ^bb0(%acc: f32):
    "ingot.yield"(%acc) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
  %c = "ingot.matmul"(%h, %g) ({
  ^bb0(%acc: f32):
    "ingot.yield"(%acc) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x8xf16>, tensor<8x8xf16>) -> tensor<4x8xf32>
  %d = "ingot.reduce"(%b) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }, {
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {axes = array<i64: 1>, kind = "sum"} : (tensor<4x8xf32>) -> tensor<4x1xf32>
  "ingot.output"(%a) {name = "a", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%c) {name = "c", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.output"(%d) {name = "d", type = "float"} : (tensor<4x1xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "w", "h", "g"], input_types = ["float", "float", "float", "float16", "float16"]} : () -> ()

// -----

// Fires in the body of a loop.
// CHECK:      "ingot.loop"
// CHECK:      "ingot.matmul"
// CHECK:      {acc = "f32", tf32} : (tensor<?x8xf32
// CHECK:      "ingot.result"
#in = array<i32: 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
#out = array<i32: 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>
"ingot.func"() ({
^bb0(%m_z0: tensor<?x8xf32, #ingot.dims<["N"]>>, %m_z1: tensor<4x8xf32>, %m_z2: tensor<4x1xf32>, %m_x: tensor<?x8xf32, #ingot.dims<["N"]>>, %m_y: tensor<4x8xf32>, %m_w: tensor<8x8xf32>, %m_h: tensor<4x8xf16>, %m_g: tensor<8x8xf16>):
  %r:3 = "ingot.loop"(%m_z0, %m_z1, %m_z2, %m_x, %m_y, %m_w, %m_h, %m_g) ({
  ^bb0(%z0: tensor<?x8xf32, #ingot.dims<["N"]>>, %z1: tensor<4x8xf32>, %z2: tensor<4x1xf32>, %x: tensor<?x8xf32, #ingot.dims<["N"]>>, %y: tensor<4x8xf32>, %w: tensor<8x8xf32>, %h: tensor<4x8xf16>, %g: tensor<8x8xf16>):
    %a = "ingot.matmul"(%x, %w) ({
    ^bb0(%acc: f32):
      "ingot.yield"(%acc) : (f32) -> ()
    }) {acc = "f32"} : (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<8x8xf32>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
    %b = "ingot.matmul"(%y, %w) ({
    ^bb0(%acc: f32):
      "ingot.yield"(%acc) : (f32) -> ()
    }) {acc = "f32"} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    %c = "ingot.matmul"(%h, %g) ({
    ^bb0(%acc: f32):
      "ingot.yield"(%acc) : (f32) -> ()
    }) {acc = "f32"} : (tensor<4x8xf16>, tensor<8x8xf16>) -> tensor<4x8xf32>
    %d = "ingot.reduce"(%b) ({
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }, {
    ^bb0(%e: f32):
      "ingot.yield"(%e) : (f32) -> ()
    }) {axes = array<i64: 1>, kind = "sum"} : (tensor<4x8xf32>) -> tensor<4x1xf32>
    "ingot.result"(%a) : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
    "ingot.result"(%c) : (tensor<4x8xf32>) -> ()
    "ingot.result"(%d) : (tensor<4x1xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "3", symbol = "i", carried = 3, operandSegmentSizes = #in, resultSegmentSizes = #out}
    : (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<4x8xf32>, tensor<4x1xf32>, tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<4x8xf32>, tensor<8x8xf32>, tensor<4x8xf16>, tensor<8x8xf16>) -> (tensor<?x8xf32, #ingot.dims<["N"]>>, tensor<4x8xf32>, tensor<4x1xf32>)
  "ingot.output"(%r#0) {name = "a", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r#1) {name = "c", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.output"(%r#2) {name = "d", type = "float"} : (tensor<4x1xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["z0", "z1", "z2", "x", "y", "w", "h", "g"], input_types = ["float", "float", "float", "float", "float", "float", "float16", "float16"]} : () -> ()
