"""Executing notebooks: parameters, kernel, cleaning of outputs, pages; comparing two runs.

Also the commands audit and embed. The top of the house: it may use every room."""

import sys

# Half of what starting takes: where this is installed, nbformat's jsonschema imports it for formats
# of addresses that no notebook has, and it compiles a grammar of two seconds at import.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
