"""Real exported models, end to end on the CPU: compiled, saved, loaded in a fresh process, every input set from one engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zoo
from decode_check import check_decoding

import ingot

HERE = Path(__file__).parent
SPINE = (
    "resnet50",
    "mobilenetv3_large_100",
    "bert",
    "vit",
    "gpt2",
    "llama_kv",
    "ltx_video",
    "whisper_encoder",
    "sd21_unet",
    "vae_decoder",
)
FULL = ("resnet50_full", "bert_full")
LOW_PRECISION = (
    "resnet50_fp16",
    "bert_fp16",
    "bert_bf16",
    "vit_fp16",
    "vit_bf16",
    "clip_text_fp16",
    "clip_text_bf16",
    "llama_fp16",
    "llama_bf16",
    "vae_decoder_fp16",
    "sd21_unet_fp16",
)
# Quantized models, at least one for every tool and form. The others, which differ from these in size only or take minutes, run
# where INGOT_ALL_MODELS is set.
QUANTIZED = (
    "bert.mt_fp8",
    "bert.mt_int4_awq",
    "bert.ort_dynamic",
    "bert.ort_fused",
    "convnext_tiny.ort_static_qdq16",
    "form_fp8_qdq_fp16",
    "form_mxfp8_e8m0",
    "form_nvfp4_weight_2dq",
    "gpt2.ort_nbits4_acc4",
    "llama_kv.genai_int4_cpu",
    "mobilenetv3_large_100.ort_static_qop",
    "resnet50.ort_static_qdq",
    "vit.mo_fp8",
    "vit.mt_mxfp8",
    "vit.mt_nvfp4",
)
OTHERS = [
    pytest.param(n, marks=pytest.mark.skipif("INGOT_ALL_MODELS" not in os.environ, reason="INGOT_ALL_MODELS is not set"))
    for n in zoo.names(zoo.QUANTIZED)
    if n not in QUANTIZED
]


def run_fresh(engine: Path, feeds: list[dict[str, np.ndarray]], folder: Path, device: str = "cpu") -> tuple[list, dict]:
    """Results of an engine for each input set, from a new process, and that process' report."""
    for k, arrays in enumerate(feeds):
        np.savez(folder / f"feeds_{k}.npz", **arrays)
    command = [sys.executable, str(HERE / "run_engine.py"), str(engine), str(folder), device]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    results = [dict(np.load(folder / f"results_{k}.npz")) for k in range(len(feeds))]
    return results, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", [*SPINE, *LOW_PRECISION, *FULL, *QUANTIZED, *OTHERS])
def test_model_matches_its_reference_at_every_shape(name, zoo_model, tmp_path, monkeypatch):
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))
    folder = zoo_model(name)
    sets = zoo.input_sets(folder)
    assert len(sets) >= 3
    engine = tmp_path / "model.ingot"
    ingot.compile(folder / "model.onnx").save(engine)
    results, _ = run_fresh(engine, [feeds for feeds, _ in sets], tmp_path)
    tolerance = zoo.tolerance(name)
    for k, (result, (_, reference)) in enumerate(zip(results, sets, strict=True)):
        assert result.keys() == reference.keys()
        for output, expected in reference.items():
            error = zoo.relative_error(result[output], expected)
            assert error <= tolerance, f"{name}, input set {k}, {output}: relative error {error:.2e} > {tolerance:.0e}"


def test_a_cached_engine_runs_without_the_compiler(zoo_model, tmp_path, monkeypatch):
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))
    folder = zoo_model("bert")
    feeds = [feeds for feeds, _ in zoo.input_sets(folder)]
    engine = tmp_path / "model.ingot"
    ingot.compile(folder / "model.onnx").save(engine)
    first, _ = run_fresh(engine, feeds, tmp_path)
    again, report = run_fresh(engine, feeds, tmp_path)
    assert report["imported"] == []
    for a, b in zip(first, again, strict=True):
        for name, value in a.items():
            assert np.array_equal(value, b[name])


@pytest.mark.parametrize("name", ["resnet50", "llama_kv"])
def test_engines_are_the_same_bytes_in_every_process(name, zoo_model, tmp_path):
    model = zoo_model(name) / "model.onnx"
    script = "import sys, ingot; ingot.compile(sys.argv[1]).save(sys.argv[2])"
    engines = []
    for k, seed in enumerate(("0", "1", "random")):
        path = tmp_path / f"{k}.ingot"
        environment = {"PYTHONHASHSEED": seed, "PATH": ""}
        subprocess.run([sys.executable, "-c", script, str(model), str(path)], check=True, env=environment, timeout=120)
        engines.append(path.read_bytes())
    assert engines[0] == engines[1] == engines[2]


@pytest.mark.parametrize("name", ["llama_kv", "llama_kv.genai_int4_cpu"])
def test_a_donated_cache_decodes_without_copies_or_compilation(name, zoo_model, tmp_path, monkeypatch):
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))
    check_decoding(ingot.Session(ingot.compile(zoo_model(name) / "model.onnx"), device="cpu"))
