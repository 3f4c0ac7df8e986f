"""What a network sees: batched crops, composites, and the test conditions.

A new condition is an entry of `conditions.CONDITIONS`. Uses the rooms below (masks, data, core)."""
