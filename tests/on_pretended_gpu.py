"""Every stage on a pretended GPU: nothing is on the wrong device, and the GPU is seldom waited for.

`test_pretended_gpu.py` runs this file. The first tests prove that `tests.support.pretended_gpu`
sees what it is there for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from data.runs import RunFolder
from finetune.learning.checkpoints import load_latest, save_checkpoint
from finetune.model import sampler as sampler_module
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.settings.adapter_kinds import BASE
from finetune.settings.sampler import Sampler
from pipelines.run import image_io
from tests.support.demo_run import command, copy_without, sets
from tests.support.gpu_training import FAMILIES, GPU, of_one_iteration, opened, training_on_gpu
from tests.support.play_run import drawn, request, studio_of
from tests.support.pretended_gpu import BLOCKING, COPIES, LAUNCHES, WAITS, pretended_gpu
from tests.support.small_methods import METHODS
from tests.support.small_training import seeded

LOOPS = {"dpok": 1, "ddpo": 1, "nft": 1, "reward_gradient": 1, "rwl": 0, "preference": 0}
"""Denoising loops of an iteration of each method with the settings below."""

ROUNDS = ("rounds", "--rounds", "2")
"""All stages up to the evaluation, twice but for that."""
STAGES = (("images",), ("simulate",), ("reward",), ("finetune",))
REPORTS = 1
"""Reads of the metrics of an iteration: all at once."""
QWEN = "finetune/model/families/qwen_image.py"
READ = {"z-image", "qwen-image"}
"""Families that read the number of prompt tokens once per call of their network."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: write(tmp_path_factory.mktemp(name) / "model")
        for name, (write, _) in FAMILIES.items()
    }


