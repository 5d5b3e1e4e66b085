"""Compiled code as bytes: what the compile server returns, the runtime cache keeps, and devices load.

The form: 4 bytes of length, little endian; canonical JSON (plan, kind, symbols); the code.
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
    """

    plan: KernelPlan
    kind: Literal["image", "cubin"]
    code: bytes
    symbols: dict[str, int] = field(default_factory=dict)

    def dumps(self) -> bytes:
        """Canonical bytes."""
        head = {"plan": kernel_plan.to_json(self.plan), "kind": self.kind, "symbols": self.symbols}
        text = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
        return len(text).to_bytes(4, "little") + text + self.code

    @staticmethod
    def loads(data: bytes) -> KernelCode:
        """What `dumps` wrote. Raises ValueError where it is damaged."""
        try:
            length = int.from_bytes(data[:4], "little")
            head = json.loads(data[4 : 4 + length])
            if head["kind"] not in ("image", "cubin"):
                raise ValueError(f"code of kind {head['kind']!r}")
            return KernelCode(kernel_plan.from_json(head["plan"]), head["kind"], data[4 + length :], dict(head["symbols"]))
        except (KeyError, TypeError) as e:
            raise ValueError(f"damaged kernel: {e!r}") from None
