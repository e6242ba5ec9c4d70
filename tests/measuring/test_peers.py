"""Beside transformers: its switches are in force, its passes are counted right, and a wrong text is found.

On tiny random models; no test depends on how long anything took.
"""

import dataclasses
import functools
import json
import sys
from collections import Counter

import pytest
import torch
from typer.testing import CliRunner

from accelgen.cli import app
from accelgen.cli import measurements as measuring
from accelgen.measuring.contests import Plan
from accelgen.measuring.machine import environment
from accelgen.measuring.rows import FailedRow, peer_rows
from accelgen.project.files import read_json
from accelgen.project.places import RESULTS
from accelgen.site.fragments import fragments
from accelgen.site.results import Results
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.training.language import silence
from reference_impls.baselines import autoregressive
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing import Scene
from reference_impls.testing import options as built

transformers = pytest.importorskip("transformers")

from accelgen.measuring import peers  # noqa: E402
from accelgen.measuring.peers import COPY, DRAFTER, EXIT, PLAIN, Comparison  # noqa: E402
from accelgen.measuring.their_generate import DEFAULTS, Call, Peer, draft_temperature  # noqa: E402

VOCAB, LAYERS, EXIT_LAYER, GAMMA = 24, 4, 2, 3
PROMPTS = [[1, 2, 3, 1, 2], [4, 9]]
PLAN = Plan(prompts=2, limit=8)


