"""The front pages: every study at a glance, where results come from, and whether they are stale.

Apart from `report`, so that an edit here tells no study again."""

import lib.execute  # noqa: F401 (before nbformat, which then starts seconds sooner)
