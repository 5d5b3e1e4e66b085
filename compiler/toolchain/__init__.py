"""From Kernel IR to machine code: see `stages.py` for the chain, and `compile_kernels` there for the way to call it."""
