"""Models of transformers behind the core's interface: the same text, the same laws, and a sentence where that ends."""

import functools
import inspect
import json
import os
import socket
import subprocess
import sys

import pytest
import torch

transformers = pytest.importorskip("transformers")

from accelgen.checkpoints.adapter import TransformersModel  # noqa: E402
from accelgen.checkpoints.writing import config as llama_config  # noqa: E402
from accelgen.checkpoints.writing import tensors as llama_tensors  # noqa: E402
from accelgen.project.places import ROOT  # noqa: E402
from reference_impls.baselines import autoregressive  # noqa: E402
from reference_impls.core.from_transformers import from_transformers  # noqa: E402
from reference_impls.core.model import LanguageModel  # noqa: E402
from reference_impls.core.sampling import Sampler  # noqa: E402
from reference_impls.core.tree import Tree  # noqa: E402
from reference_impls.early_exiting import calm, layerskip  # noqa: E402
from reference_impls.non_autoregressive import jacobi_parallel_decoding as jacobi  # noqa: E402
from reference_impls.speculative_decoding import (  # noqa: E402
    bild,
    block_verification,
    eagle,
    medusa,
    rest,
    specinfer,
)
from reference_impls.speculative_decoding import cascade_speculative_drafting as cascade  # noqa: E402
from reference_impls.speculative_decoding import speculative_decoding_leviathan as leviathan  # noqa: E402
from reference_impls.speculative_decoding import speculative_sampling_chen as chen  # noqa: E402
from reference_impls.testing import SUITES, Scene, options  # noqa: E402
from reference_impls.testing.cases import case_of  # noqa: E402
from reference_impls.testing.exactness import PAIRS  # noqa: E402
from reference_impls.testing.tiny import seeded, varied_model  # noqa: E402

PROMPT = [5, 9, 33, 2, 17, 8, 40, 3]
WINDOW = {"sliding_window": 6}  # shorter than the prompt
SIZES = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
FAMILIES = {
    "llama": {}, "qwen2": {}, "qwen3": {"head_dim": 4}, "mistral": {"sliding_window": None}, "gpt2": {"n_inner": None},
    "gpt_neox": {}, "phi": {}, "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16}, "gemma": {"head_dim": 4},
}  # fmt: skip
CHAINS = {"mistral": WINDOW, "gemma2": {"head_dim": 4, **WINDOW}, "bloom": {}}  # no trees, or none of any length
KINDS = ("eager", "sdpa")


