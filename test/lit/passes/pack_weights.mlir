// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-pack-weights{target=sm_90a})' --split-input-file | filecheck %s
// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-pack-weights{target=sm_89})' --split-input-file | filecheck %s
// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-pack-weights{target=sm_75})' --split-input-file | filecheck %s --check-prefix=TURING

// A target whose tensor cores multiply f16 and no bf16, and whose kernels decode E4M3 otherwise.
// TURING: {acc = "f32", b_block = 32 : i64, b_packed}
// TURING: sym_name = "packing"
// TURING: // -----
// TURING-NOT: b_packed
// TURING-NOT: sym_name = "packing"

// Fires: 4-bit weights that lie [n, k], in both products that read them, one of them of dynamic rows.
// CHECK:      ^bb0(%[[X:[^:]*]]: tensor<?x64xf16
// CHECK:      %[[W:.*]] = "ingot.weight"() {name = "w#packed"} : () -> tensor<32x64xi4>
// CHECK:      %[[B:.*]] = "ingot.transpose"(%[[W]]) {perm = array<i64: 1, 0>}
// CHECK:      "ingot.matmul"(%[[X]], %[[B]], %{{.*}})
// CHECK:      {acc = "f32", b_block = 32 : i64, b_packed}
// CHECK:      {name = "w#packed"} : () -> tensor<32x64xi4>
// CHECK:      b_packed
// CHECK:      sym_name = "main"
// CHECK:      "ingot.func"
// CHECK:      %[[S:.*]] = "ingot.weight"() {name = "w"} : () -> tensor<32x32xi8>
// CHECK:      "ingot.reshape"(%[[S]]) : (tensor<32x32xi8>) -> tensor<2x8x2x1x4x2x4xi8>
// CHECK:      %[[P:.*]] = "ingot.pointwise"
// CHECK:      -> tensor<2x1x8x4x4x2x2xi8>
// CHECK:      "ingot.output"(%[[P]]) {name = "w#packed", type = "int8"}
// CHECK:      sym_name = "packing"
"ingot.func"() ({
^bb0(%x: tensor<?x64xf16, #ingot.dims<["N"]>>, %z: tensor<3x64xf16>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<32x64xi4>
  %s = "ingot.weight"() {name = "s"} : () -> tensor<2x32xf16>
  %b = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<32x64xi4>) -> tensor<64x32xi4>
  %p = "ingot.matmul"(%x, %b, %s) ({
  ^bb0(%a: f32):
    %r = "ingot.truncf"(%a) : (f32) -> f16
    "ingot.yield"(%r) : (f16) -> ()
  }) {acc = "f32", b_block = 32 : i64} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x32xi4>, tensor<2x32xf16>) -> tensor<?x32xf16, #ingot.dims<["N"]>>
  %q = "ingot.matmul"(%z, %b, %s) ({
  ^bb0(%a: f32):
    %r = "ingot.truncf"(%a) : (f32) -> f16
    "ingot.yield"(%r) : (f16) -> ()
  }) {acc = "f32", b_block = 32 : i64} : (tensor<3x64xf16>, tensor<64x32xi4>, tensor<2x32xf16>) -> tensor<3x32xf16>
  "ingot.output"(%p) {name = "p", type = "float16"} : (tensor<?x32xf16, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q) {name = "q", type = "float16"} : (tensor<3x32xf16>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "z"], input_types = ["float16", "float16"]} : () -> ()

// -----

