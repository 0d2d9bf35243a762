"""`python -m pipelines STAGE`."""

from pipelines.cli import leave, main

if __name__ == "__main__":  # a process that this one starts imports it, too
    leave(main())
