"""`accelgen`: what it prints, what it writes, and that every wrong input is one sentence and exit code 2."""

import errno
import importlib
import importlib.metadata
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from accelgen.cli import app
from accelgen.cli import documents as site
from accelgen.cli.catalogue import method_ids
from accelgen.cli.own_options import parse_options
from accelgen.cli.tokens import has_colour, legend, render
from accelgen.measuring.kinds import KINDS
from accelgen.project.places import ROOT
from accelgen.taxonomy.calls import BASELINES, Baseline
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Call, Method
from reference_impls import zoo
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.testing.cases import case_of
from reference_impls.testing.from_signature import module_class
from reference_impls.testing.tiny import sequence_model
from reference_impls.zoo.tasks import task

TAXONOMY = load_taxonomy()
IMPLEMENTED = [method for method in TAXONOMY.methods if method.is_implemented]


def generate_of(method: Method) -> Callable[..., Any]:
    """The function of a method."""
    found: Callable[..., Any] = getattr(importlib.import_module(method.module), KINDS[method.call].function)
    return found


def first_with(option: str, methods: Iterable[Method]) -> Method:
    """The first of the methods whose function has this option."""
    return next(method for method in methods if option in inspect.signature(generate_of(method)).parameters)


DRAFTING = first_with("gamma", (method for method in IMPLEMENTED if case_of(method.id).chain))
REFINING = first_with("iterations", (method for method in IMPLEMENTED if method.call is Call.TRANSLATE))


