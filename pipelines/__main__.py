"""`python -m pipelines STAGE`."""

import sys

from pipelines.cli import main

sys.exit(main())
