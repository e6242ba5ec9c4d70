"""Checkpoints in the format of transformers: read as they are, run by every method that can, refused in a sentence."""

import importlib
import inspect
import json
import shutil
import sys
import weakref
from importlib.util import find_spec

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

transformers = pytest.importorskip("transformers")

import huggingface_hub  # noqa: E402
from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from accelgen.checkpoints import reading as checkpoints  # noqa: E402
from accelgen.checkpoints.reading import check_vocabulary, load  # noqa: E402
from accelgen.cli import app  # noqa: E402
from accelgen.cli.options import show  # noqa: E402
from accelgen.cli.own_options import own_options  # noqa: E402
from accelgen.measuring.kinds import KINDS  # noqa: E402
from accelgen.taxonomy.loading import load_taxonomy  # noqa: E402
from reference_impls import zoo  # noqa: E402
from reference_impls.testing.cases import case_of  # noqa: E402
from reference_impls.testing.refusals import REFUSED  # noqa: E402

PROMPT = "def f(x):"
END, UNKNOWN = "<|endoftext|>", "<unk>"
SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.4,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 100.0}


def tokenizer(tokens=None):
    backend = zoo.tokenizer() if tokens is None else Tokenizer(models.WordLevel(tokens, unk_token=UNKNOWN))
    if tokens is not None:
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def save(folder, family, *, tokens=None, shard="1GB", **more):
    torch.manual_seed(len(family))
    config = getattr(transformers, f"{family}Config")(**(SIZES | more))
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer(tokens).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def target(tmp_path_factory):
    """Qwen3 in several files, padded past its tokenizer's 2048 tokens."""
    wide = {"vocab_size": 2080, "num_hidden_layers": 4, "tie_word_embeddings": False, "rope_parameters": YARN}
    return save(tmp_path_factory.mktemp("checkpoints") / "target", "Qwen3", shard="60KB", **wide)


@pytest.fixture(scope="session")
def drafter(tmp_path_factory):
    """Llama in one file, with tied embeddings, padded to another width."""
    wide = {"vocab_size": 2064, "num_hidden_layers": 1, "tie_word_embeddings": True}
    return save(tmp_path_factory.mktemp("checkpoints") / "drafter", "Llama", **wide)


@pytest.fixture
def broken(drafter, tmp_path):
    """A copy to be broken."""
    return shutil.copytree(drafter, tmp_path / "broken")


