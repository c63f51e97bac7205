"""Samplers beside the exact posterior of a hundred signals, of each of two priors.

    python -m projects.certified.run projects/certified/results
    python -m projects.certified.report projects/certified/results

Writes RESULTS/<prior>.csv, a row a sampler, and RESULTS/<prior>_steps.csv, a row a step size. SK-ROCK has rows where
deepinv is installed. A process for each prior.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from direct_deepen.evaluation.tables import write_csv
from projects.certified.problem import Exact, Prior, Problem, draw_problem
from projects.certified.samplers import DIFFUSION_STEPS, GUIDANCE, chains, guided_diffusion, samplers
from projects.certified.scores import Scores, score, summary
from projects.certified.templates import boxes
from projects.certified.templates import exact_posterior as posterior_of_boxes
from projects.certified.wavelets import SparseWavelets, gibbs_posterior

PRIORS: dict[str, tuple[Prior, Callable[..., Exact]]] = {
    "boxes": (boxes(), posterior_of_boxes),
    "wavelets": (SparseWavelets(), gibbs_posterior),
}

STEP_SIZES = (1.0, 0.5, 0.2, 0.1)
STEPS_FROM_EXACT = 100
TUNED_ON = 10
"""Signals on which DPS's guidance is chosen, none of those it is judged by."""


def tuned_guidance(name: str, samples: int) -> dict[int, float]:
    """Return the ζ of least CRPS for every number of steps of DPS."""
    prior, posterior = PRIORS[name]
    problem = draw_problem(prior, TUNED_ON, torch.Generator().manual_seed(1))
    exact = posterior(prior, problem, samples, torch.Generator().manual_seed(2))

    def crps(steps: int, guidance: float) -> float:
        generator = torch.Generator().manual_seed(3)
        drawn = guided_diffusion(problem, samples, generator, steps=steps, guidance=guidance)
        return float(score(drawn.images, problem, exact).crps.mean())

    return {steps: min(GUIDANCE, key=lambda guidance: crps(steps, guidance)) for steps in DIFFUSION_STEPS}


def judged(problem: Problem, exact: Exact, reference: Scores, guidance: dict[int, float]) -> list[dict[str, Any]]:
    """Return a row for the exact samples and one for every sampler."""
    count, signals = exact.samples.shape[:2]
    rows = [{"sampler": "exact posterior", "evaluations": 0, "seconds": 0.0} | summary(reference, reference)]
    for number, (name, sampler) in enumerate(samplers(guidance).items()):
        start = time.monotonic()
        drawn = sampler(problem, count, torch.Generator().manual_seed(100 + number))
        about = {
            "sampler": name,
            "evaluations": round(drawn.gradient_evaluations / (count * signals)),
            "seconds": time.monotonic() - start,
        }
        rows.append(about | summary(score(drawn.images, problem, exact), reference))
        print(f"{name}: {about['seconds']:.0f} s", flush=True)
    return rows


def steps_alone(problem: Problem, exact: Exact, reference: Scores) -> list[dict[str, Any]]:
    """Return what steps change in samples of the exact posterior that chains start from."""
    rows = []
    for averaged in (False, True):
        for size in (None, *STEP_SIZES):
            drawn = chains(
                problem,
                len(exact.samples),
                torch.Generator().manual_seed(50),
                steps=STEPS_FROM_EXACT,
                start=exact.samples,
                step_size=size,
                averaged_noise=averaged,
            )
            assert drawn.step_size is not None
            about = {"step": "adapts" if size is None else f"{size:g}", "averaged_noise": averaged}
            about["step_size"] = float(drawn.step_size.mean())
            rows.append(about | summary(score(drawn.images, problem, exact), reference))
    return rows


def judge(name: str, signals: int, samples: int, results: Path) -> None:
    """Judge all samplers on signals of one prior."""
    torch.set_num_threads(1)
    start = time.monotonic()
    prior, posterior = PRIORS[name]
    problem = draw_problem(prior, signals, torch.Generator().manual_seed(4))
    exact = posterior(prior, problem, samples, torch.Generator().manual_seed(5))
    reference = score(exact.samples, problem, exact)
    write_csv(results / f"{name}_steps.csv", steps_alone(problem, exact, reference))
    guidance = tuned_guidance(name, samples)
    write_csv(results / f"{name}.csv", judged(problem, exact, reference, guidance))
    print(f"{name}: {time.monotonic() - start:.0f} s in all", flush=True)


def main() -> None:
    """Judge all samplers on both priors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--samples", type=int, default=19, help="of every signal; one more is to be a multiple of 20")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for ended in [pool.submit(judge, name, args.signals, args.samples, args.results) for name in PRIORS]:
            ended.result()


if __name__ == "__main__":
    main()