def model(seed, layers=LAYERS):
    shape = Shape(vocab=VOCAB, dim=16, layers=layers, heads=2, kv_heads=1, head_dim=8, hidden=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = LanguageModel(shape).eval().requires_grad_(False)
    made.embedding *= 1.5  # laws that are neither flat nor certain
    return made


@pytest.fixture(scope="module")
def options():
    target = model(0)
    return {
        PLAIN: {"target": target},
        DRAFTER: {"target": target, "drafter": model(1, layers=1), "gamma": GAMMA},
        EXIT: {"target": target, "exit_layer": EXIT_LAYER, "gamma": GAMMA},
        COPY: {"target": target, **built(peers.OURS[COPY].generate, Scene(target, PROMPTS[0], GAMMA))},
    }


@pytest.fixture(scope="module")
def peer(options):
    return Peer(options[PLAIN]["target"], options[DRAFTER]["drafter"])


@pytest.fixture(scope="module")
def lines(options):
    return peers.line_up(options)


@pytest.fixture(scope="module")
def rows(lines):
    return peers.measure(lines, PROMPTS, PLAN)


def assisted(peer, gamma=GAMMA):
    return Call("assistant_model=drafter", {"assistant_model": peer.drafter}, gamma)


def early(gamma=GAMMA):
    return Call(f"assistant_early_exit={EXIT_LAYER}", {"assistant_early_exit": EXIT_LAYER}, gamma)


LOOKUP = Call("prompt_lookup_num_tokens=4", {"prompt_lookup_num_tokens": 4})


def ways(peer):
    return [Call(), assisted(peer), assisted(peer, None), early(), early(None), LOOKUP]


# ---- one call of transformers -------------------------------------------------------------------------------------


def test_every_way_gives_our_greedy_text(peer, options):
    for prompt in PROMPTS:
        wanted = autoregressive.generate(options[PLAIN]["target"], prompt, 20, sampler=Sampler(temperature=0)).tokens
        for call in ways(peer):
            assert peer.run(call, prompt, 20, 0.0, 0).tokens == wanted, call.name


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafts_have_exactly_our_length_until_the_text_ends(peer, temperature):
    for call in (assisted(peer), early(), assisted(peer, 5)):
        found = peer.run(call, PROMPTS[0], 20, temperature, 0)
        left = 20
        for step in found.steps:
            assert len(step.drafted) == step.draft_passes == min(call.gamma, left - 1), call.name
            left -= len(step.emitted)


def drafted_laws(peer, options, gamma, temperature):
    """Of each draft of both drafting calls: the tokens left, and its guesses' chances under our drafter's law."""
    target, drafter, lower = options[PLAIN]["target"], options[DRAFTER]["drafter"], range(EXIT_LAYER)
    laws = [
        (assisted(peer, gamma), drafter),
        (early(gamma), lambda tokens: target.logits(target.run(target.embed(tokens), layers=lower))),
    ]
    for call, logits in laws:
        for seed in range(3):
            text, end = list(PROMPTS[0]), len(PROMPTS[0]) + 20
            for step in peer.run(call, PROMPTS[0], 20, temperature, seed).steps:
                q = Sampler(draft_temperature(temperature) or 1.0).probs(logits([*text, *step.drafted]))
                chances = q[len(text) - 1 : -1].gather(-1, torch.tensor(step.drafted, dtype=torch.long)[:, None])
                yield end - len(text), chances.flatten().tolist()
                text += step.emitted


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_default_drafts_end_when_the_drafter_is_unsure(peer, options, temperature):
    lengths = set()
    for left, chances in drafted_laws(peer, options, None, temperature):
        sure = [chance >= DEFAULTS["assistant_confidence_threshold"] for chance in chances]
        assert all(sure[:-1])
        assert len(sure) == left - 1 or not sure[-1]
        lengths.add(len(sure))
    assert len(lengths) > 2


def test_the_temperature_is_applied_twice_to_drafts(peer, options, monkeypatch):
    """So says the page of this version; the confidence that transformers asks for shows the law it drafts from."""
    from transformers.generation.stopping_criteria import ConfidenceCriteria

    asked, own = [], ConfidenceCriteria.__call__

    def note(self, tokens, scores, **more):
        asked.append(float(scores[-1].softmax(-1)[0, tokens[0, -1]]))
        return own(self, tokens, scores, **more)

    monkeypatch.setattr(ConfidenceCriteria, "__call__", note)
    chances = [chance for _, found in drafted_laws(peer, options, None, 0.8) for chance in found]
    assert asked == pytest.approx(chances, abs=1e-4)
    assert draft_temperature(0.8) == pytest.approx(0.64)


def test_the_defaults_are_those_of_the_installed_version():
    known = transformers.GenerationConfig()._get_default_generation_params()
    assert {name: known[name] for name in DEFAULTS} == DEFAULTS


def test_prompt_lookup_copies_what_followed_in_the_text(peer):
    found, text, prompt = peer.run(LOOKUP, PROMPTS[0], 24, 0.0, 0), [*PROMPTS[0]], PROMPTS[0]
    assert found.steps[0].drafted == prompt[2:5]  # 1, 2 stood at the beginning; 3, 1, 2 followed
    assert any(step.kept for step in found.steps)
    assert found.draft_passes == 0
    for step in found.steps:
        joined = ",".join(map(str, text))
        assert len(step.drafted) <= 4
        assert ",".join(map(str, step.drafted)) in joined
        text += step.emitted


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_trace_counts_the_passes_that_really_ran(peer, temperature):
    ran = Counter()
    watched = {"drafter": peer.drafter.model.layers[0]}
    watched |= {"lower": peer.target.model.layers[0], "upper": peer.target.model.layers[-1]}
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.update([name])) for name, module in watched.items()
    ]
    try:
        for call in ways(peer):
            ran.clear()
            found = peer.run(call, PROMPTS[1], 20, temperature, 1)
            assert found.passes == len(found.steps) == ran["upper"], call.name
            assert found.draft_passes == ran["drafter"] + ran["lower"] - ran["upper"], call.name
            assert bool(found.draft_passes) == ("assistant" in call.name)
            assert sum(len(step.emitted) for step in found.steps) == len(found.tokens) == 20
            for step in found.steps:
                assert step.drafted[: step.kept] == step.emitted[: step.kept]
                assert len(step.emitted) <= step.kept + 1
    finally:
        for handle in handles:
            handle.remove()


def test_a_perfect_drafter_keeps_every_guess():
    target = model(0)
    silence(target, range(EXIT_LAYER, LAYERS))  # now the lower layers say all there is to say
    peer = Peer(target, target)
    for call in (assisted(peer), early()):
        found = peer.run(call, PROMPTS[0], 4 * (GAMMA + 1), 0.0, 0)
        assert (found.passes, found.acceptance, found.tokens_per_pass) == (4, 1.0, GAMMA + 1)


def test_a_run_leaves_nothing_behind(peer):
    state = torch.get_rng_state()
    plain = peer.run(Call(), PROMPTS[0], 16, 0.8, 5)
    for call in ways(peer):
        peer.run(call, PROMPTS[0], 16, 0.8, 5)
    again = peer.run(Call(), PROMPTS[0], 16, 0.8, 5)
    assert (again.tokens, again.passes, again.draft_passes) == (plain.tokens, 16, 0)
    assert peer.run(Call(), PROMPTS[0], 16, 0.8, 6).tokens != plain.tokens
    assert torch.equal(torch.get_rng_state(), state)
    assert peer.target.config.num_hidden_layers == LAYERS


