"""Does the flag find what is wrong? Troubles of stated strength, and slices without any.

    python -m projects.flag.run runs/flag --set phantoms --masks 2d4x
    python -m projects.flag.run runs/flag --set HEADS --masks 2d4x --slices 24 --every 8
    python -m projects.flag.run runs/flag --set OTHERS --name heads_untouched --slices 8 --every 0
    python -m projects.flag.report runs/flag projects/flag/results

A set is ``phantoms``, heads of 64×64 with eight coils, each of another volume, or a folder of volumes that
`direct-deepen simulate` wrote, of each of which the second slice is taken. Coil maps and noise level are estimated from
the data as `direct-deepen reconstruct` does, the noise level is the true one where the centre is too narrow for that,
and the image is MAP of the weights that come with the package. Every N-th slice has every trouble, all are there
without any. `report` says which slices limits were chosen on.

Writes OUTPUT/<set>/<mask>/<number>_<trouble>.npz, the image; what is there is not computed again. The figures of all of
them go to OUTPUT/<set>/<mask>/figures.csv.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from direct_deepen import SenseOperator, align_phase, at_noise, intensity_scale, mm_map, sense
from direct_deepen.data.phantom import brain_volume
from direct_deepen.errors import DeepenError, require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.inference.mm_map import Stopping
from direct_deepen.physics import estimated_noise_std
from direct_deepen.physics.fourier import ifft2
from direct_deepen.posterior.misfit import misfit
from direct_deepen.priors.energy import SumEnergy
from direct_deepen.scans.preparation import coil_maps_of
from direct_deepen.scans.reconstruction import pretrained_prior
from projects.flag.troubles import GOOD, TROUBLES, Given, Slice, noise_level, spike_place
from projects.measured.run import draw_masks

PHANTOMS = "phantoms"
WEIGHTS = {PHANTOMS: "brain_phantom_2d4x"}
"""Name of the weights of a set; of others the default."""
ALL = {GOOD: noise_level(1.0)} | dict(TROUBLES)


def phantom(number: int) -> Slice:
    """Return the one slice of a head."""
    volume = brain_volume(np.random.default_rng([number, 77]), num_slices=1, size=64, num_coils=8)
    kspace, image = (torch.from_numpy(array[0]) for array in (volume.kspace, volume.image))
    return Slice(f"phantom {number}", kspace, image, torch.from_numpy(volume.sensitivity_map), volume.noise_std)


def simulated(path: Path) -> Slice:
    """Return the second slice of a volume of `direct-deepen simulate`."""
    with h5py.File(path, "r") as file:
        kspace, image = (torch.from_numpy(file[name][1]) for name in ("kspace", "simulated_image"))
        maps = torch.from_numpy(file["simulated_sensitivity_map"][()])
        return Slice(path.stem, kspace, image, maps, float(file.attrs["kspace_noise_std"]))


def slices_of(name: str, count: int) -> Iterator[tuple[int, Slice, Slice]]:
    """Yield numbers, slices, and a slice of the next volume with as many coils, or with more."""
    if name == PHANTOMS:
        yield from ((number, phantom(number), phantom(number + 1)) for number in range(count))
        return
    paths = sorted(Path(name).glob("*.h5"))
    require(len(paths) > 1, f"{name}: {len(paths)} volumes; allowed: a folder of two and more, or {PHANTOMS}")
    for number in range(min(count, len(paths))):
        one = simulated(paths[number])
        others = [simulated(path) for path in paths[number + 1 :] + paths[:number]]
        fitting = [other for other in others if len(other.kspace) == len(one.kspace)]
        yield number, one, (fitting or [other for other in others if len(other.kspace) > len(one.kspace)])[0]


def reconstructed(
    name: str, given: Given, mask: torch.Tensor, plain: Slice, path: Path
) -> tuple[dict[str, float], torch.Tensor]:
    """Return the figures of a slice, and its image, which is read from a file if that is there."""
    prior = pretrained_prior(WEIGHTS.get(name))
    b = (given.slice.kspace * mask)[None]
    maps, _ = coil_maps_of(b[0], mask)
    maps = given.map_error(maps) if given.map_error else maps
    A = align_phase(SenseOperator(maps[None], mask[None, None]), b)
    scale = intensity_scale(A, b, kind=prior.intensity_scale)
    b, true = b / scale[:, None, None, None], plain.noise_std / float(scale)
    try:
        estimated = float(estimated_noise_std(b, A.sampling_mask)[0])
    except DeepenError:
        estimated = true
    noise_std = 2**0.5 * estimated * given.noise_factor
    energy: SumEnergy = at_noise(prior.energy, noise_std)
    if path.is_file():
        image = torch.from_numpy(np.load(path)["image"])[None]
    else:
        image = mm_map(A, b, energy, stopping=Stopping(1e-5, max_iterations=60)).image
        np.savez(path, image=image[0].numpy())
    figures = misfit(A, b, image, sense(A, b), noise_std, energy).arrays()
    told = {key: float(value[0]) for key, value in figures.items()}
    return {"noise estimated": estimated / true, **told}, image[0] * scale


def rows_of(name: str, mask_name: str, folder: Path, count: int, every: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of every slice and trouble."""
    for number, one, other in slices_of(name, count):
        mask = draw_masks(*one.image.shape, number)[mask_name].clone()
        # Where a spike is to be, a sample, or a line, is measured in all slices.
        row, column = spike_place(*mask.shape)
        mask[row if mask_name.startswith("2d") else slice(None), column] = True
        for place, (trouble, apply) in enumerate(ALL.items()):
            if trouble != GOOD and (every == 0 or number % every != 0):
                continue
            given = apply(one, other, torch.Generator().manual_seed(1000 * number + place))
            path = folder / f"{number:03d}_{place:02d}.npz"
            figures, image = reconstructed(name, given, mask, one, path)
            # What the image should be: that without motion, spike and shift, and the other object's where there is one.
            full = given.slice.kspace if given.slice.image is not one.image else one.kspace
            reference = (given.slice.sensitivity_map.conj() * ifft2(full)).sum(dim=0)
            yield {
                "number": number,
                "slice": one.volume,
                "trouble": trouble,
                "psnr": quality(image, reference).psnr,
                **figures,
            }
            print(mask_name, number, trouble, flush=True)


def main() -> None:
    """Reconstruct every slice with every trouble, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--set", required=True, help=f"{PHANTOMS}, or a folder of simulated volumes")
    parser.add_argument("--name", help="of the set in the tables; phantoms or heads by default")
    parser.add_argument("--masks", nargs="+", default=["2d4x"])
    parser.add_argument("--slices", type=int, default=16, help="at most so many")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th slice has every trouble; 0: none")
    args = parser.parse_args()
    torch.set_num_threads(1)
    label = args.name or (PHANTOMS if args.set == PHANTOMS else "heads")
    for mask in args.masks:
        folder = args.output / label / mask
        folder.mkdir(parents=True, exist_ok=True)
        rows = list(rows_of(args.set, mask, folder, args.slices, args.every))
        write_csv(folder / "figures.csv", rows)


if __name__ == "__main__":
    main()
