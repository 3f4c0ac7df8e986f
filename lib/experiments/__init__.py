"""Whole experiments that are put together from the rooms below: the bias dose, the audit."""
