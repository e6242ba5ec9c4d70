"""`accelgen export-hf`: a folder with which `generate` of transformers runs our methods, where this project is not."""

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

transformers = pytest.importorskip("transformers")

from typer.testing import CliRunner  # noqa: E402

from accelgen.checkpoints import custom_generate  # noqa: E402
from accelgen.checkpoints.adapter import LAYERED, TransformersModel  # noqa: E402
from accelgen.checkpoints.export_hf import contents, export_hf, exportable, layered, obstacle  # noqa: E402
from accelgen.cli import app  # noqa: E402
from accelgen.exports.bundle import method_files  # noqa: E402
from accelgen.project.places import ROOT  # noqa: E402
from accelgen.taxonomy.loading import load_taxonomy  # noqa: E402
from reference_impls.core.sampling import Sampler  # noqa: E402
from reference_impls.testing.cases import case_of  # noqa: E402
from reference_impls.testing.from_signature import module_class  # noqa: E402

IDS = exportable()
LEVIATHAN = "speculative-decoding-leviathan"
PROMPT = [5, 9, 33, 2, 17, 8, 40, 3]
LIMIT = 12
SEEDS = (3, 4, 5)


def tiny(name: str, layers: int = 2) -> Any:
    """A tiny random model in double precision whose text does not soon repeat one token."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "n_inner": 24, "num_attention_heads": 4}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    torch.manual_seed(layers)
    config = AutoConfig.for_model(name, num_hidden_layers=layers, max_position_embeddings=64, **sizes, **ends)
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config).double().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.8)
    return model


def own(id: str) -> dict[str, Any]:
    """What `generate` of transformers is given for a method beside the usual settings; a model by its number of layers.

    The number of guesses, a text to retrieve from and a drafter go by the names in the method's signature.
    """
    method, case = module_of(id), case_of(id)
    kinds = get_type_hints(method.generate)
    found = dict(case.checkpoint)
    found |= {"gamma": 3} if "gamma" in kinds else {}
    found |= {"assistant_model": 1} if kinds.keys() & {"drafter", "drafters"} else {}
    retrieval = [name for name, kind in kinds.items() if "tokens" in made_from(kind)]
    return found | {name: [5, 9, 33, 2, 17, 8, 40, 3, 1, 3, 5, 40, 3, 2, 40, 3] for name in retrieval}


def made_from(kind: Any) -> list[str]:
    """The names of what a module of this class is made from; none for what is no such class."""
    found = module_class(kind)
    return [] if found is None else list(inspect.signature(found).parameters)


def module_of(id: str) -> Any:
    path = method_files()[id].relative_to(ROOT).with_suffix("")
    return importlib.import_module(".".join(path.parts))


ALONE = """
import json, sys
import torch
sys.modules["reference_impls"] = None
prompt, limit, owns, seeds = json.loads(sys.argv[1])
ids_in = torch.tensor([prompt])
for id, own in owns.items():
    if "assistant_model" in own:
        own["assistant_model"] = tiny("llama", own["assistant_model"])
    for name in ("llama", "gpt2"):
        model, call = tiny(name), {"input_ids": ids_in, "attention_mask": torch.ones_like(ids_in)}
        call |= {"max_new_tokens": limit}
        wanted = model.generate(**call, do_sample=False)
        call |= {"custom_generate": id, "trust_remote_code": True, "local_files_only": True, **own}
        greedy = model.generate(**call, do_sample=False)
        drawn = [model.generate(**call, do_sample=True, temperature=0.9, seed=seed)[0].tolist() for seed in seeds]
        assert greedy.dtype == torch.long and greedy.shape == (1, len(prompt) + limit), greedy
        print(json.dumps([id, name, wanted[0].tolist(), greedy[0].tolist(), drawn]))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[Any]]:
    """What each exported method says where this project cannot be imported and no network is asked."""
    place = tmp_path_factory.mktemp("exports")
    for id in IDS:
        export_hf(id, place / id)
    code = "from typing import Any\n" + inspect.getsource(tiny) + ALONE
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"HF_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-I", "-c", code, json.dumps([PROMPT, LIMIT, {id: own(id) for id in IDS}, SEEDS])]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(id, name): rest for id, name, *rest in lines}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("id", IDS)
def test_greedy_text_is_that_of_generate(id: str, name: str, alone: dict[tuple[str, str], list[Any]]) -> None:
    wanted, greedy, _ = alone[id, name]
    assert len(set(wanted[len(PROMPT) :])) > 3, "a text that repeats one token proves little"
    assert greedy == wanted


