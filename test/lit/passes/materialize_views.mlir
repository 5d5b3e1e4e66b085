// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-materialize-views)' --split-input-file | filecheck %s

// Fires: a reshape that merges axes of a transposed tensor; the weight of a convolution whose channels are strided. The copy
// is made once for two readers.
// CHECK:      %[[W:.*]] = "ingot.transpose"
// CHECK-NEXT: %[[WC:.*]] = "ingot.move"(%[[W]])
// CHECK:      %[[T:.*]] = "ingot.transpose"(%arg0)
// CHECK-NEXT: %[[C:.*]] = "ingot.move"(%[[T]])
// CHECK:      "ingot.reshape"(%[[C]])
// CHECK:      "ingot.reshape"(%[[C]])
// CHECK:      "ingot.conv"({{.*}}, %[[WC]])
"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<2x3x3xf32>
  %wt = "ingot.transpose"(%w) {perm = [0, 2, 1]} : (tensor<2x3x3xf32>) -> tensor<2x3x3xf32>
  %t = "ingot.transpose"(%x) {perm = [1, 0]} : (tensor<4x6xf32>) -> tensor<6x4xf32>
  %flat = "ingot.reshape"(%t) : (tensor<6x4xf32>) -> tensor<1x8x3xf32>
  %again = "ingot.reshape"(%t) : (tensor<6x4xf32>) -> tensor<24xf32>
  %y = "ingot.conv"(%flat, %wt) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32", strides = [1], dilations = [1], pads = [0, 0], groups = 1} : (tensor<1x8x3xf32>, tensor<2x3x3xf32>) -> tensor<1x6x2xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<1x6x2xf32>) -> ()
  "ingot.output"(%again) {name = "z", type = "float"} : (tensor<24xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: a transposed operand of a matmul, and a reshape that only splits a transposed tensor's axes, are strides.
// CHECK-NOT: ingot.move
"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<8x6xf32>
  %wt = "ingot.transpose"(%w) {perm = [1, 0]} : (tensor<8x6xf32>) -> tensor<6x8xf32>
  %y = "ingot.matmul"(%x, %wt) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {acc = "f32"} : (tensor<4x6xf32>, tensor<6x8xf32>) -> tensor<4x8xf32>
  %t = "ingot.transpose"(%y) {perm = [1, 0]} : (tensor<4x8xf32>) -> tensor<8x4xf32>
  %s = "ingot.reshape"(%t) : (tensor<8x4xf32>) -> tensor<2x4x4xf32>
  "ingot.output"(%s) {name = "y", type = "float"} : (tensor<2x4x4xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// Dynamic shapes: heads merged after a transpose are copied; heads split before one are not.
// CHECK:      "ingot.reshape"(%arg0)
// CHECK-NEXT: %[[T:.*]] = "ingot.transpose"
// CHECK-NEXT: %[[C:.*]] = "ingot.move"(%[[T]])
// CHECK:      "ingot.reshape"(%[[C]])
"ingot.func"() ({
^bb0(%x: tensor<?x64xf32, #ingot.dims<["S"]>>):
  %h = "ingot.reshape"(%x) : (tensor<?x64xf32, #ingot.dims<["S"]>>) -> tensor<?x4x16xf32, #ingot.dims<["S"]>>
  %t = "ingot.transpose"(%h) {perm = [1, 0, 2]} : (tensor<?x4x16xf32, #ingot.dims<["S"]>>) -> tensor<4x?x16xf32, #ingot.dims<["S"]>>
  %m = "ingot.reshape"(%t) : (tensor<4x?x16xf32, #ingot.dims<["S"]>>) -> tensor<?x16xf32, #ingot.dims<["4*S"]>>
  "ingot.output"(%m) {name = "y", type = "float"} : (tensor<?x16xf32, #ingot.dims<["4*S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()

// -----

// A region takes what it captures for contiguous; what is so needs no copy.
// CHECK:       "ingot.transpose"
// CHECK-NEXT:  %[[COPY:.*]] = "ingot.move"
// CHECK:       "ingot.if"(%arg1, %[[COPY]])
"ingot.func"() ({
^bb0(%x: tensor<6x4xf32>, %c: tensor<i1>, %m: tensor<i64>):
  %t = "ingot.transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<6x4xf32>) -> tensor<4x6xf32>
  %r = "ingot.if"(%c, %t) ({
  ^bb0(%a: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }, {
  ^bb0(%b: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%b) : (tensor<4x6xf32>) -> f32
      %n = "ingot.absf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<i1>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

// Fires: an int4 weight that runs along n is turned once, for both readers; an fp8 one that runs along k already, and one of 16
// bits, are read as they are, as is an activation.
// CHECK:      %[[W:.*]] = "ingot.weight"() {name = "w"}
// CHECK-NEXT: %[[T:.*]] = "ingot.transpose"(%[[W]])
// CHECK-NEXT: %[[M:.*]] = "ingot.move"(%[[T]])
// CHECK:      %[[B:.*]] = "ingot.transpose"(%[[M]])
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.matmul"(%{{.*}}, %[[B]], %{{.*}})
// CHECK:      "ingot.matmul"(%{{.*}}, %[[B]], %{{.*}})
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.return"
"ingot.func"() ({
^bb0(%x: tensor<?x32xf16, #ingot.dims<["N"]>>, %a: tensor<?x32xf8E4M3FN, #ingot.dims<["N"]>>, %t: tensor<32x?xf8E4M3FN, #ingot.dims<["T"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<32x8xi4>
  %s = "ingot.weight"() {name = "s"} : () -> tensor<1x8xf16>
  %h = "ingot.weight"() {name = "h"} : () -> tensor<32x8xf16>
  %v = "ingot.weight"() {name = "v"} : () -> tensor<8x32xf8E4M3FN>
  %vt = "ingot.transpose"(%v) {perm = [1, 0]} : (tensor<8x32xf8E4M3FN>) -> tensor<32x8xf8E4M3FN>
  %p = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32", b_block = 32} : (tensor<?x32xf16, #ingot.dims<["N"]>>, tensor<32x8xi4>, tensor<1x8xf16>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %p2 = "ingot.matmul"(%x, %w, %s) ({
  ^bb0(%e: f32):
    %n = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%n) : (f32) -> ()
  }) {acc = "f32", b_block = 32} : (tensor<?x32xf16, #ingot.dims<["N"]>>, tensor<32x8xi4>, tensor<1x8xf16>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %q = "ingot.matmul"(%x, %h) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x32xf16, #ingot.dims<["N"]>>, tensor<32x8xf16>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %r = "ingot.matmul"(%a, %vt) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x32xf8E4M3FN, #ingot.dims<["N"]>>, tensor<32x8xf8E4M3FN>) -> tensor<?x8xf32, #ingot.dims<["N"]>>
  %u = "ingot.matmul"(%a, %t) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x32xf8E4M3FN, #ingot.dims<["N"]>>, tensor<32x?xf8E4M3FN, #ingot.dims<["T"]>>) -> tensor<?x?xf32, #ingot.dims<["N", "T"]>>
  "ingot.output"(%p) {name = "p", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%p2) {name = "p2", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q) {name = "q", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%r) {name = "r", type = "float"} : (tensor<?x8xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%u) {name = "u", type = "float"} : (tensor<?x?xf32, #ingot.dims<["N", "T"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "a", "t"], input_types = ["float16", "float8e4m3fn", "float8e4m3fn"]} : () -> ()

// -----

// Must not fire: an axis of one element, whatever its stride; weights of one k, and of an odd number of half bytes. Fires: an axis of
// two elements, a column of a matrix, and a weight of two k.
// CHECK:      %[[S:.*]] = "ingot.slice"(%arg5)
// CHECK-NEXT: %[[A:.*]] = "ingot.move"(%[[S]])
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.transpose"
// CHECK-NEXT: %[[W2:.*]] = "ingot.transpose"
// CHECK-NEXT: %[[C2:.*]] = "ingot.move"(%[[W2]])
// CHECK-NOT:  "ingot.move"
// CHECK:      %[[K2:.*]] = "ingot.weight"() {name = "k2"}
// CHECK-NEXT: %[[T2:.*]] = "ingot.transpose"(%[[K2]])
// CHECK-NEXT: %[[M2:.*]] = "ingot.move"(%[[T2]])
// CHECK:      %[[B2:.*]] = "ingot.transpose"(%[[M2]])
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.conv"(%{{.*}}, %[[C2]])
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.matmul"(%[[A]], %
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.matmul"(%{{.*}}, %[[B2]])
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.return"
"ingot.func"() ({
^bb0(%x: tensor<1x8x1xf32>, %y: tensor<1x8x2xf32>, %a: tensor<4x1xi8>, %b: tensor<4x2xi8>, %c: tensor<4x3xf16>, %d: tensor<4x6xi8>):
  %column = "ingot.slice"(%d) {starts = ["0", "2"], steps = array<i64: 1, 1>} : (tensor<4x6xi8>) -> tensor<4x1xi8>
  %w1 = "ingot.weight"() {name = "w1"} : () -> tensor<2x1x3xf32>
  %w2 = "ingot.weight"() {name = "w2"} : () -> tensor<2x2x3xf32>
  %t1 = "ingot.transpose"(%w1) {perm = [0, 2, 1]} : (tensor<2x1x3xf32>) -> tensor<2x3x1xf32>
  %t2 = "ingot.transpose"(%w2) {perm = [0, 2, 1]} : (tensor<2x2x3xf32>) -> tensor<2x3x2xf32>
  %k1 = "ingot.weight"() {name = "k1"} : () -> tensor<1x8xi8>
  %k2 = "ingot.weight"() {name = "k2"} : () -> tensor<2x8xi8>
  %k3 = "ingot.weight"() {name = "k3"} : () -> tensor<3x8xi4>
  %s = "ingot.weight"() {name = "s"} : () -> tensor<1x8xf16>
  %c1 = "ingot.conv"(%x, %t1) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32", strides = [1], dilations = [1], pads = [0, 0], groups = 1} : (tensor<1x8x1xf32>, tensor<2x3x1xf32>) -> tensor<1x6x2xf32>
  %c2 = "ingot.conv"(%y, %t2) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32", strides = [1], dilations = [1], pads = [0, 0], groups = 1} : (tensor<1x8x2xf32>, tensor<2x3x2xf32>) -> tensor<1x6x2xf32>
  %m1 = "ingot.matmul"(%a, %k1) ({
  ^bb0(%e: i32):
    "ingot.yield"(%e) : (i32) -> ()
  }) {acc = "i32"} : (tensor<4x1xi8>, tensor<1x8xi8>) -> tensor<4x8xi32>
  %m0 = "ingot.matmul"(%column, %k1) ({
  ^bb0(%e: i32):
    "ingot.yield"(%e) : (i32) -> ()
  }) {acc = "i32"} : (tensor<4x1xi8>, tensor<1x8xi8>) -> tensor<4x8xi32>
  %m2 = "ingot.matmul"(%b, %k2) ({
  ^bb0(%e: i32):
    "ingot.yield"(%e) : (i32) -> ()
  }) {acc = "i32"} : (tensor<4x2xi8>, tensor<2x8xi8>) -> tensor<4x8xi32>
  %m3 = "ingot.matmul"(%c, %k3, %s) ({
  ^bb0(%e: f32):
    "ingot.yield"(%e) : (f32) -> ()
  }) {acc = "f32", b_block = 3} : (tensor<4x3xf16>, tensor<3x8xi4>, tensor<1x8xf16>) -> tensor<4x8xf32>
  "ingot.output"(%c1) {name = "c1", type = "float"} : (tensor<1x6x2xf32>) -> ()
  "ingot.output"(%c2) {name = "c2", type = "float"} : (tensor<1x6x2xf32>) -> ()
  "ingot.output"(%m0) {name = "m0", type = "int32"} : (tensor<4x8xi32>) -> ()
  "ingot.output"(%m1) {name = "m1", type = "int32"} : (tensor<4x8xi32>) -> ()
  "ingot.output"(%m2) {name = "m2", type = "int32"} : (tensor<4x8xi32>) -> ()
  "ingot.output"(%m3) {name = "m3", type = "float"} : (tensor<4x8xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "y", "a", "b", "c", "d"], input_types = ["float", "float", "int8", "int8", "float16", "int8"]} : () -> ()

// -----

// A repeat that a pointwise operation reads stays a view, of an axis split in two; a product gets a copy.
// CHECK:      %[[E:.*]] = "ingot.expand"{{.*}} -> tensor<?x8x2xf32
// CHECK-NEXT: %[[M:.*]] = "ingot.move"(%[[E]])
// CHECK:      %[[R:.*]] = "ingot.reshape"(%[[M]]){{.*}} -> tensor<?x16xf32
// CHECK:      "ingot.pointwise"
// CHECK-NEXT:   "ingot.load"{{.*}} -> f32
// CHECK-NEXT:   "ingot.load"(%[[E]])
// CHECK:      }) : () -> tensor<?x8x2xf32
// CHECK-NOT:  "ingot.move"
// CHECK:      "ingot.matmul"(%[[R]],
"ingot.func"() ({
^bb0(%f: tensor<?x8xf32, #ingot.dims<["S"]>>, %x: tensor<?x16xf32, #ingot.dims<["S"]>>, %w: tensor<16x16xf32>):
  %u = "ingot.reshape"(%f) : (tensor<?x8xf32, #ingot.dims<["S"]>>) -> tensor<?x8x1xf32, #ingot.dims<["S"]>>
  %e = "ingot.expand"(%u) : (tensor<?x8x1xf32, #ingot.dims<["S"]>>) -> tensor<?x8x2xf32, #ingot.dims<["S"]>>
  %r = "ingot.reshape"(%e) : (tensor<?x8x2xf32, #ingot.dims<["S"]>>) -> tensor<?x16xf32, #ingot.dims<["S"]>>
  %y = "ingot.pointwise"() ({
    %a = "ingot.load"(%x) : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> f32
    %b = "ingot.load"(%r) : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> f32
    %p = "ingot.mulf"(%a, %b) : (f32, f32) -> f32
    "ingot.yield"(%p) : (f32) -> ()
  }) : () -> tensor<?x16xf32, #ingot.dims<["S"]>>
  %z = "ingot.matmul"(%r, %w) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {acc = "f32"} : (tensor<?x16xf32, #ingot.dims<["S"]>>, tensor<16x16xf32>) -> tensor<?x16xf32, #ingot.dims<["S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.output"(%z) {name = "z", type = "float"} : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["f", "x", "w"], input_types = ["float", "float", "float"]} : () -> ()