def accelgen(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def refusal(*words):
    result = accelgen(*words, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("accelgen: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---- loading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["target", "drafter"])
def test_logits_are_those_of_transformers_without_the_padding(name, request):
    folder = request.getfixturevalue(name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ours = load(folder)
    assert (folder / checkpoints.INDEX).exists() == (name == "target")
    tokens = ours.encode(PROMPT)
    with torch.inference_mode():
        wanted = theirs(torch.tensor([tokens])).logits[0]
        found = ours.model(tokens)
    assert wanted.shape[1] > 2048
    torch.testing.assert_close(found, wanted[:, :2048], rtol=1e-4, atol=1e-5)
    assert not any(weight.requires_grad for weight in ours.model.parameters())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_are_stored_in_the_wanted_type(drafter, dtype):
    model = load(drafter, dtype=dtype).model
    assert {weight.dtype for weight in model.state_dict().values()} == {getattr(torch, dtype)}
    torch.testing.assert_close(model.embedding, load(drafter).model.embedding.to(model.embedding.dtype))


def test_tensors_are_read_once_and_let_go(target, monkeypatch):
    read, most = {}, 0

    def get(self, name):
        nonlocal most
        assert name not in read
        tensor = original(self, name)
        read[name] = weakref.ref(tensor)
        most = max(most, sum(known() is not None for known in read.values()))
        return tensor

    original = checkpoints.Weights.__getitem__
    monkeypatch.setattr(checkpoints.Weights, "__getitem__", get)
    load(target)
    assert len(read) == len(checkpoints.Weights(target)) > 40
    assert most <= 4  # q, k and v, and the one before them


def test_the_end_of_a_text_is_that_of_the_generation_config(broken):
    assert load(broken).eos == (0,)
    edit(broken / "generation_config.json", eos_token_id=[7, 9])
    assert load(broken).eos == (7, 9)
    edit(broken / "generation_config.json", eos_token_id=[2050, 9])
    assert load(broken).eos == (9,)  # padding has no text to end
    edit(broken / "generation_config.json", eos_token_id=2050)
    assert load(broken).eos == (0,)  # the tokenizer's own
    edit(broken / "tokenizer_config.json", eos_token=None)
    assert load(broken).eos == ()
    (broken / "generation_config.json").unlink()
    edit(broken / "config.json", eos_token_id=[3, 5])
    assert load(broken).eos == (3, 5)


def test_pieces_join_to_the_text_with_the_space_of_the_first_word(tmp_path):
    words = {UNKNOWN: 0, END: 1, "▁a": 2, "▁red": 3, "▁fox": 4}
    sizes = {"vocab_size": 5, "num_hidden_layers": 1}
    checkpoint = load(save(tmp_path / "words", "Llama", tokens=words, **sizes))
    prompt = checkpoint.encode("a red")
    assert prompt == [2, 3]
    assert checkpoint.pieces(prompt, [4, 3]) == [" fox", " red"]
    with pytest.raises(ValueError, match="prompt is empty"):
        checkpoint.encode("")


def test_characters_of_several_tokens_are_not_torn(drafter):
    checkpoint = load(drafter)
    prompt, tokens = checkpoint.encode("x = '"), checkpoint.encode("é→")
    assert len(tokens) > 2
    assert "".join(checkpoint.pieces(prompt, tokens)) == "é→"


def test_a_hub_gives_the_folder(drafter, monkeypatch):
    asked = []

    def snapshot_download(id, allow_patterns):
        asked.append((id, allow_patterns))
        return str(drafter)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load("org/name").model.shape == load(drafter).model.shape
    ((id, patterns),) = asked
    assert id == "org/name"
    assert not any("bin" in pattern for pattern in patterns)


# ---- what cannot be loaded ----------------------------------------------------------------------------------------


def test_a_missing_folder_is_told_before_any_hub_is_asked(drafter, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    assert "there is no folder" in refusal("run", "autoregressive", "--target", tmp_path / "missing")
    assert "there is no folder ./missing" in refusal("run", "autoregressive", "--target", "./missing")
    assert "is a file" in refusal("run", "autoregressive", "--target", drafter / "config.json")


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def offline(*_, **__):
        raise LocalEntryNotFoundError("Cannot find it.\nPlease check\nyour connection.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    sentence = refusal("run", "autoregressive", "--target", "org/name")
    assert "there is no folder org/name here, and the hub did not give it (Cannot find it. Please" in sentence


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def written(name, content):
    return lambda folder: (folder / name).write_text(content)


def cut(folder):
    path = folder / checkpoints.SINGLE
    path.write_bytes(path.read_bytes()[:-64])


def pickled(folder):
    (folder / checkpoints.SINGLE).rename(folder / "pytorch_model.bin")


def lacking(folder):
    weights = load_file(folder / checkpoints.SINGLE)
    del weights["model.norm.weight"]
    save_file(weights, folder / checkpoints.SINGLE)


def configured(**changes):
    return lambda folder: edit(folder / "config.json", **changes)


BREAKS = {
    "no-config": (without("config.json"), "config.json is missing, so this is no checkpoint"),
    "config-not-json": (written("config.json", "{"), "config.json is not valid JSON"),
    "config-a-list": (written("config.json", "[]"), "config.json holds no JSON object"),
    "config-of-nothing": (written("config.json", "{}"), "names no model_type"),
    "config-of-words": (configured(hidden_size="wide"), "describes no model that can be made"),
    "config-of-zeros": (configured(num_attention_heads=0), "says that num_attention_heads is 0; it must be"),
    "config-of-another-size": (configured(hidden_size=32), "and the configuration wants ["),
    "unknown-family": (configured(model_type="nonsense"), "describes no model that can be made"),
    "unsupported-family": (configured(model_type="gpt2"), "cannot import a 'gpt2' model; supported are llama,"),
    "unknown-rope": (configured(rope_parameters={"rope_type": "x", "rope_theta": 1e4}), "with 'x' rotary scaling"),
    "quantised": (configured(quantization_config={"quant_method": "gptq", "bits": 4}), "cannot import quantised"),
    "no-weights": (without(checkpoints.SINGLE), "has neither model.safetensors nor"),
    "pickle": (pickled, "as pickle only (pytorch_model.bin), which can run code"),
    "weights-cut": (cut, "model.safetensors is damaged or no safetensors file"),
    "weights-of-text": (written(checkpoints.SINGLE, "weights"), "model.safetensors is damaged or no safetensors file"),
    "weight-missing": (lacking, "has no weight 'model.norm.weight'"),
    "no-tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "has no tokenizer that can be read"),
    "tokenizer-broken": (written("tokenizer.json", "{"), "has no tokenizer that can be read"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_what_is_broken_is_one_sentence(kind, broken):
    change, sentence = BREAKS[kind]
    change(broken)
    told = refusal("run", "autoregressive", "--target", broken)
    assert sentence in told
    assert str(broken) in told or kind == "config-of-another-size"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: next(folder.glob("*-00002-of-*")).unlink(), "-00002-of-"),
        (lambda folder: next(folder.glob("*-00002-of-*")).write_text(""), "is damaged or no safetensors file"),
        (lambda folder: (folder / checkpoints.INDEX).write_text("{}"), "has no weight_map"),
    ],
)
def test_a_broken_set_of_files_is_one_sentence(change, sentence, target, tmp_path):
    folder = shutil.copytree(target, tmp_path / "copy")
    change(folder)
    assert sentence in refusal("run", "autoregressive", "--target", folder)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--dtype", "int4"], "no dtype 'int4' here; choose one of float32, bfloat16, float16"),
        (["--device", "abacus"], "no device is called 'abacus'; use cpu"),
        (["--device", "meta"], "'meta' cannot be used here"),
        (["--device", "auto"], "no device is called 'auto'; use cpu"),
        (["--prompt", ""], "the prompt is empty"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(options, sentence, drafter):
    assert sentence in refusal("run", "autoregressive", "--target", drafter, *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_missing_gpu_is_one_sentence(drafter):
    assert "'cuda' cannot be used here" in refusal("run", "autoregressive", "--target", drafter, "--device", "cuda")


@pytest.mark.parametrize("option", [["--drafter", "x"], ["--dtype", "float32"], ["--keep-transformers"]])
def test_options_of_checkpoints_need_one(option):
    assert f"{option[0]} needs --target" in refusal("run", "speculative-sampling-chen", *option)


def test_missing_transformers_are_one_sentence(drafter, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install transformers" in refusal("run", "autoregressive", "--target", drafter)


def no_cuda_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of this.")


@pytest.mark.parametrize("allocate", [no_cuda_memory, lambda: torch.empty(1 << 50)])
def test_too_little_memory_is_one_sentence(allocate, drafter, monkeypatch):
    monkeypatch.setattr(checkpoints, "from_weights", lambda *_: allocate())
    assert "out of memory (" in refusal("run", "autoregressive", "--target", drafter)


def test_other_errors_of_torch_stay_what_they_are(drafter, monkeypatch):
    def fails(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(checkpoints, "from_weights", fails)
    accelgen("run", "autoregressive", "--target", drafter, code=1)


# ---- two models, one vocabulary -----------------------------------------------------------------------------------


def test_models_of_one_tokenizer_share_a_vocabulary_whatever_their_padding(target, drafter):
    one, other = load(target), load(drafter)
    check_vocabulary(one, other)
    assert one.model.shape.vocab == other.model.shape.vocab == 2048


def test_other_words_of_the_same_number_are_refused(tmp_path):
    words = {UNKNOWN: 0, END: 1, "▁a": 2, "▁red": 3, "▁fox": 4}
    swapped = words | {"▁red": 4, "▁fox": 3}
    sizes = {"vocab_size": 5, "num_hidden_layers": 1}
    one, other = (save(tmp_path / str(i), "Llama", tokens=v, **sizes) for i, v in enumerate((words, swapped)))
    options = ["--prompt", "a", "--target", one, "--drafter"]
    sentence = refusal("run", "speculative-sampling-chen", *options, other)
    assert "differ in 2 tokens, such as '▁fox'" in sentence
    accelgen("run", "speculative-sampling-chen", *options, one)


def test_a_model_narrower_than_its_tokenizer_is_refused_as_a_drafter(drafter, tmp_path):
    narrow = save(tmp_path / "narrow", "Llama", vocab_size=2000, num_hidden_layers=1)
    with pytest.raises(ValueError, match="one has logits for 2048 tokens and the other for 2000"):
        check_vocabulary(load(drafter), load(narrow))


# ---- running ------------------------------------------------------------------------------------------------------

METHODS = {method.id: method for method in load_taxonomy().methods if method.is_implemented}
UNFIT = {id: why for id, method in METHODS.items() if (why := case_of(id).lacks or KINDS[method.call].unfit)}
FIT = {id: case_of(id) for id in METHODS if id not in UNFIT}


def parameters(id):
    return inspect.signature(importlib.import_module(METHODS[id].module).generate).parameters


DRAFTED = [id for id in FIT if parameters(id).keys() & {"drafter", "drafters"}]
ALONE = [id for id in FIT if id not in DRAFTED]


def words(id):
    """The options of a method on a checkpoint as its case has them, in the words of the command line."""
    plain = {name: ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for name, v in FIT[id].checkpoint.items()}
    return [word for name, value in plain.items() for word in (f"--{name.replace('_', '-')}", value)]


def ran(id, *words):
    return json.loads(accelgen("run", id, "--prompt", PROMPT, "--limit", "12", "--json", *words).stdout)


@pytest.fixture(scope="session")
def greedy(target):
    return ran("autoregressive", "--target", target)["tokens"]


def test_the_baseline_writes_what_transformers_writes(target, greedy):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    tokens = torch.tensor([load(target).encode(PROMPT)])
    wanted = theirs.generate(tokens, max_new_tokens=12, do_sample=False, suppress_tokens=list(range(2048, 2080)))
    assert wanted[0, tokens.shape[1] :].tolist() == greedy


def test_a_run_stops_at_the_end_of_the_text(target, greedy, tmp_path):
    folder = shutil.copytree(target, tmp_path / "copy")
    edit(folder / "generation_config.json", eos_token_id=greedy[3])
    assert ran("autoregressive", "--target", folder)["tokens"] == greedy[: greedy.index(greedy[3]) + 1]


@pytest.mark.parametrize("id", DRAFTED)
def test_methods_with_a_drafter_keep_the_text(id, target, drafter, greedy):
    own = ["--target", target, *words(id)]
    report = ran(id, *own, "--drafter", drafter)
    assert report["tokens"] == greedy
    assert report["options"]["target"] == str(target)
    assert ran(id, *own, "--drafter", target)["figures"]["passes"] < len(greedy)  # a perfect one is always believed
    assert "name it with --drafter" in refusal("run", id, *own)


@pytest.mark.parametrize("id", ALONE)
def test_methods_without_a_drafter_keep_the_text(id, target, drafter, greedy):
    assert ran(id, "--target", target, *words(id))["tokens"] == greedy
    assert "leave out --drafter" in refusal("run", id, "--target", target, *words(id), "--drafter", drafter)


def test_several_drafters_where_the_method_has_several(target, drafter):
    several = ["--target", target, "--drafter", drafter, "--drafter", target]
    assert ran("specinfer", *several, "--expansion", "1,1")["options"]["drafter"] == f"{drafter}, {target}"
    assert "takes one drafter, and 2 are given" in refusal("run", "block-verification", *several)


@pytest.mark.parametrize("id", UNFIT)
def test_methods_with_parts_of_their_own_say_so(id, target):
    assert UNFIT[id] in refusal("run", id, "--target", target)


@pytest.fixture(scope="session")
def without_weights(tmp_path_factory):
    """A checkpoint that has only its configuration: three layers and eleven tokens, as the models of the kit."""
    folder = tmp_path_factory.mktemp("checkpoints") / "without-weights"
    transformers.LlamaConfig(**SIZES, vocab_size=11, num_hidden_layers=3).save_pretrained(folder)
    return folder


def on(folder, id):
    return ["run", id, "--target", folder, *(["--drafter", folder] if id in DRAFTED else []), *words(id)]


@pytest.mark.parametrize("id", FIT)
def test_options_are_judged_before_weights_are_looked_for(id, without_weights):
    assert "has no tokenizer" in refusal(*on(without_weights, id))  # and nothing is wrong with the options
    assert "temperature is -1.0" in refusal(*on(without_weights, id), "--temperature", "-1")
    known = own_options(importlib.import_module(METHODS[id].module).generate)
    judged = {name: (*REFUSED.get(name, ()), *FIT[id].refused.get(name, ())) for name in known}
    for name, values in judged.items():
        for value in values:
            said = refusal(*on(without_weights, id), f"--{name.replace('_', '-')}={show(value)}")
            assert "has no tokenizer" not in said, (name, value)


def test_a_drafter_that_is_not_there_is_told_before_the_target_is_read(without_weights, tmp_path):
    words = ["--target", without_weights, "--drafter", tmp_path / "missing"]
    assert "there is no folder" in refusal("run", DRAFTED[0], *words)


def test_an_option_that_depends_on_the_target_has_to_be_given(target):
    assert "layerskip needs --exit-layer" in refusal("run", "layerskip", "--target", target)


def test_a_method_for_trained_targets_says_what_others_bring(target):
    options = ["--target", target, "--limit", "3"]
    assert "little is gained" in accelgen("run", "layerskip", *options, *words("layerskip")).stderr
    assert "the text gets worse" in accelgen("run", "calm", *options, *words("calm")).stderr
    assert accelgen("run", "autoregressive", *options).stderr == ""


def test_the_text_is_shown_as_ever(target, drafter):
    options = ["--target", target, "--drafter", drafter, "--prompt", PROMPT, "--dtype", "bfloat16", "--limit", "8"]
    text = accelgen("run", "speculative-sampling-chen", *options).stdout
    assert text.startswith(PROMPT)
    assert "⟨rejected and corrected⟩" in text
    assert f"target {target}" in text
    assert "gamma 4" in text


# ---- left in transformers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def other_family(tmp_path_factory):
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 2050, "initializer_range": 0.4}
    torch.manual_seed(5)
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    folder = tmp_path_factory.mktemp("checkpoints") / "gpt2"
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_any_family_runs_where_it_is(other_family, drafter):
    told = refusal("run", "autoregressive", "--target", other_family)
    assert "--keep-transformers (in Python, keep=True) runs it as it is" in told
    kept = ["--keep-transformers", "--target", other_family]
    tokens = ran("autoregressive", *kept)["tokens"]
    assert max(tokens) < 2048
    assert ran("speculative-sampling-chen", *kept, "--drafter", drafter)["tokens"] == tokens
    assert "needs `" in refusal("run", "layerskip", *kept, "--exit-layer", "1", "--limit", "8")
    assert "64 positions" in refusal("run", "autoregressive", *kept, "--limit", "65")


def test_what_is_kept_writes_what_the_copy_writes(target, greedy):
    assert ran("autoregressive", "--keep-transformers", "--target", target)["tokens"] == greedy


@pytest.mark.skipif(find_spec("accelerate") is not None, reason="it is installed")
def test_spreading_needs_accelerate(drafter):
    told = refusal("run", "autoregressive", "--keep-transformers", "--device", "auto", "--target", drafter)
    assert "pip install accelerate" in told


def test_a_family_that_transformers_does_not_have_cannot_be_kept(broken):
    edit(broken / "config.json", model_type="t5")
    assert "transformers cannot load it (" in refusal(
        "run", "autoregressive", "--keep-transformers", "--target", broken
    )


def test_damage_is_told_before_transformers_sees_it(broken):
    cut(broken)
    assert "is damaged" in refusal("run", "autoregressive", "--keep-transformers", "--target", broken)
