"""The rules of tools/tidy.py, one module a subject; each yields findings over a Tree."""
