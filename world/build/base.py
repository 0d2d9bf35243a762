"""Training of the embedded text-to-image model: UNet and text encoder together.

Both learn from latents of captioned renders, by v-prediction (Salimans & Ho 2022, arXiv 2202.00512)
with min-SNR weights (Hang et al. 2023, arXiv 2303.09556). Some captions are empty for
classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598). The weights are averaged.
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from pydantic import BaseModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from data.errors import PictuneError
from data.files import write_atomically
from world.build.tokenizer import MAX_TOKENS, token_ids
from world.build.training import Average, steps_with_log, warmup_cosine


class BaseConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the base model and its training."""

    unet_channels: tuple[int, ...] = (48, 96, 128)
    text_width: int = 128
    text_layers: int = 3
    scenes: int = 40_000
    captions: int = 4
    """Number of different captions of each scene."""
    steps: int = 9000
    batch: int = 32
    learning_rate: float = 6e-4
    learning_rate_hold: float = 0.6
    """Share of the steps before the learning rate falls."""
    empty_captions: float = 0.1
    """Share of captions left empty, so that the model also learns to draw without one."""
    min_snr: float = 5.0
    average_decay: float = 0.999
    checkpoint_every: int = 1000


def new_scheduler() -> DDIMScheduler:
    """Return the noise schedule of Stable Diffusion with v-prediction.

    The last step ends at the first training timestep, not at zero noise.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,  # unused with trailing spacing, but what Stable Diffusion pipelines expect
        timestep_spacing="trailing",
    )


def new_unet(config: BaseConfig, latent_channels: int) -> UNet2DConditionModel:
    """Return an untrained UNet with attention at 8x8 and 4x4."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.unet_channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=config.text_width,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    # on CPU the backward pass of bf16 SDPA is slower than plain products
    unet.set_attn_processor(AttnProcessor())
    return unet


def new_text_encoder(config: BaseConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained CLIP text model for the tokenizer's vocabulary."""
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=config.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.set_attn_implementation("eager")
    return model


class Base(nn.Module):
    """The two networks that are trained together."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = unet
        self.text: CLIPTextModel = text


class BaseTrainer:
    """One training run, which may be interrupted.

    `resume` continues from the last checkpoint in `folder`. `vae_sha256` names the autoencoder that
    the latents come from.
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        latent_channels: int,
        config: BaseConfig,
        folder: Path,
        *,
        seed: int,
        vae_sha256: str,
    ) -> None:
        torch.manual_seed(seed)
        self.made_from = {"config": config.model_dump_json(), "seed": seed, "vae": vae_sha256}
        self.config, self.folder, self.tokenizer = config, folder, tokenizer
        self.model = Base(new_unet(config, latent_channels), new_text_encoder(config, tokenizer))
        self.average = Average(self.model, config.average_decay)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=True,
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.scheduler = new_scheduler()
        self.empty = token_ids(tokenizer, [""])[0]
        snr = self.scheduler.alphas_cumprod / (1 - self.scheduler.alphas_cumprod)
        self.weights = snr.clamp(max=config.min_snr) / (snr + 1)  # min-SNR for v-prediction
        self.step = 0

    def _loss(self, latents: Tensor, captions: Tensor) -> Tensor:
        """Return the weighted v-prediction loss of one random batch.

        Latents are [N, C, h, w], captions [K, N, L].
        """
        n, g = self.config.batch, self.generator
        chosen = torch.randint(latents.shape[0], (n,), generator=g)
        x = latents[chosen]
        ids = captions[torch.randint(captions.shape[0], (n,), generator=g), chosen].clone()
        ids[torch.rand(n, generator=g) < self.config.empty_captions] = self.empty
        noise = torch.randn(x.shape, generator=g)
        t = torch.randint(1000, (n,), generator=g)
        with torch.autocast("cpu", torch.bfloat16):
            text = self.model.text(ids).last_hidden_state
            predicted = self.model.unet(self.scheduler.add_noise(x, noise, t), t, text).sample
        velocity = self.scheduler.get_velocity(x, noise, t)
        error = (predicted.float() - velocity).square().mean((1, 2, 3))
        loss: Tensor = (self.weights[t] * error).mean()
        return loss

    def run(self, latents: Tensor, captions: Tensor) -> None:
        """Train up to the configured steps; captions [K, N, L] of latents [N, C, h, w]."""
        losses: list[float] = []
        for step in steps_with_log("base", self.config.steps, losses, start=self.step):
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * warmup_cosine(
                    step, self.config.steps, hold=self.config.learning_rate_hold
                )
            loss = self._loss(latents, captions)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.average.update(self.model)
            losses.append(loss.item())
            self.step = step + 1
            if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                self.save()

    def save(self) -> None:
        """Write the averaged weights as stock folders, and the state that `resume` needs."""
        self.average.module.unet.save_pretrained(self.folder / "unet")
        self.average.module.text.save_pretrained(self.folder / "text_encoder")
        state = {
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict(),
            "updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "made_from": self.made_from,
        }
        with write_atomically(self.folder / "state.pt") as path:
            torch.save(state, path)

    def resume(self) -> None:
        """Continue from the last checkpoint, if there is one.

        Raises:
            PictuneError: it was made from other settings, another seed or another autoencoder.
        """
        if not (self.folder / "state.pt").exists():
            return
        state = torch.load(self.folder / "state.pt", weights_only=True)
        if state["made_from"] != self.made_from:
            raise PictuneError(
                f"{self.folder}: made from other settings, another seed or another autoencoder; "
                f"remove {self.folder}"
            )
        self.model.load_state_dict(state["model"])
        self.average.module.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]
