"""Engine files: round trip, determinism, validation of damaged and foreign files."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingot import dims
from ingot.container import Container
from ingot.dtypes import DTYPES
from ingot.engine import KEY, SEAL, Engine, EngineHeader, Weight, WeightInfo
from ingot.errors import EngineError
from ingot.launch_program import TensorSpec

IR = b"ML\xefR not really bytecode"


def make_engine() -> Engine:
    """Weights of a normal, a sub-byte, an 8-bit float and a bool type, an empty one, and a scalar."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": ("f32", (3, 5), rng.standard_normal((3, 5), dtype=np.float32)),
        "four": ("i4", (3, 3), rng.integers(0, 255, 5, dtype=np.uint8)),
        "eight": ("f8E4M3FN", (7,), rng.integers(0, 100, 7, dtype=np.uint8)),
        "big": ("f16", (100, 50), rng.standard_normal((100, 50)).astype(np.float16)),
        "flag": ("i1", (2,), np.array([True, False])),
        "none": ("f32", (0, 4), np.zeros((0, 4), np.float32)),
        "scale/ü": ("bf16", (), np.zeros((), DTYPES["bf16"].np)),
    }
    weights = {n: Weight(t, s, lambda a=a: a) for n, (t, s, a) in arrays.items()}
    infos = {n: WeightInfo(w.dtype, w.shape, "") for n, w in weights.items()}
    header = EngineHeader(
        "test 1",
        (TensorSpec("x", "float", (dims.symbol("N"), 4)),),
        (TensorSpec("y", "float", (dims.parse("2*N + 1"),)),),
        "",
        infos,
    )
    return Engine(header, IR, weights)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "m.ingot"
    make_engine().save(file)
    return file


def test_round_trip(path: Path) -> None:
    engine, original = Engine.load(path), make_engine()
    assert engine.ir == IR
    assert engine.inputs == original.inputs
    assert engine.outputs == original.outputs
    for name, w in original.weights.items():
        assert bytes(engine.weights[name].bytes_view()) == bytes(w.bytes_view()), name
        assert engine.weights[name].shape == w.shape
    engine.verify_hashes()
    assert not engine.is_stripped
    again = path.with_name("again.ingot")
    engine.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert Engine.load(path.read_bytes()).header == engine.header


def test_weights_are_aligned_and_mapped(path: Path) -> None:
    with Container(path) as c:
        assert all(c.entries[n].offset % 4096 == 0 for n in make_engine().weights)
    view = Engine.load(path).weights["w"].bytes_view()
    assert np.frombuffer(view, np.uint8).ctypes.data % 4096 == 0


def test_official_reader_accepts_it(path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(path, "numpy") as f:
        np.testing.assert_array_equal(f.get_tensor("w"), make_engine().weights["w"].read())
        assert json.loads(f.metadata()["ingot"])["producer"] == "test 1"


def test_same_bytes_in_every_process(path: Path) -> None:
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_engine import make_engine;"
        "make_engine().save(sys.argv[2]); import hashlib;"
        "print(hashlib.sha256(open(sys.argv[2], 'rb').read()).hexdigest())"
    )
    for seed in ("0", "1"):
        out = path.with_name(f"seed{seed}.ingot")
        run = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(out)],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == expected


def test_stripped(path: Path) -> None:
    engine = Engine.load(path)
    bare = path.with_name("bare.ingot")
    engine.save(bare, weights=False)
    stripped = Engine.load(bare)
    assert stripped.is_stripped
    assert bare.stat().st_size < path.stat().st_size
    assert stripped.header.weights["w"].sha256 == engine.header.weights["w"].sha256
    with pytest.raises(EngineError, match="has no data"):
        stripped.save(path.with_name("no.ingot"))
    assert not path.with_name("no.ingot").exists()


