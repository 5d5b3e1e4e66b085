"""What `make demo` shows: a trained ONNX model becomes an engine file, and the engine reads handwritten digits.

    python examples/demo.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

import ingot

HERE = Path(__file__).parent
SHADES = " .:-=+*#%@"


def draw(image: np.ndarray) -> list[str]:
    """An 8x8 image in [0, 1] as lines of text, two characters a pixel."""
    return ["".join(SHADES[min(int(v * len(SHADES)), len(SHADES) - 1)] * 2 for v in row) for row in image]


def main() -> None:
    samples = np.load(HERE / "digits_samples.npz")
    images, labels = samples["images"], samples["labels"]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.ingot"
        start = time.perf_counter()
        ingot.compile(HERE / "digits.onnx").save(path)
        print(f"compiled digits.onnx to an engine of {path.stat().st_size / 1e3:.0f} kB in {time.perf_counter() - start:.2f} s")

        start = time.perf_counter()
        session = ingot.Session(path)
        (first,) = session.run(None, {"image": images[:5]})
        print(f"first result on {session.device_name} after {time.perf_counter() - start:.2f} s, kernels included\n")

        pictures = [draw(image[0]) for image in images[:5]]
        for lines in zip(*pictures, strict=True):
            print("   ".join(lines))
        print("   ".join(f"{f'{p.argmax()} ({p.max():.1%})':^16s}" for p in first), "\n")

        # The same engine at other sizes: one by one, and all at once.
        times = []
        for image in images[:200]:
            start = time.perf_counter()
            session.run(None, {"image": image[None]})
            times.append(time.perf_counter() - start)
        (probabilities,) = session.run(None, {"image": images})
        accuracy = float((probabilities.argmax(1) == labels).mean())
        print(f"one image: {np.median(times) * 1e6:.0f} us a call (median of {len(times)})")
        print(f"accuracy on {len(images)} held-out images, in one call: {accuracy:.1%}")

        start = time.perf_counter()
        again = ingot.Session(path)
        again.run(None, {"image": images[:5]})
        print(f"a second session starts from the runtime cache: first result after {time.perf_counter() - start:.3f} s")


if __name__ == "__main__":
    main()
