"""The measuring step of page 02: `python -m lib.masks --study demo`."""

import sys

if __name__ == "__main__":
    from lib.core import stage
    from lib.masks.quality import measure

    sys.exit(stage.main(measure, "masks"))
