"""The one door to MLIR's Python bindings: nothing else in the project imports `torch_mlir`.

It re-exports the bindings' modules and carries the remedies for their traps:

- every lookup of an operation class of a dialect that Python declared tries to import `torch_mlir.dialects.<name>` and
  fails at 50 us a time (llvm/llvm-project#179609): `reserve_dialect_module` puts an empty module there;
- the hash of an operation is of its contents, and changes when it is modified: dictionaries use `operation_key`;
- printing a type takes 10 us: `type_text` prints each type of a context once;
- multithreading in a context deadlocks with Python verifiers (llvm/llvm-project#215781): `context` switches it off.
"""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch_mlir import ir, passmanager
from torch_mlir.dialects import ext, irdl

__all__ = [
    "PassManager", "context", "ext", "ir", "irdl", "kernel_context", "leave_out_classes", "new_context", "operation_key",
    "reserve_dialect_module", "translator", "type_text",
]  # fmt: skip

PassManager = passmanager.PassManager


_CAPSULE_NAME, _TYPE_CAPSULE_NAME = (f"{ir.__name__}.{cls}._CAPIPtr".encode() for cls in ("Operation", "Type"))
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_size_t, [ctypes.py_object, ctypes.c_char_p]


def operation_key(op: ir.Operation | ir.OpView) -> int:
    """What identifies an operation while it exists, for dictionaries and sets; the same for every handle of it.

    Hashes of values and blocks need no such remedy. An address is used again once its operation is erased.
    """
    return _capsule_pointer(op.operation._CAPIPtr, _CAPSULE_NAME)


def type_text(type_: ir.Type) -> str:
    """`str(type_)`, printed once in the type's context, which keeps it: types live as long as their context."""
    context = type_.context
    texts = context.__dict__.get("type_texts")
    if texts is None:
        texts = context.__dict__["type_texts"] = {}
    key = _capsule_pointer(type_._CAPIPtr, _TYPE_CAPSULE_NAME)
    found = texts.get(key)
    if found is None:
        found = texts[key] = str(type_)
    return found


def reserve_dialect_module(name: str) -> None:
    """Make `torch_mlir.dialects.<name>` importable, so that the bindings find nothing there quickly."""
    sys.modules.setdefault(f"torch_mlir.dialects.{name}", types.ModuleType(f"torch_mlir.dialects.{name}"))


def leave_out_classes() -> None:
    """Let operations of upstream dialects have no Python classes of their own in this process.

    Kernels are emitted by operations' names, and the bindings would import a dialect's classes at its first operation: 0.2 s
    for those of Kernel IR. Only for processes that are ours: in others somebody may use these classes.
    """
    for name in _KERNEL_DIALECTS:
        reserve_dialect_module(name)


def translator() -> Callable[[ir.Operation], str]:
    """What translates a module of the llvm dialect to LLVM IR text. Python classes of that dialect, which take 80 ms to import,
    are not needed for it."""
    from torch_mlir._mlir_libs import _mlirDialectsLLVM

    return _mlirDialectsLLVM.translate_module_to_llvmir


# Of Kernel IR.
_KERNEL_DIALECTS = ("arith", "cf", "llvm", "math", "nvvm", "scf", "vector")


def new_context(
    *, ingot: bool = True, onnx: bool = False, upstream: Sequence[str] | None = None, verify: bool = True
) -> ir.Context:
    """A context with multithreading off and the project's dialects loaded.

    Args:
        upstream: MLIR's own dialects to load; all by default. Text and bytecode load what they hold besides.
        verify: False leaves out the rules of the `ingot` dialect's verifier (see its `load`).
    """
    ctx = ir.Context(load_on_create_dialects=upstream)
    ctx.enable_multithreading(False)
    with ctx, ir.Location.unknown(ctx):
        if ingot:
            from ingot.dialects import ingot as ingot_dialect

            ingot_dialect.load(verify=verify)
        if onnx:
            from ingot.dialects import onnx as onnx_dialect

            onnx_dialect.load()
    return ctx


def kernel_context() -> ir.Context:
    """A context for Kernel IR: loading its dialects alone takes 1 ms, all that there are 20 ms.

    Others are loaded where text that is parsed names them, or a pass depends on them.
    """
    return new_context(ingot=False, upstream=_KERNEL_DIALECTS)


@contextmanager
def context(
    *, ingot: bool = True, onnx: bool = False, upstream: Sequence[str] | None = None, verify: bool = True
) -> Iterator[ir.Context]:
    """Enter a new context (see `new_context`) and an unknown location."""
    with new_context(ingot=ingot, onnx=onnx, upstream=upstream, verify=verify) as ctx, ir.Location.unknown(ctx):
        yield ctx
