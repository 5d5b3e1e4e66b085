"""Tables of shape expressions: the same dimensions come back, and common parts are written once."""

from __future__ import annotations

import pytest

from ingot import dims
from ingot.dim_table import DimReader, DimTable
from ingot.dims import Dim
from ingot.launch_program import Buffer, LaunchProgram, dumps, loads


def halved(name: str, times: int) -> Dim:
    """What strided convolutions make of a size: nested and squared, so that its text doubles with every layer."""
    d: Dim = dims.symbol(name)
    for _ in range(times):
        d = dims.floordiv(d * d - 1, d + 2) + 1
    return d


def test_round_trip() -> None:
    texts = ["N", "7", "2*N*S - 3", "floordiv(H - 1, 2) + floordiv(floordiv(H - 1, 2), 3)", "max(N, S)*ceildiv(N, 256)",
             "select(N, 1, 0, S)", "bcast(N, S)"]  # fmt: skip
    values = [dims.parse(t) for t in texts]
    table = DimTable()
    spelled = [table.text(d) for d in values]
    reader = DimReader(table.definitions)
    assert [reader.dim(t) for t in spelled] == values
    assert spelled[:3] == ["N", "7", "2*N*S - 3"]


def test_parts_may_be_negative() -> None:
    for text in ("max(0, floordiv(N - 5, 2))", "max(0, signed(n))", "select(floordiv(N - 5, 2) + 1, 0, 1, max(signed(n), 0))"):
        d = dims.parse(text)
        table = DimTable(dims.symbols(d))
        spelled = table.text(d)
        assert DimReader(table.definitions).dim(spelled) is d


def test_common_parts_are_written_once() -> None:
    deep = halved("N", 10)
    table = DimTable()
    written = len(table.text(deep)) + sum(len(text) for _, text in table.definitions)
    assert len(str(deep)) > 20 * written
    assert len(table.definitions) == 10
    assert DimReader(table.definitions).dim(table.text(deep)) is deep


def test_names_do_not_meet_symbols() -> None:
    d = dims.floordiv(dims.symbol("t0") + dims.symbol("t_1"), 2)
    table = DimTable(dims.symbols(d))
    text = table.text(d)
    assert text not in ("t0", "t_1")
    assert DimReader(table.definitions).dim(text) == d


def test_programs_store_tables() -> None:
    deep = halved("t0", 8)
    program = LaunchProgram("cpu", (), (), (), (Buffer("arena", deep), Buffer("arena", deep * 2, deep)), (), (), deep * 3)
    data = dumps(program)
    assert loads(data) == program
    assert len(data) < len(str(deep))
    with pytest.raises(ValueError, match=r"shape expression|damaged"):
        loads(data.replace(b"floordiv", b"nonesuch"))