def accelgen(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def refusal(*words: str) -> str:
    """The one sentence on stderr; nothing else was printed."""
    result = accelgen(*words, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("accelgen: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def tiny_zoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Random models in place of the trained ones, and a token for each byte."""
    lite = task("lite")

    def load(name: str, **_: Any) -> Any:
        torch.manual_seed(len(name))
        if name.startswith("translation"):
            shape = Shape(vocab=len(lite.vocabulary), dim=16, layers=1, heads=2, kv_heads=2, head_dim=8, hidden=16)
            return EncoderDecoder(shape, lite.longest).eval()
        return LanguageModel(Shape(vocab=128, dim=16, layers=2, heads=2, kv_heads=2, head_dim=8, hidden=16)).eval()

    state = torch.random.get_rng_state()
    monkeypatch.setattr(zoo, "load", load)
    kind = module_class(get_type_hints(generate_of(REFINING))["model"])
    assert kind is not None
    refiner = sequence_model(kind, longest=lite.longest, vocab=len(lite.vocabulary))
    monkeypatch.setattr(importlib.import_module(REFINING.module), "example", lambda: {"model": refiner})
    monkeypatch.setattr(zoo, "encode", lambda text: list(text.encode("ascii")))
    monkeypatch.setattr(zoo, "pieces", lambda tokens: [chr(token) for token in tokens])
    monkeypatch.setattr(zoo, "prompts", lambda: ["def f(x):", "import "])
    yield
    torch.random.set_rng_state(state)


# ---- the catalogue ------------------------------------------------------------------------------------------------


def test_list_names_every_method() -> None:
    text = accelgen("list").stdout
    assert all(f"{method.id} " in text for method in TAXONOMY.methods)
    assert f"{len(TAXONOMY.methods)} of {len(TAXONOMY.methods)} methods" in text


def test_list_filters_and_speaks_json() -> None:
    rows = json.loads(accelgen("list", "--status", "proved", "--category", "early-exiting", "--json").stdout)
    assert [row["id"] for row in rows] == [m.id for m in IMPLEMENTED if m.category == "early-exiting"]
    assert {(row["category"], row["status"]) for row in rows} == {("early-exiting", "proved")}
    exact = json.loads(accelgen("list", "--guarantee", "exact-distribution", "--json").stdout)
    assert [row["id"] for row in exact] == [m.id for m in TAXONOMY.methods if m.guarantee == "exact-distribution"]
    assert {row["guarantee"] for row in exact} == {"exact-distribution"}


def test_an_unknown_category_suggests_the_nearest() -> None:
    assert "did you mean 'early-exiting'?" in refusal("list", "--category", "erly-exiting")


@pytest.mark.parametrize(
    "words",
    [["show"], ["show", "--json"], ["cite"], ["cite", "--page"], ["copy"], ["run"], ["run", "--json"], ["verify"]],
)
def test_an_unknown_id_suggests_the_nearest(words: list[str]) -> None:
    command, *options = words
    misspelt = DRAFTING.id[:-2] + DRAFTING.id[-1]
    assert f"did you mean '{DRAFTING.id}'" in refusal(command, misspelt, *options)


@pytest.mark.parametrize("command", ["copy", "run", "verify", "trace"])
def test_a_planned_method_is_not_implemented_yet(command: str) -> None:
    planned = next(method.id for method in TAXONOMY.methods if not method.is_implemented)
    assert f"{planned} is not implemented yet" in refusal(command, planned)


def test_show_prints_the_call_and_json_is_the_entry() -> None:
    text = accelgen("show", DRAFTING.id).stdout
    assert "gamma: int" in text
    assert f"{DRAFTING.module.replace('.', '/')}.py" in text
    entry = json.loads(accelgen("show", DRAFTING.id, "--json").stdout)
    assert entry == DRAFTING.model_dump(mode="json")


def test_an_id_is_found_as_people_type_it() -> None:
    for command in ("show", "cite", "copy"):
        assert accelgen(command, DRAFTING.name.upper()).stdout == accelgen(command, DRAFTING.id).stdout


@pytest.mark.parametrize("baseline", BASELINES.values(), ids=lambda baseline: baseline.id)
def test_a_baseline_is_shown_cited_and_copied(baseline: Baseline) -> None:
    shown = accelgen("show", baseline.id).stdout
    assert shown.startswith(f"{baseline.name}\nid ")
    assert "generate(" in shown
    assert "\nIdea\n" in shown
    assert json.loads(accelgen("show", baseline.id, "--json").stdout)["module"] == baseline.module
    cited = accelgen("cite", baseline.id).stdout
    assert f"{{accelerated-generation-{baseline.id}," in cited
    assert accelgen("cite", baseline.id, "--page").stdout == cited
    assert "def generate(" in accelgen("copy", baseline.id).stdout


def test_completion_offers_ids() -> None:
    assert set(method_ids("")) == {m.id for m in TAXONOMY.methods} | set(BASELINES)
    first = TAXONOMY.methods[0].id
    assert first in method_ids(first[:3])
    assert all(id.startswith(first[:3]) for id in method_ids(first[:3]))
    assert "--install-completion" in accelgen("--help").stdout


def test_cite_gives_the_paper_or_the_page() -> None:
    paper, page = accelgen("cite", DRAFTING.id).stdout, accelgen("cite", DRAFTING.id, "--page").stdout
    assert f"{{{DRAFTING.id}," in paper
    assert paper.startswith("@")
    assert page.startswith("@")
    assert page != paper


def test_copy_writes_what_it_prints(tmp_path: Path) -> None:
    target = tmp_path / "method.py"
    printed = accelgen("copy", DRAFTING.id).stdout
    done = accelgen("copy", DRAFTING.id, "-o", str(target))
    assert done.stdout == ""
    assert target.read_text(encoding="utf-8") == printed
    assert "def generate(" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["method.py"]  # no temporary file stays


def test_copy_refuses_a_directory_and_a_missing_one(tmp_path: Path) -> None:
    assert "is a directory; name a file in it" in refusal("copy", DRAFTING.id, "-o", str(tmp_path))
    assert "does not exist" in refusal("copy", DRAFTING.id, "-o", str(tmp_path / "no" / "method.py"))
    assert "is a directory; name a file in it\n" in refusal("export", "json", "-o", str(tmp_path))
    assert "does not exist; create it first" in refusal("bench", "-o", str(tmp_path / "no" / "bench.json"))
    assert list(tmp_path.iterdir()) == []


def test_validate_counts_and_names_the_line_of_a_mistake(tmp_path: Path) -> None:
    assert "is valid" in accelgen("validate").stdout
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1.0.0\nmethods: [\n", encoding="utf-8")
    assert "broken.yaml, line" in refusal("validate", str(broken))
    report = json.loads(accelgen("validate", str(broken), "--json", code=2).stdout)
    assert report["valid"] is False
    assert "line" in report["error"]
    assert "cannot be read" in refusal("validate", str(tmp_path / "missing.yaml"))


def test_exports_are_what_they_say(tmp_path: Path) -> None:
    data = json.loads(accelgen("export", "json").stdout)
    assert len(data["methods"]) == len(TAXONOMY.methods)
    assert json.loads(accelgen("export", "schema").stdout)["$schema"].startswith("https://json-schema.org/")
    assert {item["id"] for item in json.loads(accelgen("export", "csl").stdout)} > {DRAFTING.id}
    assert "@graph" in json.loads(accelgen("export", "jsonld").stdout)
    assert accelgen("export", "llms").stdout.startswith("# Accelerated Generation\n")
    assert "no export is called 'bibtx'; did you mean 'bibtex'?" in refusal("export", "bibtx")
    assert accelgen("export", "BIBTEX").stdout == accelgen("export", "bibtex").stdout
    accelgen("export", "bibtex", "-o", str(tmp_path / "all.bib"))
    assert f"{{{DRAFTING.id}," in (tmp_path / "all.bib").read_text(encoding="utf-8")


def test_the_version_is_that_of_the_package() -> None:
    for option in ("--version", "-V"):
        assert accelgen(option).stdout.strip() == importlib.metadata.version("accelerated-generation")


def test_light_commands_do_not_import_torch() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from accelgen.cli import app\n"
        f"for words in (['list'], ['--help'], ['show', {DRAFTING.id!r}], ['cite', {DRAFTING.id!r}], ['validate']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0, words\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_words_that_are_wrong_whatever_the_models_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    folder = str(tmp_path)
    wrong = [
        ["run", "nosuch"],
        ["run", DRAFTING.id, "--dtype", "float16"],
        ["run", DRAFTING.id, "--target", "/nowhere", "--drafter", folder],
        ["run", DRAFTING.id, "--target", folder, "--drafter", "./nowhere"],
        ["run", DRAFTING.id, "--target", folder, "--drafter", folder, "--dtype", "float8"],
        ["run", "translation", "--target", folder],
    ]
    script = (
        "import sys; from typer.testing import CliRunner; from accelgen.cli import app\n"
        f"for words in {wrong}:\n"
        "    result = CliRunner().invoke(app, words)\n"
        "    assert result.exit_code == 2 and 'torch' not in sys.modules, (words, result.output)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


# ---- run ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_zoo")
def test_run_reports_its_own_tokens() -> None:
    words = [
        "run",
        DRAFTING.id,
        "--prompt",
        "def g(",
        "--limit",
        "9",
        "--temperature",
        "0.8",
        "--seed",
        "3",
        "--gamma",
        "2",
    ]
    report = json.loads(accelgen(*words, "--json").stdout)
    assert report["options"] == {"limit": 9, "temperature": 0.8, "seed": 3, "gamma": 2}
    assert report["figures"]["passes"] == len(report["steps"])
    assert all(len(step["drafted"]) == 2 for step in report["steps"])
    assert report["text"] == "".join(map(chr, report["tokens"]))
    assert len(report["kinds"]) == len(report["tokens"]) == report["figures"]["tokens"]
    assert report == json.loads(accelgen(*words, "--json").stdout)  # the same seed, the same run
    other = [word if word != "3" else "4" for word in words]
    assert report["tokens"] != json.loads(accelgen(*other, "--json").stdout)["tokens"]


@pytest.mark.usefixtures("tiny_zoo")
def test_run_shows_legend_and_figures_without_escape_codes() -> None:
    text = accelgen("run", DRAFTING.id, "--limit", "12", "--gamma=3").stdout
    assert text.startswith("def f(x):")
    assert "⟨rejected and corrected⟩" in text
    assert "tokens per pass" in text
    assert "\x1b" not in text


@pytest.mark.usefixtures("tiny_zoo")
def test_run_knows_the_baseline_and_the_translators() -> None:
    baseline = json.loads(accelgen("run", "autoregressive", "--limit", "5", "--json").stdout)
    assert baseline["figures"]["passes"] == len(baseline["tokens"])
    sentence = "Emma paid Julia eighty-one euros for ten keys on the twelfth of April ."
    report = json.loads(accelgen("run", REFINING.id, "--prompt", sentence, "--iterations", "3", "--json").stdout)
    assert report["figures"]["passes"] == 3
    assert report["prompt"] == sentence
    shown = accelgen("run", REFINING.id, "--iterations", "3").stdout
    assert "pass  3" in shown
    assert "no word 'Zebra'" in refusal("run", REFINING.id, "--prompt", "Zebra")
    assert "leave out --limit" in refusal("run", REFINING.id, "--limit", "3")


@pytest.mark.usefixtures("tiny_zoo")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gama", "4"], "did you mean 'gamma'?"),
        (["--gamma", "four"], "--gamma cannot be 'four'"),
        (["--gamma"], "--gamma needs a value"),
        (["--drafter", "x"], "--drafter needs --target"),
        (["stray"], "belongs to no option"),
        (["--gamma", "0"], "gamma"),
        (["--temperature", "-1"], "temperature is -1"),
    ],
)
def test_run_refuses_options_that_cannot_be(words: list[str], sentence: str) -> None:
    assert sentence in refusal("run", DRAFTING.id, *words)


def test_a_missing_model_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise zoo.ZooError(f"the zoo has no model {name!r}")

    monkeypatch.setattr(zoo, "load", load)
    assert "the zoo has no model 'target'" in refusal("run", DRAFTING.id)


def test_options_are_read_by_their_types() -> None:
    def generate(*, exits: list[int], measure: str = "a", decay: float | None = None, strict: bool = False) -> None:
        """Has an option of every kind."""

    words = ["--exits", "2,4", "--measure=b=c", "--decay", "-1.5", "--strict", "yes"]
    found = parse_options(generate, words, "x")
    assert found == {"exits": [2, 4], "measure": "b=c", "decay": -1.5, "strict": True}


# ---- colours ------------------------------------------------------------------------------------------------------


def test_tokens_have_colours_or_marks() -> None:
    result = Generation()
    result.add(Step([1, 2, 3], drafted=[1, 2, 9], kept=2), limit=4)
    result.add(Step([4]), limit=4)
    pieces = ["a", "b", "c", "d"]
    assert render(pieces, result.kinds, colour=False).plain == "⟦ab⟧⟨c⟩d"
    coloured = render(pieces, result.kinds, colour=True)
    assert coloured.plain == "abcd"
    assert [(span.start, span.end) for span in coloured.spans] == [(0, 2), (2, 3)]
    assert len({str(span.style) for span in coloured.spans}) == 2
    assert legend(result.kinds, colour=False).plain == "⟦drafted and accepted⟧   ⟨rejected and corrected⟩   plain"
    assert legend(["plain"], colour=False).plain == "plain"


def test_brackets_in_code_are_no_markup() -> None:
    assert render(["x[0]", "[/bold]"], ["plain", "plain"], colour=False).plain == "x[0][/bold]"


def test_colours_need_a_terminal_and_consent() -> None:
    assert has_colour(Console(force_terminal=True, color_system="standard", no_color=False))
    assert not has_colour(Console(force_terminal=True, color_system="standard", no_color=True))
    assert not has_colour(Console(force_terminal=False))


# ---- site ---------------------------------------------------------------------------------------------------------


def test_a_sound_site_passes_and_a_dead_link_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "ROOT", tmp_path)
    assert "build the site first" in refusal("docs", "check")
    page = tmp_path / "site" / "index.html"
    page.parent.mkdir()
    page.write_text('<p id="a"><a href="#a">here</a></p>', encoding="utf-8")
    assert "sound" in accelgen("docs", "check").stdout
    page.write_text('<a href="gone.html">there</a>', encoding="utf-8")
    result = accelgen("docs", "check", code=1)
    assert "gone.html" in result.stderr
    assert "1 problem" in result.stderr


@pytest.mark.parametrize("words", [["build"], ["build", "--with", "zensical"], ["serve"]])
def test_a_checkout_that_cannot_be_written_is_one_sentence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site.tempfile, "TemporaryFile", refuse)
    told = refusal("docs", *words)
    assert "the site cannot be built: " in told
    assert "(read-only file system); use a copy that can be written" in told
    assert list(tmp_path.iterdir()) == []


def test_the_exit_code_of_a_failed_build_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "ROOT", tmp_path)
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nnonsense: true\n", encoding="utf-8")
    accelgen("docs", "build", code=1)
    monkeypatch.setattr(site.importlib.util, "find_spec", lambda _: None)
    assert "pip install zensical" in refusal("docs", "build", "--with", "zensical")