@pytest.mark.parametrize("id", IDS)
def test_draws_are_those_of_the_method_with_the_same_seed(id: str, alone: dict[tuple[str, str], list[Any]]) -> None:
    method, options = module_of(id), own(id)
    kinds = get_type_hints(method.generate)
    if layers := options.pop("assistant_model", None):
        drafter = TransformersModel(tiny("llama", layers))
        options |= {"drafters": [drafter]} if "drafters" in kinds else {"drafter": drafter}
    for name in options:
        if "tokens" in made_from(kinds[name]):
            options[name] = module_class(kinds[name])(options[name])
    texts = alone[id, "gpt2"][2]
    for seed, text in zip(SEEDS, texts, strict=True):
        sampler = Sampler(0.9, top_k=50, seed=seed)  # 50 is what `generate` samples from unless told otherwise
        result = method.generate(TransformersModel(tiny("gpt2")), PROMPT, LIMIT, sampler=sampler, **options)
        assert text == PROMPT + result.tokens
    assert len({tuple(text) for text in texts}) > 1
    assert all(text != alone[id, "gpt2"][0] for text in texts)


# ---- which methods ------------------------------------------------------------------------------------------------


def test_what_can_be_exported_is_what_runs_whole_passes_on_any_model() -> None:
    assert layered() - {"forget_angles"} == LAYERED  # of a copy's own table
    reasons = {id: obstacle(id) or "" for id in method_files()}
    assert {id for id, why in reasons.items() if not why} == set(IDS) > {"autoregressive", LEVIATHAN}
    assert "single layers of the model (embed" in reasons["layerskip"]
    assert "needs max_gram" in reasons["cascade-speculative-drafting"]
    assert "a model of its own" in reasons["mask-predict"]


def test_the_folder_names_what_the_method_takes_and_imports_nothing_of_the_project() -> None:
    method = load_taxonomy().method("specinfer")
    files = contents("specinfer", "there", method)
    assert set(files) == {
        "README.md", "custom_generate/generate.py", "custom_generate/adapter.py", "custom_generate/method.py",
        "custom_generate/requirements.txt",
    }  # fmt: skip
    card = files["README.md"]
    assert card.startswith("---\nlibrary_name: transformers\n")
    for words in ("assistant_model=small_model,", "`expansion`", method.paper.url, 'custom_generate="there"'):
        assert words in card
    assert "datastore=" not in card
    for name, text in files.items():
        if name.endswith(".py"):
            imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
            assert not [n for n in imports if "reference_impls" in (getattr(n, "module", None) or ast.unparse(n))]


