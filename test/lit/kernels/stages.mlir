// Every stage of a kernel can be dumped, edited and resumed.

// RUN: rm -rf %t.dir && ingot kernel %s --target sm_86 --dump-dir %t.dir | filecheck %s --check-prefix=DONE
// DONE: pointwise_{{[0-9a-f]+}}: {{[0-9]+}} B; pointwise_{{[0-9a-f]+}}, blocks of {{[0-9]+}} threads and 0 B
// RUN: ls %t.dir | filecheck %s --check-prefix=FILES
// FILES:      planned_{{.*}}.mlir
// FILES-NEXT: pointwise_{{.*}}.cubin
// FILES-NEXT: pointwise_{{.*}}.ll
// FILES-NEXT: pointwise_{{.*}}.llvm.mlir
// FILES-NEXT: pointwise_{{.*}}.mlir
// FILES-NEXT: pointwise_{{.*}}.ptx

// The IR of the model, with its buffers planned, is a file of AOT IR.
// RUN: cp %t.dir/planned_*.mlir %t.planned.mlir && ingot kernel %t.planned.mlir | filecheck %s --check-prefix=NODES
// NODES: pointwise_{{[0-9a-f]+}}: negation

// Edited Kernel IR goes on to PTX, edited LLVM IR to machine code.
// RUN: sed 's/arith.negf \(%[0-9]*\)/arith.addf \1, \1/' %t.dir/pointwise_*[0-9a-f].mlir > %t.edited.mlir
// RUN: ingot kernel %t.edited.mlir --target sm_86 --stop ptx | filecheck %s --check-prefix=EDITED
// EDITED-NOT: neg.f32
// EDITED:     add{{(.rn)?}}.f32
// EDITED-NOT: neg.f32
// RUN: cp %t.dir/pointwise_*.ll %t.resumed.ll && ingot kernel %t.resumed.ll --target sm_86 -o %t.cubin
// RUN: cmp %t.cubin %t.dir/pointwise_*.cubin

// The dispatch of a kernel, with its target, is a file too: what a failure leaves.
// RUN: ingot kernel %s --target sm_86 --stop dispatch -o %t.json && ingot kernel %t.json -o %t.again && cmp %t.again %t.cubin
// RUN: ingot kernel %t.json --target cpu | filecheck %s --check-prefix=CPU
// CPU: pointwise_{{[0-9a-f]+}}: {{[0-9]+}} B

// RUN: sed 's/arith.negf/arith.negative/' %t.dir/pointwise_*[0-9a-f].mlir > %t.wrong.mlir
// RUN: not ingot kernel %t.wrong.mlir --target sm_86 2>&1 | filecheck %s --check-prefix=WRONG
// WRONG: error: -:{{[0-9]+}}:{{[0-9]+}}: this is no IR of a kernel: {{.*}}arith.negative{{.*}} (correct it, or dump the stage again)
// RUN: not ingot kernel %t.resumed.ll --target sm_86 --stop kernel-ir 2>&1 | filecheck %s --check-prefix=BACK
// BACK: resumed.ll holds llvm-ir: no way leads to kernel-ir (give an earlier stage's file)
// RUN: not ingot kernel %t.none.ptx --target sm_86 2>&1 | filecheck %s --check-prefix=NONE
// NONE: cannot be read: No such file or directory
// RUN: echo '{}' > %t.bad.json && not ingot kernel %t.bad.json 2>&1 | filecheck %s --check-prefix=BAD
// BAD: no dispatch with its target: KeyError('dispatch') (give what `ingot kernel --stop dispatch` prints)

"ingot.func"() ({
^bb0(%x: tensor<?xf32, #ingot.dims<["N"]>>):
  %y = "ingot.pointwise"() ({
    %e = "ingot.load"(%x) : (tensor<?xf32, #ingot.dims<["N"]>>) -> f32
    %s = "ingot.negf"(%e) : (f32) -> f32
    "ingot.yield"(%s) : (f32) -> ()
  }) : () -> tensor<?xf32, #ingot.dims<["N"]>> loc("negation")
  "ingot.output"(%y) {name = "y", type = "float"} : (tensor<?xf32, #ingot.dims<["N"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x"], input_types = ["float"]} : () -> ()
