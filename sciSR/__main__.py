"""``python -m sciSR`` is the command ``scisr``."""

import sys

from sciSR.cli import command

if __name__ == "__main__":
    sys.exit(command())
