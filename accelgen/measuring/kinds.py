"""How the methods of each kind are called: what they are given, compared with and measured at, how that is shown.

`KINDS` has one object for each `Call` of the taxonomy. Whoever runs a method (`accelgen run`, `bench`, `trace`) asks it
and guesses nothing from names of parameters. Torch and the zoo are imported when they are needed, not before.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from accelgen.measuring.sides import Request, Setting, Shown, Side, setting_name
from accelgen.measuring.vocabularies import Tokens, Vocabulary, WordVocabulary, ZooVocabulary
from accelgen.taxonomy.calls import BASELINE, BASELINES, Baseline
from accelgen.taxonomy.schema import Call, Guarantee, Method

if TYPE_CHECKING:
    from accelgen.measuring.pairs import Pair
    from reference_impls.core.generation import Generation
    from reference_impls.zoo.tasks import Example

EXACT = (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY)
TEMPERATURES = (0.0, 0.8)
REFINED = (1, 4, 10)  # a method that refines a text in so many passes as it is told is measured at these


# ---- the kinds ----------------------------------------------------------------------------------------------------


class Kind(ABC):
    """What is the same for all methods that are called alike."""

    call: ClassVar[Call]
    function: ClassVar[str] = "generate"
    model: ClassVar[str] = "target"  # the parameter whose passes are counted
    plain: ClassVar[str]  # what a method is compared with, in words
    options: ClassVar[Mapping[str, str]]  # option of `accelgen run` -> the parameter that it fills
    apart: ClassVar[bool] = False  # whether what is written stands by itself instead of going on
    rewrites: ClassVar[bool] = False  # whether every pass writes the whole text
    unfit: ClassVar[str] = ""  # why it does not run on a checkpoint of the user's; empty where it does
    refined: ClassVar[str] = ""  # the parameter that says in how many passes a text is refined, where there is one

    # -- how it is run --

    @abstractmethod
    def arguments(self, request: Request) -> dict[str, Any]:
        """The request in the words of this call, the sampler included."""

    def perform(self, side: Side, request: Request) -> list[Generation]:
        """Run `side` on the request; one result for each sequence that was asked for."""
        given = {name: value for name, value in self.arguments(request).items() if name in side.required}
        return self.results(side.function(**given, **side.options))

    def results(self, found: Any) -> list[Generation]:
        """What the function returned, as generations."""
        return [found]

    def side(self, module: ModuleType, options: Mapping[str, Any]) -> Side:
        """The method of a module, with its models and options."""
        return Side(module, getattr(module, self.function), options)

    def rows(self, given: Any) -> list[Tokens]:
        """What was given to each sequence."""
        return [given]

    # -- what it is compared with, on what, and at which settings --

    @abstractmethod
    def rival(self, id: str, own: Side, limit: int) -> Side:
        """Plain decoding of the same task, which the method is compared with."""

    def shares(self, setting: Setting) -> str:
        """The name of a baseline that runs alike for all methods at this setting; empty if it is the method's own."""
        return "" if setting.temperature is None else f"{self.call}, {setting_name(setting.temperature)}"

    def inputs(self, count: int) -> list[Any]:
        """The first `count` held-out inputs as token ids. Raises ValueError if there are fewer."""
        words = self.vocabulary()
        return [words.encode(text) for text in self.texts(count)]

    def settings(self, method: Method, side: Side) -> list[Setting]:
        """What is varied: the temperature, where a method draws and promises something, and what its case compares."""
        from reference_impls.testing.cases import case_of

        drawn = "sampler" in side.required
        every = TEMPERATURES[:1] if method.guarantee is Guarantee.EXACT_GREEDY else TEMPERATURES
        varied = [more | dict(own) for more in self.refinements(side) for own in case_of(method.id).compared]
        return [Setting(t, more) for t in (every if drawn else (None,)) for more in varied]

    def refinements(self, side: Side) -> list[dict[str, Any]]:
        """The numbers of passes at which a method that refines is measured; one empty choice for any other."""
        known = inspect.signature(side.function).parameters
        return [{self.refined: n} for n in REFINED] if self.refined in known else [{}]

    def figures(self, own: Side, inputs: Sequence[Any], pairs: Sequence[Pair], method: Method) -> dict[str, Any]:
        """What is known of the output itself, for a row of the benchmark; `pairs` are greedy or draw nothing.

        Further runs of a greedy text add nothing, so each input counts once.
        """
        from accelgen.measuring.pairs import agreement

        prompts = [row for given in inputs for row in self.rows(given)]
        exact, target = method.guarantee in EXACT, own.options.get("target")
        return agreement(prompts, pairs[: len(inputs)], exact=exact, target=target)

    # -- how it is shown --

    def vocabulary(self) -> ZooVocabulary | WordVocabulary:
        """The words of the zoo's models of this kind."""
        return ZooVocabulary()

    def texts(self, count: int) -> list[str]:
        """The first `count` held-out texts of the zoo. Raises ValueError if there are fewer."""
        from reference_impls import zoo

        return list(take(zoo.prompts(), count, "held-out prompts"))

    def begin(self, text: str | None) -> list[str]:
        """The texts of a single run: what the user gave, or else the zoo's."""
        return self.texts(1) if text is None else [text]

    def given(self, encoded: list[list[int]]) -> Any:
        """Encoded texts as a request has them."""
        return encoded[0]

    def pieces(self, words: Vocabulary, prompt: Tokens, tokens: Tokens) -> list[str]:
        """The text of each token that was written after the prompt."""
        return words.pieces(prompt, tokens)

    def refuse(self, id: str, side: Side, asked: Sequence[str]) -> None:
        """Raise ValueError for an option of a run, such as `seed`, that the method has no use for."""
        for name in asked:
            if self.options.get(name) not in side.required:
                own = "sampler" in inspect.signature(side.function).parameters
                drawn = "draws with a sampler of its own" if own else "makes no random choices"
                raise ValueError(f"{id} {'finds the length itself' if name == 'limit' else drawn}: leave out --{name}")

    def facts(self, own: Side) -> dict[str, Any]:  # noqa: ARG002 - some kinds need it
        """What a page must know to draw a run."""
        return {}

    def shown(self, own: Side, limit: int) -> Iterator[Shown]:
        """The runs that the page shows: greedy, and at a temperature where the method draws."""
        (given,) = self.inputs(1)
        for temperature in TEMPERATURES if "sampler" in own.required else TEMPERATURES[:1]:
            request = Request(given, limit, temperature)
            settings = {"temperature": temperature, "seed": 0}
            yield Shown(setting_name(temperature).capitalize(), request, self.perform(own, request), settings)