@functools.cache
def made(name, kind=None, **more):
    """A tiny random model in double precision, with weights so large that its text does not soon repeat one token."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **(SIZES | more))
    config.tie_word_embeddings = False
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=kind).double().eval()
    for key, parameter in model.named_parameters():
        if parameter.dim() > 1 or "bias" in key:
            torch.nn.init.normal_(parameter, std=0.8 if parameter.dim() > 1 else 0.1)
    return model


def theirs(model, prompt, limit):
    """The greedy text of `generate` of transformers."""
    given = torch.tensor([prompt])
    found = model.generate(given, max_new_tokens=limit, do_sample=False, attention_mask=torch.ones_like(given))
    return found[0, len(prompt) :].tolist()


# ---- any family ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more"), [*FAMILIES.items(), *CHAINS.items()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_greedy_text_is_that_of_transformers(name, more):
    model = made(name, **more)
    target, wanted = TransformersModel(model), theirs(model, PROMPT, 16)
    assert len(set(wanted)) > 2, "a text that repeats one token proves little"
    assert autoregressive.generate(target, PROMPT, 16, sampler=Sampler(0)).tokens == wanted
    for drafter in (
        target,
        TransformersModel(made("gpt2", n_inner=None, num_hidden_layers=1)),
    ):  # all kept, and mostly rolled back
        result = leviathan.generate(target, PROMPT, 16, drafter=drafter, sampler=Sampler(0), gamma=3)
        assert result.tokens == wanted
        assert (result.passes == 4) == (drafter is target)


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_tree_is_read_as_its_paths_and_the_cache_keeps_one(name, kind):
    target = TransformersModel(made(name, kind, **FAMILIES[name]))
    tree = Tree()
    for token, parent in ((3, -1), (4, -1), (5, 0), (6, 1), (7, 3)):
        tree.add(token, parent)
    cache = target.new_cache()
    target(PROMPT[:6], cache)
    depths, visible = tree.layout(2)
    read = target([*PROMPT[6:], *tree.tokens], cache, last=6, positions=6 + depths, visible=visible)
    for node in range(-1, len(tree)):
        text = [*PROMPT, *(tree.tokens[i] for i in tree.path(node))]
        torch.testing.assert_close(read[node + 1], target(text)[-1])
    cache.keep(8, [1, 3])
    assert len(cache) == 10 == cache.length(1)
    torch.testing.assert_close(target([9], cache)[-1], target([*PROMPT, 4, 6, 9])[-1])
    cache.keep(11, [])
    cache.crop(4)
    assert len(cache) == 4
    torch.testing.assert_close(target([1], cache)[-1], target([*PROMPT[:4], 1])[-1])
    cache.crop(0)
    torch.testing.assert_close(target(PROMPT, cache), target(PROMPT))


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_those_of_the_copy(kind):
    model = made("llama", kind)
    ours, target = from_transformers(model), TransformersModel(model)
    for name in ("vocab", "dim", "layers", "heads", "kv_heads", "head_dim", "hidden"):
        assert getattr(target.shape, name) == getattr(ours.shape, name)
    assert target.device == ours.device
    one, other, blind = ours.new_cache(), target.new_cache(), torch.ones(3, 3, dtype=torch.bool)
    for call in (
        {"tokens": PROMPT},
        {"tokens": [4], "last": 1},
        {"tokens": [1, 2, 3], "last": 2},
        {"tokens": [1, 2, 3], "positions": torch.tensor([12, 13, 13]), "visible": blind.tril()},
        {"tokens": torch.tensor([7, 8, 9]), "visible": blind},
    ):
        torch.testing.assert_close(target(cache=other, **call), ours(cache=one, **call), rtol=1e-4, atol=1e-5)
        assert len(one) == len(other)


def test_the_same_seed_draws_the_same_text_as_on_the_copy():
    model, drafter = made("qwen2"), TransformersModel(made("llama"))
    copy, target = from_transformers(model), TransformersModel(model)
    for method in (leviathan, bild):
        texts = set()
        for seed in range(5):
            settings = {"drafter": drafter, "sampler": Sampler(0.9, top_k=40, seed=seed)}
            ours = method.generate(copy, PROMPT, 12, **settings)
            settings["sampler"] = Sampler(0.9, top_k=40, seed=seed)
            assert method.generate(target, PROMPT, 12, **settings) == ours
            texts.add(tuple(ours.tokens))
        assert len(texts) == 5


# ---- the kit ------------------------------------------------------------------------------------------------------


@functools.cache
def behind_the_adapter(model: LanguageModel) -> TransformersModel:
    """The same weights as a `LlamaForCausalLM`, behind the adapter."""
    config = transformers.LlamaConfig(**llama_config(model))
    with seeded(0):
        copy = transformers.LlamaForCausalLM(config).to(model.embedding.dtype).eval()
    copy.load_state_dict(llama_tensors(model), strict=not model.shape.tied)
    return TransformersModel(copy)


def adapted(generate):
    """`generate`, with every plain `LanguageModel` that it is given behind the adapter."""

    def through(value):
        if isinstance(value, list):
            return [through(one) for one in value]
        return behind_the_adapter(value) if type(value) is LanguageModel else value

    @functools.wraps(generate)
    def run(target, prompt, limit, **options):
        return generate(through(target), prompt, limit, **{key: through(value) for key, value in options.items()})

    return run


EXACT = (autoregressive, leviathan, chen, block_verification, specinfer, rest)
PROOFS = {
    "exact-law": EXACT,
    "greedy-identity": (*EXACT, jacobi),
    "accounting": (autoregressive, leviathan, specinfer),
}
ELSEWHERE = {
    "passes",
    "three-steps",
    "longer-text",
    "tempered-nucleus",
    *PAIRS,
}  # counted inside ours; more of the same


def case(module):
    return case_of(module.__name__.rpartition(".")[2])


def kit():
    for suite, modules in PROOFS.items():
        for module in modules:
            for check in SUITES[suite].checks(adapted(module.generate), case(module)):
                if check.name not in ELSEWHERE:
                    yield pytest.param(check, id=f"{module.__name__.rpartition('.')[2]}-{suite}-{check.name}")


@pytest.mark.parametrize("check", [*kit()])
def test_the_proofs_hold_behind_the_adapter(check):
    check.run()


def test_the_kit_really_runs_on_transformers(monkeypatch):
    """Not a test of the adapter: without it, the proofs above could run on the core's own model."""

    def refuse(*_, **__):
        raise ValueError("this is transformers")

    monkeypatch.setattr(transformers.LlamaModel, "forward", refuse)
    scene = Scene(varied_model(), [5, 3], 2)
    for module in (*EXACT, jacobi):
        generate = adapted(module.generate)
        with pytest.raises(ValueError, match="this is transformers"):
            generate(scene.target, [5, 3], 4, sampler=Sampler(0), **options(generate, scene, case(module)))


