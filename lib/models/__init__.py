"""Embedders: trunks with their weights, the linear layer, and embedding a set of images.

A new trunk is an entry of `trunks.TRUNKS`. Uses lib.images and the rooms below it."""
