"""The outside of the house: what is packed, promised and pinned is there and agrees."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sciSR
from sciSR.config import make_workflow
from sciSR.networks import list_weights

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
WORKFLOWS = sorted(ROOT.glob("workflows/*.yaml"))
CONDA_NAMES = {"matplotlib-base": "matplotlib", "python-isal": "isal", "pytorch": "torch"}
"""What conda-forge calls differently."""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def bounds(lines: list[str]) -> dict[str, str]:
    """Package -> its bounds, with conda's names made the index's."""
    required = [Requirement(CONDA_NAMES.get(re.split(r"[<>=!~ ]", line)[0], "") or line) for line in lines]
    for requirement, line in zip(required, lines, strict=True):
        name = re.split(r"[<>=!~ ]", line)[0]
        if name in CONDA_NAMES:
            requirement.specifier = Requirement(line).specifier
    return {canonicalize_name(r.name): str(r.specifier) for r in required}


def modules() -> Iterator[str]:
    yield "sciSR"
    for found in pkgutil.walk_packages(sciSR.__path__, "sciSR."):
        if not found.name.endswith("__main__"):
            yield found.name


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_conda_environment_asks_for_what_the_package_asks_for() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *lines, pip = environment["dependencies"]
    python = next(line for line in lines if line.startswith("python>="))
    assert python == f"python{PYPROJECT['project']['requires-python']}"
    lines = [line for line in lines if line not in ("pip", python)]
    assert pip["pip"][-1] == "--editable ."
    assert bounds([*lines, *pip["pip"][:-1]]) == bounds(PYPROJECT["project"]["dependencies"])


def test_pins_lie_within_the_bounds_and_are_complete() -> None:
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split():
        name, _, version = line.partition("==")
        pins[canonicalize_name(name)] = version
    project = PYPROJECT["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        requirement = Requirement(line)
        if requirement.name == "scisr":
            continue
        assert canonicalize_name(requirement.name) in pins, f"{requirement.name} is not pinned"
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier
    assert pins["torch"] == "2.13.0"


def test_all_extra_holds_every_user_extra() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert Requirement(everything).extras == set(extras) - {"all", "test"}


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Each package that a file imports, and whether the file cannot be loaded without it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from ((name.split(".")[0], id(node) in top) for name in names)


def test_every_import_is_declared() -> None:
    called = {"yaml": "pyyaml", "lightning_fabric": "lightning-fabric", "indexed_gzip": "indexed-gzip"}
    project = PYPROJECT["project"]
    needed = set(bounds(project["dependencies"]))
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "all" for line in lines]
    possible = needed | {canonicalize_name(Requirement(line).name) for line in extras}
    for path in ROOT.glob("sciSR/**/*.py"):
        for name, always in imported(path):
            if name != "sciSR" and name not in sys.stdlib_module_names:
                package = canonicalize_name(called.get(name, name))
                # the adapter of an optional format is loaded for its own files alone
                allowed = possible if not always or path.match("io/dicom*.py") else needed
                assert package in allowed, f"{named(path)} imports {name}, pyproject lacks it"


@pytest.mark.parametrize(("package", "rooms"), [("nibabel", ["nifti*"]), ("rasterio", ["geotiff*", "cog"])])
def test_only_the_adapters_know_their_library(package: str, rooms: list[str]) -> None:
    allowed = {path for room in rooms for path in ROOT.glob(f"sciSR/io/{room}.py")}
    allowed.add(ROOT / "sciSR/commands/doctor.py")
    found = {path for path in ROOT.glob("sciSR/**/*.py") if package in {name for name, _ in imported(path)}}
    assert found <= allowed


def test_version_is_said_alike_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == sciSR.__version__
    changes = (ROOT / "CHANGES.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+?),? ", changes, flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == sciSR.__version__


@pytest.mark.timeout(300)
def test_a_wheel_holds_configs_weights_and_licence_and_works(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    for name in ("sciSR", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(copy)], check=True, timeout=240)
    (wheel,) = tmp_path.glob("scisr-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        packed.extractall(tmp_path / "installed")
    inside = [p for pattern in ("**/*.py", "weights/*.safetensors", "py.typed") for p in (ROOT / "sciSR").glob(pattern)]
    assert {named(path) for path in inside} <= names
    assert {f"sciSR/{named(path)}" for path in ROOT.glob("configs/**/*.yaml")} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    asked = (
        "import json, sciSR.degradation as d, sciSR.networks as n;"
        "print(json.dumps([d.__file__, d.list_sensors(), n.list_weights()]))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-c", asked], env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=120
    )
    where, sensors, weights = json.loads(done.stdout)
    assert str(tmp_path / "installed") in where
    assert sensors == sorted(path.stem for path in ROOT.glob("configs/sensors/*.yaml"))
    assert weights == sorted(path.stem for path in ROOT.glob("sciSR/weights/*.safetensors"))


def cpu_seconds(*arguments: str) -> tuple[float, str]:
    """Least processor time of three runs of Python (a busy machine does not count), and the last output."""
    times = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        output = process.stdout.read()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        times.append(usage.ru_utime + usage.ru_stime)
    return min(times), output


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="processor time of a child is not known here")
@pytest.mark.parametrize("arguments", [("-c", "import sciSR"), ("-m", "sciSR", "--help")], ids=["import", "help"])
def test_start_up_takes_less_than_half_a_second(arguments: tuple[str, ...]) -> None:
    seconds, _ = cpu_seconds(*arguments)
    assert seconds < 0.5


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import sciSR", "torch monai numpy scipy nibabel rasterio xarray dask matplotlib pydantic"),
        ("import sciSR.cli", "torch monai scipy nibabel rasterio xarray dask matplotlib pydantic"),
        (
            "import sciSR.errors, sciSR.grid, sciSR.tiling, sciSR.raster, sciSR.encoding, sciSR.io, sciSR.config",
            "torch monai scipy nibabel rasterio xarray dask matplotlib",
        ),
        (
            "import numpy, sciSR; r = sciSR.Raster.from_array(numpy.ones((1, 8, 8)), affine=numpy.eye(3), axes='cyx');"
            "[sciSR.upscale(r, method, scale=2).read() for method in ('cubic', 'ibp')]",
            "monai",
        ),
    ],
)
def test_light_rooms_load_nothing_heavy(code: str, forbidden: str) -> None:
    asked = f"{code}; import sys; print(*(set(sys.modules) & set({forbidden.split()!r})))"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == ""


def test_public_names_are_there_and_told() -> None:
    assert set(dir(sciSR)) == set(sciSR.__all__)
    for name in set(sciSR.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(sciSR, name)), f"sciSR.{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'upscal'"):
        sciSR.upscal  # noqa: B018  # the access is the test


@pytest.mark.parametrize("name", sorted(modules()))
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    monkeypatch.chdir(tmp_path)
    for case in finder.find(module, name, globs=vars(module).copy()):
        if case.examples:
            assert runner.run(case).failed == 0, case.name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_examples_of_a_page_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link and not link.startswith("#"):
            assert (page.parent / link.split("#")[0]).exists(), f"{named(page)} links to {link}"


def test_checklists_are_short() -> None:
    for page in ROOT.glob("docs/howto/*.md"):
        text = page.read_text(encoding="utf-8")
        assert 0 < len(re.findall(r"^- \[ \]", text, flags=re.MULTILINE)) <= 7, named(page)
        assert ">>>" in text, f"{named(page)} has no example that runs"


def readme_commands() -> list[list[str]]:
    lines = [line.split("#")[0].split() for block in fenced(README, "bash") for line in block.splitlines()]
    return [line for line in lines if line]


def test_readme_names_targets_and_workflows_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = readme_commands()
    for _, target in (line for line in commands if line[0] == "make"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"
    assert {line[0] for line in commands} <= {"make", "pip", "conda", "scisr"}
    assert len([line for line in commands if line[0] == "scisr"]) >= 5


@pytest.fixture(scope="module")
def small_crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real crops under their names, cut down so that a command takes seconds."""
    folder = tmp_path_factory.mktemp("data")
    for path in (ROOT / "examples" / "data").glob("*.*"):
        if path.suffix in (".gz", ".tif"):
            raster = sciSR.open_raster(path)
            middle = {
                a: slice(max(0, n // 2 - 24), n // 2 + 24) for a, n in zip(raster.axes, raster.shape, strict=True)
            }
            sciSR.save_raster(raster.crop(**middle), folder / path.name)
    return folder


@pytest.fixture
def clone(tmp_path: Path, small_crops: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a fresh clone, with smaller crops, to run things in; outputs stay in it."""
    for name in ("workflows", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "data").symlink_to(small_crops)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", [" ".join(c[1:]) for c in readme_commands() if c[0] == "scisr"])
def test_readme_commands_run(line: str, clone: Path) -> None:
    from sciSR.cli import main

    words = line.split()
    assert main(words) == 0
    if words[0] == "run":
        written = {"".join(path.suffixes[-2:]) for path in (clone / "out" / Path(words[1]).stem).iterdir()}
        assert {".run.json", ".png", ".html"} <= written
        assert written & {".nii.gz", ".tif"}
    elif "-o" in words and words[0] != "check":
        assert (clone / words[words.index("-o") + 1]).is_file()


def test_readme_python_runs(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = fenced(README, "python")
    values: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), values)  # the page's own code is what is tested
    assert (clone / "out" / "s2_x2_api.tif").is_file()
    assert "PSNR" in capsys.readouterr().out.upper()


def test_readme_settings_are_a_workflow() -> None:
    (text,) = fenced(README, "yaml")
    train = make_workflow(yaml.safe_load(text)).train
    assert train is not None
    assert train.network in list_weights()


WEIGHTS = {
    "mri-x2": "near-isotropic MRI, twice finer along every axis",
    "mri-z4": "thick-slice MRI, four slices for one",
    "ct-x2": "CT in HU, twice finer along every axis",
    "s2-x2": "Sentinel-2 B02 B03 B04 B08, twice finer",
}


def weights_table() -> str:
    """What README says of the shipped weights, from the records of their training."""
    lines = [
        "| weights | judged on | cubic | ibp | network | sensor 20 % narrower | 20 % wider | noise |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, task in WEIGHTS.items():
        record = json.loads((ROOT / f"docs/training/{name}.train.json").read_text(encoding="utf-8"))
        held_out = {item["name"] for item in record["data"] if item["role"] != "training" or item.get("held_out")}
        trained = {item["name"] for item in record["data"] if item["role"] == "training"}
        scores = record["scores"]
        size = (ROOT / f"sciSR/weights/{name}.safetensors").stat().st_size / 1e6
        title = f"**{name}**: {task}; {size:.1f} MB"
        for subject, matched in scores["matched"].items():
            file = re.split(r"#| \(", subject)[0]
            assert file in held_out
            part = ", held-out part" if file in trained else ""
            scan = re.sub(r"\.nii\.gz|\.tif", "", subject).replace("#", ", copy ") + part
            shown = [f"{matched[method]['psnr']:.2f} / {matched[method]['ssim']:.3f}" for method in matched]
            assert list(matched) == ["cubic", "ibp", "network"]
            gains = []
            for condition in ("narrower", "wider", "noisy"):
                found = {method: score["psnr"] for method, score in scores[condition][subject].items()}
                gains.append(f"{found['network'] - found['cubic']:+.1f} / {found['network'] - found['ibp']:+.1f}")
            lines.append("| " + " | ".join([title, scan, *shown, *gains]) + " |")
            title = ""
    return "\n".join(lines) + "\n"


def test_readme_says_how_good_the_weights_are() -> None:
    """The table of README is that of the training records; ``SCISR_WRITE_DOCS=1`` writes it."""
    pattern = re.compile(r"(?<=<!-- weights -->\n).*?(?=<!-- /weights -->)", re.DOTALL)
    if os.environ.get("SCISR_WRITE_DOCS"):
        (ROOT / "README.md").write_text(pattern.sub(lambda _: weights_table(), README), encoding="utf-8")
        return
    found = pattern.search(README)
    assert found is not None
    assert found[0] == weights_table(), "README.md: the table of weights is stale; run with SCISR_WRITE_DOCS=1"


def test_every_shipped_weight_is_told_and_small() -> None:
    shipped = {path.stem: path.stat().st_size for path in ROOT.glob("sciSR/weights/*.safetensors")}
    assert set(shipped) == set(WEIGHTS)
    assert max(shipped.values()) < 2_000_000


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_workflows_are_valid(path: Path) -> None:
    from sciSR.config import load_workflow

    load_workflow(path)


def test_example_data_is_small_and_has_its_notice(crops: Path) -> None:
    notice = (crops / "README.md").read_text(encoding="utf-8")
    files = [path for path in crops.iterdir() if path.suffix not in (".md", ".py", "") and path.is_file()]
    assert len(files) >= 4
    for path in files:
        assert path.stat().st_size < 2_000_000, path.name
        assert re.search(rf"^\| {re.escape(path.name)} \|.*\|.*\|.*\w", notice, flags=re.MULTILINE), path.name


def test_crops_lie_where_their_sources_lie(crops: Path, full_data: Path) -> None:
    import nibabel as nib
    import numpy as np

    sys.path.insert(0, str(crops))
    try:
        script = importlib.import_module("make_crops")
    finally:
        sys.path.remove(str(crops))
    for name, (source, window) in script.VOLUMES.items():
        crop, whole = nib.load(crops / name), nib.load(full_data / source)
        np.testing.assert_array_equal(np.asarray(crop.dataobj), np.asarray(whole.dataobj)[window])
        first = [part.start for part in window]
        np.testing.assert_allclose(crop.affine @ [0, 0, 0, 1], whole.affine @ [*first, 1], atol=1e-4)
        np.testing.assert_allclose(crop.affine[:3, :3], whole.affine[:3, :3], rtol=1e-6)