REFUSED: dict[str, Callable[[Tensor], object]] = {
    "two devices": lambda there: there + torch.ones(2, 2),
    "an index on the GPU": lambda there: torch.ones(2, 2)[there[0].long()],
    "a value of the CPU": lambda there: there.index_put_((torch.tensor([0]),), torch.ones(2)),
    "a generator of the CPU": lambda _: torch.randn(2, generator=seeded(), device=GPU),
    "numpy": lambda there: there.numpy(),
    "an array": np.asarray,
    "two types": lambda there: there.half() @ there,
    "two types in a norm": lambda there: functional.layer_norm(
        there.bfloat16(), (2,), torch.ones(2, device=GPU)
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cuda_refuses_is_refused(kind: str) -> None:
    with pretended_gpu():
        there = torch.ones(2, 2, device=GPU)
        assert there.device == torch.device(GPU)
        with pytest.raises((RuntimeError, TypeError)):
            REFUSED[kind](there)


COUNTED: dict[str, tuple[str, Callable[[Tensor], object]]] = {
    "item": (WAITS, lambda there: there[0, 0].item()),
    "float": (WAITS, lambda there: float(there.sum())),
    "bool": (WAITS, lambda there: bool(there.any())),
    "tolist": (WAITS, lambda there: there.tolist()),
    "cpu": (WAITS, lambda there: there.cpu()),
    "copy_": (WAITS, lambda there: torch.zeros(2, 2).copy_(there)),
    "print": (WAITS, str),
    "nonzero": (WAITS, lambda there: there.nonzero()),
    "mask": (WAITS, lambda there: there[there > 0]),
    "equal": (WAITS, lambda there: torch.equal(there, there)),
    "to": (BLOCKING, lambda there: torch.ones(2).to(there.device)),
    "tensor": (BLOCKING, lambda there: torch.tensor([1.0, 2.0], device=there.device)),
    "list as index": (BLOCKING, lambda there: there[[0, 1]]),
    "non-blocking": (COPIES, lambda there: torch.ones(2).to(there.device, non_blocking=True)),
}


@pytest.mark.parametrize("way", COUNTED)
def test_what_costs_time_is_counted_once_and_computing_is_not_waiting(way: str) -> None:
    kind, use = COUNTED[way]
    with pretended_gpu() as counts:
        there = torch.ones(2, 2, device=GPU)
        assert (there @ there).softmax(1).shape == (2, 2)
        assert counts.by_kind().keys() == {LAUNCHES}
        use(there)
    others = {WAITS, BLOCKING, COPIES} - {kind}
    assert counts.by_kind()[kind] == 1
    assert not others & counts.by_kind().keys()


def test_autocast_casts_as_on_a_gpu() -> None:
    with pretended_gpu(), torch.autocast("gpu", torch.bfloat16):
        there = torch.ones(2, 2, device=GPU)
        assert functional.linear(there, there.half()).dtype == torch.bfloat16
        assert functional.layer_norm(there.bfloat16(), (2,)).dtype == torch.float32
        assert (there.bfloat16() @ there).softmax(1).dtype == torch.float32


def left_on_the_cpu(shape: Any, generator: torch.Generator, _: torch.device) -> Tensor:
    return torch.randn(tuple(shape), generator=generator)


def drawn_on_the_gpu(shape: Any, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=device)


def without_cpu(image: Tensor) -> Any:
    return (image * 255).byte().numpy()


@pytest.mark.parametrize(
    ("module", "name", "mistake"),
    [
        (sampler_module, "_noise", left_on_the_cpu),
        (sampler_module, "_noise", drawn_on_the_gpu),
        (image_io, "_pixels", without_cpu),
        (DiffusionModel, "autocast", lambda self: torch.autocast(self.device.type, enabled=False)),
    ],
)
def test_a_planted_mistake_is_caught(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    mistake: Callable[..., Any],
) -> None:
    def use(model: DiffusionModel) -> None:
        sampler = Sampler(steps=2, eta=1.0)
        cond = model.encode_prompts(["a cat"])
        chains = sampler_module.sample_trajectories(
            model, cond, sampler, generator=seeded(), batch=1
        )
        image_io.to_pil(model.decode(chains.latents[:, -1])[0])

    with pretended_gpu():
        model = opened(folders["sdxl"], "sdxl")
        use(model)
        model.network.conv_norm_out.half()  # harmless under autocast
        use(model)
        monkeypatch.setattr(module, name, mistake)
        with pytest.raises((RuntimeError, TypeError)):
            use(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_denoising_loop_waits_once_however_long_it_is(
    folders: dict[str, Path], family: str
) -> None:
    with pretended_gpu():
        model = opened(folders[family], family)
        # encodes the prompts, and stock networks move their tables at the first call
        draw(model, ["a cat"], Sampler(steps=2, guidance=2.0), seeds=[0], batch=1)
    for steps in (2, 4):
        with pretended_gpu() as counts:
            sampler = Sampler(steps=steps, eta=0.5, guidance=2.0)
            draw(model, ["a cat"] * 4, sampler, seeds=[0, 1, 2, 3], batch=2)
        once = 1 + steps * (family in READ)
        assert counts.by_kind()[WAITS] == 2 * once, counts.by_place  # two batches
        # The network of Qwen-Image moves a length, where prompts of two lengths are in a batch.
        blocking = 2 * steps * (family == "qwen-image")
        assert counts.by_kind()[BLOCKING] == blocking, counts.by_place


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *(("sd1", method) for method in METHODS),
        *((family, "reward_gradient") for family in FAMILIES if family != "sd1"),
    ],
)
def test_every_method_and_family_trains_resumes_and_waits_once_an_update(
    folders: dict[str, Path], tmp_path: Path, family: str, method: str
) -> None:
    with pretended_gpu() as counts:
        whole = training_on_gpu(opened(folders[family], family), method)
        spent = of_one_iteration(
            whole, counts, lambda: save_checkpoint(tmp_path, whole.state, whole.generator)
        )
    updates = getattr(whole.training.config, "updates", 1) if LOOPS[method] else 1
    waits = [
        (place, number)
        for (kind, place), number in spent.items()
        if kind == WAITS and not (family in READ and place.endswith(" lengths_of"))
    ]
    assert sum(number for _, number in waits) <= updates + LOOPS[method] + REPORTS, waits
    blocking = [place for kind, place in spent if kind == BLOCKING]
    assert blocking == [f"{QWEN} QwenImage.output"] * (family == "qwen-image"), blocking
    with pretended_gpu():
        resumed = training_on_gpu(opened(folders[family], family), method)
        assert load_latest(tmp_path, resumed.state, resumed.generator)
        assert next(resumed.steps()).step == 2
    kept, again = whole.state.weights(), resumed.state.weights()
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_the_reward_trains_without_waiting_in_a_step(ready: RunFolder, tmp_path: Path) -> None:
    found = []
    for batch in (2, 64):
        run = copy_without(ready, tmp_path / str(batch), "reward", symlinks=True)
        with pretended_gpu() as counts:
            words = sets(f"run.device={GPU}", f"reward.batch_size={batch}")
            assert command(run, "reward", *words) == 0
        found.append(counts.by_kind())
    assert found[0][WAITS] == found[1][WAITS]
    assert found[0][LAUNCHES] > found[1][LAUNCHES] + 500


@pytest.mark.parametrize(
    ("precision", "rounds", "method"), [("fp32", 2, "rwl"), ("bf16", 1, "nft"), ("fp16", 1, "dpok")]
)
def test_every_stage_runs(
    demo_models: Path, tmp_path: Path, precision: str, rounds: int, method: str
) -> None:
    text = demo_models.read_text().replace("best_of = 2", "best_of = 1")
    device = f'[run]\ndevice = "{GPU}"\nprecision = "{precision}"'
    settings = tmp_path / "gpu.toml"
    settings.write_text(text.replace("[run]", device, 1))
    run = RunFolder(tmp_path / "r")
    with pretended_gpu() as counts:
        for stage, *words in STAGES if rounds == 1 else [ROUNDS]:
            given = ["--config", str(settings)] if stage in ("images", "rounds") else []
            given += ["--method", method] if stage in ("finetune", "rounds") else []
            assert command(run, stage, *words, *given) == 0
        assert command(run, "score") == 0
        assert command(run, "best-of-n", "--n", "2") == 0
        studio = studio_of(run.in_round(rounds), tmp_path)
        wanted = request(studio, models=[*studio.tuned, BASE])
        assert all(len(drawn(studio, name, wanted)) == 2 for name in wanted.models)
    if rounds > 1:
        assert (run.in_round(rounds).evaluation_dir / "report.html").is_file()
    assert counts.by_kind()[LAUNCHES] > 10_000
