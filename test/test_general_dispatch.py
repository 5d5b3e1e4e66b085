"""Dispatches that several layers share: what they have in common, the way back, and their kernels on the emulator."""

from __future__ import annotations

from dataclasses import replace

import cuda_dispatches as make
import pytest
from cuda_emulation import check

from ingot import dims
from ingot.compiler.general_dispatch import generalize
from ingot.dispatch import Dispatch, TensorArg

SAME = (1, 1, 1, 1)


def sliced(t: TensorArg, row: int) -> TensorArg:
    """A tensor [B, S, n] whose rows lie `row` elements apart."""
    batch, rows, _ = t.shape
    assert batch is not None
    return replace(t, strides=(row * dims.as_dim(rows), row, 1))


def heads(count: int, depth: int, row: int) -> TensorArg:
    """Heads within rows of `row` elements: [B, H, S, D]."""
    s = dims.symbol("d1")
    return TensorArg("f16", (dims.symbol("d0"), count, s, depth), (row * s, depth, row, 1), 64)


def attention(count: int, row: int) -> Dispatch:
    d = make.attention("d0", count, "d1", "d1", 64)
    t = heads(count, 64, row)
    return replace(d, operands=(t, t, t), results=(heads(count, 64, count * 64),))


def matmul(n: int, k: int, row: int = 0) -> Dispatch:
    d = make.matmul("d1", n, k, "f16", batch=("d0",), b_batch=False, bias=True)
    return replace(d, operands=(sliced(d.operands[0], row), *d.operands[1:])) if row else d


FAMILIES = {
    "matmul": (matmul(128, 64), matmul(320, 1280)),
    "matmul of slices": (matmul(64, 128, 192), matmul(320, 640, 1920)),
    "matmul, B transposed": tuple(make.matmul("d0", n, 2 * n, "f16", b_transposed=True) for n in (64, 320)),
    "conv": tuple(make.conv("d0", ("d1", "d2"), c, n, (3, 3), pads=SAME, bias=True) for c, n in ((64, 128), (320, 640))),
    "conv of four channels": tuple(make.conv("d0", ("d1", "d2"), 4, n, (3, 3), pads=SAME, bias=True) for n in (64, 320)),
    "attention": (attention(2, 384), attention(5, 960)),
}  # fmt: skip
SIZES = {"d0": 2, "d1": 5, "d2": 6}


def values(d: Dispatch) -> tuple[Dispatch, dict[str, int]]:
    """The general dispatch of `d`, and values of its symbols where the sizes of `d` are those of `SIZES`."""
    general, found = generalize(d, tuple(dims.symbol(s) for s in d.symbols))
    return general, {s: dims.evaluate(v, SIZES) for s, v in zip(general.symbols, found, strict=True)}


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_of_different_sizes_share_a_dispatch(name: str) -> None:
    small, large = (values(d)[0] for d in FAMILIES[name])
    assert small.text == large.text
    assert small.text != FAMILIES[name][0].text


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sizes_at_hand_make_it_the_layers_own(name: str) -> None:
    for d in FAMILIES[name]:
        general, sizes = values(d)
        new = {s: v for s, v in sizes.items() if s not in d.symbols}
        assert general.specialize(new) == d


@pytest.mark.parametrize("target", ["sm_90a", "sm_80"])
@pytest.mark.parametrize("name", FAMILIES)
def test_kernels(name: str, target: str) -> None:
    general, sizes = values(FAMILIES[name][0])
    check(general, target, sizes=sizes)


def test_what_stays_as_it_is() -> None:
    conv = make.conv("n", (8, 8), 64, 64, (3, 3), pads=SAME, groups=2)
    for d in (
        make.matmul(16, 64, 64, "f16"),  # no other kernel will come
        make.quantized_matmul("m", 64, 64, scale="f16", block=32),
        conv,
        make.normalize("layer", "n", 768),
    ):
        sizes = tuple(dims.symbol(s) for s in d.symbols)
        assert generalize(d, sizes) == (d, sizes)
    grouped = make.attention("n", 8, "s", "s", 64, kv_heads=2)
    assert generalize(grouped, ()) == (grouped, ())


def test_divisors_are_part_of_a_dispatch() -> None:
    """Rows that are aligned less are read by another kernel."""
    aligned, odd = (values(matmul(64, k))[0] for k in (128, 72))
    assert aligned.text != odd.text
