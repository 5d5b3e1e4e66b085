"""Makes a compile server started with this folder on its path die, as LLVM does, on a dispatch named `crash` and on `asinh`;
a dispatch named `hang` never ends."""

import os
import sys
import time


def _patch() -> None:
    from ingot.compiler.codegen import family

    original = family.emit

    def emit(dispatch, target, schedule=None):
        if dispatch.root == "hang":
            time.sleep(1e6)
        if dispatch.root == "crash" or any(i.op == "asinh" for r in dispatch.regions for i in r.insts):
            print("LLVM ERROR: cannot select: t7 = crash", file=sys.stderr, flush=True)
            os.abort()
        return original(dispatch, target, schedule)

    family.emit = emit


if "--socket" in sys.orig_argv:
    _patch()
