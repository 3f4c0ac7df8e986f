"""What the fault tests share."""

from tests.training.test_trainer import recipe  # noqa: F401 (a fixture)
