"""Execute notebooks: `python -m lib.execute 04_shift --study demo`."""

import sys

if __name__ == "__main__":
    from lib.execute.notebook import main

    sys.exit(main())
