"""Every model under every condition: one row a query, then effects with intervals.

Uses lib.training and the rooms below it. Statistics of the whole study are in `statistics`."""
