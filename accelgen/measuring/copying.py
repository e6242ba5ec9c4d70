"""What copying from references gives where an answer quotes: match rate, kept copies and tokens per pass.

`python -m accelgen.measuring.copying` decodes the zoo's quotations and stores the figures of the site. The answers are
stored ones: whatever a model would write, they are what is written (the authors of LLMA call it forced decoding). So
the figures belong to the texts, and depend on no weights and no machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from accelgen.measuring.rows import CopyingRow
from reference_impls.core.cache import Cache
from reference_impls.core.drafting import one_hot
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import llma
from reference_impls.zoo.texts import Quotation, encode, quotations, tokenizer

SHORTEST = (1, 2, 3)  # match lengths: the fewest tokens that are looked up
GAMMAS = (4, 9, 19)  # copy lengths


class Reciter:
    """Stands where a target stands, and says a text that is stored."""

    def __init__(self, prompt: Sequence[int], answer: Sequence[int], vocab: int) -> None:
        self.following = [*prompt[1:], *answer]  # the token after each place; after the last, 0 ends the text
        self.shape = SimpleNamespace(vocab=vocab)

    def new_cache(self) -> Cache:
        """A cache that holds nothing and only counts the tokens seen."""
        return Cache(1, 0, 0, torch.float32, torch.device("cpu"))

    def __call__(self, tokens: Sequence[int], cache: Cache, *, last: int) -> Tensor:
        """Logits [last, vocab] of the tokens that follow in the text, whatever was given."""
        cache.append(0, *torch.empty(2, 0, len(tokens), 0))
        end = len(cache)
        ahead = (self.following + [0] * last)[end - last : end]
        return one_hot(torch.tensor(ahead), self.shape.vocab)


def recited(quotation: Quotation, **options: int) -> Generation:
    """The answer of a quotation, copied from its references as far as they have it."""
    prompt, answer = encode(quotation.prompt), encode(quotation.answer)
    target: Any = Reciter(prompt, answer, tokenizer().get_vocab_size())
    references = [encode(text) for text in quotation.references]
    return llma.generate(target, prompt, len(answer), sampler=Sampler(0), references=references, **options)


def row(workload: str, texts: Sequence[Quotation], shortest: int, gamma: int) -> CopyingRow:
    """The figures of all texts of a workload together."""
    runs = [recited(text, shortest=shortest, gamma=gamma) for text in texts]
    looked_up = [step for run in runs for step in run.steps[1:]]
    copies = [step for step in looked_up if step.drafted]
    copied, tokens = sum(len(step.drafted) for step in copies), sum(len(run.tokens) for run in runs)
    return CopyingRow(
        workload=workload,
        shortest=shortest,
        gamma=gamma,
        texts=len(texts),
        tokens=tokens,
        match_rate=len(copies) / len(looked_up),
        copied=copied / len(copies),
        kept=sum(step.kept for step in copies) / copied,
        tokens_per_pass=tokens / sum(run.passes for run in runs),
    )


def measure() -> Iterator[CopyingRow]:
    """Every workload at every match length and copy length."""
    for workload, texts in quotations().items():
        for shortest in SHORTEST:
            for gamma in GAMMAS:
                yield row(workload, texts, shortest, gamma)


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    text = json.dumps({"rows": [found.as_data() for found in measure()]}, indent=1, ensure_ascii=False)
    write_whole(RESULTS / "copying.json", text + "\n")


if __name__ == "__main__":
    main()
