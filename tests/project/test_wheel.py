"""The built wheel, installed away from the checkout: every command that needs no checkout works there."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from accelgen.project.places import ROOT
from accelgen.taxonomy.loading import load_taxonomy

METHOD = next(method for method in load_taxonomy().methods if method.is_implemented).id


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `accelgen` of a fresh environment that holds the wheel, and borrows what it needs from this one."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], capture_output=True, text=True, check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # A path in a file of paths is not searched for further such files, so the checkout itself is not found.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return place / "bin" / "accelgen"


def ran(installed: Path, folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([installed, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def test_the_wheel_carries_the_texts_and_nothing_generated(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    source = "accelgen/project/source/"
    assert {f"{source}taxonomy.yaml", f"{source}mkdocs.yml", f"{source}docs/index.md"} <= set(names)
    assert not [name for name in names if name.startswith(f"{source}docs/methods/")]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "accelgen",
        "reference_impls",
        "accelerated_generation",
    }


def test_the_package_stands_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    code = "import accelgen, reference_impls; print(accelgen.__file__, reference_impls.__file__)"
    found = subprocess.run(
        [installed.with_name("python"), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert str(ROOT) not in found.stdout


def test_what_is_known_can_be_read(installed: Path, tmp_path: Path) -> None:
    assert METHOD in ran(installed, tmp_path, "list")
    assert METHOD in ran(installed, tmp_path, "show", METHOD)
    assert "@" in ran(installed, tmp_path, "cite", METHOD)
    assert ran(installed, tmp_path, "export", "json").startswith("{")
    assert "valid" in ran(installed, tmp_path, "validate")


def test_a_method_runs_is_proved_and_copied(installed: Path, tmp_path: Path) -> None:
    assert "tokens per pass" in ran(installed, tmp_path, "run", METHOD, "--limit", "4")
    assert "0 failed" not in ran(installed, tmp_path, "verify", METHOD)
    ran(installed, tmp_path, "copy", METHOD, "-o", "copied.py")
    assert "def generate(" in (tmp_path / "copied.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_is_built_where_one_stands(installed: Path, tmp_path: Path) -> None:
    ran(installed, tmp_path, "docs", "build")
    page = (tmp_path / "site" / "methods" / METHOD / "index.html").read_text(encoding="utf-8")
    assert "A real run" in page
    assert "no dead link" in ran(installed, tmp_path, "docs", "check")
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
