// RUN: ingot-opt %s --pass-pipeline='builtin.module(ingot-sink-repeats,ingot-canonicalize)' --split-input-file | filecheck %s

// Fires, with dynamic shapes: an interleaved repeat; what is computed from it, step by step, is computed once, and repeats.
// CHECK:      %[[C:.*]] = "ingot.pointwise"
// CHECK-NEXT:   "ingot.load"(%arg0)
// CHECK-NEXT:   "ingot.cos"
// CHECK:      }) : () -> tensor<?x9xf32
// CHECK:      %[[S:.*]] = "ingot.pointwise"
// CHECK-NEXT:   "ingot.load"(%[[C]])
// CHECK-NEXT:   "ingot.load"(%arg1)
// CHECK-NEXT:   "ingot.mulf"
// CHECK:      }) : () -> tensor<?x9xf32
// CHECK:      "ingot.expand"
// CHECK:      %[[Y:.*]] = "ingot.reshape"{{.*}} -> tensor<?x18xf32
// CHECK:      "ingot.output"(%[[Y]])
"ingot.func"() ({
^bb0(%f: tensor<?x9xf32, #ingot.dims<["S"]>>, %s: tensor<?x1xf32, #ingot.dims<["S"]>>):
  %u = "ingot.reshape"(%f) : (tensor<?x9xf32, #ingot.dims<["S"]>>) -> tensor<?x9x1xf32, #ingot.dims<["S"]>>
  %e = "ingot.expand"(%u) : (tensor<?x9x1xf32, #ingot.dims<["S"]>>) -> tensor<?x9x2xf32, #ingot.dims<["S"]>>
  %r = "ingot.reshape"(%e) : (tensor<?x9x2xf32, #ingot.dims<["S"]>>) -> tensor<?x18xf32, #ingot.dims<["S"]>>
  %c = "ingot.pointwise"() ({
    %v = "ingot.load"(%r) : (tensor<?x18xf32, #ingot.dims<["S"]>>) -> f32
    %w = "ingot.cos"(%v) : (f32) -> f32
    "ingot.yield"(%w) : (f32) -> ()
  }) : () -> tensor<?x18xf32, #ingot.dims<["S"]>>
  %y = "ingot.pointwise"() ({
    %a = "ingot.load"(%c) : (tensor<?x18xf32, #ingot.dims<["S"]>>) -> f32
    %b = "ingot.load"(%s) : (tensor<?x1xf32, #ingot.dims<["S"]>>) -> f32
    %p = "ingot.mulf"(%a, %b) : (f32, f32) -> f32
    "ingot.yield"(%p) : (f32) -> ()
  }) : () -> tensor<?x18xf32, #ingot.dims<["S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x18xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["f", "s"], input_types = ["float", "float"]} : () -> ()

// -----

// Fires: padding by whole repeats. Positions become those of pairs, and so do the bounds that they are compared with.
// CHECK:      %[[P:.*]] = "ingot.pointwise"
// CHECK-DAG:    %[[I:.*]] = "ingot.index"() {axis = 1
// CHECK-DAG:    %[[ONE:.*]] = "ingot.const"() {value = 1 : i64}
// CHECK:        %[[AT:.*]] = "ingot.subi"(%[[I]], %[[ONE]])
// CHECK:        "ingot.cmpi_sge"(%[[AT]],
// CHECK:        %[[END:.*]] = "ingot.const"() {value = 9 : i64}
// CHECK:        "ingot.cmpi_slt"(%[[AT]], %[[END]])
// CHECK:        %[[LAST:.*]] = "ingot.const"() {value = 8 : i64}
// CHECK:        "ingot.minsi"(%[[AT]], %[[LAST]])
// CHECK:        "ingot.load_at"(%arg0,
// CHECK:      }) : () -> tensor<?x11xf32
// CHECK:      "ingot.expand"
"ingot.func"() ({
^bb0(%f: tensor<?x9xf32, #ingot.dims<["S"]>>):
  %u = "ingot.reshape"(%f) : (tensor<?x9xf32, #ingot.dims<["S"]>>) -> tensor<?x9x1xf32, #ingot.dims<["S"]>>
  %e = "ingot.expand"(%u) : (tensor<?x9x1xf32, #ingot.dims<["S"]>>) -> tensor<?x9x2xf32, #ingot.dims<["S"]>>
  %r = "ingot.reshape"(%e) : (tensor<?x9x2xf32, #ingot.dims<["S"]>>) -> tensor<?x18xf32, #ingot.dims<["S"]>>
  %y = "ingot.pointwise"() ({
    %i = "ingot.index"() {axis = 0 : i64} : () -> i64
    %j = "ingot.index"() {axis = 1 : i64} : () -> i64
    %zero = "ingot.const"() {value = 0 : i64} : () -> i64
    %two = "ingot.const"() {value = 2 : i64} : () -> i64
    %at = "ingot.subi"(%j, %two) : (i64, i64) -> i64
    %ge = "ingot.cmpi_sge"(%at, %zero) : (i64, i64) -> i1
    %end = "ingot.const"() {value = 18 : i64} : () -> i64
    %lt = "ingot.cmpi_slt"(%at, %end) : (i64, i64) -> i1
    %in = "ingot.andi"(%ge, %lt) : (i1, i1) -> i1
    %last = "ingot.const"() {value = 17 : i64} : () -> i64
    %min = "ingot.minsi"(%at, %last) : (i64, i64) -> i64
    %max = "ingot.maxsi"(%min, %zero) : (i64, i64) -> i64
    %v = "ingot.load_at"(%r, %i, %max) : (tensor<?x18xf32, #ingot.dims<["S"]>>, i64, i64) -> f32
    %one = "ingot.const"() {value = 1.0 : f32} : () -> f32
    %s = "ingot.select"(%in, %v, %one) : (i1, f32, f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?x22xf32, #ingot.dims<["S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x22xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["f"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: padding by half a repeat.
// CHECK:      "ingot.load_at"
// CHECK:      }) : () -> tensor<4x20xf32>
// CHECK-NEXT: "ingot.output"
"ingot.func"() ({
^bb0(%f: tensor<4x9xf32>):
  %u = "ingot.reshape"(%f) : (tensor<4x9xf32>) -> tensor<4x9x1xf32>
  %e = "ingot.expand"(%u) : (tensor<4x9x1xf32>) -> tensor<4x9x2xf32>
  %r = "ingot.reshape"(%e) : (tensor<4x9x2xf32>) -> tensor<4x18xf32>
  %y = "ingot.pointwise"() ({
    %i = "ingot.index"() {axis = 0 : i64} : () -> i64
    %j = "ingot.index"() {axis = 1 : i64} : () -> i64
    %zero = "ingot.const"() {value = 0 : i64} : () -> i64
    %one = "ingot.const"() {value = 1 : i64} : () -> i64
    %at = "ingot.subi"(%j, %one) : (i64, i64) -> i64
    %last = "ingot.const"() {value = 17 : i64} : () -> i64
    %min = "ingot.minsi"(%at, %last) : (i64, i64) -> i64
    %max = "ingot.maxsi"(%min, %zero) : (i64, i64) -> i64
    %v = "ingot.load_at"(%r, %i, %max) : (tensor<4x18xf32>, i64, i64) -> f32
    "ingot.yield"(%v) : (f32) -> ()
  }) : () -> tensor<4x20xf32>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<4x20xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["f"], input_types = ["float"]} : () -> ()

// -----

// Must not fire: the turns of a repeat differ, by their positions (y), and by another operand (z).
// CHECK:      }) : () -> tensor<?x18xf32
// CHECK:      }) : () -> tensor<?x18xf32
"ingot.func"() ({
^bb0(%f: tensor<?x9xf32, #ingot.dims<["S"]>>, %x: tensor<?x18xf32, #ingot.dims<["S"]>>):
  %u = "ingot.reshape"(%f) : (tensor<?x9xf32, #ingot.dims<["S"]>>) -> tensor<?x9x1xf32, #ingot.dims<["S"]>>
  %e = "ingot.expand"(%u) : (tensor<?x9x1xf32, #ingot.dims<["S"]>>) -> tensor<?x9x2xf32, #ingot.dims<["S"]>>
  %r = "ingot.reshape"(%e) : (tensor<?x9x2xf32, #ingot.dims<["S"]>>) -> tensor<?x18xf32, #ingot.dims<["S"]>>
  %y = "ingot.pointwise"() ({
    %v = "ingot.load"(%r) : (tensor<?x18xf32, #ingot.dims<["S"]>>) -> f32
    %j = "ingot.index"() {axis = 1 : i64} : () -> i64
    %t = "ingot.sitofp"(%j) : (i64) -> f32
    %w = "ingot.addf"(%v, %t) : (f32, f32) -> f32
    "ingot.yield"(%w) : (f32) -> ()
  }) : () -> tensor<?x18xf32, #ingot.dims<["S"]>>
  %z = "ingot.pointwise"() ({
    %v = "ingot.load"(%r) : (tensor<?x18xf32, #ingot.dims<["S"]>>) -> f32
    %t = "ingot.load"(%x) : (tensor<?x18xf32, #ingot.dims<["S"]>>) -> f32
    %w = "ingot.addf"(%v, %t) : (f32, f32) -> f32
    "ingot.yield"(%w) : (f32) -> ()
  }) : () -> tensor<?x18xf32, #ingot.dims<["S"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?x18xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.output"(%z) {name = "z", type = "float"} : (tensor<?x18xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["f", "x"], input_types = ["float", "float"]} : () -> ()

// -----

// Fires: a tile. Must not fire: a concatenation of a tensor with itself, which `ingot-fuse` computes part by part.
// CHECK:      %[[C:.*]] = "ingot.pointwise"
// CHECK-NEXT:   "ingot.load"(%arg0)
// CHECK-NEXT:   "ingot.cos"
// CHECK:      }) : () -> tensor<?x8xf32
// CHECK:      "ingot.expand"{{.*}} -> tensor<?x2x8xf32
// CHECK:      %[[Y:.*]] = "ingot.reshape"{{.*}} -> tensor<?x16xf32
// CHECK:      "ingot.move"
// CHECK:      "ingot.move"
// CHECK:      "ingot.cos"
// CHECK:      }) : () -> tensor<?x16xf32
// CHECK:      "ingot.output"(%[[Y]])
"ingot.func"() ({
^bb0(%f: tensor<?x8xf32, #ingot.dims<["S"]>>):
  %u = "ingot.reshape"(%f) : (tensor<?x8xf32, #ingot.dims<["S"]>>) -> tensor<?x1x8xf32, #ingot.dims<["S"]>>
  %e = "ingot.expand"(%u) : (tensor<?x1x8xf32, #ingot.dims<["S"]>>) -> tensor<?x2x8xf32, #ingot.dims<["S"]>>
  %r = "ingot.reshape"(%e) : (tensor<?x2x8xf32, #ingot.dims<["S"]>>) -> tensor<?x16xf32, #ingot.dims<["S"]>>
  %c = "ingot.pointwise"() ({
    %v = "ingot.load"(%r) : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> f32
    %w = "ingot.cos"(%v) : (f32) -> f32
    "ingot.yield"(%w) : (f32) -> ()
  }) : () -> tensor<?x16xf32, #ingot.dims<["S"]>>
  %o = "ingot.empty"() : () -> tensor<?x16xf32, #ingot.dims<["S"]>>
  %a = "ingot.move"(%f, %o) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "0"]} : (tensor<?x8xf32, #ingot.dims<["S"]>>, tensor<?x16xf32, #ingot.dims<["S"]>>) -> tensor<?x16xf32, #ingot.dims<["S"]>>
  %b = "ingot.move"(%f, %a) ({
  ^bb0(%v: f32):
    "ingot.yield"(%v) : (f32) -> ()
  }) {offsets = ["0", "8"]} : (tensor<?x8xf32, #ingot.dims<["S"]>>, tensor<?x16xf32, #ingot.dims<["S"]>>) -> tensor<?x16xf32, #ingot.dims<["S"]>>
  %z = "ingot.pointwise"() ({
    %v = "ingot.load"(%b) : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> f32
    %w = "ingot.cos"(%v) : (f32) -> f32
    "ingot.yield"(%w) : (f32) -> ()
  }) : () -> tensor<?x16xf32, #ingot.dims<["S"]>>
  "ingot.output"(%c) {name = "y", type = "float"} : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.output"(%z) {name = "z", type = "float"} : (tensor<?x16xf32, #ingot.dims<["S"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["f"], input_types = ["float"]} : () -> ()
