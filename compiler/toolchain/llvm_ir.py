"""Kernel IR to the llvm dialect to LLVM IR text.

The bindings' translator dies on an operation it has no translation for, and LLVM ends the process on what its
instruction selector
cannot do: `check_translatable` and `check_selectable` refuse both before, with the operation's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingot.compiler.toolchain.literals import fix_literals
from ingot.dialects.mlir import PassManager, ir, translator
from ingot.errors import CompileError

# Canonicalization is LLVM's to do. `use-vector-alignment` gives vector loads their natural alignment (else element-wise loads);
# convert-cf-to-llvm is a module pass.
PIPELINE = (
    "builtin.module(convert-scf-to-cf,convert-vector-to-llvm{use-vector-alignment=1},convert-arith-to-llvm,"
    "convert-cf-to-llvm,reconcile-unrealized-casts%s)"
)


@dataclass(frozen=True)
class Unselectable:
    """An operation that LLVM's NVPTX backend cannot select: the process would end there.

    Attributes:
        below: it is so on compute capabilities (times ten) below this one; 1000 means all.
        without: a fast-math flag whose presence makes it selectable.
        attribute: a substring of the operation's text without which the row does not apply.
        instead: what to emit instead.
    """

    operation: str
    instead: str
    below: int = 1000
    without: str = ""
    attribute: str = ""


_NO_LOWERING = "use the scalar table's expansion over nvvm.ex2 and nvvm.log2"
NVPTX_UNSELECTABLE = (
    *(
        Unselectable(f"llvm.intr.{name}", _NO_LOWERING)
        for name in ("exp", "exp10", "log", "log2", "log10", "pow", "powi", "sinh", "cosh", "tan", "asin", "acos", "atan")
    ),
    *(
        Unselectable(f"llvm.intr.{name}", "give it fastmath afn, or expand it", without="afn")
        for name in ("tanh", "sin", "cos")
    ),
    Unselectable("nvvm.prefetch", "a prefetch to L2 needs sm_90: emit inline PTX", below=90, attribute="level = L2"),
)


def check_selectable(module: Any, target: str) -> None:
    """Raise CompileError if a GPU kernel has an operation that LLVM would end the process on."""
    sm = int(target.removeprefix("sm_").rstrip("a"))
    rows = {row.operation: row for row in NVPTX_UNSELECTABLE}

    found: list[tuple[Any, Unselectable]] = []

    def visit(operation: Any) -> Any:
        row = rows.get(operation.name)
        if row is not None and sm < row.below:
            text = str(operation)
            if row.attribute in text and not (row.without and row.without in text):
                found.append((operation, row))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    if found:
        operation, row = found[0]
        raise CompileError(f"{operation.name} has no code on {target}", node=_kernel_of(operation), cure=row.instead)


def check_translatable(module: Any) -> None:
    """Raise CompileError if an operation has no translation to LLVM IR (the translator would end the process)."""
    left: set[str] = set()

    def visit(operation: Any) -> Any:
        name = operation.name
        if not name.startswith(("llvm.", "nvvm.")) and name != "builtin.module":
            left.add(name)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    if left:
        raise CompileError(f"no translation to LLVM IR for {', '.join(sorted(left))}", cure="lower it in Kernel IR")


def _kernel_of(operation: Any) -> str | None:
    while operation is not None and operation.name != "llvm.func":
        operation = operation.parent
    return None if operation is None else ir.StringAttr(operation.attributes["sym_name"]).value


def target_of(module: Any) -> str:
    """The target a module of Kernel IR or of the llvm dialect was built for (its attribute `ingot.target`)."""
    attributes = module.operation.attributes
    if "ingot.target" not in attributes:
        raise CompileError("the module has no ingot.target attribute", cure="name the target")
    return ir.StringAttr(attributes["ingot.target"]).value


def to_llvm_dialect(module: Any, target: str | None = None) -> None:
    """Lower a module of Kernel IR in place to the llvm dialect (and the nvvm operations that LLVM IR knows)."""
    target = target or target_of(module)
    if target != "cpu":
        check_selectable(module, target)
    pipeline = PIPELINE % (",convert-nvvm-to-llvm" if target != "cpu" else "")
    manager = PassManager.parse(pipeline, context=module.context)
    manager.enable_verifier(False)  # after each pass: kernels are verified when they are finished, and LLVM verifies its IR
    manager.run(module.operation)


def to_llvm_ir(module: Any) -> str:
    """LLVM IR text, readable by llvmlite, of a module in the llvm dialect."""
    check_translatable(module)
    return fix_literals(translator()(module.operation))
