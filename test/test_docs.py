"""The guide and the README are true: their Python blocks run, their commands run and print what is shown.

Blocks of a page run in order, in one namespace and one folder. Of a command's output, lines are compared up to the first `...`,
numbers aside.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import ingot
from ingot.tools import ingot_opt
from ingot.tools.ingot import main

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
_TOOLS = {"ingot": main, "ingot-opt": ingot_opt.main}
_LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of a page's Python and console blocks."""
    return _BLOCK.findall(page.read_text())


def shape_of(line: str) -> str:
    """A line with its numbers and runs of spaces made alike."""
    return re.sub(r"\s+", " ", _NUMBER.sub("#", line)).strip()


def run_console(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run each command of a block, all of Ingot's tools, and compare what it prints with what is shown."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        program, *arguments = shlex.split(line, comments=True)
        capsys.readouterr()
        assert _TOOLS[program](arguments) == 0, line
        printed = capsys.readouterr().out.splitlines()
        if "..." in shown:
            shown = shown[: shown.index("...")]
            printed = printed[: len(shown)]
        if shown:
            assert list(map(shape_of, printed)) == list(map(shape_of, shown)), line


def run_page(page: Path, namespace: dict, capsys: pytest.CaptureFixture[str]) -> None:
    """Run all blocks of a page."""
    found = blocks(page)
    assert found, page
    for language, text in found:
        if language == "console":
            run_console(text, capsys)
        else:
            exec(compile(text, str(page), "exec"), namespace)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_users_guide(folder, zoo_model, capsys):
    shutil.copy(ROOT / "examples" / "digits.onnx", folder / "digits.onnx")
    shutil.copy(zoo_model("llama_kv") / "model.onnx", folder / "decoder.onnx")
    run_page(ROOT / "docs" / "users-guide.md", {}, capsys)


def test_readme(folder, capsys):
    import onnx
    from onnx import TensorProto, helper

    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "main", shapes[:1], shapes[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), folder / "model.onnx")
    run_page(ROOT / "README.md", {"x": np.ones((2, 4), np.float32)}, capsys)


def test_every_error_class_is_in_the_guide():
    text = (ROOT / "docs" / "users-guide.md").read_text()
    for cls in ingot.errors.Error.__subclasses__():
        assert f"`{cls.__name__}`" in text, cls


@pytest.mark.parametrize("page", ["add-an-operator.md", "add-a-target.md"])
def test_code_that_is_shown_is_the_projects(page):
    folders = ("compiler", "passes", "src", "test")
    sources = [p.read_text() for folder in folders for p in (ROOT / folder).rglob("*.py")]
    found = blocks(ROOT / "docs" / page)
    assert found, page
    for _, text in found:
        assert any(text in source for source in sources), text


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target, _ in _LINK.findall(path.read_text()):
        assert (path.parent / target).exists(), f"{page}: {target}"
