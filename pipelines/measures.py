"""What the evaluation measures, as pure functions: intervals, feature distance, diversity, and the KL of a denoising chain."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.diffusion import DiffusionModel
from finetune.dpok import gaussian_kl
from finetune.sampling import sample_trajectories, step_distribution

Values = NDArray[np.float64]


def frechet_distance(
    mean: Values, covariance: Values, other_mean: Values, other_covariance: Values
) -> float:
    """Squared Frechet distance of two Gaussians (Heusel et al. 2017, arXiv 1706.08500): means [D], covariances [D, D]."""
    # tr sqrt(A B) is the sum of the roots of the eigenvalues of A B, which are real and not negative but for rounding.
    roots = np.sqrt(np.clip(np.linalg.eigvals(covariance @ other_covariance).real, 0, None))
    distance = (
        np.square(mean - other_mean).sum()
        + np.trace(covariance)
        + np.trace(other_covariance)
        - 2 * roots.sum()
    )
    return float(max(distance, 0.0))


def vendi_score(features: Values) -> float:
    """Effective number of different pictures, 1 to n, of features [n, D] (Friedman & Dieng 2023, arXiv 2210.02410).

    exp of the entropy of the eigenvalues of K / n, where K holds the cosines of the features.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    eigenvalues = np.clip(np.linalg.eigvalsh(unit @ unit.T / len(unit)), 0, None)
    eigenvalues = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


@torch.no_grad()
def chain_kl(
    model: DiffusionModel,
    prompts: list[str],
    *,
    steps: int,
    stochastic_steps: int,
    guidance: float,
    batch: int,
    generator: torch.Generator,
) -> Tensor:
    """KL(tuned || reference) of the first `stochastic_steps` of denoising chains in nats, [B] (DPOK, lemma 4.2).

    Draws one chain a prompt with the tuned model, stochastic (eta 1) for those steps and deterministic after them, and adds up the Gaussian
    KL of the stochastic steps.
    """
    scheduler = model.scheduler(steps)
    cond = model.encode_prompts(prompts)
    chains = sample_trajectories(
        model,
        cond,
        steps=steps,
        guidance=guidance,
        eta=1.0,
        generator=generator,
        stochastic_steps=stochastic_steps,
        batch=batch,
    )
    total = torch.zeros(len(prompts), device=model.device)
    for rows in torch.arange(len(prompts), device=model.device).split(batch):
        text = cond[rows]
        empty = model.encode_prompts([""]).expand_as(text)
        for i, timestep in enumerate(chains.timesteps[:stochastic_steps]):
            latents = chains.latents[rows, i]
            output = model.predict(latents, timestep.expand(len(rows)), text, empty, guidance)
            mean, std = step_distribution(scheduler, output, timestep, latents, eta=1.0)
            with model.adapters_off():
                reference = model.predict(
                    latents, timestep.expand(len(rows)), text, empty, guidance
                )
            reference_mean, _ = step_distribution(scheduler, reference, timestep, latents, eta=1.0)
            total[rows] += gaussian_kl(mean, reference_mean, std)
    return total
