"""The command `ingot`, as a user calls it."""

from __future__ import annotations

import json
import os
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from ingot.cuda_targets import target
from ingot.engine import Engine
from ingot.runtime.cache import RuntimeCache
from ingot.runtime.compile_client import CompileClient
from ingot.runtime.program_loader import ProgramLoader
from ingot.runtime.specialization import machine_passes
from ingot.target import Target
from ingot.tools.commands.bench import print_profile, with_ceilings
from ingot.tools.ingot import COMMANDS, main

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MODEL = EXAMPLES / "digits.onnx"
INGOT = [sys.executable, "-m", "ingot.tools.ingot"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache, monkeypatch):
    monkeypatch.setenv("INGOT_CACHE_DIR", str(cache))


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "digits.ingot"
    assert main(["compile", str(MODEL), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "images.npz"
    with np.load(EXAMPLES / "digits_samples.npz") as samples:
        np.savez(path, image=samples["images"][:7])
    return path


def best_seconds(command: list[str], count: int = 5) -> float:
    """Least wall time of a command over `count` processes: what is more says something of the machine's other work."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


# What is promised about start-up ------------------------------------------------------------------------------------------


def test_help_answers_at_once():
    bare = best_seconds([sys.executable, "-c", "pass"])
    assert best_seconds([*INGOT, "--help"]) - bare < 0.3


def test_import_is_light():
    """`import ingot`, measured inside a fresh process, so that the interpreter's own start does not count."""
    script = "import time; t = time.perf_counter(); import ingot; print(time.perf_counter() - t)"
    times = [float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout) for _ in range(5)]
    assert statistics.median(times) < 0.15


def test_help_imports_neither_compiler_nor_runtime():
    script = """
import sys
from ingot.tools.ingot import main
main(["--help"])
heavy = {"numpy", "onnx", "torch_mlir", "llvmlite", "rich", "ingot.compiler", "ingot.runtime"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert "Usage: ingot " + name in capsys.readouterr().out


# Commands -----------------------------------------------------------------------------------------------------------------


def test_compile_then_run_as_processes(tmp_path, images):
    path, out = tmp_path / "m.ingot", tmp_path / "out.npz"
    done = subprocess.run([*INGOT, "compile", str(MODEL), "-o", str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: ")
    assert done.stderr == ""
    command = [*INGOT, "run", str(path), "-i", str(images), "-o", str(out), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "probabilities: float32[7, 10]" in done.stdout
    assert done.stderr == ""
    with np.load(out) as results, np.load(EXAMPLES / "digits_samples.npz") as samples:
        assert (results["probabilities"].argmax(1) == samples["labels"][:7]).all()


def test_compile_names_the_engine_after_the_model(tmp_path, capsys):
    model = tmp_path / "copy.onnx"
    model.write_bytes(MODEL.read_bytes())
    assert main(["compile", str(model)]) == 0
    assert (tmp_path / "copy.ingot").exists()
    assert "copy.ingot" in capsys.readouterr().out


def test_compile_times_and_dumps_passes(tmp_path, capsys):
    dump = tmp_path / "dump"
    assert main(["compile", str(MODEL), "-o", str(tmp_path / "m.ingot"), "--time-passes", "--dump-dir", str(dump)]) == 0
    assert "ingot-fuse" in capsys.readouterr().err
    assert any("ingot-fuse" in p.name for p in dump.iterdir())


def test_compile_runs_passes_of_a_file(tmp_path, capsys):
    own = EXAMPLES / "passes" / "fold_double_transpose.py"
    options = ["--load", str(own), "--pass", "my-fold-double-transpose", "--time-passes"]
    assert main(["compile", str(MODEL), "-o", str(tmp_path / "m.ingot"), *options]) == 0
    assert "my-fold-double-transpose" in capsys.readouterr().err


THUMBNAIL = """<ir_version: 10, opset_import: ["" : 20]>
    thumbnail (float[N, 3, H, W] image, int64[2] size, int64[1] axes) => (float small) {
        resized = Resize <axes = [2, 3]> (image, , , size)
        small = ReduceMax <keepdims = 0> (resized, axes) }"""


def test_inputs_that_give_sizes_and_axes(tmp_path, capsys):
    model, path = tmp_path / "thumbnail.onnx", tmp_path / "thumbnail.ingot"
    onnx.save(onnx.parser.parse_model(THUMBNAIL), model)
    assert main(["compile", str(model)]) == 1
    assert "--constant axes=..." in capsys.readouterr().err
    assert main(["compile", str(model), "--constant", "axes"]) == 1
    assert "is not INPUT=VALUE" in capsys.readouterr().err
    assert main(["compile", str(model), "--constant", "axes=[1]", "--target", "sm_86"]) == 0
    assert main(["run", str(path), "--device", "cpu", "-d", "H=8", "-d", "W=9", "-d", "size_0=4", "-d", "size_1=5"]) == 0
    assert "small: float32[1, 4, 5]" in capsys.readouterr().out


def test_compile_fills_the_cache_for_a_target(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))
    command = ["compile", str(MODEL), "-o", str(tmp_path / "m.ingot"), "--target", "cpu"]
    assert main(command) == 0
    first = capsys.readouterr().out.splitlines()[-1]
    assert main(command) == 0
    again = capsys.readouterr().out.splitlines()[-1]
    assert first.startswith("cpu: ")
    assert ", of which 0 were compiled" not in first
    assert ", of which 0 were compiled" in again


def test_compile_for_gpus_that_are_not_here(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "m.ingot"
    command = ["compile", str(MODEL), "-o", str(path), "--target", "sm_86", "--target", "sm_120a"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split(":")[0] for line in lines] == ["sm_86", "sm_120a"]
    assert not any(", of which 0 were compiled" in line for line in lines)
    assert main(command) == 0
    assert capsys.readouterr().out.count(", of which 0 were compiled") == 2
    client = CompileClient()
    client.start = None  # everything is in the cache: no server may be started
    for name, number in (("sm_86", 86), ("sm_120a", 120)):
        passes = machine_passes(target(name))  # as a session would
        loader = ProgramLoader(RuntimeCache(tmp_path / "cache" / "cache.sqlite"), client, passes=passes)
        loaded = loader.load(Engine.load(path), target(name))
        assert len(loaded.kernels) > 3
        for kernel in loaded.kernels:
            machine, flags = struct.unpack_from("<18xH28xI", kernel.code)
            assert (machine, flags >> 8 & 0xFF) == (190, number)  # EM_CUDA and the compute capability
    assert main([*command, "--target", "sm_12"]) == 1
    assert "no target 'sm_12'" in capsys.readouterr().err


def test_run_takes_a_model_and_random_inputs(capsys):
    assert main(["run", str(MODEL), "-d", "N=3", "--device", "cpu"]) == 0
    first = capsys.readouterr().out
    assert "probabilities: float32[3, 10] mean 0.1" in first
    assert main(["run", str(MODEL), "-d", "N=3", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == first
    assert main(["run", str(MODEL), "-d", "N=3", "--device", "cpu", "--seed", "1"]) == 0
    assert capsys.readouterr().out != first


def test_bench_reports_and_profiles(engine, capsys):
    assert main(["bench", str(engine), "-d", "N=4", "-n", "5", "--device", "cpu", "--profile"]) == 0
    text = capsys.readouterr().out
    assert "latency_p50_ms" in text
    assert "GFLOP/s" in text
    assert main(["bench", str(engine), "-n", "5", "--device", "cpu", "--profile", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["device"] == "cpu"
    assert 0 < report["latency_p50_ms"] <= report["latency_p99_ms"]
    assert report["runs"] == 5 + 5 + 1
    kernels = {row["kernel"].split("_")[0]: row for row in report["profile"]}
    assert {"conv", "matmul"} <= kernels.keys()
    assert kernels["matmul"]["flops"] >= 2 * 512 * 10
    assert all(row["ms"] > 0 for row in report["profile"])


def test_profiles_of_gpus_have_ceilings(capsys):
    def row(flops: float, nbytes: float, arithmetic: str) -> dict:
        return {"kernel": "k", "node": "n", "runs": 1, "ms": 1.0, "flops": flops, "bytes": nbytes, "arithmetic": arithmetic}

    rows = [row(989e9 / 2, 0, "16"), row(989e9 / 2, 0, "8"), row(66.9e9, 0, "f32"), row(1e6, 1.2e9, "f32"), row(0, 0, "f32"),
            row(1e12, 0, "f64")]  # fmt: skip
    found = with_ceilings(rows, target("sm_90a"))
    assert [r.get("ceiling") for r in found] == pytest.approx([0.5, 0.25, 1.0, 0.25, None, None])
    print_profile(found)
    text = capsys.readouterr().out
    assert " 50.0%  k n" in text
    assert "       -  k n" in text
    assert with_ceilings(rows, Target("cpu", "cpu")) == rows


def test_inspect(engine, capsys):
    assert main(["inspect", str(engine), "--weights"]) == 0
    text = capsys.readouterr().out
    assert "image: float[N, 1, 8, 8]" in text
    assert "fc.weight: f32[10, 512]" in text
    assert main(["inspect", str(engine), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == [{"name": "probabilities", "shape": ["N", 10], "type": "float"}]
    assert main(["inspect", str(engine), "--ir"]) == 0
    assert '"ingot.conv"' in capsys.readouterr().out


def test_check(engine, tmp_path, capsys):
    assert main(["check", str(engine)]) == 0
    assert "intact, format 1" in capsys.readouterr().out
    stripped = tmp_path / "stripped.ingot"
    assert main(["compile", str(MODEL), "-o", str(stripped), "--no-weights"]) == 0
    assert stripped.stat().st_size < engine.stat().st_size
    assert main(["check", str(stripped)]) == 0
    assert "without weights" in capsys.readouterr().out


def test_targets(capsys):
    assert main(["targets"]) == 0
    _, *rows, note = (line.split() for line in capsys.readouterr().out.splitlines())
    assert [r[0] for r in rows] == ["cpu", *(f"sm_{n}" for n in "75 80 86 87 88 89 90a 100a 103a 120a 121a".split())]
    instructions = {r[0]: r[4:] for r in rows}
    assert "mma.m16n8k16.f16*" in instructions["sm_86"]  # the same instruction ran on another GPU
    assert "mma.m16n8k64.mxf4nvf4" in instructions["sm_120a"]
    assert note[0] == "*"


def test_cache(tmp_path, engine, capsys, monkeypatch):
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "one"))
    assert main(["run", str(engine), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["cache", "info"]) == 0
    path, _, text = capsys.readouterr().out.splitlines()[0].rpartition(": ")
    entries = int(text.split()[0])
    assert path == str(tmp_path / "one" / "cache.sqlite")
    assert entries > 3
    exported = tmp_path / "exported"
    assert main(["cache", "export", str(exported)]) == 0
    assert main(["cache", "clear"]) == 0
    assert f"removed {entries} entries" in capsys.readouterr().out
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "two"))
    assert main(["cache", "import", str(exported)]) == 0
    assert f"imported {entries} entries" in capsys.readouterr().out
    assert main(["bench", str(engine), "-n", "1", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compiled_kernels"] == 0


# What goes wrong ----------------------------------------------------------------------------------------------------------


def failure(arguments: list[str], capsys) -> str:
    """The one line that a failing command prints."""
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("ingot: error: ")
    return lines[0]


@pytest.mark.parametrize("command", ["run", "bench", "check", "inspect"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "No such file"),
        ("empty", "the file is empty"),
        ("garbage", "damaged or no engine"),
        ("truncated", "damaged or no engine"),
        ("flipped", "not what was written"),
        ("folder", "cannot be opened"),
    ],
)
def test_bad_engines_are_one_line(command, fault, words, engine, tmp_path, capsys):
    path = tmp_path / "bad.ingot"
    data = bytearray(engine.read_bytes())
    match fault:
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        case "truncated":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            data[100] ^= 1
            path.write_bytes(data)
        case "folder":
            path.mkdir()
    line = failure([command, str(path)], capsys)
    assert words in line
    assert str(path) in line


def test_a_flipped_weight_is_found_by_check_alone(engine, tmp_path, capsys):
    data = bytearray(engine.read_bytes())
    data[-100] ^= 1
    path = tmp_path / "flipped.ingot"
    path.write_bytes(data)
    assert main(["check", str(path), "--header-only"]) == 0
    capsys.readouterr()
    assert "weight 'fc.weight' is not what was written" in failure(["check", str(path)], capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compile", "{tmp}/none.onnx"], "No such file"),
        (["compile", "{tmp}/text.onnx"], "is not an ONNX model"),
        (["compile", "{model}", "-o", "{tmp}/none/m.ingot"], "cannot be written"),
        (["compile", "{model}", "-o", "{tmp}"], "cannot be written: it is a directory"),
        (["compile", "{model}", "-o", "{tmp}/pipe"], "cannot be written: it is no file"),
        (["compile", "{model}", "-o", "/"], "cannot be written: it is a directory"),
        (["compile", "{model}", "-o", "{tmp}/m.ingot", "--dump-dir", "{model}/x"], "cannot be made: Not a directory"),
        (["compile", "{model}", "-o", "{tmp}/m.ingot", "--target", "sm_42"], "no target 'sm_42' (targets are cpu, sm_75"),
        (["compile", "{model}", "-o", "{tmp}/m.ingot", "--pass", "none"], "no pass is named 'none'"),
        (["compile", "{model}", "-o", "{tmp}/m.ingot", "--load", "{tmp}/none.py"], "no such file"),
        (["run", "{engine}", "--device", "tpu"], "no device is named 'tpu'"),
        (["run", "{engine}", "-d", "M=2"], "no input has this dimension (its dimensions are N)"),
        (["run", "{engine}", "-d", "N=two"], "is not NAME=SIZE"),
        (["run", "{engine}", "-d", "N=\u00b2"], "is not NAME=SIZE (give a number, as in N=3)"),
        (["run", "{engine}", "-d", "N=1000000000000"], "a random array of shape [1000000000000, 1, 8, 8] is too large"),
        (["bench", "{engine}", "-d", "N=2", "-i", "{tmp}/shape.npz"], "--dim N=2 is for random inputs"),
        (["run", "{engine}", "-i", "{tmp}/none.npz"], "No such file"),
        (["run", "{engine}", "-i", "{tmp}/text.onnx"], "not an .npz file"),
        (["run", "{engine}", "-i", "{tmp}/one.npy"], "one array, without a name"),
        (["run", "{engine}", "-i", "{tmp}/broken.npz"], "not an .npz file"),
        (["run", "{engine}", "-i", "{tmp}/name.npz"], "no input is named 'x'"),
        (["run", "{engine}", "-i", "{tmp}/shape.npz"], "image"),
        (["run", "{engine}", "-i", "{tmp}/dtype.npz"], "expects tensor(float)"),
        (["cache", "import", "{engine}"], "not a cache"),
        (["cache", "import", "{tmp}/none"], "no such file"),
        (["cache", "export", "{engine}"], "the file exists"),
    ],
)
def test_bad_arguments_are_one_line(arguments, words, engine, images, tmp_path, capsys):
    (tmp_path / "text.onnx").write_text("# not a model")
    os.mkfifo(tmp_path / "pipe")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(images.read_bytes()[:-40])
    np.savez(tmp_path / "name.npz", x=np.zeros(3))
    np.savez(tmp_path / "shape.npz", image=np.zeros((1, 8, 8), np.float32))
    np.savez(tmp_path / "dtype.npz", image=np.zeros((1, 1, 8, 8)))
    given = [a.format(tmp=tmp_path, model=MODEL, engine=engine) for a in arguments]
    assert words in failure(given, capsys)


def test_wrong_usage_has_its_own_exit_code(capsys):
    assert main(["compile"]) == 2
    assert main(["none"]) == 2
    assert main(["bench", "m.ingot", "-n", "0"]) == 2
    capsys.readouterr()


def test_outputs_that_cannot_be_written(engine, tmp_path, capsys):
    assert main(["run", str(engine), "--device", "cpu", "-o", str(tmp_path / "none" / "o.npz")]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["inspect"], ["run", "--device", "cpu"]])
def test_a_full_disk_behind_standard_output_is_one_line(command, engine):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*INGOT, *command, str(engine)], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "ingot: error: No space left on device\n"


def test_outputs_of_any_name_go_to_the_file_that_is_named(tmp_path, capsys):
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        m (float[N] x) => (float[N] file, float[N] arr_0) { file = Neg(x) arr_0 = Identity(x) }""")
    onnx.save(model, tmp_path / "m.onnx")
    assert main(["run", str(tmp_path / "m.onnx"), "--device", "cpu", "-d", "N=3", "-o", str(tmp_path / "out")]) == 0
    assert f"wrote {tmp_path / 'out'}" in capsys.readouterr().out
    with np.load(tmp_path / "out") as found:
        np.testing.assert_array_equal(found["file"], -found["arr_0"])
        assert found["file"].shape == (3,)


def test_a_link_to_an_engine_stays_one(tmp_path, capsys):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.ingot").symlink_to(tmp_path / "real" / "m.ingot")
    assert main(["compile", str(MODEL), "-o", str(tmp_path / "link.ingot")]) == 0
    assert (tmp_path / "link.ingot").is_symlink()
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["m.ingot"]
