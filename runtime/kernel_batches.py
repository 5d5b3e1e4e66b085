"""Which kernels are compiled together: small ones share a module, big ones are jobs of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ingot.dispatch import Dispatch, from_json

# Roots whose kernels are small on a GPU, and assemble in less time than a module costs by itself.
SMALL_ROOTS = frozenset(("pointwise", "move", "normalize", "reduce", "pool", "scatter", "scan", "topk"))
GEMV_ROWS = 8  # products of so few rows have small kernels, too
BATCH = (3, 16)  # kernels of a batch, at least and at most
# Seconds that kernels take, roughly, to tell which jobs to begin with: of the root, and for each instruction of its regions,
# which products have for each of a thread's accumulators.
_SECONDS = {"conv": (0.4, 0.02), "attention": (0.5, 0.02), "matmul": (0.4, 0.02)}
_SMALL_SECONDS = (0.1, 0.003)


def is_small(dispatch: Dispatch) -> bool:
    """True for a dispatch whose kernels on a GPU are small."""
    if dispatch.root != "matmul":
        return dispatch.root in SMALL_ROOTS
    rows = dispatch.results[0].shape[-2:-1]
    return not rows or (isinstance(rows[0], int) and rows[0] <= GEMV_ROWS)


def batches(texts: Sequence[str], workers: int) -> list[list[int]]:
    """Numbers of the dispatches `texts` (canonical JSON) that a GPU's compile jobs have, in the order in which to start them:
    first those that take longest.

    Small kernels are spread over `workers` in batches of the sizes of `BATCH`; the last may be smaller.
    """
    dispatches = [from_json(json.loads(text)) for text in texts]
    small = [i for i, d in enumerate(dispatches) if is_small(d)]
    chosen = set(small)
    count = min(max(-(-len(small) // max(workers, 1)), BATCH[0]), BATCH[1])
    groups = [small[i : i + count] for i in range(0, len(small), count)]
    groups += [[i] for i in range(len(texts)) if i not in chosen]

    def seconds(i: int) -> float:
        root, each = _SMALL_SECONDS if i in chosen else _SECONDS.get(dispatches[i].root, _SMALL_SECONDS)
        return root + each * sum(len(region.insts) for region in dispatches[i].regions)

    return sorted(groups, key=lambda group: sum(map(seconds, group)), reverse=True)
