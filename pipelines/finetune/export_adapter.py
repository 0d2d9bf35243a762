"""Stage `export-adapter`: write a tuned adapter in the format of other tools."""

import argparse
from pathlib import Path

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.settings.adapter_kinds import ADAPTERS, kind_of
from pipelines.flags import add_format, add_method
from pipelines.settings.config import Settings

KOHYA = "kohya"


def main(
    run: RunFolder,
    settings: Settings,  # noqa: ARG001
    *,
    method: str,
    adapter_format: str,
    target: Path | None,
) -> None:
    """Write the adapter that a method tuned in the current round.

    Raises:
        PictuneError: there is none, or the format has no place for it.
    """
    folder = run.finetune_dir(method)
    kind = kind_of(folder)
    if kind is not ADAPTERS["lora"]:
        raise PictuneError(
            f"{folder / kind.file}: is a {kind.title}, and {adapter_format} has LoRAs alone; the "
            "README.md beside it has the lines that open it"
        )
    from finetune.model.adapter import steps_share_of  # noqa: PLC0415 # loads torch
    from finetune.model.lora import write_kohya  # noqa: PLC0415

    target = target or folder / f"{method}-{adapter_format}.safetensors"
    write_kohya(folder, target)
    share = steps_share_of(folder)
    first = f"; it is for the first {share:.0%} of the steps, the base draws the others"
    print(f"export-adapter: {target}{first if share < 1 else ''}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    add_method(parser, "the method whose adapter is written")
    add_format(parser, "adapter_format", [KOHYA])
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        dest="target",
        help="the file to write; omitted, it is beside the adapter",
    )
