"""What the fault tests share."""

from tests.test_train import recipe  # noqa: F401 (a fixture)
