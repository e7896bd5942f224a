"""``python -m sciSR`` is the command ``scisr``."""

import sys

from sciSR.cli import main

if __name__ == "__main__":
    sys.exit(main())
