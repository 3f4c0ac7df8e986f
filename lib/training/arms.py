"""The arms: one table of ways to train. Adding one is adding an entry."""

ARMS = {"base": 0.0, "bgaugment": 1.0}  # share of training images with a replaced background


def selection(arm: str) -> str:
    """The condition whose validation MAP@R picks the checkpoint (paper, section 4)."""
    return "clean" if arm == "base" else "random_background"
