"""Choose 45 subjects for training, 5 for validation and 50 for testing from a download of fastMRI's brain data.

    python projects/deepen_fastmri/split.py DOWNLOAD SPLIT

Of all HDF5 files below DOWNLOAD it takes T2 scans (`AXT2`) of 320×320 with at least 12 coils, one of every patient, in
the order of a digest of the patient's identity: the same hundred for everybody who has all of them, whatever the files
are called and wherever they lie. SPLIT/{training,validation,test} get links to them, and SPLIT/subjects.csv tells which
are where. The public test set of fastMRI has no fully sampled data and is left out.
"""

import argparse
import hashlib
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
from tqdm import tqdm

from direct_deepen.errors import DeepenError, require
from direct_deepen.evaluation.tables import write_csv

COUNTS = {"training": 45, "validation": 5, "test": 50}
"""Subjects of the paper."""

ACQUISITION = "AXT2"
LEAST_COILS = 12
"""As many as all are compressed to."""


@dataclass(frozen=True)
class Subject:
    """One file that fits."""

    patient: str
    path: Path
    slices: int
    coils: int


def subject_of(path: Path, size: int) -> Subject | None:
    """Return the subject of a file, or None where the file is none that is wanted."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("acquisition") != ACQUISITION or "reconstruction_rss" not in file:
                return None
            slices, coils = file["kspace"].shape[:2]
            header = ElementTree.fromstring(file["ismrmrd_header"][()])
            patient = str(file.attrs["patient_id"])
    except (OSError, KeyError, ElementTree.ParseError) as error:
        print(f"{path}: left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    matrix = {
        element.tag.rpartition("}")[2]: int(element.text or 0)
        for element in header.findall(".//{*}encoding/{*}reconSpace/{*}matrixSize/*")
    }
    if (matrix.get("x"), matrix.get("y")) != (size, size) or coils < LEAST_COILS:
        return None
    return Subject(patient, path, slices, coils)


def subjects(download: Path, size: int) -> Iterator[Subject]:
    """Yield one subject of every patient, in the order of the digests."""
    found: dict[str, Subject] = {}
    for path in tqdm(sorted(download.rglob("*.h5")), desc="files", unit="file", disable=None):
        subject = subject_of(path, size)
        if subject is not None:
            # Of several scans of a patient that whose file name comes first.
            known = found.setdefault(subject.patient, subject)
            if subject.path.name < known.path.name:
                found[subject.patient] = subject
    yield from sorted(found.values(), key=lambda s: hashlib.sha256(s.patient.encode()).hexdigest())


def split(download: Path, output: Path, *, size: int = 320) -> None:
    """Link the files of every set.

    Raises
    ------
    DeepenError
        If the folder is missing, holds too few subjects, or the output is there already.
    """
    require(download.is_dir(), f"{download}: no such folder")
    require(not output.exists(), f"{output}: exists already; allowed: a folder that does not")
    chosen = list(subjects(download, size))
    needed = sum(COUNTS.values())
    require(
        len(chosen) >= needed,
        f"{download}: holds {len(chosen)} patients with {ACQUISITION}, {size}×{size}, {LEAST_COILS} or more coils and "
        f"fully sampled data; allowed: {needed} or more",
    )
    rows, first = [], 0
    for name, count in COUNTS.items():
        (output / name).mkdir(parents=True)
        for subject in chosen[first : first + count]:
            link = output / name / subject.path.name
            link.symlink_to(subject.path.resolve())
            rows.append({"set": name} | asdict(subject) | {"path": str(subject.path.relative_to(download))})
        first += count
    write_csv(output / "subjects.csv", rows)


def main() -> int:
    """Split; return 0, or 2 after bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("download", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    try:
        split(arguments.download, arguments.output)
    except (DeepenError, OSError) as error:
        print(f"split.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
