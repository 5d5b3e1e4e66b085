"""`ingot bench`."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

PERCENTILES = (50, 90, 99)


@click.command("bench", help="Measure an engine: latency, throughput, load and JIT times, memory.")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("-i", "--inputs", type=click.Path(path_type=Path), help="An .npz file of arrays named as the inputs.")
@click.option("-d", "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension, for random inputs.")
@click.option("--device", help="cpu, or cuda:N [default: the GPU where one is found, else the CPU].")
@click.option("-n", "--runs", default=50, show_default=True, help="Timed calls.")
@click.option("--warmup", default=5, show_default=True, help="Calls before them.")
@click.option("--profile", is_flag=True, help="Also print the time of each kernel.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    engine: Path,
    inputs: Path | None,
    dims: tuple[str, ...],
    device: str | None,
    runs: int,
    warmup: int,
    profile: bool,
    as_json: bool,
) -> None:
    report = measure(engine, inputs, dims, device, runs, warmup, profile)
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    for key, value in report.items():
        if key != "profile":
            click.echo(f"{key:22s} {value:.3f}" if isinstance(value, float) else f"{key:22s} {value}")
    if profile:
        print_profile(report["profile"])


def measure(
    engine: Path, inputs: Path | None, dims: tuple[str, ...], device: str | None, runs: int, warmup: int, profile: bool
) -> dict[str, Any]:
    """Load, warm up and time an engine; times in ms, memory in MB."""
    from ingot.runtime.session import Session
    from ingot.tools.commands.feeds import parse_dims, random_feeds, read_npz
    from ingot.tools.commands.progress import progress

    start = time.perf_counter()
    with progress() as update:
        session = Session(engine, device=device, progress=update)
        loaded = time.perf_counter()
        feeds = read_npz(inputs) if inputs else random_feeds(session.get_inputs(), parse_dims(dims))
        session.run(None, feeds)
    first = time.perf_counter()
    for _ in range(warmup):
        session.run(None, feeds)
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        session.run(None, feeds)
        times.append((time.perf_counter() - begin) * 1e3)
    batch = next((a.shape[0] for a in feeds.values() if a.ndim), 1)
    report: dict[str, Any] = {
        "engine": str(engine),
        "device": session.device_name,
        "load_ms": (loaded - start) * 1e3,
        "first_call_ms": (first - loaded) * 1e3,
        **{f"latency_p{p}_ms": float(np.percentile(times, p)) for p in PERCENTILES},
        "throughput_per_s": batch * 1e3 / float(np.median(times)),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **session.stats(),
    }
    if profile:
        report["profile"] = session.profile(feeds)
    return report


def print_profile(rows: list[dict[str, Any]]) -> None:
    """A table of kernels, the slowest first: time, share, rate of arithmetic and of memory traffic."""
    total = sum(r["ms"] for r in rows) or 1.0
    click.echo(f"{'ms':>9} {'share':>6} {'GFLOP/s':>10} {'GB/s':>8}  kernel")
    for r in sorted(rows, key=lambda r: -r["ms"]):
        seconds = max(r["ms"], 1e-9) / 1e3
        rates = f"{r['flops'] / seconds / 1e9:10.1f} {r['bytes'] / seconds / 1e9:8.1f}"
        click.echo(f"{r['ms']:9.4f} {r['ms'] / total:6.1%} {rates}  {r['kernel']} {r['node']}")
