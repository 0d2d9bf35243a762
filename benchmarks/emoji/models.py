"""Training of the embedded models: `python -m benchmarks.emoji.models [PART ...]`.

`make models` builds all parts, one after the other; each is kept under `runs/models/`, where the
later ones find it.
"""

import argparse
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTextModel, CLIPTokenizer

from benchmarks.emoji import base, clip, oracle_training
from benchmarks.emoji.autoencoder import decode, encode, train_autoencoder
from benchmarks.emoji.base import new_scheduler
from benchmarks.emoji.drawing import Drawn, draw_many, draw_world
from benchmarks.emoji.oracle_training import (
    read_accuracy,
    sample_any_scene,
    targets,
    train_oracle,
)
from benchmarks.emoji.tokenizer import build_tokenizer, compact, token_ids
from data.errors import PictuneError
from data.files import write_json
from world.captions import COUNT_WORDS, EXACT, PLURALS, CaptionNoise, caption
from world.scenes import ANIMALS, PLACES, TINTS, Scene

WORDS = sorted(
    {"a", "an", "and", "in", "on", "the", "some", "many", "colored", "picture", "of", ".", ","}
    | {*ANIMALS, *PLURALS.values(), *TINTS, *PLACES, *COUNT_WORDS.values()}
)
"""Every word that a caption can hold."""
WORK = Path("runs/models")
MODELS = Path("models")
LATENT_NOISE = 0.3
"""Most noise on the latents of a round trip, in standard deviations: a sampler's small faults."""


def can_be_said(scene: Scene) -> bool:
    """Whether a caption can describe the whole scene.

    It can for up to four animals of one kind, or one animal each of two species.
    """
    kinds, n = set(scene.animals), len(scene.animals)
    return (len(kinds) == 1 and n <= max(COUNT_WORDS)) or (n == 2 and len(scene.counts()) == 2)


def as_tensor(drawn: Drawn) -> Tensor:
    """Return the pixels as uint8 [N, 3, 64, 64]."""
    return torch.from_numpy(drawn.pixels).permute(0, 3, 1, 2).contiguous()


def open_vae() -> AutoencoderKL:
    """Return the trained autoencoder."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(WORK / "vae")
    return vae.eval().requires_grad_(False)


def round_trip(images: Tensor, *, seed: int) -> Tensor:
    """Return uint8 renders [N, 3, 64, 64] as a generator would show them.

    Each goes through the autoencoder, with its own amount of latent noise.
    """
    generator = torch.Generator().manual_seed(seed)
    latents = encode(open_vae(), images)
    level = torch.rand(len(images), 1, 1, 1, generator=generator) * LATENT_NOISE
    return decode(open_vae(), latents + level * torch.randn(latents.shape, generator=generator))


@torch.no_grad()
def partly_denoised(images: Tensor, captions: list[str], *, seed: int, steps: int = 10) -> Tensor:
    """Return renders that the base denoised from a random step of the sampler on.

    The base gets their exact captions (SDEdit, arXiv 2108.01073). Few steps and both samplers, as
    in the demo, smear the faces as in the demo's images, while the layout stays.
    """
    vae, generator = open_vae(), torch.Generator().manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(WORK / "base/unet").eval()
    text_encoder = CLIPTextModel.from_pretrained(WORK / "base/text_encoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(WORK / "tokenizer")
    scheduler = new_scheduler()
    scheduler.set_timesteps(steps)
    out = []
    for start in range(0, len(images), 64):
        x = encode(vae, images[start : start + 64])
        text = text_encoder(token_ids(tokenizer, captions[start : start + 64])).last_hidden_state
        first = int(torch.randint(steps // 2 - 1, steps - 1, (1,), generator=generator))
        eta = float(torch.randint(2, (1,), generator=generator))
        noise = torch.randn(x.shape, generator=generator)
        x = scheduler.add_noise(x, noise, scheduler.timesteps[first].expand(len(x)))
        for t in scheduler.timesteps[first:]:
            with torch.autocast("cpu", torch.bfloat16):
                v = unet(x, t, text).sample
            x = scheduler.step(v.float(), t, x, eta=eta, generator=generator).prev_sample
        out.append(decode(vae, x))
    return torch.cat(out)


def build_autoencoder(seed: int) -> None:
    """Train the autoencoder on the whole world; print how well it reproduces held-out renders."""
    images = as_tensor(draw_world(30_000, seed, held_out=True))
    torch.manual_seed(seed)
    model = train_autoencoder(images, generator=torch.Generator().manual_seed(seed))
    held_out = as_tensor(draw_world(512, seed + 1, held_out=True))
    reproduced = decode(model, encode(model, held_out))
    error = ((reproduced.float() - held_out.float()) / 255).square().mean()
    psnr = -10 * error.log10().item()
    print(f"autoencoder PSNR {psnr:.2f} dB on {len(held_out)} held-out renders", flush=True)
    model.save_pretrained(WORK / "vae")


def build_base(seed: int) -> None:
    """Train UNet and text encoder on web-like captions of scenes without held-out combinations."""
    rng = random.Random(seed)
    tokenizer = build_tokenizer(WORDS, WORK / "tokenizer")
    drawn = draw_world(base.SCENES, seed + 2, held_out=False)
    latents = encode(open_vae(), as_tensor(drawn))
    noise = CaptionNoise()
    texts = [[caption(s, rng, noise) for s in drawn.scenes] for _ in range(base.CAPTIONS)]
    captions = torch.stack([token_ids(tokenizer, part) for part in texts])
    trained = base.train_base(latents, captions, tokenizer, seed=seed)
    trained.unet.save_pretrained(WORK / "base/unet")
    trained.text.save_pretrained(WORK / "base/text_encoder")


def build_clip(seed: int) -> None:
    """Train the CLIP model on web-like captions of scenes without held-out combinations."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(WORDS, WORK / "tokenizer")
    drawn = draw_world(clip.SCENES, seed + 3, held_out=False)
    images = as_tensor(drawn)
    versions = torch.stack([images, round_trip(images, seed=seed)])
    model = clip.train_clip(versions, drawn.scenes, tokenizer, seed=seed)
    folder = MODELS / "emoji-clip"
    model.half().save_pretrained(folder)
    size = {"height": 64, "width": 64}
    processor = CLIPImageProcessor(
        size=size, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3
    )
    CLIPProcessor(processor, tokenizer).save_pretrained(folder)
    compact(folder / "tokenizer.json")