# ---- where it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "given"), [(layerskip, {}), (calm, {"threshold": 0.5}), (eagle, {}), (medusa, {})])
def test_a_method_that_runs_single_layers_is_told_so(module, given):
    scene = Scene(varied_model(), [5, 3], 2)
    given = options(module.generate, scene, case(module), **given)
    with pytest.raises(ValueError, match=r"needs `(embedding|embed|run)` of single layers.*from_transformers"):
        adapted(module.generate)(scene.target, [5, 3], 4, sampler=Sampler(0), **given)


def test_other_names_are_missing_as_usual():
    assert not hasattr(TransformersModel(made("llama")), "anything_else")


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("mamba", {}, "cannot take guesses back"),
        ("jamba", {}, "cannot take guesses back"),
        ("llama4_text", {"attention_chunk_size": 6, "intermediate_size_mlp": 24}, "in chunks"),
    ],
)
def test_models_with_another_memory_are_refused(name, more, words):
    with pytest.raises(ValueError, match=words):
        TransformersModel(made(name, **more))


def test_a_model_that_leaves_its_cache_empty_is_refused():
    target = TransformersModel(made("rwkv", attention_hidden_size=16))
    with pytest.raises(ValueError, match="RwkvForCausalLM does not keep its keys and values"):
        autoregressive.generate(target, PROMPT, 2, sampler=Sampler(0))


def test_training_mode_and_encoder_decoders_are_refused():
    config = transformers.AutoConfig.for_model("gpt2", **SIZES)
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel is in training mode.*eval\(\)"):
        TransformersModel(transformers.GPT2LMHeadModel(config).train())
    config = transformers.T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="is an encoder-decoder"):
        TransformersModel(transformers.T5ForConditionalGeneration(config).eval())


def read_tree(target, past):
    tree = Tree()
    tree.add(3)
    depths, visible = tree.layout()
    cache = target.new_cache()
    target(PROMPT[:past], cache)
    return target([1, 3], cache, positions=past + depths, visible=visible)


def test_a_tree_must_fit_into_a_sliding_window():
    target = TransformersModel(made("mistral", **WINDOW))
    whole = TransformersModel(made("mistral", sliding_window=None))
    torch.testing.assert_close(read_tree(target, 4), read_tree(whole, 4))
    local = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 6}
    for narrow in (target, TransformersModel(made.__wrapped__("gpt_neo", **local))):
        with pytest.raises(ValueError, match="7 tokens and guesses do not fit into the model's attention window of 6"):
            read_tree(narrow, 5)


def test_the_last_tokens_are_at_least_one():
    with pytest.raises(ValueError, match="last is 0; it is how many of the newest tokens are read out"):
        TransformersModel(made("llama"))([0, 1], last=0)


@pytest.mark.parametrize("name", ["bloom", "mpt"])
def test_a_tree_needs_positions(name):
    with pytest.raises(ValueError, match="takes no positions"):
        read_tree(
            TransformersModel(made(name, **({"d_model": 16, "n_heads": 4, "n_layers": 2} if name == "mpt" else {}))), 4
        )


def test_a_tree_needs_attention_that_takes_a_mask(monkeypatch):
    target = TransformersModel(made("llama"))
    monkeypatch.setattr(target.model.config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ValueError, match=r"flash_attention_2 cannot mask a tree of guesses.*sdpa"):
        target([1, 3], positions=torch.tensor([0, 1]), visible=torch.ones(2, 2, dtype=torch.bool))


def test_tokens_outside_the_vocabulary_and_bad_crops_are_refused():
    target = TransformersModel(made("llama"))
    with pytest.raises(ValueError, match="token id 61 is outside the model's vocabulary of 61"):
        target([61])
    with pytest.raises(ValueError, match="cannot crop a cache to a length of -1"):
        target.new_cache().crop(-1)


def test_vocab_cuts_the_padding_of_a_checkpoint():
    wide, narrow = made("qwen2", vocab_size=64), TransformersModel(made("llama"))
    with pytest.raises(ValueError, match="vocabularies of 64 and 61 tokens"):
        leviathan.generate(TransformersModel(wide), PROMPT, 9, drafter=narrow, sampler=Sampler(0))
    target = TransformersModel(wide, vocab=61)
    result = leviathan.generate(target, PROMPT, 9, drafter=narrow, sampler=Sampler(0))
    assert result.tokens == autoregressive.generate(target, PROMPT, 9, sampler=Sampler(0)).tokens
    assert target(PROMPT).shape == (8, 61)


# ---- larger than one device ---------------------------------------------------------------------------------------


def loopback() -> str:
    """The name of the interface by which the processes of one machine talk to each other."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


WORKER = """
import faulthandler, json, os, sys
faulthandler.dump_traceback_later(150, exit=True)
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig
from accelgen.checkpoints.adapter import TransformersModel
target = AutoModelForCausalLM.from_pretrained(sys.argv[1], distributed_config=DistributedConfig(tp_plan="auto"))
projection = target.model.layers[0].self_attn.q_proj.weight
assert projection.to_local().shape[0] == projection.shape[0] // 2, "the model is not split"
drafter = AutoModelForCausalLM.from_pretrained(sys.argv[2]).eval()
texts = runs(TransformersModel(target), TransformersModel(drafter))
with open(f"{dist.get_rank()}.json", "w", encoding="utf-8") as file:
    json.dump(texts, file)
