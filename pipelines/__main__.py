"""Entry point of `python -m pipelines STAGE`."""

from pipelines.interruption import ends_at_once

if __name__ == "__main__":  # child processes import this module too
    with ends_at_once():
        from pipelines.cli import leave, main
    leave(main())
