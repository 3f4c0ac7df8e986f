"""The front pages: every study at a glance, where results come from, and whether they are stale.

Apart from `report`, so that an edit here tells no study again."""
