"""Measures of the evaluation, as pure functions: feature distance, diversity, KL of a chain."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.diffusion import DiffusionModel
from finetune.sampler import Sampler, sample_trajectories
from finetune.sampling import gaussian_kl, step_distribution

Values = NDArray[np.float64]


def frechet_distance(features: Values, others: Values) -> float | None:
    """Return the squared Frechet distance of Gaussians fitted to features [n, D] and [m, D].

    It is that of Heusel et al. 2017, arXiv 1706.08500; None where a set has a single row. With few
    images it is large also between sets of the same kind: compare only sets of the same size.
    """
    if min(len(features), len(others)) < 2:
        return None
    mean, covariance = features.mean(0), np.cov(features.T)
    other_mean, other_covariance = others.mean(0), np.cov(others.T)
    # tr sqrt(A B) is the sum of the roots of the eigenvalues of A B, which are real and not
    # negative except for rounding.
    eigenvalues = np.linalg.eigvals(covariance @ other_covariance).real
    roots = np.sqrt(np.clip(eigenvalues, 0, None))
    traces = np.trace(covariance) + np.trace(other_covariance)
    distance = np.square(mean - other_mean).sum() + traces - 2 * roots.sum()
    return float(max(distance, 0.0))


def vendi_score(features: Values) -> float:
    """Return the effective number of different images, 1 to n, of features [n, D].

    It is exp of the entropy of the eigenvalues of K / n, where K holds the cosines of the features
    (Friedman & Dieng 2023, arXiv 2210.02410).
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    eigenvalues = np.clip(np.linalg.eigvalsh(unit @ unit.T / len(unit)), 0, None)
    eigenvalues = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def vendi_of_subsets(features: Values, size: int, *, subsets: int, seed: int) -> float:
    """Return the mean Vendi score of random subsets of `size` of the features [n, D].

    The score grows with the number of images, so sets of different sizes are compared at one.
    """
    random = np.random.default_rng(seed)
    drawn = (random.choice(len(features), size, replace=False) for _ in range(subsets))
    return float(np.mean([vendi_score(features[rows]) for rows in drawn]))


@torch.no_grad()
def chain_kl(
    model: DiffusionModel,
    prompts: list[str],
    sampler: Sampler,
    *,
    batch: int,
    generator: torch.Generator,
) -> Tensor:
    """Return KL(tuned || reference) of denoising chains in nats, [B] (DPOK, lemma 4.2).

    Draws one chain of each prompt with the tuned model, and adds up the Gaussian KL of the
    sampler's stochastic steps.
    """
    schedule = model.schedule(sampler.steps)
    cond = model.encode_prompts(prompts)
    chains = sample_trajectories(model, cond, sampler, generator=generator, batch=batch)
    total = torch.zeros(len(prompts), device=model.device)

    for rows in torch.arange(len(prompts), device=model.device).split(batch):
        text = cond[rows]
        empty = model.encode_prompts([""]).expand_as(text)
        for i, timestep in enumerate(chains.timesteps[: sampler.stochastic_steps]):
            latents, at = chains.latents[rows, i], timestep.expand(len(rows))

            def next_mean(
                latents: Tensor = latents,
                at: Tensor = at,
                text: Tensor = text,
                empty: Tensor = empty,
            ) -> tuple[Tensor, Tensor]:
                output = model.predict(latents, at, text, empty, sampler.guidance)
                return step_distribution(schedule, output, at, latents, eta=sampler.eta)

            mean, std = next_mean()
            with model.adapters_off():
                reference, _ = next_mean()
            total[rows] += gaussian_kl(mean, reference, std)
    return total
