"""Executing notebooks: parameters, kernel, cleaning of outputs, and the HTML page of each.

It knows nothing of the study. The look of pages is in `templates`."""

import sys

# Half of what starting takes: where this is installed, nbformat's jsonschema imports it for formats
# of addresses that no notebook has, and it compiles a grammar of two seconds at import.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
