"""`ingot kernel`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ingot.compiler.model_kernels import ModelKernel
    from ingot.kernel_plan import KernelPlan
    from ingot.target import Target

HELP = """Kernels stage by stage: list a model's, print the code of one, go on from a stage that was edited.

FILE is an engine, a model or AOT IR (.mlir), whose kernels are listed, and compiled with --stop, --output or --dump-dir; the
dispatch of one kernel (.json), as a failure leaves it; or what a stage left: Kernel IR (.mlir), .llvm.mlir, .ll, .ptx, .o. The
stages are dispatch, kernel-ir, llvm-dialect, llvm-ir, and then ptx and cubin for GPUs, object and image for the CPU."""


@click.command("kernel", help=HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--target", "target_name", metavar="NAME", help="One of `ingot targets` [default: cpu, or the dispatch's].")
@click.option("--node", default="", metavar="TEXT", help="Only kernels of ONNX nodes whose name contains this.")
@click.option("-d", "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Kernels for this size of a named dimension.")
@click.option("--stop", metavar="STAGE", help="Compile up to this stage and print what it made [default: the last].")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write that to this file instead.")
@click.option("--dump-dir", type=click.Path(path_type=Path), help="Write what each stage made to this folder.")
def command(
    file: Path, target_name: str | None, node: str, dims: tuple[str, ...], stop: str | None, output: Path | None,
    dump_dir: Path | None,
) -> None:  # fmt: skip
    from ingot.compiler.compile_kernel import name_of
    from ingot.errors import InputError
    from ingot.tools.commands.feeds import parse_dims

    if (stage := stage_of(file)) is not None:
        target = _target(target_name or "cpu")
        show(file.stem, resume(file, stage, target, _stop(stop, target), dump_dir), output)
        return
    if file.suffix == ".json":
        kernel, target = read_dispatch(file)
        kernels, target = [kernel], _target(target_name) if target_name else target
    else:
        target = _target(target_name or "cpu")
        kernels = [k for k in kernels_of(file, target, parse_dims(dims), dump_dir) if any(node in name for name in k.nodes)]
        if not kernels:
            raise InputError(f"no kernel of {file} computes a node {node!r}", cure="leave out --node to see them all")
        if stop is None and output is None and dump_dir is None:
            for k in kernels:
                click.echo(f"{name_of(k.dispatch, target)}: {', '.join(k.nodes)}")
            return
    if output is not None and len(kernels) > 1:
        raise InputError(f"{len(kernels)} kernels for one file", cure="choose one by --node, or give --dump-dir")
    for k in kernels:
        plan, product = compile_to(k, target, _stop(stop, target, "dispatch"), dump_dir)
        show(name_of(k.dispatch, target), product, output, plan)


def stage_of(file: Path) -> str | None:
    """The stage whose product a file holds, by its suffix; None for files that hold whole models or dispatches."""
    from ingot.compiler.toolchain.stages import STAGES

    for stage in sorted(STAGES, key=lambda s: len(s.suffix), reverse=True):
        if file.name.endswith(stage.suffix):
            is_kernel_ir = stage.suffix != ".mlir" or "ingot.func" not in _read(file)
            return stage.name if is_kernel_ir else None
    return None


def resume(file: Path, stage: str, target: Target, stop: str, dump_dir: Path | None) -> Any:
    """What stage `stop` makes of the product of an earlier one."""
    from ingot.compiler.toolchain.host import HostTarget
    from ingot.compiler.toolchain.stages import Options, compile_kernels, stages_of
    from ingot.errors import InputError

    names = [s.name for s in stages_of(target.name)]
    if stage not in names:
        raise InputError(f"{file.name} holds {stage}, no stage of {target.name}", cure="give the --target it was made for")
    if stage == names[-1] or names.index(stop) < names.index(stage):
        raise InputError(f"{file.name} holds {stage}: no way leads to {stop}", cure="give an earlier stage's file")
    source = file.read_bytes() if stage == "object" else _read(file)
    host = HostTarget(target.cpu, target.features) if target.kind == "cpu" else None
    (suffix,) = (s.suffix for s in stages_of(target.name) if s.name == stage)
    options = Options(host=host, name=file.name.removesuffix(suffix))
    return compile_kernels(source, target.name, start=stage, stop=stop, options=options, dump_dir=dump_dir)


def kernels_of(file: Path, target: Target, sizes: dict[str, int], dump_dir: Path | None) -> list[ModelKernel]:
    """The kernels of an engine, a model, or AOT IR as text, that a session on `target` begins with, or makes for `sizes`."""
    from ingot.compiler.model_kernels import model_kernels
    from ingot.runtime.specialization import machine_passes
    from ingot.tools.commands.engines import open_engine

    passes, stages = machine_passes(target), 1
    if file.suffix == ".mlir":
        ir = _read(file).encode()
    else:
        engine = open_engine(file, lambda *_: None)
        ir, stages = engine.ir, engine.header.stages
    chosen = [(f"ingot-select-stage{{number={i}}}", *passes) for i in range(stages)] if stages > 1 else [passes]
    return [k for names in chosen for k in model_kernels(ir, target, passes=names, sizes=sizes, dump_dir=dump_dir)]


def read_dispatch(file: Path) -> tuple[ModelKernel, Target]:
    """The dispatch and the target in a file that `--stop dispatch` or a failure left. Raises InputError."""
    from ingot.compiler.compile_kernel import from_text
    from ingot.compiler.model_kernels import ModelKernel
    from ingot.errors import InputError

    try:
        dispatch, target = from_text(_read(file))
    except ValueError as e:
        raise InputError(str(e), node=str(file), cure="give what `ingot kernel --stop dispatch` prints") from None
    return ModelKernel(dispatch, ()), target


def compile_to(k: ModelKernel, target: Target, stop: str, dump_dir: Path | None) -> tuple[KernelPlan | None, Any]:
    """The plan of a kernel and the product of stage `stop`."""
    from ingot.compiler.compile_kernel import compile_stages, to_text

    if stop == "dispatch":
        return None, to_text(k.dispatch, target)
    return compile_stages(k.dispatch, target, stop=stop, dump_dir=dump_dir)


def show(name: str, product: Any, output: Path | None, plan: KernelPlan | None = None) -> None:
    """Print or write a product; of one that is not text, its size is printed, and how a GPU launches it."""
    from ingot.compiler.toolchain.image import Image

    data = product.data if isinstance(product, Image) else product
    if output is not None:
        output.write_bytes(data.encode() if isinstance(data, str) else data)
    elif isinstance(data, str):
        click.echo(data)
    else:
        blocks = [] if plan is None or isinstance(product, Image) else plan.launches
        launches = [f"{x.symbol}, blocks of {math.prod(x.block)} threads and {x.shared_bytes} B" for x in blocks]
        click.echo("; ".join([f"{name}: {len(data)} B", *launches]))


def _target(name: str) -> Target:
    if name == "cpu":
        from ingot.compiler.cpu_target import host_target

        return host_target()
    from ingot.cuda_targets import target

    return target(name)


def _stop(stop: str | None, target: Target, *others: str) -> str:
    from ingot.compiler.toolchain.stages import stages_of
    from ingot.errors import InputError

    names = [*others, *(s.name for s in stages_of(target.name))]
    if stop is not None and stop not in names:
        raise InputError(f"--stop {stop!r} is no stage of {target.name}", cure=f"it has {', '.join(names)}")
    return stop or names[-1]


def _read(file: Path) -> str:
    from ingot.errors import InputError

    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as e:
        reason = getattr(e, "strerror", None) or e
        raise InputError(f"cannot be read: {reason}", node=str(file), cure="give another file") from None
