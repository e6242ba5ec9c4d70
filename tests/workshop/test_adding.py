"""The five steps of CONTRIBUTING.md, taken literally with a trial method in a copy of the project."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from accelgen.project.places import REFERENCE, ROOT, TOOL
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Call
from accelgen.workshop.manners import of_a_method
from accelgen.workshop.skeleton import skeletons
from accelgen.workshop.status import UNWRITTEN
from reference_impls.testing import named_suites, prove
from reference_impls.testing.case import Case

ID, FAMILY, NAME = "trial-copying", "speculative_decoding", "trial_copying"
ENTRY = f"""
  - id: {ID}
    name: Trial Copying
    category: speculative-decoding
    subcategory: retrieval
    call: continue
    in_survey: false
    paper: {{title: On Copying, authors: [Nobody], year: 2026, venue: None, url: 'https://example.org/'}}
    guarantee: exact-greedy
    guarantee_reason: A guess is kept only where it is the target's own greedy token.
    trained: nothing
    needs: [target-only]
    implementation: {{status: planned}}
"""
GENERATE = '''
    """Generate up to `limit` tokens after `prompt`; guesses follow the last place where the last token stood before."""
    if gamma < 1:
        raise ValueError(f"gamma is {gamma}; guess at least 1 token a step, or use autoregressive decoding")
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    go_on = limit > 0
    while go_on:
        draft = copied(tokens, room(len(tokens), gamma, target))
        p = sampler.probs(target([*tokens, *draft][len(cache) :], cache, last=len(draft) + 1))
        own = sampler.draw(p).tolist()
        kept = next((i for i, (a, b) in enumerate(zip(draft, own, strict=False)) if a != b), len(draft))
        emitted = own[: kept + 1]
        tokens += emitted
        cache.crop(len(tokens) - 1)
        go_on = result.add(Step(emitted, draft, kept=kept), limit, eos)
    return result


def copied(tokens: Sequence[int], gamma: int) -> list[int]:
    """The tokens after the last earlier place of the last token; none where there is no such place."""
    places = [i for i, token in enumerate(tokens[:-1]) if token == tokens[-1]]
    return list(tokens[places[-1] + 1 :][:gamma]) if places else []
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the trial method is listed; the weights are those of the original."""
    root = tmp_path_factory.mktemp("project")
    left_out = shutil.ignore_patterns("__pycache__", "weights", *(f"{name}" for name in generated()))
    for folder in (REFERENCE, TOOL, ROOT / "docs"):
        shutil.copytree(folder, root / folder.name, ignore=left_out)
    (root / "reference_impls" / "zoo" / "weights").symlink_to(REFERENCE / "zoo" / "weights")
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, root)
    (root / "tests" / "methods" / FAMILY).mkdir(parents=True)
    listed = (ROOT / "taxonomy.yaml").read_text(encoding="utf-8").rstrip() + ENTRY
    (root / "taxonomy.yaml").write_text(listed, encoding="utf-8")
    return root


def generated() -> list[str]:
    """The folders below docs/ that the site's build writes."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8")
    return re.findall(r"^/docs/(\w+)/$", ignored, flags=re.MULTILINE)


def python(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(project), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def accelgen(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return python(project, "-c", "from accelgen.cli import app; app()", *words)


def lacking(project: Path, *words: str, code: int = 0) -> set[str]:
    """The parts that `accelgen status` finds lacking; it runs the proofs too."""
    done = accelgen(project, "status", ID, "--json", *words)
    assert done.returncode == code, done.stderr
    return {finding["part"] for finding in json.loads(done.stdout)[ID] if not finding["is_there"]}


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def test_the_five_steps(project: Path) -> None:
    # List it.
    assert lacking(project) == {"entry", "file"}

    # Begin it.
    begun = accelgen(project, "new", ID)
    assert begun.returncode == 0, begun.stderr
    files = re.findall(r"^wrote (\S+)$", begun.stdout, flags=re.MULTILINE)
    assert files == [
        f"reference_impls/{FAMILY}/{NAME}.py",
        f"reference_impls/testing/cases/{NAME}.py",
        f"tests/methods/{FAMILY}/test_{NAME}.py",
    ]
    again = accelgen(project, "new", ID)
    assert again.returncode == 2
    assert f"{files[0]} is there already" in again.stderr
    method, case, test = (project / name for name in files)
    own = python(project, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(test))
    assert own.returncode == 1
    assert "does that no other does" in own.stdout

    # Write and prove it.
    edit(
        project / "taxonomy.yaml", ("    implementation: {status: planned}\n", "    implementation: {status: proved}\n")
    )
    source = method.read_text(encoding="utf-8")
    start = source.index('    """Generate up to')
    end = source.index("\n\ndef example")
    method.write_text(source[:start] + GENERATE.lstrip("\n").rstrip() + "\n" + source[end:], encoding="utf-8")
    edit(method, ("sampler: Sampler,", "sampler: Sampler, gamma: int = 4,"))
    known = "from reference_impls.core.generation import"
    edit(method, (known, f"from reference_impls.core.drafting import room\n{known}"))
    edit(case, ("CASE = Case()", 'CASE = Case(refused={"gamma": (0,)})'))
    edit(method, ("own[: kept + 1]", "own[:kept] + [0]"))
    assert accelgen(project, "verify", ID, "--suite", "greedy-identity").returncode == 1
    edit(method, ("own[:kept] + [0]", "own[: kept + 1]"))

    # Show it.
    assert accelgen(project, "trace", ID).returncode == 0

    # Check it.
    assert lacking(project, "--strict", code=1) == {"entry", "file", "mutants", "bench", "costs", "page", "changelog"}


def test_a_method_is_listed_before_it_is_begun(project: Path) -> None:
    done = accelgen(project, "new", "unheard-of")
    assert done.returncode == 2
    assert "list it in taxonomy.yaml first" in done.stderr


def test_only_a_skeleton_is_unwritten() -> None:
    files = [path for path in REFERENCE.rglob("*.py") if UNWRITTEN in path.read_text(encoding="utf-8")]
    assert files == []


@pytest.mark.parametrize("call", Call)
def test_the_beginning_of_every_call_is_in_order_and_has_its_shape(call: Call) -> None:
    planned = next(method for method in load_taxonomy().methods if method.call is call and not method.is_implemented)
    files = skeletons(planned)
    method, case, test = files.values()
    written = method.replace(UNWRITTEN, "It is written.")
    assert list(of_a_method(written)) == []
    for text in (method, case, test):
        compile(text, planned.id, "exec")
    function = "predict" if call is Call.CLASSIFY else "generate"
    assert f"\ndef {function}(" in method
    assert f"import {function}\n" in test


@pytest.mark.parametrize(
    ("shape", "suite", "right"),
    [("filling", "canvas", "passes"), ("together", "batch", "passes"), ("answering", "classify", "leaves-early")],
)
def test_a_beginning_runs_and_fails_where_the_method_is_still_missing(shape: str, suite: str, right: str) -> None:
    module = importlib.import_module(f"accelgen.workshop.shapes.{shape}")
    function = getattr(module, "generate", None) or module.predict
    results = list(prove(function, named_suites([suite]), Case(), {}))
    failed = {result.check for result in results if result.outcome == "failed"}
    assert right in failed
    assert not failed & {"untouched", "seeds", "trace", "options", "prompts", "logits"}
    assert len(failed) <= len(results) / 3