@pytest.mark.parametrize("number", range(6))
def test_nothing_stops_before_the_limit(options, number):
    """An exported model ends at token 0, as its generation_config says; here it goes on."""
    fresh = Peer(options[PLAIN]["target"], options[DRAFTER]["drafter"])
    assert {model.generation_config.eos_token_id for model in (fresh.target, fresh.drafter)} == {0}
    fresh.run(ways(fresh)[number], PROMPTS[0], 4, 0.0, 0)
    assert {model.generation_config.eos_token_id for model in (fresh.target, fresh.drafter)} == {None}


def test_the_law_is_cut_nowhere(peer, monkeypatch):
    """Left alone, transformers would keep the 50 likeliest tokens; ours keeps all."""
    seen = []
    own = peer.target.generate
    monkeypatch.setattr(peer.target, "generate", lambda *args, **more: seen.append(more) or own(*args, **more))
    peer.run(Call(), PROMPTS[0], 2, 0.8, 0)
    peer.run(Call(), PROMPTS[0], 2, 0.0, 0)
    sampled, greedy = seen
    assert (sampled["do_sample"], sampled["temperature"], sampled["top_k"], sampled["top_p"]) == (True, 0.8, 0, 1.0)
    assert "do_sample" not in greedy


def test_a_text_that_ends_early_is_an_error(peer, monkeypatch):
    first = peer.run(Call(), PROMPTS[0], 8, 0.0, 0).tokens[2]
    monkeypatch.setattr(peer, "_settings", functools.partial(transformers.GenerationConfig, eos_token_id=first))
    with pytest.raises(ValueError, match=r"it gave [123] of 8 tokens"):
        peer.run(Call(), PROMPTS[0], 8, 0.0, 0)


# ---- rounds and rows ----------------------------------------------------------------------------------------------


def test_every_side_goes_first_and_neighbours_change_places():
    names = ["a", "b", "c"]
    orders = [peers.turned(names, i) for i in range(6)]
    assert orders[:2] == [["a", "b", "c"], ["c", "b", "a"]]
    assert {order[0] for order in orders[::2]} == set(names)
    assert all(sorted(order) == names for order in orders)
    before = sum(order.index("a") < order.index("b") for order in orders)
    assert before == 3


def test_ratios_are_taken_within_rounds(options):
    run = Generation([1, 2], [Step([1, 2], [1], kept=1)])
    theirs = Call("assistant_model=drafter", gamma=GAMMA)
    runs = {
        PLAIN: [(run, 2.0), (run, 4.0), (run, 3.0)],
        DRAFTER: [(run, 1.0), (run, 1.0), (run, 1.0)],
        Call().name: [(run, 6.0), (run, 6.0), (run, 6.0)],
        theirs.name: [(run, 5.0), (run, 3.0), (run, 2.0)],
    }
    row = peers.compared(Comparison("", DRAFTER, theirs), runs, options, {})
    assert (row["speedup"], row["pairs"]) == (3.0, 3)  # 5, 3, 2
    assert row["loop"].speedup == 2.0  # 3, 1.5, 2
    assert row["algorithm"].speedup == pytest.approx(5 / 3)  # 5/3, 2, 1
    assert row["ours"].over_plain.speedup == 3.0  # 2, 4, 3
    assert row["theirs"].over_plain.speedup == 2.0  # 1.2, 2, 3
    assert row["theirs"].switches["num_assistant_tokens"] == GAMMA
    plain = peers.compared(Comparison("", PLAIN, Call()), runs, options, {})
    assert plain["speedup"] == 2.0
    assert "loop" not in plain


def test_every_comparison_has_its_row_and_its_promise(rows, lines):
    assert [row.setting for row in rows] == ["greedy"] * 7 + ["temperature 0.8"] * 7
    assert [row.theirs.call for row in rows[:7]] == [pair.theirs.name for pair in lines.pairs]
    assert [row.ours.options for row in rows[:4:3]] == [[], [f"exit_layer {EXIT_LAYER}", f"gamma {GAMMA}"]]
    for row in rows[:7]:
        assert row.as_promised is True
        assert row.texts == row.identical_texts == 2
        assert row.ours.working_bytes > 1000 < row.theirs.working_bytes
    for row in rows:
        assert row.pairs == 2
        assert row.speedup > 0
    assert all(row.texts is None and row.as_promised is None for row in rows[7:])  # other numbers were drawn