def build_oracle(seed: int) -> None:
    """Train the oracle on renders, their round trips, and renders that the base partly denoised."""
    if not (WORK / "base/unet").exists():
        raise PictuneError(
            f"{WORK / 'base'}: no base model to draw the oracle's training images with; "
            "build the part `base` first"
        )
    torch.manual_seed(seed)
    drawn = draw_many(oracle_training.SCENES, seed + 5, sample=sample_any_scene, loose=True)
    images = as_tensor(drawn)
    captions = [
        caption(s, random.Random(seed), EXACT) if can_be_said(s) else "" for s in drawn.scenes
    ]
    denoised = partly_denoised(images, captions, seed=seed)
    versions = torch.stack([round_trip(images, seed=seed), denoised])
    oracle = train_oracle(
        images, versions, targets(drawn), generator=torch.Generator().manual_seed(seed)
    )
    held_out = draw_world(2000, seed + 6, held_out=True)
    renders = as_tensor(held_out)
    distorted = {
        "clean renders": renders,
        "renders through the autoencoder": decode(open_vae(), encode(open_vae(), renders)),
        "the same with noisy latents": round_trip(renders, seed=seed + 1),
    }
    accuracy = {
        name: read_accuracy(oracle, pixels, held_out.scenes) for name, pixels in distorted.items()
    }
    for name, shares in accuracy.items():
        parts = ", ".join(f"{part} {share:.2%}" for part, share in shares.items())
        print(f"oracle on {name}: {parts}", flush=True)
    folder = MODELS / "emoji-oracle"
    oracle.save_pretrained(folder)
    write_json(folder / "accuracy.json", accuracy)


def assemble_pipeline(seed: int) -> None:
    """Write one StableDiffusionPipeline folder with all parts of the base model."""
    del seed
    pipeline = StableDiffusionPipeline(
        vae=open_vae(),
        text_encoder=CLIPTextModel.from_pretrained(WORK / "base/text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(WORK / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(WORK / "base/unet"),
        scheduler=DDIMScheduler.from_config(new_scheduler().config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save_pipeline(pipeline, MODELS / "emoji-sd")


def save_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the folder with weights rounded to fp16; the text encoder's are stored as fp32.

    `StableDiffusionPipeline.from_pretrained` opens the text encoder in the type that it is stored
    in, and all other parts in fp32.
    """
    pipeline.to(dtype=torch.float16)
    pipeline.text_encoder.float()
    pipeline.save_pretrained(folder)
    compact(folder / "tokenizer/tokenizer.json")


PARTS = {
    "autoencoder": build_autoencoder,
    "clip": build_clip,
    "base": build_base,
    "oracle": build_oracle,
    "pipeline": assemble_pipeline,
}


def main() -> None:
    """Build the named parts, or all parts in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"one of {', '.join(PARTS)}; all when none is named",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="threads that torch may use")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    WORK.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts or PARTS:
        try:
            PARTS[part](arguments.seed)
        except PictuneError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
