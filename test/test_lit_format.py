"""The project's lit test format: what passes, fails, crashes and hangs, told apart in one run of lit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TEST = Path(__file__).parent
TESTS = {
    "passes.test": "RUN: echo word | filecheck %s\nCHECK: word",
    "fails.test": "RUN: echo another | filecheck %s\nCHECK: word",
    "fails-early.test": "RUN: false | cat\nRUN: true",
    "raises.test": "RUN: python -c \"raise KeyError('planted')\"",
    "crashes.test": 'RUN: python -c "import os; os.abort()"',
    "hangs.test": 'RUN: python -c "import time; time.sleep(60)"',
    "hangs-outside.test": "RUN: sleep 60",
    "expected.test": "RUN: false\nXFAIL: *",
    "unexpected.test": "RUN: true\nXFAIL: *",
    "elsewhere.test": "RUN: false\nREQUIRES: another-machine",
    "here-not.test": f"RUN: false\nUNSUPPORTED: {sys.platform}",
    "empty.test": "no commands",
    "unknown.test": "RUN: no-such-command-here",
    "garbled.test": "RUN: echo 'open",
    "contained.test": "RUN: python -c \"import sys, os; sys.path.append('leak'); os.environ['LEAK'] = '1'\"",
    "clean.test": "RUN: python -c \"import sys, os; assert 'leak' not in sys.path and 'LEAK' not in os.environ\"",
}
EXPECTED = {
    "passes": "PASS",
    "fails": "FAIL",
    "fails-early": "FAIL",
    "raises": "FAIL",
    "crashes": "FAIL",
    "hangs": "TIMEOUT",
    "hangs-outside": "TIMEOUT",
    "expected": "XFAIL",
    "unexpected": "XPASS",
    "elsewhere": "UNSUPPORTED",
    "here-not": "UNSUPPORTED",
    "empty": "UNRESOLVED",
    "unknown": "FAIL",
    "garbled": "FAIL",
    "contained": "PASS",
    "clean": "PASS",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Results by test name of one run over TESTS, with a limit of 3 s a test."""
    suite = tmp_path_factory.mktemp("suite")
    for name, text in TESTS.items():
        (suite / "lit" / name).parent.mkdir(exist_ok=True)
        (suite / "lit" / name).write_text(text)
    (suite / "elsewhere").mkdir()
    (suite / "elsewhere" / "ignored.test").write_text("RUN: false")
    config = (TEST / "lit.cfg.py").read_text().replace("__file__", repr(str(TEST / "lit.cfg.py")))
    config += f"\nconfig.test_source_root = config.test_exec_root = {str(suite)!r}\nconfig.test_format.timeout = 3\n"
    (suite / "lit.cfg.py").write_text(config)
    out = suite / "report.json"
    lit = [sys.executable, "-c", "import sys; from lit.main import main; sys.exit(main())"]
    command = [*lit, "-j2", f"--output={out}", str(suite)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    tests = json.loads(out.read_text())["tests"]
    return {os.path.basename(test["name"]).removesuffix(".test"): test for test in tests}


def test_results(report):
    assert {name: test["code"] for name, test in report.items()} == EXPECTED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("crashes", "killed by SIGABRT"),
        ("raises", "KeyError: 'planted'"),
        ("fails", "Couldn't match"),
        ("fails-early", "$ false | cat"),
        ("unknown", "no-such-command-here: No such file or directory"),
        ("garbled", "cannot parse"),
        ("hangs", "ran for more than 3 s"),
    ],
)
def test_failures_say_why(report, name, text):
    assert text in report[name]["output"]
