"""Where do models look? Attribution maps, the attention score, its controls and sanity checks.

A new method is an entry of `attribution.METHODS`, a target of `attribution.TARGETS`, a score
of `scores.SCORES`. Uses lib.evaluation and the rooms below it."""
