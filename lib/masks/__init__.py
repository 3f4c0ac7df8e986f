"""Where is the object? Soft masks in the geometry of the store, and how good they are.

A new source of masks is an entry of `sources.SOURCES`, a way to spoil masks one of
`transforms.TRANSFORMS`. `python -m lib.masks --study S` makes a study's masks. Uses lib.data and
lib.core.
"""