dist.barrier()
os._exit(0)  # taking down the process group aborts one of both now and then, after all is written
"""


def runs(target, drafter):
    """Texts of a plain, a chain-drafting and a tree-drafting method, greedy and drawn."""
    from reference_impls.baselines import autoregressive
    from reference_impls.core.sampling import Sampler
    from reference_impls.speculative_decoding import specinfer
    from reference_impls.speculative_decoding import speculative_decoding_leviathan as leviathan

    calls = [
        (autoregressive.generate, {}),
        (leviathan.generate, {"drafter": drafter, "gamma": 3}),
        (specinfer.generate, {"drafters": [drafter], "expansion": (2, 1)}),
    ]
    return [
        generate(target, [5, 9, 33, 2], 12, sampler=Sampler(temperature, seed=3), **options).tokens
        for generate, options in calls
        for temperature in (0, 1.5)
    ]


@pytest.mark.slow
def test_two_processes_that_share_a_model_write_its_text(tmp_path):
    """Tensor parallelism: every projection is split over two processes, which must agree on every decision."""
    pytest.importorskip("accelerate", reason="transformers splits a model with accelerate, which is not installed")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this build of torch has no gloo, by which processes on CPUs talk to each other")
    models = [made("llama"), made("llama", num_hidden_layers=1)]
    for name, model in zip(("target", "drafter"), models, strict=True):
        model.save_pretrained(tmp_path / name)
    (tmp_path / "worker.py").write_text(inspect.getsource(runs) + WORKER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "worker.py"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": loopback(), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*command, "target", "drafter"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    wanted = runs(*map(TransformersModel, models))
    assert found == [wanted, wanted]
    assert len({tuple(text) for text in wanted}) > 2


def test_a_model_that_is_partly_on_disk_stays_where_it_is(tmp_path):
    pytest.importorskip("accelerate", reason="transformers spreads a model with accelerate, which is not installed")
    model = made("llama")
    model.save_pretrained(tmp_path / "model")
    places = {"model.embed_tokens": "disk", "model.layers.0": "disk", "model.layers.1": "cpu", "model.norm": "cpu"}
    places |= {"model.rotary_emb": "cpu", "lm_head": "disk"}
    spread = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "rest"
    )
    target = TransformersModel(spread)
    assert target.device == torch.device("cpu")
    assert {parameter.device.type for parameter in spread.parameters()} == {"meta", "cpu"}
    wanted = theirs(model, PROMPT, 8)
    assert autoregressive.generate(target, PROMPT, 8, sampler=Sampler(0)).tokens == wanted


@pytest.mark.parametrize("name", ["gpt2", "opt", "gptj"])
@torch.inference_mode()
def test_drafts_end_at_the_last_position_of_the_target_and_of_the_drafter(name):
    """Whole texts up to the last token that plain decoding can write, whichever model ends first."""
    sizes = FAMILIES.get(name, {"n_inner": None, "rotary_dim": 4})
    target = TransformersModel(made(name, max_position_embeddings=16, **sizes))
    short = TransformersModel(made(name, max_position_embeddings=12, **sizes))
    assert target.shape.positions == 16
    wanted = autoregressive.generate(target, PROMPT, 9, sampler=Sampler(0)).tokens
    chains = {leviathan: {}, chen: {}, block_verification: {}, bild: {"fallback": 0.0, "rollback": 0.0}}
    for drafter in (target, short):
        for method, more in chains.items():
            own = {"drafter": drafter, "sampler": Sampler(0), "gamma": 4, **more}
            assert method.generate(target, PROMPT, 9, **own).tokens == wanted
        own = {"drafters": [drafter], "sampler": Sampler(0)}
        assert specinfer.generate(target, PROMPT, 9, expansion=(2, 1, 1), **own).tokens == wanted
        table = cascade.MaxGram(target.shape)
        options = own | {"max_gram": table, "k_matrix": ((2, 1), (0, 1))}
        assert cascade.generate(target, PROMPT, 9, **options).tokens == wanted
    store = rest.Datastore([*PROMPT, *wanted])
    assert rest.generate(target, PROMPT, 9, datastore=store, sampler=Sampler(0)).tokens == wanted
    with pytest.raises(ValueError, match="has 16 positions, and 8 tokens of prompt with 10 more do not fit"):
        autoregressive.generate(target, PROMPT, 10, sampler=Sampler(0))


def test_a_model_that_computes_its_positions_has_no_last_one():
    assert TransformersModel(made("llama")).shape.positions is None
