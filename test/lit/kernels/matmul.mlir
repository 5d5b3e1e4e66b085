// One product of two layers on three generations of GPUs: what multiplies, and how operands get there.

// RUN: ingot kernel %s | filecheck %s --check-prefix=LIST
// LIST: matmul_{{[0-9a-f]+}}: layer0, layer1
// LIST-NOT: matmul_

// RUN: ingot kernel %s --target sm_75 --stop ptx | filecheck %s --check-prefix=TURING
// TURING: .target sm_75
// TURING: mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32
// TURING-NOT: cp.async

// RUN: ingot kernel %s --target sm_86 --stop ptx | filecheck %s --check-prefix=AMPERE
// AMPERE: .target sm_86
// AMPERE: cp.async.cg.shared.global
// AMPERE: ldmatrix.sync.aligned.m8n8.x4
// AMPERE: mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32

// RUN: ingot kernel %s --target sm_90a --stop ptx | filecheck %s --check-prefix=HOPPER
// HOPPER: .target sm_90a
// HOPPER-DAG: cp.async.bulk.tensor.2d.shared::cluster.global
// HOPPER-DAG: wgmma.mma_async.sync.aligned

// Of the sizes of a call: N is a constant, and there is no table of sizes.
// RUN: ingot kernel %s --target sm_86 -d N=512 --stop dispatch | filecheck %s --check-prefix=SIZES
// SIZES-NOT: "d0"

// RUN: not ingot kernel %s --node layer2 2>&1 | filecheck %s --check-prefix=NODE
// NODE: no kernel of {{.*}} computes a node 'layer2'

// RUN: not ingot kernel %s --target sm_86 --stop object 2>&1 | filecheck %s --check-prefix=STOP
// STOP: --stop 'object' is no stage of sm_86 (it has dispatch, kernel-ir, llvm-dialect, llvm-ir, ptx, cubin)

"ingot.func"() ({
^bb0(%x: tensor<?x256xf16, #ingot.dims<["N"]>>):
  %w = "ingot.weight"() {name = "w"} : () -> tensor<256x256xf16>
  %p = "ingot.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    %r = "ingot.truncf"(%a) : (f32) -> f16
    "ingot.yield"(%r) : (f16) -> ()
  }) {acc = "f32"} : (tensor<?x256xf16, #ingot.dims<["N"]>>, tensor<256x256xf16>) -> tensor<?x256xf16, #ingot.dims<["N"]>> loc("layer0")
  %v = "ingot.weight"() {name = "v"} : () -> tensor<256x256xf16>
  %q = "ingot.matmul"(%x, %v) ({
  ^bb0(%a: f32):
    %r = "ingot.truncf"(%a) : (f32) -> f16
    "ingot.yield"(%r) : (f16) -> ()
  }) {acc = "f32"} : (tensor<?x256xf16, #ingot.dims<["N"]>>, tensor<256x256xf16>) -> tensor<?x256xf16, #ingot.dims<["N"]>> loc("layer1")
  "ingot.output"(%p) {name = "z", type = "float16"} : (tensor<?x256xf16, #ingot.dims<["N"]>>) -> ()
  "ingot.output"(%q) {name = "y", type = "float16"} : (tensor<?x256xf16, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float16"]} : () -> ()
