"""`python -m pipelines STAGE`."""

import sys

from pipelines.cli import main

if __name__ == "__main__":  # a process that this one starts imports it, too
    sys.exit(main())
