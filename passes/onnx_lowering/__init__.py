"""Lowering of ONNX operators to the `ingot` dialect: one file of rules per family of operators.

`values` holds what a lowered operand is, `region_builder` writes scalar regions, `graph_builder` views and roots, `lowering`
the table of rules and what a rule sees of its node. A rule is a function from a node to its lowered results.
"""
