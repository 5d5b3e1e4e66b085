"""Configuration for `lit examples/passes`; lit itself defines `config`."""
# ruff: noqa: F821

import os
import sys

import lit.formats

config.name = "my passes"
config.suffixes = [".mlir"]
config.test_format = lit.formats.ShTest()
config.environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
