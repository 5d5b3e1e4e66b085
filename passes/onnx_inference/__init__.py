"""Shape inference over ONNX operators: one file of rules per family of operators.

`tensors` holds what is known of a value, `facts` what is known of dimensions, `rules` the table of rules and what a rule sees
of its node. A rule is a function from a node to what is known of its outputs; it never touches the IR.
"""