def test_rows_come_back_from_what_is_stored(rows):
    assert peer_rows(json.loads(json.dumps({"rows": [row.as_data() for row in rows]}))) == rows


@pytest.fixture
def unweighed(monkeypatch):
    """Working memory takes the profiler a while, and is measured elsewhere."""
    monkeypatch.setattr(peers, "working_memory", lambda *_: 1)


@pytest.mark.usefixtures("unweighed")
def test_a_planted_difference_is_found(lines):
    name = lines.pairs[1].theirs.name

    def forged(prompt, limit, temperature, seed):
        result = lines.sides[name](prompt, limit, temperature, seed)
        if prompt == PROMPTS[1]:
            result.tokens[3] = (result.tokens[3] + 1) % VOCAB
        return result

    broken = dataclasses.replace(lines, sides=lines.sides | {name: forged})
    found = peers.measure(broken, PROMPTS, PLAN)
    wrong = [row for row in found if row.as_promised is False]
    assert [row.theirs.call for row in wrong] == [name]
    assert (wrong[0].identical_texts, wrong[0].rounding_ties) == (1, 0)


@pytest.mark.usefixtures("unweighed")
def test_a_call_that_fails_is_a_row_and_the_others_are_measured(lines):
    calls, name = Counter(), early().name

    def failing(prompt, limit, temperature, seed):
        calls[temperature] += 1
        if calls[temperature] == 2:  # after the warm-up
            raise RuntimeError("no early exits on Sundays")
        return lines.sides[name](prompt, limit, temperature, seed)

    broken = dataclasses.replace(lines, sides=lines.sides | {name: failing})
    found = peers.measure(broken, PROMPTS, PLAN)
    failed = [row for row in found if isinstance(row, FailedRow)]
    assert [row.theirs.call for row in failed] == [name] * 2
    assert failed[0].error == "RuntimeError: no early exits on Sundays"
    assert len(found) == 14
    text = page(found)
    assert text.count("failed: RuntimeError: no early exits on Sundays") == 2
    assert "early_exit=2)`, 3 guesses | – | – | – |" in text


@pytest.mark.usefixtures("unweighed")
def test_our_own_failure_is_not_swallowed(lines):
    def failing(*_):
        raise RuntimeError("a bug of ours")

    with pytest.raises(RuntimeError, match="a bug of ours"):
        peers.measure(dataclasses.replace(lines, sides=lines.sides | {COPY: failing}), PROMPTS, PLAN)


def test_an_early_exit_that_fails_leaves_the_target_whole(peer, monkeypatch):
    def failing(**_):
        raise RuntimeError("in the middle of a draft")

    def exits(*_, **more):
        peer.target.config.num_hidden_layers = more["assistant_early_exit"]
        failing()

    with monkeypatch.context() as patch:
        patch.setattr(peer.target, "generate", exits)
        with pytest.raises(RuntimeError):
            peer.run(early(), PROMPTS[0], 8, 0.0, 0)
    assert peer.run(Call(), PROMPTS[0], 8, 0.0, 0).passes == 8


def test_working_memory_is_what_is_alive_at_once():
    def run(*_):
        first = torch.zeros(1_000_000)  # 4 MB
        second = first + 1  # 8 MB
        del first
        third = second[:10].clone()
        return Generation([int(third[0])], [])

    assert 8_000_000 <= peers.working_memory(run, PROMPTS, 1) < 8_001_000


@pytest.mark.usefixtures("unweighed")
def test_the_number_of_runs_is_known_before(lines):
    ticks = []
    plan = Plan(prompts=2, limit=3, repeat=2, tick=ticks.append)
    found = peers.measure(lines, PROMPTS, plan)
    assert len(ticks) == lines.runs(plan) == 2 * 2 * 2 * (4 + 6)
    assert {row.pairs for row in found} == {4}
    assert {row.texts for row in found[:7]} == {2}  # a greedy text is counted once


# ---- the command and the page -------------------------------------------------------------------------------------


def page(found):
    report = {
        "command": "accelgen bench --peers", **environment(),
        "settings": {"prompts": 2, "limit": 8, "repeat": 1, **peers.settings()},
    }  # fmt: skip
    report["versions"] |= peers.versions()
    return fragments(load_taxonomy(), Results(peers=report | {"rows": [row.as_data() for row in found]}))["peers"]


