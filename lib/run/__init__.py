"""Executing notebooks: parameters, kernel, cleaning of outputs, pages; comparing two runs.

The top of the house: it may use every room."""

import sys

# jsonschema, which nbformat imports, would build a grammar of web addresses: a second, and no
# notebook's check needs it. An import of None counts as not installed.
sys.modules.setdefault("rfc3987_syntax", None)
