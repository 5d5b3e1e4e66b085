"""lit's configuration: `lit test/` runs every test under test/lit. lit itself defines `config`."""
# ruff: noqa: F821

import os
import platform
import sys

sys.path.insert(0, os.path.dirname(__file__))
import lit_format

config.name = "Ingot"
config.suffixes = [".mlir", ".test"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(os.path.dirname(__file__), "..", "build", "test")
config.test_format = lit_format.IngotTest("lit")
config.environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
config.substitutions.append(("%examples", os.path.join(os.path.dirname(__file__), "..", "examples")))
config.available_features.add(platform.system().lower())
lit_format.warm_up()
