"""Accumulators of a tile whose parts of K a cluster's blocks have, added through each other's shared memory (sm_90).

Every block leaves its accumulators in its own shared memory, as rows of the result; after the cluster's barrier each reads a
share of the tile from all of them (distributed shared memory), adds the parts in the order of their ranks, and runs the
epilogue. Results do not depend on timing, and neither a workspace nor a second launch is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingot.compiler.codegen.cuda_gemm_epilogue import FragmentEpilogue
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem
from ingot.compiler.codegen.cuda_kernel import DispatchKernel
from ingot.compiler.codegen.values import Val

READ_AHEAD = 4  # pairs of columns of which a thread reads all parts before it adds them


@dataclass(frozen=True)
class ClusterSums:
    """A tile of the result in shared memory.

    Attributes:
        dk: the kernel.
        p: the product.
        rows, cols: of the tile.
        pitch: accumulators from a row to the next.
        cluster: blocks that have a part each; 1: the tile is whole.
        shared: address of the accumulators, alike in all blocks.
    """

    dk: DispatchKernel
    p: GemmProblem
    rows: int
    cols: int
    pitch: int
    cluster: int
    shared: Val

    def synchronize(self) -> None:
        """Wait for all blocks that share the tile."""
        if self.cluster > 1:
            self.dk.k.cluster_sync()
        else:
            self.dk.k.barrier()

    def finish(self, thread: Val, rank: Val, batch: list[Val], m0: Val, n0: Val) -> None:
        """Add the parts of this block's share of the tile, and run the epilogue on it: a thread takes pairs of columns. The
        block may end afterwards."""
        k, acc = self.dk.k, self.p.acc
        epilogue = FragmentEpilogue(self.dk, self.p, (self.rows, self.cols))
        threads, pairs, across = self.dk.threads, self.rows * self.cols // 2, self.cols // 2
        share = -(-pairs // self.cluster)
        rounds = -(-share // threads)
        ahead = min(rounds, READ_AHEAD)
        # A small share is had by some threads alone: others would read what they drop.
        few = share < threads
        exact = few or (share % (threads * ahead) == 0 and pairs % self.cluster == 0)
        parts = [self.shared]
        if self.cluster > 1:
            parts = [k.cluster_address(self.shared, r) for r in range(self.cluster)]
        first = rank * share
        end = k.min(first + share, pairs)

        def some(start: Val) -> None:
            """The pairs of a thread at `start` and every `threads` after it."""
            places = []
            for i in range(ahead):
                number = start + i * threads
                inside = number if exact else k.min(number, pairs - 1)
                row, col = inside // across, (inside % across) << 1
                at = row * self.pitch + col
                read = [k.load(part.at(at, acc), k.vector_of(acc, 2), align=8) for part in parts]
                places.append((number, row, col, read))
            for number, row, col, read in places:
                total = read[0]
                for part in read[1:]:
                    total = total + part
                with k.if_(True if exact else number < end):
                    epilogue.pair(epilogue.at_row(batch, m0 + row), n0 + col, k.elements(total))

        if rounds == ahead:
            with k.if_(first + thread < end if few else True):
                some(first + thread)
        else:
            with k.for_(first + thread, end, ahead * threads) as loop:
                some(loop.iv)
        if self.cluster > 1:
            k.cluster_sync()  # a block's shared memory ends with it
