"""Every suite proves a small honest method of its kind, and finds each bug that is planted in it.

The methods are written for these tests (`trials/`). A bug is a change of their source text; beside it stands the check
that has to find it.
"""

from pathlib import Path

import pytest

from reference_impls.testing import SUITES, prove

EXACT = ("exact-law", "greedy-identity", "accounting", "options")
OWED = {
    "prompt_lookup": EXACT,
    "learning": EXACT,
    "scheduled": ("early-exit", "accounting", "options"),
    "translating": ("non-autoregressive",),
    "filling": ("canvas",),
    "together": ("batch",),
    "answering": ("classify",),
}
BUGS = {
    "prompt_lookup": {
        "copies one place late": ("text[end : end + gamma]", "text[end + 1 : end + 1 + gamma]", "perfect-use"),
        "never finds a match": ("== text[-size:]", "is text", "perfect-use"),
        "takes the shortest match first": ("range(longest, 0, -1)", "range(1, longest + 1)", "perfect-use"),
        "hides what was kept": ("kept=kept", "kept=0", "kept-guesses"),
        "leaves refused guesses in the cache": (
            "cache.crop(len(tokens) - 1)",
            "cache.crop(len(tokens))",
            "random-guesses",
        ),
        "reads past the last position": ("room(len(tokens), gamma, target)", "gamma", "positions"),
        "drafts less than asked for": ("end + gamma]", "end + 1]", "perfect-use"),
        "knows one end token only": (
            "kept=kept), limit, eos)",
            "kept=kept), limit, eos if eos is None or isinstance(eos, int) else [*eos][0])",
            "several-ends",
        ),
    },
    "learning": {
        "learns to be sure": (
            "(target([*tokens",
            "((2.0 if table.after[0] else 1.0) * target([*tokens",
            "three-steps",
        ),
        "changes the target": ("table.after[tokens", "target.norm.weight[0] += 1e-9; table.after[tokens", "untouched"),
        "judges guesses by another law": (".to(p.dtype), p)", ".to(p.dtype) * 0.9 + 0.1 / 3, p)", "three-steps"),
    },
    "scheduled": {
        "leaves skipped layers empty": ("target.fill(x, cache, layers=range(stop, depth))", "", "cache-complete"),
        "fills with another state": ("target.fill(x,", "target.fill(x * 2,", "propagation"),
        "says that all layers were run": ("layers=[stop]", "layers=[depth]", "layers"),
        "never says that all layers were run": ("layers=[stop]", "layers=[min(stop, depth - 1)]", "leaves-early"),
        "never leaves": ("if result.tokens else depth", "if not limit else depth", "leaves-early"),
        "always leaves": (
            "stop = schedule[len",
            "stop = 1 if len(schedule) < 2 and result.tokens else schedule[len",
            "full-model",
        ),
    },
    "translating": {
        "runs a pass too many": ("words = greedy", "model.decode(unseen, memory); words = greedy", "passes"),
        "forgets a pass of the drafter": ("draft_passes=len(draft)", "draft_passes=1", "passes"),
        "leaves refused words in the cache": ("cache.crop(len(tokens))", "cache.crop(len(cache))", "ends"),
        "writes past the limit": ("len(draft)), limit, eos)", "len(draft)), limit + 1, eos)", "ends"),
        "does not know the end": ("len(draft)), limit, eos)", "len(draft)), limit, None)", "ends"),
        "reads further than there are places": ("model.longest - 1 - len", "model.longest - len", "passes"),
        "says that all guesses stay": ("kept=kept", "kept=len(draft)", "trace"),
        "takes any drafter": ("check_vocabulary(model, drafter)", "", "drafter"),
        "changes the drafter": ("draft = []", "draft = []; drafter.norm.weight[0] += 1e-9", "untouched"),
    },
    "filling": {
        "leaves holes": (
            "due = -(-len(holes) // left)",
            "due = len(holes) // left if left > 1 else max(0, len(holes) - 1)",
            "filled",
        ),
        "fills with the mask": ("= -torch.inf", "= torch.inf", "filled"),
        "runs a pass too many": (
            "visible=visible))[holes]",
            "visible=visible))[holes] + 0 * model(canvas).sum()",
            "passes",
        ),
        "hides the prompt": ("model.embed(canvas)", "model.embed([0] * start + canvas[start:])", "prompt"),
        "writes over the prompt": ("holes = [i", "prompt.append(0); holes = [i", "prompt"),
        "fills two at once": (
            "due = -(-len(holes) // left)",
            "due = min(2, len(holes)) if left > 1 else len(holes)",
            "one-by-one",
        ),
        "forgets the last canvas": ("canvas=canvas[start:], masked", "canvas=canvas[:length], masked", "canvas"),
        "takes steps for nothing": (
            "while left > 0 and length:",
            "result.steps += [] if length else [Step([])]\n    while left > 0 and length:",
            "no-place",
        ),
        "has no say for chance": ("sampler.draw(p)", "p.argmax(-1).where(p.isfinite().all(), -1)", "seeds"),
        "uses the global state": (
            "sampler.draw(p)",
            "p.multinomial(1).squeeze(-1) if p.isfinite().all() else sampler.draw(p)",
            "untouched",
        ),
        "takes any number of steps": ("if steps < 1 or length < 0:", "if length < 0:", "steps=0"),
        "says nothing of NaN": ("if (drawn < 0).any():", "if False:", "logits"),
    },
    "together": {
        "reads every row at the widest one's end": ("len(texts[i]) - 1 for", "widest - 1 for", "alone"),
        "ends all rows with one": ("open_ = going", "open_ = going if len(going) == len(open_) else []", "alone"),
        "gives a row the wrong limit": ("limits[i], eos", "max(limits), eos", "alone"),
        "ends no row": ("limits[i], eos", "limits[i]", "ends"),
        "knows one end token only": ("limits[i], eos", "limits[i], eos if isinstance(eos, int) else None", "ends"),
        "draws once for all rows": (
            "sampler.draw(sampler.probs(logits[torch.arange(len(open_)), ends])).tolist()",
            "[int(sampler.draw(sampler.probs(logits[0, ends[0]])))] * len(open_)",
            "law",
        ),
        "reads past the last position": (
            "target(rows)",
            "target(rows) + 0 * target(torch.nn.functional.pad(rows, (0, 1)))[:, :-1]",
            "positions",
        ),
        "runs one row a pass": (
            "logits = target(rows)",
            "logits = torch.cat([target(row[None]) for row in rows])",
            "passes",
        ),
        "counts a pass twice": ("Step([token])", "Step([token], passes=2)", "passes"),
        "takes rows without a limit": ("if len(prompts) != len(limits):", "if False:", "bad-rows"),
        "takes empty rows": ("        target.embed(prompt)", "        pass", "bad-rows"),
        "writes into the prompts": ("[list(prompt) for prompt in prompts]", "list(prompts)", "untouched"),
    },
    "answering": {
        "counts a layer less": ("layers=[layer + 1]", "layers=[max(1, layer)]", "layers"),
        "leaves where it is unsure": ("best >= threshold", "best < threshold", "whole-model"),
        "never leaves": ("best >= threshold", "best > 2", "leaves-early"),
        "takes any threshold": ("if math.isnan(threshold):", "if False:", "threshold=nan"),
        "answers from the last layer but one": ("range(depth)", "range(depth - 1)", "whole-model"),
        "says nothing of NaN": ("if not p.isfinite().all():", "if False:", "logits"),
    },
}  # fmt: skip


def source(trial):
    return (Path(__file__).parent / "trials" / f"{trial}.py").read_text("utf-8")


def results(trial, text):
    names = {"__name__": f"trial_{trial}"}
    exec(compile(text, trial, "exec"), names)  # noqa: S102 - our own text
    suites = [SUITES[name] for name in OWED[trial]]
    return {result.check: result for result in prove(names["generate"], suites, names["CASE"])}


@pytest.mark.parametrize("trial", OWED)
def test_an_honest_method_is_proved(trial):
    found = results(trial, source(trial))
    assert [result for result in found.values() if result.outcome != "passed"] == []


@pytest.mark.parametrize(("trial", "bug"), [(trial, bug) for trial, bugs in BUGS.items() for bug in bugs])
def test_a_planted_bug_is_found(trial, bug):
    old, new, check = BUGS[trial][bug]
    text = source(trial)
    assert text.count(old) == 1
    found = results(trial, text.replace(old, new))
    failed = [name for name, result in found.items() if result.outcome == "failed"]
    assert check in failed, failed
