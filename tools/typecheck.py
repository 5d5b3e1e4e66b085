"""Run mypy over the project as it is installed: a folder of links gives it the packages' real names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("compiler", "dialects", "passes", "runtime", "tools")


def main() -> int:
    """Link the rooms under build/typing/ingot and check the package there; mypy's exit status."""
    package = ROOT / "build" / "typing" / "ingot"
    package.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in (ROOT / "src" / "ingot").iterdir() if path.name != "__pycache__"}
    wanted |= {room: ROOT / room for room in ROOMS}
    for link in package.iterdir():
        if link.name not in wanted:
            link.unlink()
    for name, path in wanted.items():
        link = package / name
        if not link.is_symlink():
            link.symlink_to(path)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "ingot"]
    return subprocess.run(command, cwd=package.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
