"""The commands: checks, the grid, the audit, embeddings, pages told again, two runs compared.

The top of the house: it may use every room, and nothing uses it."""
