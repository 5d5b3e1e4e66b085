"""Speed cases of token-by-token decoding: products of one row, and attention of one query, by one launch and by two.

Of each product: the schedule with the least estimate, and others that share K by a cluster, by a second launch, or not at all.
Weights do not stay in the second-level cache from call to call. Attention's keys and values do.

    python benchmarks/cuda_kernels.py --speed --only decoding
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
from cuda_cases import Check, Speed

from ingot.compiler.codegen.cuda_attention_mma import MmaAttentionSchedule
from ingot.compiler.codegen.cuda_attention_simt import SimtAttentionSchedule
from ingot.compiler.codegen.cuda_gemv import GemvSchedule
from ingot.dispatch import Dispatch

# (n, k, splits of the two launches) of a language model of 1B parameters, and of one of 7B: projections, up, down, logits.
PRODUCTS = ((3072, 2048, 16), (2048, 2048, 16), (8192, 2048, 16), (16384, 2048, 16), (2048, 8192, 32), (4096, 4096, 32),
            (11008, 4096, 16), (4096, 11008, 32), (128256, 2048, 2))  # fmt: skip
COLUMNS, LINES = GemvSchedule(1, 8, False), GemvSchedule(1, 8, True)
QUERY, EXACT = MmaAttentionSchedule(1, 16, 32), SimtAttentionSchedule(32, 16, 1)


NARROW = ((4, 4), (8, 4), (8, 8), (16, 8))  # (lanes of a warp side by side, blocks of a cluster)
KEYS = ((256, 64), (1024, 64), (4096, 64), (32768, 64), (2048, 128))
WARPS = ((1, 8), (4, 8), (4, 4), (4, 1))  # (warps that share keys, blocks of a cluster)


def decoding_speeds(matmul: Callable[..., Any], attention: Callable[..., Any]) -> list[Speed]:
    """The cases, against `matmul` and `attention`."""
    cases = []

    def product(n: int, k: int, schedules: dict[str, GemvSchedule | None]) -> None:
        for note, s in schedules.items():
            k_major = s is not None and s.k_major
            d = make.matmul(1, n, k, "f16", b_transposed=k_major or "NT" in note)
            cases.append(Speed(f"decoding f16 1x{n}x{k} {note}", d, 0.0, matmul, schedule=s, cold=True))

    def queries(name: str, d: Dispatch, gqa: bool, schedules: dict[str, Any]) -> None:
        cases.extend(
            Speed(f"decoding attention {name} {note}", d, 0.0, attention(gqa=gqa), schedule=s) for note, s in schedules.items()
        )

    for n, k, splits in PRODUCTS:
        shared = {f"{8 * across} columns, cluster {c}": replace(COLUMNS, cluster=c, across=across) for across, c in NARROW}
        whole = {"": None, "two launches": replace(COLUMNS, splits=splits), "64 columns": replace(COLUMNS, across=8)}
        product(n, k, {**whole, **shared})
    for n, k in ((2048, 2048), (2048, 8192), (4096, 4096)):
        product(n, k, {"NT": None, "NT whole": LINES, "NT cluster 2": replace(LINES, cluster=2),
                       "NT cluster 4": replace(LINES, cluster=4), "NT two launches": replace(LINES, splits=2)})  # fmt: skip
    for keys, depth in KEYS:
        d = make.attention(1, 32, 1, keys, depth, kv_heads=8)
        shared = {f"{a} warps, cluster {c}": replace(QUERY, along=a, cluster=c) for a, c in WARPS}
        split = {f"two launches, {n}": replace(QUERY, splits=n) for n in (16, 32)}
        queries(f"32x{keys}x{depth}", d, True, {"": None, **split, **shared})
    for keys in (512, 2048):
        d = make.attention(1, 12, 1, keys, 64, "f32")
        shared = {f"cluster {c}": replace(EXACT, cluster=c) for c in (4, 8)}
        queries(f"f32 12x{keys}x64", d, False, {"": None, "two launches": replace(EXACT, splits=keys // 128), **shared})
    return cases


def decoding_checks() -> list[Check]:
    """Sums and parts of clusters and of warps."""
    products = (
        (1, 3072, 2048, replace(COLUMNS, cluster=4, across=8)), (1, 1000, 4097, replace(COLUMNS, cluster=8, across=4)),
        (3, 2048, 8192, GemvSchedule(3, 8, False, cluster=8, across=16)), (1, 2048, 4096, replace(COLUMNS, across=4)),
        (8, 520, 2048, GemvSchedule(8, 8, False, cluster=2, across=8)), (1, 1001, 4096, replace(LINES, cluster=4)),
    )  # fmt: skip
    found = [
        Check(f"decoding {m}x{n}x{k} {s.tile_n} columns, cluster {s.cluster}",
              make.matmul(m, n, k, "f16", b_transposed=s.k_major), schedule=s)
        for m, n, k, s in products
    ]  # fmt: skip
    d = make.attention(2, 8, 1, "t", 64, kv_heads=2)
    found += [
        Check(f"decoding attention {a} warps, cluster {c}", d, {"t": t}, schedule=replace(QUERY, along=a, cluster=c))
        for a, c, t in ((4, 8, 2049), (8, 8, 3), (1, 8, 700), (4, 1, 300))
    ]
    exact = make.attention(1, 8, 1, 1000, 64, "f32", kv_heads=2)
    return [*found, Check("decoding attention f32 cluster", exact, schedule=replace(EXACT, cluster=8))]
