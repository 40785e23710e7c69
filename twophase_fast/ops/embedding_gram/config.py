"""Sizes of `embedding_gram` in C++."""

WORKSPACE = 1 << 22
"""Elements of summed cotangents held per side, before samples are cut into groups."""
