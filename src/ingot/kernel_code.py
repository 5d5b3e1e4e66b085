"""Compiled code as bytes: what the compile server returns, the runtime cache keeps, and devices load.

The form: 4 bytes of length, little endian; canonical JSON (plan, kind, symbols, module); the code. Small kernels share a
module: their form names it instead of repeating it, and the cache keeps it once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from ingot import kernel_plan
from ingot.kernel_plan import KernelPlan


@dataclass(frozen=True)
class KernelCode:
    """A kernel plan with its code.

    Attributes:
        plan: what to launch.
        kind: `image` (machine code of a CPU, position-independent) or `cubin`.
        code: the bytes.
        symbols: images: offset of each function.
        module: the SHA-256 of `code` where several kernels share it, else empty. `dumps` leaves such code out, and `loads`
            gives a kernel without it: `replace` puts it back.
    """

    plan: KernelPlan
    kind: Literal["image", "cubin"]
    code: bytes
    symbols: dict[str, int] = field(default_factory=dict)
    module: str = ""

    def dumps(self) -> bytes:
        """Canonical bytes."""
        plan = kernel_plan.to_json(self.plan)
        head = {"plan": plan, "kind": self.kind, "symbols": self.symbols, "module": self.module}
        text = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
        return len(text).to_bytes(4, "little") + text + (b"" if self.module else self.code)

    @staticmethod
    def loads(data: bytes) -> KernelCode:
        """What `dumps` wrote. Raises ValueError where it is damaged."""
        try:
            length = int.from_bytes(data[:4], "little")
            head = json.loads(data[4 : 4 + length])
            if head["kind"] not in ("image", "cubin"):
                raise ValueError(f"code of kind {head['kind']!r}")
            plan = kernel_plan.from_json(head["plan"])
            return KernelCode(plan, head["kind"], data[4 + length :], dict(head["symbols"]), head["module"])
        except (KeyError, TypeError) as e:
            raise ValueError(f"damaged kernel: {e!r}") from None