class Continue(Kind):
    """`generate(target, prompt, limit, *, sampler, …, eos=None) -> Generation`."""

    call = Call.CONTINUE
    plain = "autoregressive decoding of the same target"
    options: ClassVar = {"limit": "limit", "temperature": "sampler", "seed": "sampler"}

    def arguments(self, request: Request) -> dict[str, Any]:
        """A prompt, a limit, a sampler, perhaps an end."""
        return {"prompt": request.given, "limit": request.limit, "sampler": request.sampler(), "eos": request.eos}

    def rival(self, id: str, own: Side, limit: int) -> Side:  # noqa: ARG002 - the same for all
        """The target alone."""
        return self.side(baseline_module(BASELINES[BASELINE]), {"target": own.options["target"]})

    def facts(self, own: Side) -> dict[str, Any]:
        """The number of layers."""
        return {"depth": own.options["target"].shape.layers}


class Translate(Kind):
    """`generate(model, source, …) -> Generation`; what has an order of its own takes limit, sampler and end too."""

    call = Call.TRANSLATE
    model = "model"
    plain = "autoregressive translation by a model of the same size"
    options: ClassVar = {"limit": "limit", "temperature": "sampler", "seed": "sampler"}
    apart, rewrites = True, True
    unfit = "translates with an encoder-decoder of its own"
    refined = "iterations"

    SENTENCES = 2  # that a page shows: the first held-out ones that are revised, or written in one pass,
    SEARCHED = 100  # among so many

    def arguments(self, request: Request) -> dict[str, Any]:
        """A source; the rest is the baseline's, whose model has no more places than the task's longest sentence."""
        words = self.vocabulary()
        limit = min(request.limit, words.longest)
        return {"source": request.given, "limit": limit, "sampler": request.sampler(), "eos": words.eos}

    def rival(self, id: str, own: Side, limit: int) -> Side:  # noqa: ARG002 - the same for all
        """The translation model that writes word by word."""
        module = baseline_module(BASELINES["translation"])
        return self.side(module, module.example())

    def shares(self, setting: Setting) -> str:  # noqa: ARG002 - nothing is drawn
        """The baseline is greedy whatever a method varies."""
        return str(self.call)

    def refinements(self, side: Side) -> list[dict[str, Any]]:
        """The passes of a method that refines, else a choice of words."""
        found = super().refinements(side)
        return found if found != [{}] else side.choices()

    def vocabulary(self) -> WordVocabulary:
        """The words of the task."""
        return WordVocabulary()

    def examples(self, count: int) -> list[Example]:
        """The first `count` held-out sentences, with all their right translations."""
        from reference_impls.zoo.tasks import task

        return list(itertools.islice(task("lite").examples(), count))

    def texts(self, count: int) -> list[str]:
        """Held-out sentences, as many as anybody asks for."""
        return [example.source for example in self.examples(count)]

    def figures(self, own: Side, inputs: Sequence[Any], pairs: Sequence[Pair], method: Method) -> dict[str, Any]:  # noqa: ARG002 - judged by references
        """Passes a sentence, and how many sentences of both sides are right."""
        from reference_impls.zoo.tasks import task

        found = list(zip(pairs, itertools.cycle(self.examples(len(inputs))), strict=False))

        def right(side: str) -> float:
            return statistics.fmean(task("lite").is_correct(getattr(pair, side)[0].tokens, e) for pair, e in found)

        passes = sum(result.passes for pair in pairs for result in pair.own)
        return {
            "passes_per_sentence": passes / len(pairs),
            "exact_match": right("own"),
            "exact_match_autoregressive": right("baseline"),
        }

    def facts(self, own: Side) -> dict[str, Any]:  # noqa: ARG002 - of the task
        """The token that stands for a place that is still open."""
        from reference_impls.zoo.tasks import MASK

        return {"mask": MASK}

    def shown(self, own: Side, limit: int) -> Iterator[Shown]:
        """The first sentences that a later pass revises, or of which a guess is refused."""
        requests = (Request(source, limit) for source in self.inputs(self.SEARCHED))
        found = ((request, self.perform(own, request)) for request in requests)
        revised = ((request, results) for request, results in found if _is_revised(results[0]))
        for number, (request, results) in enumerate(itertools.islice(revised, self.SENTENCES), 1):
            yield Shown(f"Held-out sentence, number {number}", request, results)


