"""The log-likelihood of the kept models with two-dimensional codes, integrated over the plane.

    python -m reproductions.evidence.likelihood

`common/evaluation.py` estimates log p(x) from codes that are drawn from q(z|x). Where q is much
narrower than the true posterior, such codes miss most of the mass, and neither the standard error
nor the effective samples show it. In two dimensions p(x) = ∫ p(x|z) p(z) dz can be summed over a
grid instead: every picture of the grid serves all images. The results go to
`artifacts/reference/likelihood.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp
from tqdm import tqdm

from common import datasets
from common.cli import OneLineParser, one_of, run_command
from common.evaluation import encode_test_set, log_normaliser
from common.pictures import grid_codes
from common.training import Experiment
from reproductions import MODULES, program
from reproductions.evidence import kept
from reproductions.evidence.documents import DOCUMENTS
from reproductions.evidence.equivalence import signed

RESULTS = "likelihood.json"  # module -> run ("document" or a variant's name) -> nats per image
STEP = 0.05  # between two codes of the grid; 0.03 moves no mean by more than 0.03 nats
REACH = 6.0  # of the grid, from the prior's mean
CHUNK = 5_000  # codes that are decoded at a time
CLIP = 1e-7  # a probability is kept this far from 0 and 1
# The modules whose codes have two dimensions: the others have a setting for their number.
PLANE = tuple(module for module in MODULES if not hasattr(program(module).config, "latent_dim"))


def integrated(
    experiment: Experiment,
    likelihood: str,
    conditional: bool,
    step: float = STEP,
    reach: float = REACH,
) -> np.ndarray:
    """log p(x) of each test image under a trained model, in nats, [n].

    Args:
      experiment: with the trained model; its codes have two dimensions.
      likelihood: "gaussian" or "grey", see `evaluation.LIKELIHOODS`.
      conditional: whether decoder or prior depend on the label; then each class has a grid.
      step: between two codes of the grid.
      reach: of the grid, from the prior's mean.
    """
    data = experiment.data
    x = data.test_images.reshape(len(data.test_images), -1) / 255
    prior_mean = encode_test_set(experiment).prior_mean
    axis = np.arange(-reach, reach + step / 2, step)
    codes = grid_codes(axis, axis).reshape(-1, 2)
    log_prior = -0.5 * (codes**2).sum(axis=1) - np.log(2 * np.pi) + 2 * np.log(step)
    found = np.full(len(x), -np.inf)
    classes = data.test_labels if conditional else np.zeros_like(data.test_labels)
    for label in np.unique(classes):
        images = np.flatnonzero(classes == label)
        own = x[images]
        for start in tqdm(range(0, len(codes), CHUNK), leave=False, disable=None):
            z = codes[start : start + CHUNK] + prior_mean[images[0]]
            pictures = experiment.pictures_of(z, np.full(len(z), label))
            terms = log_probability(own, pictures.reshape(len(z), -1), likelihood)
            terms += log_prior[start : start + CHUNK]
            found[images] = np.logaddexp(found[images], logsumexp(terms, axis=1))
    return found + log_normaliser(likelihood)


def log_probability(x: np.ndarray, pictures: np.ndarray, likelihood: str) -> np.ndarray:
    """log p(x|z) without `log_normaliser`, of images [n, 784] by pictures [g, 784]: [n, g]."""
    d = pictures.astype(np.float64)
    if likelihood == "gaussian":
        return x @ d.T - 0.5 * (d**2).sum(axis=1) - 0.5 * (x**2).sum(axis=1)[:, np.newaxis]
    p = np.clip(d, CLIP, 1 - CLIP)
    return x @ (np.log(p) - np.log1p(-p)).T + np.log1p(-p).sum(axis=1)


def name_of(run: str) -> str:
    """What the results call a run: "document", or the name of its variant."""
    return run.partition("/")[2] or "document"


def make(modules: Sequence[str]) -> None:
    """Integrates what the file does not have yet: the kept run of a module, and its variants."""
    content = kept.load_results(RESULTS)
    for module in modules:
        port = program(module)
        kept.stamp(RESULTS, module, port.source_digest)
        entry = content.setdefault(module, {})
        for run in (module, *DOCUMENTS[module].kept_variants):
            name = name_of(run)
            if name not in entry:
                data = datasets.load(port.dataset, quiet=True)
                experiment = port.reopen(kept.REFERENCE / run, data)
                conditional = port.draw is not None
                entry[name] = float(integrated(experiment, port.likelihood, conditional).mean())
                kept.write(RESULTS, content)
                print(f"{module} {name}: {entry[name]:.2f} nats per image", flush=True)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """A row for each kept model: its ELBO, and its log-likelihood as sampled and as integrated."""
    found = []
    for module in (m for m in PLANE if m in results):
        for run, words in ({module: module} | DOCUMENTS[module].kept_variants).items():
            evaluation = kept.load_record(run)["evaluation"]
            value = results[module][name_of(run)]
            numbers = (evaluation["elbo"], evaluation["log_likelihood"], value)
            found.append([f"`{words}`", *(signed(number, 2) for number in numbers)])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("likelihood", lambda: _likelihood(argv))


def _likelihood(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions.evidence.likelihood",
        "Integrates the log-likelihood of the kept models whose codes have two dimensions.",
    )
    parser.add_argument(
        "modules", nargs="*", type=one_of(PLANE), metavar="module",
        help=f"whose models (default: {', '.join(PLANE)})",
    )  # fmt: skip
    make(parser.parse_args(argv).modules or PLANE)


if __name__ == "__main__":
    sys.exit(main())
