"""Every kernel that a model launches, emulated on the operands that it is given there, and compared with the reference.

A model runs on a GPU of numpy's (`numpy_gpu`), which shows each launch's dispatch, sizes and operands; so indices, lengths and
scales are the model's own. Each distinct dispatch is then emulated as it is, for any shape, and with its sizes as constants, as
a session specializes it. Operands and results lie at addresses that are multiples of what the dispatch says, and of no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
import pytest
from cuda_dispatches import peers, unrounded
from cuda_emulation import Emulated, run_emulated, signed, sum_bits
from fake_cuda import install
from numpy_gpu import NumpyKernels, on_numpy

from ingot.compiler.reference import run_dispatch
from ingot.cuda_targets import BY_NAME
from ingot.dialects.scalar_table import TABLE
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES

Sizes = dict[str, int]


@dataclass(frozen=True)
class Launch:
    """A launch of a model: what is computed, for which sizes, and of what (copies, of the views' shapes)."""

    dispatch: Dispatch
    sizes: Sizes
    operands: Sequence[np.ndarray]


@dataclass
class Launches:
    """The distinct launches of the models that ran.

    Attributes:
        new: those that were not taken yet.
    """

    new: list[Launch] = field(default_factory=list)
    _seen: set[tuple] = field(default_factory=set)

    def add(self, dispatch: Dispatch, operands: Sequence[np.ndarray], sizes: Mapping[str, int]) -> None:
        """A launch: as it is, and with its sizes as constants, of which nothing may be 0 (`program_linking.specialize`)."""
        own = dispatch.specialize(dict(sizes)) if 0 not in sizes.values() else dispatch
        for d in {dispatch.key: dispatch, own.key: own}.values():
            of = {name: sizes[name] for name in d.symbols}
            if (key := (d.key, *of.items())) not in self._seen:
                self._seen.add(key)
                self.new.append(Launch(d, of, [o.copy() for o in operands]))

    def take(self) -> list[Launch]:
        """The launches that are new, which are not any more."""
        taken, self.new = self.new, []
        return taken


@contextmanager
def recorded(target: str) -> Iterator[Launches]:
    """Let all sessions run on numpy's kernels; what these launch is recorded."""
    launches = Launches()
    with pytest.MonkeyPatch.context() as patch:
        driver = install(patch)
        on_numpy(patch, partial(NumpyKernels, driver, target, launches.add))
        yield launches


def with_named_sizes(model: onnx.ModelProto, shared: bool = True) -> onnx.ModelProto:
    """The model with names for its inputs' sizes above 1.

    Args:
        shared: equal sizes have the same name; otherwise each has its own.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for number, info in enumerate(made.graph.input):
        if info.type.WhichOneof("value") == "tensor_type":
            for axis, d in enumerate(info.type.tensor_type.shape.dim):
                if d.dim_value > 1:
                    d.dim_param = f"n{d.dim_value}" if shared else f"n{number}_{axis}"
    del made.graph.value_info[:]
    for info in made.graph.output:
        if info.type.WhichOneof("value") == "tensor_type":
            for d in info.type.tensor_type.shape.dim:
                d.Clear()
    return made


def compare(launch: Launch, target: str) -> Emulated:
    """Emulate a launch and compare its results. Raises EmulationError, AssertionError, or what emitting raises."""
    d = launch.dispatch

    def fill(views: list[np.ndarray]) -> None:
        for view, operand in zip(views, launch.operands, strict=True):
            view[...] = operand

    found = run_emulated(d, target, launch.sizes, prepare=fill, least_aligned=True)
    plain, operands = signed(d, found.operands)
    bits = sum_bits(found, BY_NAME[target])
    exact = run_dispatch(unrounded(plain), operands, launch.sizes, float64=True)
    rounded = peers(plain, operands, launch.sizes)
    for got, reference, peer in zip(found.results, exact, rounded, strict=True):
        check_elements(got, reference, peer, bits, rounds=_rounds(d), exact=_is_exact(d))
    return found


def check_elements(
    got: np.ndarray, reference: np.ndarray, peer: np.ndarray, sum_bits: int = 0, rounds: bool = False, exact: bool = False
) -> None:
    """Each element near the reference, as the results of a few elements have no statistics.

    Args:
        peer: another implementation of the same precision, of whose largest error four times is allowed.
        rounds: integers are made of floats, and may be the next one.
        exact: sums of f64 alone.
    """
    if got.dtype.kind in "iub" or got.dtype == DTYPES["i4"].np:
        apart = np.abs(got.astype(np.float64) - peer.astype(np.float64))
        count = np.sum(apart > rounds)
        assert count == 0, f"{count} of {got.size} integers differ: {_some(got, peer, apart)}"
        return
    x, r, p = (v.astype(np.float64) for v in (got, reference, peer))
    with np.errstate(all="ignore"):
        alike = np.isfinite(p)
        special = ~alike | ~np.isfinite(x)
        same = (x == p) | (np.isnan(x) & np.isnan(p))
        unlike = special & ~same
        assert not unlike.any(), f"{np.sum(unlike)} of {got.size} are not finite alike: {_some(got, peer, unlike)}"
        step, least = _finfo(got.dtype)
        usual = alike & np.isfinite(r)
        size = float(np.sqrt(np.mean(r[usual] ** 2))) if usual.any() else 0.0
        theirs = float(np.abs(p - r)[usual].max(initial=0.0))
        wide = 1e-13 if exact else 2e-6
        allowed = 1.01 * step * np.abs(r) + 4 * theirs + wide * (np.abs(r) + size) + least
        if sum_bits:
            allowed = allowed + 8 * 2.0**-sum_bits * size
        excess = np.where(usual, np.abs(x - r) / allowed, 0)
    assert excess.max(initial=0) <= 1, f"{np.sum(excess > 1)} of {got.size} differ: {_some(got, reference, excess)}"


def _finfo(dtype: np.dtype) -> tuple[float, float]:
    """(Spacing of the numbers at 1, least positive number) of a float type."""
    import ml_dtypes

    info = ml_dtypes.finfo(dtype)
    return float(info.eps), float(info.smallest_subnormal)


def _some(got: np.ndarray, expected: np.ndarray, by: np.ndarray) -> str:
    worst = np.argsort(by, axis=None, kind="stable")[::-1][:3]
    places = (list(map(int, np.unravel_index(i, got.shape))) for i in worst)
    return ", ".join(f"{got.flat[i]!s} for {expected.flat[i]!s} at {at}" for i, at in zip(worst, places, strict=True))


def _rounds(d: Dispatch) -> bool:
    """Whether integers are made of floats that were rounded before."""
    ops = [i.op for r in d.regions for i in r.insts]
    return bool({"fptosi", "fptoui"} & set(ops)) and len(set(ops) & {"mulf", "addf", "divf", "subf"}) > 0


def _is_exact(d: Dispatch) -> bool:
    """Whether values are f64 and no function is computed of them, which would be computed in f32."""
    functions = {name for name, row in TABLE.items() if row.expand or row.expand_cuda}
    used = {i.op for r in d.regions for i in r.insts}
    return d.results[0].dtype == "f64" and d.root != "normalize" and not used & functions
