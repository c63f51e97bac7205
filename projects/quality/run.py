"""How good are the weights that come with the package? On data like those of training, and on others.

    python -m projects.stability.run runs/stability --study long   # the test volumes, and the weights
    python -m projects.quality.run runs/quality --data runs/stability/data/64

Compares zero-filled, SENSE and L1-wavelet (λ tuned on validation volumes with the same mask, 17 candidates each) with
DEEPEN's MAP and posterior mean: on test volumes, other masks, sizes, numbers of coils, and sets outside the family.
Then, on the test volumes: whether chains from noise and from SENSE agree, how the posterior mean depends on the number
of steps, how many gradients MAP needs, and the curvature of the energy. Writes CSV files and tables in Markdown;
parts that are done are not repeated.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.autograd.functional import hvp
from tqdm import tqdm

from direct_deepen import Posterior, langevin, load_pretrained, mm_map, sense
from direct_deepen.data.cases import Case, cases, inference_dataset
from direct_deepen.data.phantom import write_phantoms
from direct_deepen.engines.trained import load_trained
from direct_deepen.evaluation.classical import CLASSICAL
from direct_deepen.evaluation.methods import best_value, classical
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.inference.cost import cost_terms, largest_curvature
from direct_deepen.machine import available_cores
from direct_deepen.physics.conjugate_gradient import conjugate_gradient
from direct_deepen.physics.noise import complex_normal
from direct_deepen.priors import Energy
from projects.quality.sets import SETS, write_sets

CONFIGURATION = Path("configs/pretrained_2d4x.yaml")
NOISE_STD = 0.01
CHAINS = 16
STEPS = 100
AGREEMENT_CHAINS = 32
"""Of either start: with fewer, the error of the means alone takes R̂ above its bound in many pixels."""
PRECONDITIONER = 0.3
"""About the curvature of the energy, see curvature.md."""
BRAIN = 0.1
"""Share of the largest intensity of a reference above which a pixel counts as brain."""

Row = dict[str, Any]


def generator(seed: int = 0) -> torch.Generator:
    """Return a generator of its own for every use."""
    return torch.Generator().manual_seed(seed)


# ---- Data


def load(data: Path, mask: str = "2d4x", size: int = 64) -> list[Case]:
    """Return the slices of a folder under a mask of configs/masks."""
    transforms = yaml.safe_load(Path(f"configs/masks/{mask}.yaml").read_text(encoding="utf-8"))["transforms"]
    transforms["augmentation"] = {"pad": [size, size]}
    return list(cases(inference_dataset(CONFIGURATION, data, transforms=transforms)))


def phantoms(folder: Path, *, size: int = 64, coils: int = 8) -> Path:
    """Return a folder with one test head, written on first use."""
    if not folder.is_dir():
        write_phantoms(folder, num_volumes=1, num_slices=4, size=size, num_coils=coils, seed=3)
    return folder


# ---- Comparison


def compare(test: Sequence[Case], regularizations: dict[str, float], energy: Energy, chains: int) -> Iterator[Row]:
    """Yield a row for every method and slice."""
    for number, case in enumerate(tqdm(test, desc="compare", leave=False)):
        A, b, reference = case.problem.A, case.problem.masked_kspace, case.reference
        images = {"zero_filled": A.adjoint(b)}
        images |= {name: CLASSICAL[name](A, b, regularization=value) for name, value in regularizations.items()}
        images["deepen_map"] = mm_map(A, b, energy).image
        samples = langevin(
            A, b, energy, noise_std=NOISE_STD, num_samples=chains, num_steps=STEPS, keep=10,
            init=images["deepen_map"], generator=generator(number),
        )  # fmt: skip
        posterior = Posterior.from_samples(samples)
        images["deepen_mmse"] = posterior.mean
        error = (posterior.mean.abs() - reference.abs()).abs().flatten()
        low, high = posterior.interval(0.9)
        covered = ((reference.abs() >= low) & (reference.abs() <= high)).double().mean()
        figures = {
            "correlation": float(torch.corrcoef(torch.stack([posterior.std.flatten(), error]))[0, 1]),
            "std_over_error": float(posterior.std.mean() / error.mean()),
            "coverage_90": float(covered),
        }
        for method, image in images.items():
            score = quality(image[0], reference[0])
            row: Row = {"method": method, "case": f"{case.volume}#{case.slice_number}"}
            row |= {"psnr": score.psnr, "ssim": score.ssim, "nmse": score.nmse}
            yield row | (figures if method == "deepen_mmse" else dict.fromkeys(figures, ""))


def test_sets(output: Path, data: Path) -> Iterator[tuple[str, Callable[[], list[Case]], str, int, int]]:
    """Yield name, loader, mask, size and chains of every test set."""
    yield "test volumes, 2D 4x", lambda: load(data / "test"), "2d4x", 64, CHAINS
    for mask in ("2d6x", "1d2x", "1d4x"):
        loader = lambda m=mask: load(data / "test", m)[::5]  # noqa: E731
        yield f"mask {mask}", loader, mask, 64, 8  # type: ignore[misc]
    for coils in (4, 12):
        folder = output / "data" / f"coils_{coils}"
        loader = lambda f=folder, c=coils: load(phantoms(f, coils=c))  # noqa: E731
        yield f"{coils} coils", loader, "2d4x", 64, 8  # type: ignore[misc]
    for size in (96, 128):
        folder = output / "data" / f"size_{size}"
        loader = lambda f=folder, s=size: load(phantoms(f, size=s), size=s)  # noqa: E731
        yield f"{size}×{size}", loader, "2d4x", size, 8  # type: ignore[misc]
    for name in SETS:
        yield name, lambda n=name: load(output / "data" / n)[::2], "2d4x", 64, 8  # type: ignore[misc]


def comparison(output: Path, data: Path, energy: Energy) -> None:
    """Compare on every set that is not done yet."""
    if not (output / "data" / "cysts").is_dir():
        write_sets(output / "data")
    tuned: dict[tuple[str, int], dict[str, float]] = {}
    for name, loader, mask, size, chains in test_sets(output, data):
        path = output / "cases" / f"{name.replace(' ', '_')}.csv"
        if path.exists():
            continue
        if (mask, size) not in tuned:
            validation = data / "validation"
            if size != 64:
                validation = output / "data" / f"validation_{size}"
                if not validation.is_dir():
                    write_phantoms(validation, num_volumes=1, num_slices=4, size=size, num_coils=8, seed=2)
            cases = load(validation, mask, size)
            tuned[mask, size] = {method: best_value(classical(method), cases) for method in CLASSICAL}
        weights = {f"lambda_{method}": value for method, value in tuned[mask, size].items()}
        rows = [{"set": name} | row | weights for row in compare(loader(), tuned[mask, size], energy, chains)]
        write_csv(path, rows)


# ---- Sampling


def agreement(test: Sequence[Case], energy: Energy, preconditioner: float | None) -> Iterator[Row]:
    """Compare chains from Gaussian noise with chains from SENSE, after the same steps."""
    for number, case in enumerate(tqdm(test, desc="agreement", leave=False)):
        A, b, reference = case.problem.A, case.problem.masked_kspace, case.reference
        kept, row = {}, {"case": f"{case.volume}#{case.slice_number}"}
        for seed, init in enumerate(("sense", "noise")):
            samples = langevin(
                A, b, energy, noise_std=NOISE_STD, num_samples=AGREEMENT_CHAINS, num_steps=STEPS,
                keep=STEPS // 2, init=init, preconditioner=preconditioner, generator=generator(1000 * seed + number),
            )  # fmt: skip
            kept[init] = samples.by_chain()
            row[f"psnr_{init}"] = quality(kept[init][:, -1].mean(dim=0)[0], reference[0]).psnr
            row[f"psnr_{init}_one_sample"] = quality(kept[init][0, -1, 0], reference[0]).psnr
        row["difference"] = row["psnr_sense"] - row["psnr_noise"]
        brain = reference[0].abs() > BRAIN * reference.abs().max()
        # Two groups: all states of all chains of one start are one sequence.
        groups = torch.stack([images.abs().flatten(0, 1)[:, 0] for images in kept.values()])
        within, between = groups.var(dim=1).mean(dim=0), groups.mean(dim=1).var(dim=0)
        r_hat = ((within + between) / within).sqrt()[brain]
        row["brain_pixels_r_hat_below_1.1"] = float((r_hat <= 1.1).double().mean())
        row["median_r_hat"] = float(r_hat.median())
        row["psnr_sense_start"] = quality(sense(A, b)[0], reference[0]).psnr
        yield row


def steps(test: Sequence[Case], energy: Energy, preconditioner: float | None) -> Iterator[Row]:
    """Follow eight chains for 200 steps and score what shorter chains would have given."""
    for number, case in enumerate(tqdm(test, desc="steps", leave=False)):
        A, b, reference = case.problem.A, case.problem.masked_kspace, case.reference
        starts: tuple[tuple[str, str | torch.Tensor, float], ...] = (
            ("MAP", mm_map(A, b, energy).image, 0.1),
            ("SENSE", "sense", 0.1),
            ("noise of 0.1", "noise", 0.1),
            ("noise of 1", "noise", 1.0),
        )
        for start, init, start_std in starts:
            samples = langevin(
                A, b, energy, noise_std=NOISE_STD, num_samples=8, num_steps=200, keep=200, init=init,
                init_std=start_std, step_size=1.0, preconditioner=preconditioner, generator=generator(number),
            )  # fmt: skip
            images = samples.by_chain()[:, :, 0]
            for count in (10, 25, 50, 100, 200):
                yield {
                    "case": f"{case.volume}#{case.slice_number}",
                    "start": start,
                    "steps": count,
                    "psnr_mean_of_last_states": quality(images[:, count - 1].mean(dim=0), reference[0]).psnr,
                    "psnr_mean_of_last_half": quality(
                        images[:, count // 2 : count].mean(dim=(0, 1)), reference[0]
                    ).psnr,
                    "psnr_one_sample": quality(images[0, count - 1], reference[0]).psnr,
                    "cost": float(samples.cost_trace[count - 1].mean()),
                }


# ---- MAP and curvature


FIXED_CURVATURES = tuple(float(value) for value in np.geomspace(0.05, 3.2, 13))
LONGEST = 500


def plain_majorize_minimize(case: Case, energy: Energy, L: float, iterations: int) -> tuple[torch.Tensor, bool]:
    """Follow equation 15 of the paper with a fixed L; return the costs and whether none rose."""
    A, b = case.problem.A, case.problem.masked_kspace
    x = sense(A, b)
    costs = []
    for _ in range(iterations):
        terms = cost_terms(A, b, energy, x)
        costs.append(terms.cost)
        if len(costs) > 1 and not bool(costs[-1] <= costs[-2] * (1 + 1e-6)):
            return torch.cat(costs), False
        x = x + conjugate_gradient(lambda d: A.normal(d) + L * d, -terms.gradient, tolerance=1e-4, max_iterations=50)
    return torch.cat(costs), True


def map_speed(test: Sequence[Case], energy: Energy) -> Iterator[Row]:
    """Count the gradients to a relative cost of 1e-6 above the minimum.

    Fixed L: the smallest of :data:`FIXED_CURVATURES` with which the first 200 iterations are monotone on all slices,
    up to the rounding of C.
    """
    smallest = next(
        L for L in FIXED_CURVATURES if all(plain_majorize_minimize(case, energy, L, 200)[1] for case in test)
    )
    for case in tqdm(test, desc="map", leave=False):
        A, b, reference = case.problem.A, case.problem.masked_kspace, case.reference
        start = sense(A, b)
        # Ten times as long as it takes, and with a longer memory.
        longest = mm_map(A, b, energy, init=start, tolerance=1e-30, max_iterations=LONGEST, memory=10)
        lowest = longest.cost_history[-1]
        row: Row = {"case": f"{case.volume}#{case.slice_number}", "lowest_cost": float(lowest), "fixed_L": smallest}
        histories = {"fixed_L": plain_majorize_minimize(case, energy, smallest, LONGEST)[0]}
        for name, memory in (("adapting_L", 0), ("memory", 5)):
            result = mm_map(A, b, energy, init=start, tolerance=1e-30, max_iterations=LONGEST, memory=memory)
            histories[name] = result.cost_history[:, 0]
            row[f"monotone_{name}"] = bool((result.cost_history.diff(dim=0) <= 0).all())
        for name, history in histories.items():
            above = (history - lowest) / lowest
            # One evaluation for every cost up to and with the first that is low enough; six more for the first L.
            row[f"evaluations_{name}"] = int((above > 1e-6).sum()) + 1 + (0 if name == "fixed_L" else 6)
            row[f"reached_{name}"] = bool(above.min() <= 1e-6)
        row["psnr_of_the_minimum"] = quality(longest.image[0], reference[0]).psnr
        yield row


def stopping(test: Sequence[Case], energy: Energy) -> Iterator[Row]:
    """See where the default stopping rule ends."""
    for case in tqdm(test, desc="stopping", leave=False):
        A, b = case.problem.A, case.problem.masked_kspace
        start = sense(A, b)
        result = mm_map(A, b, energy, init=start)
        first = float(torch.linalg.vector_norm(cost_terms(A, b, energy, start).gradient))
        yield {
            "case": f"{case.volume}#{case.slice_number}",
            "evaluations": result.gradient_evaluations,
            "gradient_norm_ratio": float(result.gradient_norm) / first,
            "monotone": bool((result.cost_history.diff(dim=0) <= 0).all()),
            "psnr": quality(result.image[0], case.reference[0]).psnr,
        }


def curvature(test: Sequence[Case], energy: Energy) -> Iterator[Row]:
    """Compare difference quotients with Hessian-vector products: at the image, and at the image with noise of ε."""
    for number, case in enumerate(tqdm(test, desc="curvature", leave=False)):
        for name, level in (("image", 0.0), ("image + noise of ε", NOISE_STD)):
            noise = complex_normal(case.reference.shape, generator=generator(number), dtype=torch.complex64)
            image = case.reference + level * noise
            estimates = [float(largest_curvature(energy, image, num_iterations=count)) for count in (5, 10, 50)]
            direction = complex_normal(image.shape, generator=generator(0), dtype=image.dtype)
            exact = 0.0
            for _ in range(100):
                direction = direction / direction.norm()
                _, product = hvp(lambda x: energy(x).sum(), image, direction)
                exact, direction = float(product.norm()), product
            yield {
                "case": f"{case.volume}#{case.slice_number}", "where": name, "hessian": exact,
                **{f"difference_quotient_{n}": value for n, value in zip((5, 10, 50), estimates, strict=True)},
            }  # fmt: skip


# ---- Reports


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with test and validation volumes")
    parser.add_argument("--checkpoint", type=Path, help="weights instead of those of the package")
    arguments = parser.parse_args()
    torch.set_num_threads(len(available_cores()))
    output, data = arguments.output, arguments.data
    energy: Energy = (
        load_pretrained("brain_phantom_2d4x")
        if arguments.checkpoint is None
        else load_trained(arguments.checkpoint, CONFIGURATION)
    )
    test = load(data / "test")
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "agreement": lambda: agreement(test[::2], energy, None),
        "agreement_preconditioned": lambda: agreement(test[::2], energy, PRECONDITIONER),
        "map": lambda: map_speed(test, energy),
        "stopping": lambda: stopping(test, energy),
        "curvature": lambda: curvature(test[::5], energy),
        "steps": lambda: steps(test[::4], energy, None),
        "steps_preconditioned": lambda: steps(test[::4], energy, PRECONDITIONER),
    }
    comparison(output, data, energy)
    for name, part in parts.items():
        if not (output / f"{name}.csv").exists():
            write_csv(output / f"{name}.csv", list(part()))


if __name__ == "__main__":
    main()