def test_the_folder_is_clean_code(tmp_path: Path) -> None:
    """No undefined or unused name, imports in order, layout as the formatter would have it."""
    for id in IDS:
        export_hf(id, tmp_path / id)
    options = ["--isolated", "--no-cache", "--line-length=120", str(tmp_path)]
    for command in (["check", "--select=F,I,W"], ["format", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, *options]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


# ---- the settings of transformers ---------------------------------------------------------------------------------


def call(**given: Any) -> list[int]:
    """New tokens of the baseline, called as `generate` of transformers calls it."""
    model = given.pop("model", None) or tiny("llama")
    given = {"input_ids": torch.tensor([PROMPT]), "max_new_tokens": LIMIT} | given
    found: list[int] = custom_generate.generate(model=model, **given)[0].tolist()
    assert found[: len(PROMPT)] == PROMPT
    return found[len(PROMPT) :]


def test_ends_and_lengths_are_those_of_generate() -> None:
    model, prompt = tiny("llama"), torch.tensor([PROMPT])
    text = call()
    for settings in (
        {"eos_token_id": text[4]},
        {"eos_token_id": [60, text[6], text[5]]},
        {"max_new_tokens": None, "max_length": 11},
        {"generation_config": transformers.GenerationConfig(max_length=12), "max_new_tokens": None},
    ):
        plain = {"attention_mask": torch.ones_like(prompt), "pad_token_id": 0, "max_new_tokens": LIMIT, **settings}
        wanted = model.generate(prompt, do_sample=False, **plain)
        assert call(**settings) == wanted[0, len(PROMPT) :].tolist()
    assert len(call(max_new_tokens=None)) == 20
    assert custom_generate.generate(prompt, model=model, max_new_tokens=LIMIT)[0, len(PROMPT) :].tolist() == text


def test_sampling_follows_the_global_state_or_the_seed() -> None:
    sampled = {"do_sample": True, "top_k": 0, "top_p": 0.9, "temperature": 6.0}
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        given = {"model": tiny("llama")}
        torch.manual_seed(seed)
        texts.append(call(**sampled, **given))
    assert texts[0] == texts[1] != texts[2]
    assert call(**sampled, seed=7) == call(**sampled, seed=7) != call(**sampled, seed=8)
    assert call(do_sample=True, top_k=1) == call()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"input_ids": torch.ones(2, 3, dtype=torch.long)}, r"one sequence at a time.*\[2, 3\]"),
        ({"input_ids": None}, "one sequence at a time.*not nothing"),
        ({"attention_mask": torch.tensor([[0] + [1] * 7])}, "no padding"),
        ({"num_beams": 2}, "no num_beams, which is 2 here: pass num_beams=None"),
        ({"repetition_penalty": 1.1}, "no repetition_penalty"),
        ({"min_new_tokens": 3}, "no min_new_tokens"),
        ({"num_return_sequences": 2, "do_sample": True}, "no num_return_sequences"),
        ({"return_dict_in_generate": True}, "no return_dict_in_generate"),
        ({"logits_processor": [print]}, "no logits_processor"),
        ({"streamer": object()}, "no streamer"),
        ({"gamma": 3}, "no option 'gamma'; it has none"),
        ({"max_new_tokens": None, "max_length": 3}, "has 8 tokens, and max_length is 3"),
        ({"assistant_model": tiny("llama", 1)}, "leave assistant_model out"),
    ],
)
def test_what_the_method_has_no_word_for_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(**given)


def test_parts_that_a_method_lacks_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from reference_impls.speculative_decoding import rest, specinfer

    monkeypatch.setattr(custom_generate, "decode", rest.generate)
    with pytest.raises(ValueError, match="give datastore=… the token ids"):
        call()
    monkeypatch.setattr(custom_generate, "decode", specinfer.generate)
    with pytest.raises(ValueError, match="needs assistant_model=… to draft, and has got 0 models"):
        call(expansion=(1,))
    with pytest.raises(ValueError, match="no option 'gama'; it has expansion"):
        call(gama=1, assistant_model=tiny("llama", 1))


def test_settings_without_effect_pass_and_none_switches_one_off() -> None:
    model = tiny("llama")
    wanted = call(model=model)
    model.generation_config.repetition_penalty = 1.3
    with pytest.raises(ValueError, match="pass repetition_penalty=None"):
        call(model=model)
    assert call(model=model, repetition_penalty=None, pad_token_id=50, use_cache=False) == wanted


# ---- the command --------------------------------------------------------------------------------------------------


def accelgen(*words: str, code: int) -> str:
    result = CliRunner().invoke(app, ["export-hf", *words])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stderr


def test_the_command_writes_the_folder_and_takes_an_empty_one(tmp_path: Path) -> None:
    place = tmp_path / "there"
    place.mkdir()
    assert f"wrote {place}" in accelgen(LEVIATHAN, str(place), code=0)
    assert (place / "custom_generate" / "generate.py").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (place.stat().st_mode & 0o777) == (tmp_path / "there" / "custom_generate").stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("id", "where", "words"),
    [
        (LEVIATHAN, "full", "is not empty; remove it, or name another directory"),
        (LEVIATHAN, "file", "is a file"),
        (LEVIATHAN, "no/where", "does not exist; create it first"),
        ("layerskip", "new", f"layerskip cannot be exported: it runs single layers.*these can: .*{LEVIATHAN}"),
        ("speculative-decoding-leviatan", "new", f"did you mean '{LEVIATHAN}'"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path: Path, id: str, where: str, words: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    error = accelgen(id, str(tmp_path / where), code=2)
    assert error.startswith("accelgen: ")
    assert error.count("\n") == 1
    assert re.search(words, error)
    assert sorted(tmp_path.rglob("*")) == before
