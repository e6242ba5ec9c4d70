"""What engines run: the page leads to every statement, and those about transformers hold for the installed package."""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import Any

import pytest
import torch

from accelgen.site.results import Results
from accelgen.site.views import engines
from accelgen.taxonomy import engines_check
from accelgen.taxonomy.engines_check import Installed, installed, problems, uses
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Production, Taxonomy

TAXONOMY = load_taxonomy()
ENTRIES = [(method.id, production) for method in TAXONOMY.methods for production in method.production]
PAGE = engines.page(TAXONOMY, Results())
GIVEN = {"model", "drafter", "inputs"}  # what the page's first lines make
SPECIAL = {"use_mtp", "speculation_type"}  # need a checkpoint of a certain kind


@pytest.fixture(scope="module")
def package() -> Installed:
    pytest.importorskip("transformers", reason="the column of transformers is checked against the package")
    return installed()


def claim(switch: str, command: str | None = None, method: str = "medusa") -> Taxonomy:
    """A taxonomy that says one thing about transformers."""
    said = Production(
        engine="transformers", switch=switch, command=command, version="1", url="https://example.org/engines"
    )
    about = TAXONOMY.method(method).model_copy(update={"production": [said]})
    return TAXONOMY.model_copy(update={"methods": [about]})


# ---- transformers -------------------------------------------------------------------------------------------------


def test_every_statement_about_transformers_holds(package):
    assert list(problems(TAXONOMY, package)) == []


def test_the_column_was_read_in_the_installed_release(package):
    read = {p.version for _, p in ENTRIES if p.engine == "transformers"}
    if package.version not in read:
        pytest.skip(f"the taxonomy was read in transformers {', '.join(read)}; installed is {package.version}")
    assert read == {package.version} == {engines.ENGINES["transformers"].read}


@pytest.mark.parametrize(
    ("switch", "command", "name"),
    [
        ("`assistant_modle=drafter` in `generate`", None, "assistant_modle"),
        ("`assistant_trees`", None, "assistant_trees"),
        ("`MedusaConfig(heads=3)`", None, "MedusaConfig"),
        ("`GenerationConfig(medusa_heads=3)`", None, "GenerationConfig.medusa_heads"),
        ("`generate`", "model.generate(**inputs, prompt_lookup=3)", "prompt_lookup"),
        ("`generate`", "model.generate_medusa(**inputs)", "generate_medusa"),
        ("`generate`", "from transformers import MedusaHeads", "MedusaHeads"),
        ("`--medusa-heads 3`", None, "--medusa-heads 3"),
    ],
)
def test_a_made_up_name_is_found(package, switch, command, name):
    (problem,) = problems(claim(switch, command), package)
    assert f"there is no {name}, which" in problem


def test_what_arrives_is_no_longer_absent(package):
    assert not list(problems(claim("absent"), package))
    newer = dataclasses.replace(package, options=package.options | {"num_medusa_heads"})
    (problem,) = problems(claim("absent"), newer)
    assert "said to be absent, but there is num_medusa_heads" in problem
    (problem,) = problems(claim("absent"), dataclasses.replace(package, proposers=package.proposers | {"NewGenerator"}))
    assert "NewGenerator is new" in problem


def test_a_word_within_a_word_is_another_word(package):
    newer = dataclasses.replace(package, options=package.options | {"restore_state", "eagleye"})
    assert not list(problems(claim("absent", method="rest"), newer))
    assert not list(problems(claim("absent", method="eagle"), newer))


def test_the_script_says_what_is_wrong(package, monkeypatch, capsys):
    monkeypatch.setattr(engines_check, "installed", lambda: package)
    assert engines_check.main() == 0
    assert package.version in capsys.readouterr().out
    monkeypatch.setattr(engines_check, "load_taxonomy", lambda: claim("`made_up=1`"))
    assert engines_check.main() == 1
    assert "there is no made_up" in capsys.readouterr().out


def test_the_script_without_transformers(monkeypatch, capsys):
    monkeypatch.setitem(engines_check.sys.modules, "transformers", None)
    assert engines_check.main() == 2
    assert "pip install transformers" in capsys.readouterr().err


