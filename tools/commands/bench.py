"""`ingot bench`."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ingot.tools.commands.session_options import session_options

if TYPE_CHECKING:
    from ingot.target import Target

PERCENTILES = (50, 90, 99)


@click.command("bench", help="Measure an engine: latency, throughput, load and JIT times, memory.")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("-i", "--inputs", type=click.Path(path_type=Path), help="An .npz file of arrays named as the inputs.")
@click.option("-d", "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension, for random inputs.")
@click.option("-n", "--runs", type=click.IntRange(1), default=50, show_default=True, help="Timed calls.")
@click.option("--warmup", type=click.IntRange(0), default=5, show_default=True, help="Calls before them.")
@click.option("--profile", is_flag=True, help="Also print the time of each kernel.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@session_options
def command(
    engine: Path,
    inputs: Path | None,
    dims: tuple[str, ...],
    runs: int,
    warmup: int,
    profile: bool,
    as_json: bool,
    **session_arguments: Any,
) -> None:
    report = measure(engine, inputs, dims, runs, warmup, profile, session_arguments)
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    for key, value in report.items():
        if key not in ("load", "profile"):
            click.echo(f"{key:22s} {value:.3f}" if isinstance(value, float) else f"{key:22s} {value}")
    for title, part in (("load", "steps"), (f"compilation, {report['load']['workers']} workers", "stages")):
        if report["load"][part]:
            spent = ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in report["load"][part].items())
            click.echo(f"ms of {title}: {spent}")
    if profile:
        print_profile(report["profile"])


def measure(
    engine: Path,
    inputs: Path | None,
    dims: tuple[str, ...],
    runs: int,
    warmup: int,
    profile: bool,
    session_arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """Load, warm up and time an engine; times in ms, memory in MB."""
    from ingot.runtime.session import Session
    from ingot.tools.commands.engines import open_engine
    from ingot.tools.commands.feeds import choose_feeds
    from ingot.tools.commands.progress import progress

    start = time.perf_counter()
    with progress() as update:
        opened = open_engine(engine, update)
        opened_at = time.perf_counter()
        session = Session(opened, progress=update, **session_arguments)
        loaded = time.perf_counter()
        feeds = choose_feeds(session, inputs, dims)
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
        "open_ms": (opened_at - start) * 1e3,
        "load_ms": (loaded - opened_at) * 1e3,
        "first_call_ms": (first - loaded) * 1e3,
        **{f"latency_p{p}_ms": float(np.percentile(times, p)) for p in PERCENTILES},
        "throughput_per_s": batch * 1e3 / float(np.median(times)),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **session.stats(),
    }
    report["load"] = session.load_report()
    if profile:
        report["profile"] = with_ceilings(session.profile(feeds), session.device.target)
    return report


def print_profile(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of kernels, the slowest first: time of all runs in a call, share of the call, rates of arithmetic and memory
    traffic, ONNX nodes.

    On a GPU also the share of what its kind can do, by arithmetic of the operands' type or by traffic, whichever is greater.
    """
    total = sum(r["ms"] * r["runs"] for r in rows) or 1.0
    click.echo(f"{'ms':>9} {'share':>6} {'GFLOP/s':>10} {'GB/s':>8} {'ceiling':>7}  kernel, node")
    for r in sorted(rows, key=lambda r: -r["ms"] * r["runs"]):
        seconds = max(r["ms"], 1e-9) / 1e3
        rates = f"{r['flops'] / seconds / 1e9:10.1f} {r['bytes'] / seconds / 1e9:8.1f}"
        ceiling = f"{r['ceiling']:7.1%}" if "ceiling" in r else f"{'-':>7}"
        ms, times = r["ms"] * r["runs"], f" x{r['runs']}" if r["runs"] != 1 else ""
        click.echo(f"{ms:9.4f} {ms / total:6.1%} {rates} {ceiling}  {r['kernel']} {short(r['node'])}{times}")


def with_ceilings(rows: Sequence[Mapping[str, Any]], target: Target) -> list[dict[str, Any]]:
    """The rows of a GPU's profile with `ceiling`: work per second over what a typical GPU of the target can do.

    Rows whose kernels count no work have none, and arithmetic without a known rate (f64) does not count.
    """
    if target.kind != "cuda":
        return [dict(r) for r in rows]
    from ingot.cuda_targets import facts

    limits = facts(target)
    found = []
    for r in rows:
        compute = 0.0 if r["arithmetic"] == "f64" else r["flops"] / limits.peak(r["arithmetic"])
        least = max(compute, r["bytes"] / limits.bandwidth)
        found.append({**r, "ceiling": least / max(r["ms"] / 1e3, 1e-12)} if least else dict(r))
    return found


def short(node: str) -> str:
    """The first of the ONNX nodes that a kernel implements, and how many follow."""
    first, *others = node.split("+")
    return f"{first} (+{len(others)})" if others else first