def test_flipped_bits_are_found(path: Path) -> None:
    data = path.read_bytes()
    with Container(path) as c:
        header, weight = len(c.header), c.entries["big"].offset
        ir = c.entries["ingot.ir"].offset
    for position in (0, 9, header // 2, header - 1, header + 3, ir):
        flipped = bytearray(data)
        flipped[position] ^= 4
        with pytest.raises(EngineError):
            Engine.load(bytes(flipped))
    flipped = bytearray(data)
    flipped[weight] ^= 4
    with pytest.raises(EngineError, match="'big' is not what was written"):
        Engine.load(bytes(flipped)).verify_hashes()


def test_mutated_files_never_crash(path: Path) -> None:
    data = path.read_bytes()
    with Container(path) as c:
        header = len(c.header)
    rng = random.Random(1)
    refused = 0
    for _ in range(10_000):
        mutated = bytearray(data)
        match rng.randrange(5):
            case 0:
                for _ in range(rng.randrange(1, 4)):
                    mutated[rng.randrange(header + 32)] ^= 1 << rng.randrange(8)
            case 1:
                del mutated[rng.randrange(len(mutated)) :]
            case 2:
                mutated[: rng.randrange(16)] = rng.randbytes(rng.randrange(16))
            case 3:
                start = rng.randrange(8, header)
                mutated[start : start + rng.randrange(1, 20)] = rng.choice([b"9" * 30, b'"', b"{", b"[[[[", b"-1", b"\xff\xfe"])
            case 4:
                mutated[:8] = rng.choice([2**63, 2**64 - 1, 2**31, header * 2, 0]).to_bytes(8, "little")
        try:
            Engine.load(bytes(mutated))
        except EngineError:
            refused += 1
    # Of these mutations only those that change nothing may pass.
    assert refused > 9_900


HARMFUL = {
    "inputs": ["N%0", "N//0", "9" * 3000, "*".join(f"(a{i} + b{i})" for i in range(30)), "a" + "*a" * 1900, "(" * 3000,
               "-" * 3999 + "1", -1, 10**30, True, None, [1]],
    "stages": [0, -1, 10**9, True, 1.5, float("inf"), "2", None],
    "weights": [None, [], {"w": 1}, {"w": {"dtype": "f32", "shape": [10**30], "sha256": "", "stored": 1}}],
    "needs": [None, 5, [[1]], ["magic"], [None]],
    "format": [None, 2, "1", []],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in HARMFUL.items() for value in values])
def test_headers_written_to_harm_are_one_error(path: Path, key: str, value: Any) -> None:
    """The seal is right, as who writes such a file can compute it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    described = json.loads(header["__metadata__"][KEY])
    if key == "inputs":
        described[key][0]["shape"][0] = value
    else:
        described[key] = value
    header["__metadata__"][KEY] = json.dumps(described)
    text = json.dumps(header).encode()
    text = text.ljust(-(-(8 + len(text)) // 4096) * 4096 - 8)
    head = len(text).to_bytes(8, "little") + text
    body = bytearray(data[8 + length :])
    at = header[SEAL]["data_offsets"][0]
    body[at : at + 32] = hashlib.sha256(head).digest()
    begin = time.monotonic()
    with pytest.raises(EngineError) as caught:
        Engine.load(head + bytes(body))
    assert len(str(caught.value)) < 600
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"1234", "4 bytes"),
        (b"\x08\0\0\0\0\0\0\0[1,2,3] ", "not a JSON object"),
        (b"\x02\0\0\0\0\0\0\0{}", "without Ingot's metadata"),
        (b"\x80\x02}q\x00(X\x01" * 10, "claims a header"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "foreign"
    file.write_bytes(content)
    with pytest.raises(EngineError, match=message):
        Engine.load(file)


def test_missing_file_and_newer_format(tmp_path: Path, path: Path) -> None:
    with pytest.raises(EngineError, match="No such file"):
        Engine.load(tmp_path / "absent.ingot")
    engine = make_engine()
    newer = EngineHeader("test 2", engine.inputs, engine.outputs, "", engine.header.weights, (), 99)
    Engine(newer, IR, engine.weights).save(path)
    with pytest.raises(EngineError, match="version 99"):
        Engine.load(path)
    needy = EngineHeader("test 2", engine.inputs, engine.outputs, "", engine.header.weights, ("magic",))
    Engine(needy, IR, engine.weights).save(path)
    with pytest.raises(EngineError, match="needs magic"):
        Engine.load(path)


def test_engine_of_format_1_still_runs() -> None:
    from runtime_models import perceptron_reference

    import ingot

    session = ingot.Session(Path(__file__).parent / "data" / "format_1.ingot", "cpu")
    x = np.random.default_rng(0).standard_normal((2, 3, 16), dtype=np.float32)
    y, s = session.run(None, {"x": x})
    expected = perceptron_reference(x)
    np.testing.assert_allclose(y, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(s, expected[1], rtol=1e-5, atol=1e-5)
