"""Executing notebooks: parameters, kernel, cleaning of outputs, pages; comparing two runs.

The top of the house: it may use every room."""
