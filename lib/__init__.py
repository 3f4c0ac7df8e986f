"""Background bias in deep metric learning: the code that the notebooks call."""

__version__ = "0.1.0"