@pytest.fixture
def tiny_command(monkeypatch, lines, unweighed):  # noqa: ARG001 - for its effect
    """`accelgen bench --peers` on the tiny models."""
    from reference_impls import zoo

    monkeypatch.setattr(peers, "line_up", lambda: lines)
    monkeypatch.setattr(zoo, "prompts", lambda: ["a", "b"])
    monkeypatch.setattr(zoo, "encode", lambda text: PROMPTS["ab".index(text)])


def accelgen(*words):
    return CliRunner().invoke(app, ["bench", "--peers", "--prompts", "2", "--limit", "5", *map(str, words)])


@pytest.mark.usefixtures("tiny_command")
def test_the_command_writes_what_it_prints(tmp_path):
    result = accelgen("-o", tmp_path / "peers.json", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    assert report == json.loads(result.stdout)
    assert report["command"] == "accelgen bench --prompts 2 --limit 5 --repeat 1 --peers"
    assert report["versions"]["transformers"] == transformers.__version__
    assert len(report["rows"]) == 14
    shown = accelgen().stdout
    assert "3 guesses" in shown
    assert {"Equal", "texts"} <= set(shown.split())  # a head may take two lines
    assert "Their time / ours" in shown


@pytest.mark.usefixtures("tiny_command")
def test_the_command_stores_its_result_where_the_page_finds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    monkeypatch.setattr(measuring, "CHECKOUT", True)
    assert accelgen("--store").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["peers.json"]


@pytest.mark.usefixtures("tiny_command")
def test_a_wrong_text_ends_the_command_with_an_error(tmp_path, monkeypatch, lines):
    name = LOOKUP.name.replace("4", str(peers.LOOKUP))

    def forged(*words):
        result = lines.sides[name](*words)
        result.tokens[0] = (result.tokens[0] + 1) % VOCAB
        return result

    sides = lines.sides | {name: forged}
    monkeypatch.setattr(peers, "line_up", lambda: dataclasses.replace(lines, sides=sides))
    result = accelgen("-o", tmp_path / "peers.json")
    assert result.exit_code == 1
    assert f"not the promised output: {PLAIN} (greedy), {COPY} (greedy)" in result.stderr


def test_without_transformers_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = accelgen("-o", tmp_path / "peers.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "transformers is not installed" in result.stderr
    assert "measures: pip install transformers" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_page_shows_every_figure_with_its_setup(rows):
    text = page(rows)
    for row in rows:
        code, _, drafts = row.theirs.call.partition(", ")
        lines = [line for line in text.splitlines() if row.quartiles in line and f"`{code}`" in line and drafts in line]
        assert f"{row.speedup:.2f}" in lines[0]
        assert f"{row.ours.tokens_per_pass:.2f} / {row.theirs.tokens_per_pass:.2f}" in lines[0]
    name = load_taxonomy().method(EXIT).name
    assert f"[{name}](methods/{EXIT}.md), exit_layer {EXIT_LAYER}, gamma {GAMMA}" in text
    assert f"Plain decoding: their time is {rows[0].speedup:.2f} times ours, by the loop alone." in text
    drafted = rows[1]
    assert f"{drafted.loop.speedup:.2f} by the loop and {drafted.algorithm.speedup:.2f} by the drafting" in text
    for fact in ("Command: `accelgen bench --peers`", transformers.__version__, "2 rounds, 8 tokens", "1 thread"):
        assert fact in text
    for table in (block for block in text.split("\n\n") if block.startswith("| ")):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert text.count("2 of 2") == 7
    assert f"{rows[0].ours.working_bytes / 1e6:.1f} / {rows[0].theirs.working_bytes / 1e6:.1f}" in text
    assert '<span class="nowrap">(' in text


def test_a_text_that_is_not_as_promised_is_said_on_the_page(rows):
    wrong = dataclasses.replace(rows[0], identical_texts=0, rounding_ties=1, as_promised=False)
    assert "0 of 2; 1 by a rounding tie; 1 not as promised" in page([wrong])


def test_without_results_the_page_says_which_command_makes_them():
    assert "`accelgen bench --peers --store`" in fragments(load_taxonomy(), Results())["peers"]


@pytest.mark.skipif(not (RESULTS / "peers.json").is_file(), reason="not measured in this checkout")
def test_the_stored_comparison_is_complete_and_as_promised():
    stored = read_json(RESULTS / "peers.json")
    assert stored["command"].endswith("--peers")
    assert len(stored["rows"]) == 14
    for row in peer_rows(stored):
        assert not isinstance(row, FailedRow), row.error
        assert row.pairs >= 20
        assert row.as_promised is not False
