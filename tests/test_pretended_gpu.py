"""The tests of `on_pretended_gpu.py`, in a process of their own.

PyTorch makes its queue for a device in a process's first backward pass, so the pretended device has
to be there before it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("on_pretended_gpu.py")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute and a half of work, on a machine that may be busy
def test_what_runs_on_a_pretended_gpu_is_in_its_place_and_seldom_waited_for() -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    assert "skipped" not in ended.stdout