// Fires: bytes are moved as they are.
// CHECK:      {name = "w#packed"} : () -> tensor<32x64xi8>
// CHECK:      %[[V:.*]] = "ingot.transpose"(%{{.*}}) {perm = array<i64: 0, 3, 1, 6, 4, 5, 2, 7>}
// CHECK:      "ingot.move"(%[[V]])
// CHECK:      -> tensor<2x2x8x4x2x2x2x2xi8>
// CHECK:      sym_name = "packing"
"ingot.func"() ({
^bb0(%x: tensor<?x64xbf16, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<32x64xi8>
  %b = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<32x64xi8>) -> tensor<64x32xi8>
  %p = "ingot.matmul"(%x, %b) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x64xbf16, #ingot.dims<["N"]>>, tensor<64x32xi8>) -> tensor<?x32xf32, #ingot.dims<["N"]>>
  "ingot.output"(%p) {name = "p", type = "float"} : (tensor<?x32xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["bfloat16"]} : () -> ()

// -----

// Fires: floats of 8 bits, as bytes.
// CHECK:      {name = "w#packed"} : () -> tensor<32x64xf8E4M3FN>
// CHECK:      {acc = "f32", b_packed}
// CHECK:      -> tensor<2x2x8x4x2x2x2x2xi8>
// CHECK:      sym_name = "packing"
"ingot.func"() ({
^bb0(%x: tensor<?x64xf16, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<32x64xf8E4M3FN>
  %b = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<32x64xf8E4M3FN>) -> tensor<64x32xf8E4M3FN>
  %p = "ingot.matmul"(%x, %b) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x32xf8E4M3FN>) -> tensor<?x32xf32, #ingot.dims<["N"]>>
  "ingot.output"(%p) {name = "p", type = "float"} : (tensor<?x32xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float16"]} : () -> ()

// -----

// Must not fire: rows that are not whole tiles, weights that something else reads too, activations of f32, lines of
// activations that copies of 16 bytes cannot read, and scales that change within a lane's chunk.
// CHECK-NOT: b_packed
// CHECK-NOT: sym_name = "packing"
"ingot.func"() ({
^bb0(%x: tensor<?x64xf16, #ingot.dims<["N"]>>, %f: tensor<?x64xf32, #ingot.dims<["N"]>>, %l: tensor<?x68xf16, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<24x64xi8>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<32x64xi8>
  %u = "ingot.weight"() {name = "u"} : () -> tensor<32x64xi8>
  %t = "ingot.weight"() {name = "t"} : () -> tensor<32x64xi8>
  %wt = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<24x64xi8>) -> tensor<64x24xi8>
  %vt = "ingot.transpose"(%v) {perm = array<i64: 1, 0>} : (tensor<32x64xi8>) -> tensor<64x32xi8>
  %ut = "ingot.transpose"(%u) {perm = array<i64: 1, 0>} : (tensor<32x64xi8>) -> tensor<64x32xi8>
  %tt = "ingot.transpose"(%t) {perm = array<i64: 1, 0>} : (tensor<32x64xi8>) -> tensor<64x32xi8>
  %o = "ingot.weight"() {name = "o"} : () -> tensor<32x64xi4>
  %os = "ingot.weight"() {name = "os"} : () -> tensor<4x32xf16>
  %ot = "ingot.transpose"(%o) {perm = array<i64: 1, 0>} : (tensor<32x64xi4>) -> tensor<64x32xi4>
  %op = "ingot.matmul"(%x, %ot, %os) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", b_block = 16 : i64} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x32xi4>, tensor<4x32xf16>) -> tensor<?x32xf32, #ingot.dims<["N"]>>
  %n = "ingot.slice"(%l) {starts = ["0", "0"], steps = array<i64: 1, 1>} : (tensor<?x68xf16, #ingot.dims<["N"]>>) -> tensor<?x64xf16, #ingot.dims<["N"]>>
  %p = "ingot.matmul"(%x, %wt) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x24xi8>) -> tensor<?x24xf32, #ingot.dims<["N"]>>
  %q = "ingot.matmul"(%x, %vt) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x32xi8>) -> tensor<?x32xf32, #ingot.dims<["N"]>>
  %r = "ingot.matmul"(%f, %ut) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x64xf32, #ingot.dims<["N"]>>, tensor<64x32xi8>) -> tensor<?x32xf32, #ingot.dims<["N"]>>
  %s = "ingot.matmul"(%n, %tt) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x64xf16, #ingot.dims<["N"]>>, tensor<64x32xi8>) -> tensor<?x32xf32, #ingot.dims<["N"]>>
  "ingot.output"(%p) {name = "p", type = "float"} : (tensor<?x24xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q) {name = "q", type = "float"} : (tensor<?x32xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r) {name = "r", type = "float"} : (tensor<?x32xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%s) {name = "s", type = "float"} : (tensor<?x32xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%op) {name = "o", type = "float"} : (tensor<?x32xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%v) {name = "v", type = "int8"} : (tensor<32x64xi8>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "f", "l"], input_types = ["float16", "float", "float16"]} : () -> ()