# ---- verify and zoo -----------------------------------------------------------------------------------------------


def test_verify_prints_every_claim() -> None:
    report = json.loads(accelgen("verify", DRAFTING.id, "--suite", "accounting", "--json").stdout)
    assert report["passed"] is True
    text = accelgen("verify", DRAFTING.id, "--suite", "accounting").stdout
    assert text.count("proved") == len(report["results"]) + 1  # each line, and the sum


def test_verify_fails_for_a_broken_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_port.py").write_text(
        "from reference_impls.baselines.autoregressive import generate as honest\n"
        "def generate(target, prompt, limit, *, sampler, eos=None):\n"
        "    return honest(target, prompt, limit + 1, sampler=sampler, eos=eos)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    text = accelgen("verify", "broken_port:generate", "--suite", "accounting", code=1).stdout
    assert "FAILED" in text
    assert "has no function 'missing'" in refusal("verify", "broken_port:missing")


def test_zoo_knows_its_models() -> None:
    rows = json.loads(accelgen("zoo", "list", "--json").stdout)
    assert {row["file"] for row in rows} == {"intact"}
    assert {"target", "drafter"} <= {row["name"] for row in rows}
    assert "sha256" in accelgen("zoo", "show", "drafter").stdout
    assert "did you mean 'drafter'" in refusal("zoo", "show", "draftr")
    assert "no model 'nothing'" in refusal("zoo", "train", "nothing")