class Canvas(Kind):
    """`generate(model, prompt, length, *, steps, …) -> Generation`: a text of fixed length is filled."""

    call = Call.CANVAS
    model = "model"
    plain = "the same model, one place a pass"
    options: ClassVar = {"limit": "length", "temperature": "sampler", "seed": "sampler"}
    rewrites = True
    unfit = "fills a text with a model of its own"
    refined = "steps"

    def arguments(self, request: Request) -> dict[str, Any]:
        """A prompt and the length of what follows it."""
        return {"prompt": request.given, "length": request.limit, "sampler": request.sampler()}

    def rival(self, id: str, own: Side, limit: int) -> Side:  # noqa: ARG002 - the method itself
        """As many steps as places."""
        return replace(own, options={**own.options, self.refined: limit})

    def shares(self, setting: Setting) -> str:  # noqa: ARG002 - never
        """Every method has its own model."""
        return ""


class Batch(Kind):
    """`generate(target, prompts, limits, *, …) -> list[Generation]`: several sequences at once."""

    call = Call.BATCH
    plain = "autoregressive decoding of one sequence after another"
    options: ClassVar = {"limit": "limits", "temperature": "sampler", "seed": "sampler"}
    unfit = "decodes several sequences at once, and a run on a checkpoint has one"

    ROWS = 4  # sequences of a batch

    def arguments(self, request: Request) -> dict[str, Any]:
        """Prompts with a limit each."""
        limits = [request.limit] * len(request.given)
        return {"prompts": request.given, "limits": limits, "sampler": request.sampler(), "eos": request.eos}

    def results(self, found: Any) -> list[Generation]:
        """One for each prompt."""
        return list(found)

    def rows(self, given: Any) -> list[Tokens]:
        """The prompts."""
        return list(given)

    def rival(self, id: str, own: Side, limit: int) -> Side:  # noqa: ARG002 - the same for all
        """The target alone, prompt by prompt."""
        module = baseline_module(BASELINES[BASELINE])

        def one_by_one(target: Any, prompts: Any, limits: Any, sampler: Any, eos: Any = None) -> list[Generation]:
            pairs = zip(prompts, limits, strict=True)
            return [module.generate(target, prompt, limit, sampler=sampler, eos=eos) for prompt, limit in pairs]

        return Side(module, one_by_one, {"target": own.options["target"]})

    def inputs(self, count: int) -> list[Any]:
        """Batches of neighbouring prompts; the last prompt is followed by the first."""
        encoded = super().inputs(count)
        return [[encoded[(i + k) % count] for k in range(self.ROWS)] for i in range(count)]

    def begin(self, text: str | None) -> list[str]:
        """The user's text alone, or the zoo's first ones."""
        return self.texts(self.ROWS) if text is None else [text]

    def given(self, encoded: list[list[int]]) -> Any:
        """All of them."""
        return encoded


