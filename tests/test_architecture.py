"""The layers of the package, and the habits that keep it reproducible, read off its source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import direct_deepen

PACKAGE = Path(direct_deepen.__file__).parent

ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "progress": set(),
    "physics": {"errors", "physics"},
    "priors": {"errors", "physics", "priors"},
    "objectives": {"errors", "physics", "priors", "objectives"},
    "inference": {"errors", "physics", "priors", "inference", "progress"},
    "posterior": {"errors", "physics", "priors", "inference"},
    "calibration": {"errors", "physics", "priors", "inference", "posterior", "progress"},
    "posterior_file": {"errors", "files", "physics", "priors", "inference", "posterior"},
    "landscape": {"errors", "physics", "priors", "inference", "progress"},
    "pictures": {"errors"},
    "html_page": {"errors", "files", "pictures"},
}
"""The mathematical core, and what each part may import of this package: imports point one way along the flow."""

HOST = {"direct", "omegaconf"}
"""What only engines, data and commands may know of."""


def sources(part: str = "") -> list[Path]:
    """The files of a part of the package, a directory or one module."""
    path = PACKAGE / part
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imported_modules(source: str, module: str) -> Iterator[str]:
    """Full names of all modules that a source imports anywhere in it; ``module`` is its own full name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts)  # "….__init__" for packages, so that relative imports resolve alike


def forbidden_imports(source: str, module: str, allowed: set[str]) -> set[str]:
    """Imports of the host, or of parts of this package other than those allowed."""
    found = set()
    for name in imported_modules(source, module):
        top, _, rest = name.partition(".")
        outside = top == "direct_deepen" and rest.partition(".")[0] not in allowed
        # "from direct_deepen.x import y" yields "direct_deepen.x" too; the bare package imports everything.
        if top in HOST or outside:
            found.add(name)
    return found


# ---- Layers


@pytest.mark.parametrize("part", ALLOWED)
def test_the_core_knows_nothing_of_the_host_nor_of_layers_after_it(part):
    paths = sources(part)
    assert paths
    for path in paths:
        assert forbidden_imports(path.read_text(), module_name(path), ALLOWED[part]) == set(), path


@pytest.mark.parametrize(
    "source",
    [
        "import direct",
        "import direct.data.transforms as T",
        "from direct.data import transforms",
        "from omegaconf import DictConfig",
        "import direct_deepen",
        "from direct_deepen import langevin",
        "from direct_deepen.inference.langevin import langevin",
        "from direct_deepen.engines import problem",
        "import direct_deepen.data.phantom",
        "from ..inference import mm_map",
        "from .. import inference",
        "def f():\n    from direct.data import transforms",
    ],
)
def test_forbidden_imports_are_found_wherever_and_however_they_are_written(source):
    assert forbidden_imports(source, "direct_deepen.priors.energy", ALLOWED["priors"])


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import directory",
        "from direct_deepen.physics.noise import complex_normal",
        "from direct_deepen.errors import require",
        "from .networks import ACTIVATIONS",
        "from ..physics import noise",
    ],
)
def test_allowed_imports_are_not_mistaken_for_forbidden_ones(source):
    assert forbidden_imports(source, "direct_deepen.priors.energy", ALLOWED["priors"]) == set()


# ---- Tests of the three axes