def _commands() -> list[Any]:
    """Commands that run on any small model."""
    found = {}
    for method, production in ENTRIES:
        if production.engine != "transformers" or not production.command:
            continue
        tree = ast.parse(production.command)
        free = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if free <= GIVEN and not SPECIAL & {name for _, name in uses(production)}:
            found.setdefault(production.command, pytest.param(production.command, id=method))
    return list(found.values())


def _options(command: str, drafter: Any) -> dict[str, Any]:
    """The options in a command of the form `model.generate(**inputs, option=value)`."""
    call = ast.parse(command, mode="eval").body
    assert isinstance(call, ast.Call)
    named = [keyword for keyword in call.keywords if keyword.arg]
    return {
        keyword.arg: drafter if isinstance(keyword.value, ast.Name) else ast.literal_eval(keyword.value)
        for keyword in named
    }


@pytest.mark.parametrize("command", _commands())
def test_a_command_runs_and_writes_what_plain_decoding_writes(command):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"vocab_size": 17, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 8}
    make = transformers.LlamaForCausalLM
    model, drafter = (
        make(transformers.LlamaConfig(**shape, num_hidden_layers=n, eos_token_id=None, pad_token_id=0)).double().eval()
        for n in (6, 1)
    )
    for each in (model, drafter):
        each.generation_config.update(max_new_tokens=12, do_sample=False)
    inputs = {"input_ids": torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4]])}
    plain = model.generate(**inputs)
    written = model.generate(**inputs, **_options(command, drafter))
    assert written.tolist() == plain.tolist()
    assert written.shape[1] == 11 + 12


# ---- the page -----------------------------------------------------------------------------------------------------


def test_every_entry_is_of_a_known_engine_and_comes_once():
    for method in TAXONOMY.methods:
        named = [p.engine for p in method.production]
        assert set(named) <= set(engines.ENGINES), method.id
        assert len(named) == len(set(named)), method.id


@pytest.mark.parametrize(("method", "production"), ENTRIES, ids=[f"{m}-{p.engine}" for m, p in ENTRIES])
def test_what_is_there_has_a_switch_and_what_is_not_has_no_command(method, production):
    assert production.version == engines.ENGINES[production.engine].read or production.version.startswith(
        ("commit ", "pull request ")
    )
    if engines.runs(production):
        assert "`" in production.switch, f"{method}: a switch is code"
    else:
        assert not production.command


@pytest.mark.parametrize(("method", "production"), ENTRIES, ids=[f"{m}-{p.engine}" for m, p in ENTRIES])
def test_an_address_within_a_commit_is_that_of_the_version(method, production):
    if found := re.search(r"/blob/([0-9a-f]{8})[0-9a-f]*/", production.url):
        assert production.version == f"commit {found[1]}", method


def test_every_cell_leads_to_its_statement():
    targets = set(re.findall(r"\{ #([\w-]+) \}", PAGE)) | {engines.anchor(engine) for engine in engines.ENGINES}
    links = re.findall(r"\(#([\w-]+)\)", PAGE)
    assert set(links) <= targets, set(links) - targets
    assert len(re.findall(r"\{ #([\w-]+) \}", PAGE)) == len(set(re.findall(r"\{ #([\w-]+) \}", PAGE)))
    for _, production in ENTRIES:
        if production.switch != "absent":
            assert f"[source]({production.url})" in PAGE or f"[{production.version}]({production.url})" in PAGE
        if production.command:
            assert production.command in PAGE


def test_the_matrix_has_a_row_for_every_technique_that_was_looked_for():
    matrix = [line for line in PAGE.split("\n## ")[1].splitlines() if line.startswith("| [")]
    looked_for = [method for method in TAXONOMY.methods if method.production]
    assert len(matrix) == len(looked_for)
    for row, method in zip(matrix, looked_for, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert f"methods/{method.id}.md" in cells[0]
        said = {p.engine: p.switch for p in method.production}
        for engine, cell in zip(engines.ENGINES, cells[1:], strict=True):
            word = re.sub(r"^\[|\].*", "", cell)
            start = said.get(engine, "?").split()[0].strip(",")
            assert word == {"absent": "–", "removed": "removed", "?": "?"}.get(start, "yes"), (method.id, engine)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("model.generate(**inputs)", "python"),
        ("from a import b", "python"),
        ("vllm serve TARGET", "bash"),
        ("llama-server -m FILE", "bash"),
    ],
)
def test_the_language_of_a_command(command, expected):
    assert engines.language(command) == expected