class Classify(Kind):
    """`predict(model, tokens, …) -> Step`: a label, and the layers that it took."""

    call = Call.CLASSIFY
    function = "predict"
    model = "model"
    plain = "all layers of the same model"
    options: ClassVar = {}
    apart = True
    unfit = "labels texts with an encoder of its own"

    def arguments(self, request: Request) -> dict[str, Any]:
        """A text."""
        return {"tokens": request.given}

    def results(self, found: Any) -> list[Generation]:
        """The label as a text of one token."""
        from reference_impls.core.generation import Generation

        return [Generation(list(found.emitted), [found])]

    def pieces(self, words: Vocabulary, prompt: Tokens, tokens: Tokens) -> list[str]:  # noqa: ARG002 - no text
        """The number of the label."""
        return [str(token) for token in tokens]

    def rival(self, id: str, own: Side, limit: int) -> Side:  # noqa: ARG002 - a label has no length
        """The method's own options that leave out no layer, as its case says them."""
        from reference_impls.testing.cases import case_of

        if not (exits := case_of(id).exits):
            raise ValueError(f"the case of {id} does not say how all layers are run: end `exits` with that")
        return replace(own, options={**own.options, **exits[-1]})

    def shares(self, setting: Setting) -> str:  # noqa: ARG002 - never
        """Every method has its own model."""
        return ""


KINDS: Mapping[Call, Kind] = {kind.call: kind for kind in (Continue(), Translate(), Canvas(), Batch(), Classify())}


def baseline_module(baseline: Baseline) -> ModuleType:
    """The module of a baseline."""
    return importlib.import_module(baseline.module)


def take(items: Sequence[str], count: int, what: str) -> Sequence[str]:
    """The first `count` items. Raises ValueError if there are fewer."""
    if count > len(items):
        raise ValueError(f"{count} {what} were asked for, but there are {len(items)}")
    return items[:count]


def _is_revised(result: Generation) -> bool:
    """Whether a guess was refused, or a later pass changed what the first one wrote; a single pass cannot."""
    if any(step.drafted for step in result.steps):
        return any(step.kept < len(step.drafted) for step in result.steps)
    return len(result.steps) == 1 or result.steps[0].canvas != result.tokens
