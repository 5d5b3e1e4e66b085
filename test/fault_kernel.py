"""A program that makes a kernel fault on GPU 0 between a session's calls: every later call must say so at once."""

from __future__ import annotations

import time

import numpy as np

import ingot
from ingot.compiler.toolchain.cubin import assemble
from ingot.errors import DeviceError

PTX = """
.version 8.8
.target %s
.address_size 64
.visible .entry fault() {
  .reg .b64 %%a;
  mov.u64 %%a, 16;
  st.global.u32 [%%a], 1;
  ret;
}
"""


def main() -> None:
    """Prints `done` where all is as it should be."""
    engine = ingot.compile("examples/digits.onnx")
    session = ingot.Session(engine, device="cuda:0")
    (spec,) = session.get_inputs()
    feeds = {spec.name: np.zeros([1 if isinstance(d, str) else d for d in spec.shape], np.float32)}
    session.run(None, feeds)
    cuda, target = session.device.cuda, session.device.target.name
    cuda.activate()
    function = cuda.function(cuda.load_module(assemble(PTX % target, target), "fault"), "fault", 0)
    cuda.launch(function, (1, 1, 1), (1, 1, 1), 0, 0, 0)
    said = []
    begin = time.monotonic()
    for _ in range(3):
        try:
            for _ in range(100):
                session.run(None, feeds)
        except DeviceError as e:
            said.append(str(e))
    session.close()
    assert time.monotonic() - begin < 20
    assert len(said) == 3, said
    assert len(set(said)) == 1, said
    assert "cuda:0 is lost to this process" in said[0], said
    assert "illegal memory access" in said[0], said
    ingot.Session(engine, device="cpu").run(None, feeds)
    print("done")


if __name__ == "__main__":
    main()