def defined(source: str) -> set[str]:
    """Public functions and classes that a source defines at its top, but for dataclasses, which only hold results."""
    return {
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def used(source: str) -> set[str]:
    """Names that a source uses below its imports."""
    nodes = list(ast.walk(ast.parse(source)))
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


WITHOUT_TESTS = {"DifferentiableEnergy"}
"""A protocol: nothing of it runs."""


@pytest.mark.parametrize("axis", ["priors", "objectives", "inference"])
def test_whatever_stands_on_an_axis_has_tests_of_its_own(axis):
    names = set().union(*(defined(path.read_text()) for path in sources(axis))) - WITHOUT_TESTS
    tests = Path(__file__).parent
    found = set().union(*(used(path.read_text()) for path in [*(tests / axis).rglob("*.py"), tests / "conftest.py"]))
    assert names - found == set()


def test_a_name_that_is_only_imported_counts_as_untested():
    source = "def a(): ...\nclass B: ...\ndef _c(): ...\n@dataclass(frozen=True)\nclass D: ...\nE = 1"
    assert defined(source) == {"a", "B"}
    assert used("from x import a, B\nB()\nx.y") == {"B", "x", "y"}


# ---- Random numbers

GLOBAL_STATE_OF = {
    "torch": {"manual_seed", "seed", "set_rng_state"},
    "torch.random": {"manual_seed", "seed", "set_rng_state"},
    "torch.cuda": {"manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state", "set_rng_state_all"},
}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
TORCH_DRAWS_LIKE = {"rand_like", "randn_like", "randint_like"}
NUMPY_WITHOUT_STATE = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox"}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an attribute chain, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def global_randomness(source: str) -> list[str]:
    """Uses of the global generators of PyTorch, NumPy and Python."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = set(imported_modules(ast.unparse(node), ""))
            # ``from random import Random``: generators of one's own.
            if names != {"random", "random.Random"}:
                found += [name for name in names if name == "random" or name.startswith("random.")]
        elif isinstance(node, ast.Attribute):
            base, _, name = dotted(node).rpartition(".")
            if name in GLOBAL_STATE_OF.get(base, ()):
                found.append(f"{base}.{name}")
            if base in ("np.random", "numpy.random") and name not in NUMPY_WITHOUT_STATE:
                found.append(f"{base}.{name}")
        elif isinstance(node, ast.Call):
            base, _, name = dotted(node.func).rpartition(".")
            has_generator = any(keyword.arg in ("generator", None) for keyword in node.keywords)
            if base == "torch" and (name in TORCH_DRAWS_LIKE or (name in TORCH_DRAWS and not has_generator)):
                found.append(f"torch.{name} without a generator")
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_seeds_or_draws_from_a_global_generator(path):
    assert global_randomness(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.manual_seed(0)",
        "torch.random.manual_seed(0)",
        "torch.cuda.manual_seed_all(0)",
        "torch.randn(3)",
        "torch.rand(3, device=device)",
        "torch.randn_like(x)",
        "np.random.seed(0)",
        "x = np.random.normal(size=3)",
        "numpy.random.shuffle(x)",
        "import random",
        "from random import shuffle",
        "from random import Random, shuffle",
    ],
)
def test_global_randomness_is_found(source):
    assert global_randomness(source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.Generator().manual_seed(0)",
        "generator.manual_seed(seed)",
        "torch.randn(3, generator=generator)",
        "np.random.default_rng(0).normal()",
        "def f(generator: np.random.Generator): ...",
        "with torch.random.fork_rng(): ...",
        "np.random.SeedSequence([1, 2])",
        "from random import Random",
    ],
)
def test_generators_that_are_passed_in_are_not_mistaken_for_global_ones(source):
    assert global_randomness(source) == []


# ---- Output

PRINTERS = {"cli", "engines/reporting.py"}
"""Commands print their results; DIRECT's commands print an error where no log takes it."""


def prints(source: str) -> list[int]:
    """Lines that print, or write to an output of the process."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and dotted(node.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    ]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_but_commands_prints(path):
    name = path.relative_to(PACKAGE)
    if not PRINTERS & {str(name), name.parts[0]}:
        assert prints(path.read_text()) == []


def test_prints_are_found():
    assert set(prints("def f():\n    print('x')\nsys.stdout.write('x')\nlog.write('x')")) == {2, 3}


# ---- Errors


def broad_handlers(source: str, *, swallowing_only: bool = False) -> list[int]:
    """Lines of handlers for any exception whatever; if asked, only of those that do not end by raising one."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = any(kind is None or dotted(kind) in ("Exception", "BaseException") for kind in kinds)
            if broad and not (swallowing_only and isinstance(node.body[-1], ast.Raise)):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("part", ALLOWED)
def test_the_core_catches_only_what_it_names(part):
    for path in sources(part):
        assert broad_handlers(path.read_text()) == [], path


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_swallows_whatever_happens(path):
    assert broad_handlers(path.read_text(), swallowing_only=True) == []


@pytest.mark.parametrize("swallowing_only", [False, True])
@pytest.mark.parametrize("kind", ["", " Exception", " BaseException as error", " (ValueError, Exception)"])
def test_broad_handlers_are_found(kind, swallowing_only):
    source = f"try:\n    f()\nexcept{kind}:\n    pass"
    assert broad_handlers(source, swallowing_only=swallowing_only) == [3]


def test_handlers_that_raise_again_swallow_nothing():
    source = "try:\n    f()\nexcept Exception as error:\n    raise SystemExit(2) from error"
    assert broad_handlers(source, swallowing_only=True) == []
    assert broad_handlers(source) == [3]


def test_narrow_handlers_are_not_mistaken_for_broad_ones():
    assert broad_handlers("try:\n    f()\nexcept (OSError, ValueError):\n    pass") == []
