"""The registry: a method is one file and one line, and no other place names it."""

import ast
import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data.runs import RunFolder
from finetune.learning.method import Method
from finetune.settings.policy_gradient import PolicyGradientConfig
from pipelines.cli import main
from pipelines.methods import METHODS, Entry, find_method
from pipelines.settings.config import model_of
from pipelines.settings.tables import TABLES
from tests.support.interruption import abandons_open_files, interrupted_when
from tests.support.tuned_run import checkpoint_steps, copy_of, figures_of, weights_of, words

FILE = '''
"""REINFORCE: policy gradient without a clipped ratio (Williams 1992)."""

from pydantic import PositiveFloat
from torch import Tensor

from finetune.methods.policy_gradient import PolicyGradient, PolicyGradientConfig
from finetune.learning.rollout import Step


class ReinforceConfig(PolicyGradientConfig, frozen=True, extra="forbid"):
    """Settings of REINFORCE."""

    strength: PositiveFloat = 1.0
    """Factor of the advantages."""


def loss(step: Step, advantages: Tensor, config: ReinforceConfig) -> Tensor:
    """Return minus the mean of advantages times log-probabilities."""
    return -(config.strength * advantages * step.log_probs).mean()


METHOD = PolicyGradient(loss).method(
    "Williams 1992, Machine Learning 8",
    "follows the log-probabilities of good images",
    ReinforceConfig,
    color="#13579b",
)
'''
ENTRY = Entry("REINFORCE", "reinforce:METHOD", "reinforce:ReinforceConfig")
SETTINGS = (
    "reinforce.iterations=6",
    "reinforce.images_per_prompt=2",
    "reinforce.prompts_per_iteration=2",
    "reinforce.micro_batch=4",
    "reinforce.strength=2.0",
    "reinforce.validation.every=2",
    "reinforce.validation.images_per_prompt=1",
    "finetune.checkpoints=6",
)


MAY_NAME_METHODS = ("methods.py", "rounds/demo.py")
"""The registry, and the demo's own story."""


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Write a method's file, and add its line to the registry."""
    folder = tmp_path_factory.mktemp("method")
    (folder / "reinforce.py").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setitem(METHODS, "reinforce", ENTRY)
        # `pipelines.settings.tables` took the methods from the registry when it was imported.
        patch.setitem(TABLES, "reinforce", METHODS["reinforce"].settings)
        yield


@pytest.fixture(scope="module")
def run(ready: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that the method tuned, interrupted once."""
    run = copy_of(ready, tmp_path_factory.mktemp("interrupted"))
    command = words(run, "reinforce", SETTINGS)
    with interrupted_when(lambda: bool(checkpoint_steps(run, "reinforce"))):
        assert main(command) == 130
    assert 0 < len(figures_of(run, "reinforce")) < 1 + 6
    assert main(command) == 0
    return run


@abandons_open_files
def test_a_method_of_one_file_and_one_line_is_interrupted_and_goes_on(
    run: RunFolder, ready: RunFolder, tmp_path: Path
) -> None:
    whole = copy_of(ready, tmp_path)
    assert main(words(whole, "reinforce", SETTINGS)) == 0
    assert figures_of(run, "reinforce") == figures_of(whole, "reinforce")
    tuned, expected = weights_of(run, "reinforce"), weights_of(whole, "reinforce")
    assert tuned.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in tuned.items())
    added = [weight for name, weight in tuned.items() if re.match("adapter/.*lora_B", name)]
    assert all(weight.any() for weight in added)


@abandons_open_files
def test_its_settings_are_checked_and_its_model_card_names_its_paper(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(run, "reinforce", ("reinforce.strenght=1",))) == 2
    assert "did you mean strength?" in capsys.readouterr().err
    assert main(words(run, "reinforce", ("reinforce.strength=3.0",))) == 2
    assert "reinforce.strength is 2.0 there and 3.0 now" in capsys.readouterr().err
    card = (run.finetune_dir("reinforce") / "README.md").read_text()
    assert "REINFORCE" in card
    assert "Williams 1992, Machine Learning 8" in card


@abandons_open_files
def test_it_is_evaluated_and_stands_in_the_report_with_name_story_color_and_curve(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--runs", str(run.root.parent), "--run", run.root.name]) == 0
    assert "REINFORCE" in capsys.readouterr().out
    page = (run.evaluation_dir / "report.html").read_text(encoding="utf-8")
    story = "<li><b>REINFORCE</b>follows the log-probabilities of good images</li>"
    assert story in page
    curve = r'<figcaption>REINFORCE: reward</figcaption><img src="data:[^,]*base64,([^"]*)"'
    (chart,) = re.findall(curve, page)
    assert "#13579b" in base64.b64decode(chart).decode()
    assert '<div class="card" style="border-top-color: #13579b">REINFORCE' in page


def test_every_method_of_the_registry_is_whole() -> None:
    methods = {name: find_method(name) for name in METHODS}
    for name, method in methods.items():
        assert isinstance(method, Method)
        assert method.total_steps(method.config()) > 0
        assert model_of(name) is method.config
        assert all(curve.metrics for curve in method.curves)
    assert len({entry.title for entry in METHODS.values()}) == len(methods)
    assert len({method.color for method in methods.values()}) == len(methods)
    assert issubclass(methods["reinforce"].config, PolicyGradientConfig)


def test_only_the_registry_and_the_demo_name_a_method() -> None:
    root = Path(__file__).parents[1]
    allowed = {root / "pipelines" / file for file in MAY_NAME_METHODS}
    rooms = ("data", "reward", "finetune", "pipelines", "labeling_app")
    found = [
        f"{path.relative_to(root)}:{node.lineno}: {node.value!r}"
        for room in rooms
        for path in sorted((root / room).rglob("*.py"))
        if path not in allowed
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in METHODS
    ]
    assert not found
