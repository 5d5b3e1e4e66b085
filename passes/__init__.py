"""Transformations of the IR, one pass a file, and what names, orders and observes them."""

from __future__ import annotations

from ingot.passes.instrumentation import Instrumentation
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.pipeline import Pipeline
from ingot.passes.registry import PassRegistry

__all__ = ["Instrumentation", "Pass", "PassContext", "PassRegistry", "Pipeline"]
