"""The compiler: where a rule goes in one NIC, or every reason why it can't go there and what could instead."""

from nicoffload.compiler.compiler import Compiler, lower
from nicoffload.compiler.ranges import expand_ranges, range_to_masks
from nicoffload.compiler.result import Refusal, Rung

__all__ = ["Compiler", "Refusal", "Rung", "expand_ranges", "lower", "range_to_masks"]
