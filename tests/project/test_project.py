"""The project's own papers: pins, targets, the README's commands, versions that agree."""

import re
import shlex
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from accelgen.cli import app
from accelgen.project.places import ROOT
from accelgen.taxonomy.finding import find
from accelgen.taxonomy.loading import load_taxonomy

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMPLETION = {"--install-completion", "--show-completion"}  # typer adds them when it runs
TARGETS = re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, flags=re.MULTILINE)


def distribution(requirement: str) -> str:
    """The normalised name in a requirement."""
    name = re.match(r"[\w.-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_every_target_has_help_and_help_lists_it() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make (\S+) +\S", shown, flags=re.MULTILINE) == TARGETS
    work = {"serve", "docs", "offline", "test", "check", "mutants", "bench", "zoo"}
    assert set(TARGETS) == work | {"help", "install", "pins", "clean"}


def test_an_old_python_gets_one_sentence(tmp_path: Any) -> None:
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    words = ["make", "--silent", "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"Python 3.11 or newer is needed, but '{old}' is " in done.stderr
    assert not (tmp_path / "venv").exists()


def test_every_dependency_is_pinned_for_every_platform() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "a pin is exact, without +cpu or a path"
    named = {distribution(pin) for pin in pins}
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    wanted = {distribution(r) for r in PROJECT["dependencies"] + extras} - {PROJECT["name"]}
    assert wanted <= named
    version = re.search(r"^TORCH \?= (\S+)$", MAKEFILE, flags=re.MULTILINE)
    assert version
    assert f"torch=={version[1]}" in pins


def commands(text: str) -> list[str]:
    """What the text tells people to type: lines of shell blocks, and code in sentences and tables."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in [*lines, *re.findall(r"`((?:make|accelgen) [^`]+)`", text)] if line]


@pytest.mark.parametrize("line", sorted(set(commands(README) + commands(CONTRIBUTING))))
def test_the_commands_of_the_papers_exist(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        assert {word for word in words if "=" not in word} <= set(TARGETS)
    elif program == "accelgen":
        group: Any = get_command(app)
        if words[0].startswith("-"):
            assert words[0] in {option for parameter in group.params for option in parameter.opts} | COMPLETION
            return
        command = group.commands[words[0]]
        if hasattr(command, "commands"):
            command = command.commands[words[1]]
        options = {option for parameter in command.params for option in parameter.opts} | {"--gamma"}
        assert {word for word in words if word.startswith("-")} <= options
        named = [word for word in words[1:2] if words[0] in ("run", "show", "cite", "copy") and not word.isupper()]
        assert all(find(load_taxonomy(), word) for word in named)
    elif program == "pip":
        extras = set(PROJECT["optional-dependencies"])
        assert words[0] == "install"
        assert all(set(re.findall(r"\[(.*)\]", word)) <= extras for word in words)
    else:
        assert program == "pre-commit"


def test_the_readme_names_files_that_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README + CONTRIBUTING)
    paths = [link for link in links if not link.startswith("https://")]
    paths += re.findall(r"^\| `([^`<]+)` \|", README, flags=re.MULTILINE)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_example_is_python() -> None:
    block = re.search(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert block
    names: dict[str, Any] = {}
    imports = "\n".join(line for line in block[1].splitlines() if line.startswith("from "))
    exec(compile(imports, "README.md", "exec"), names)  # noqa: S102 - our own text
    compile(block[1], "README.md", "exec")
    assert {"zoo", "Sampler", "example", "generate"} <= set(names)


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]$", changes, flags=re.MULTILINE)


def test_the_hooks_call_installed_tools() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert set(hooks) == {"ruff", "ruff-format", "codespell", "taxonomy", "large-files"}
    assert {hook["language"] for hook in hooks.values()} == {"system"}


def test_continuous_integration_is_a_program() -> None:
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & 0o111
    bash = shutil.which("bash")
    assert bash
    subprocess.run([bash, "-n", str(path)], check=True)
    assert path.read_text(encoding="utf-8").rstrip().endswith("make check test\nmake mutants RANDOM=20")


def test_the_program_is_installed_under_its_name() -> None:
    assert PROJECT["scripts"] == {"accelgen": "accelgen.cli:app"}
    assert isinstance(app, typer.Typer)
