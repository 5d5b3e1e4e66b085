// Control operations: what they look like, and what the verifier refuses.
// RUN: ingot-opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK:      "ingot.if"(%{{.*}}, %{{.*}}) ({
// CHECK-NEXT: ^bb0(%{{.*}}: tensor<4x6xf32>):
// CHECK:      "ingot.result"(%{{.*}}) : (tensor<4x6xf32>) -> ()
// CHECK-NEXT: "ingot.return"() : () -> ()
// CHECK-NEXT: }, {
// CHECK:      "ingot.result"
// CHECK:      : (tensor<i1>, tensor<4x6xf32>) -> tensor<4x6xf32>
"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  %r = "ingot.if"(%c, %x) ({
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

// CHECK:      "ingot.host_read"(%{{.*}}) {symbol = "M"} : (tensor<i64>) -> ()
// CHECK-NEXT: "ingot.loop"(%{{.*}}, %{{.*}}) ({
// CHECK:      "ingot.result"
// CHECK:      carried = 1 : i64{{.*}}symbol = "i", trips = "M"
"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  "ingot.host_read"(%m) {symbol = "M"} : (tensor<i64>) -> ()
  %r = "ingot.loop"(%x, %x) ({
  ^bb0(%a: tensor<4x6xf32>, %b: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "M", symbol = "i", carried = 1, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  // expected-error @+1 {{takes one i1 as its condition, got tensor<i64>}}
  %r = "ingot.if"(%m, %x) ({
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
  }) {operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<i64>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  // expected-error @+1 {{region 'then' gives (tensor<i1>), expected (tensor<4x6xf32>)}}
  %r = "ingot.if"(%c, %x) ({
  ^bb0(%a: tensor<4x6xf32>):
    %k = "ingot.weight"() {name = "k"} : () -> tensor<i1>
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%k) : (tensor<i1>) -> ()
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

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  // expected-error @+1 {{region 'else' takes (tensor<6x4xf32>), expected (tensor<4x6xf32>)}}
  %r = "ingot.if"(%c, %x) ({
  ^bb0(%a: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }, {
  ^bb0(%b: tensor<6x4xf32>):
    %v = "ingot.weight"() {name = "k"} : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<i1>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  // expected-error @+2 {{carries 2 of 2 tensors, and has 1 results}}
  "ingot.host_read"(%m) {symbol = "M"} : (tensor<i64>) -> ()
  %r = "ingot.loop"(%x, %x) ({
  ^bb0(%a: tensor<4x6xf32>, %b: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "M", symbol = "i", carried = 2, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  // expected-error @+2 {{takes one i1 first, as its condition, got tensor<4x6xf32>}}
  "ingot.host_read"(%m) {symbol = "M"} : (tensor<i64>) -> ()
  %r = "ingot.loop"(%x, %x) ({
  ^bb0(%a: tensor<4x6xf32>, %b: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "M", symbol = "i", carried = 1, while, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

"ingot.func"() ({
^bb0(%x: tensor<4x6xf32>, %c: tensor<i1>, %m: tensor<i64>):
  // expected-error @+1 {{reads one i64 or i32, got tensor<i1>}}
  "ingot.host_read"(%c) {symbol = "M"} : (tensor<i1>) -> ()
  %r = "ingot.loop"(%x, %x) ({
  ^bb0(%a: tensor<4x6xf32>, %b: tensor<4x6xf32>):
    %v = "ingot.pointwise"() ({
      %e = "ingot.load"(%a) : (tensor<4x6xf32>) -> f32
      %n = "ingot.negf"(%e) : (f32) -> f32
      "ingot.yield"(%n) : (f32) -> ()
    }) : () -> tensor<4x6xf32>
    "ingot.result"(%v) : (tensor<4x6xf32>) -> ()
    "ingot.return"() : () -> ()
  }) {trips = "M", symbol = "i", carried = 1, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
  "ingot.output"(%r) {name = "y", type = "float"} : (tensor<4x6xf32>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "c", "m"], input_types = ["float", "bool", "int64"]} : () -> ()

// -----

// Sizes that depend on what the host reads have symbols of their own.
// CHECK-LABEL: sym_name = "sizes"
"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>, %m: tensor<i32>):
  "ingot.host_read"(%m) {symbol = "M"} : (tensor<i32>) -> ()
  "ingot.define"() {symbol = "K", expression = "max(min(N, signed(M)), 0)"} : () -> ()
  %y = "ingot.slice"(%x) {starts = ["0"], steps = array<i64: 1>} : (tensor<?xf32, #ingot.dims<["N"]>>) -> tensor<?xf32, #ingot.dims<["K"]>>
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?xf32, #ingot.dims<["K"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "sizes", inputs = ["x", "m"], input_types = ["float", "int32"]} : () -> ()

// -----

"ingot.func"() ({
  // expected-error @+1 {{defines K by itself}}
  "ingot.define"() {symbol = "K", expression = "K + 1"} : () -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = [], input_types = []} : () -> ()
