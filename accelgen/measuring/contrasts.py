"""Quality beside speed where the drafter is the contrast as well: one row for each strength and temperature.

`python -m accelgen.measuring.contrasts` writes after held-out prompts of the zoo and stores the figures of the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from accelgen.measuring.kinds import TEMPERATURES
from accelgen.measuring.rows import ContrastFigures, ContrastRow
from accelgen.training.quality import distinct_trigrams
from reference_impls import zoo
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import speculative_contrastive_decoding as method

STRENGTHS = ((0.0, 0.0), (0.1, 0.0), (0.1, 0.25), (0.1, 0.5), (0.1, 1.0))  # alpha and beta; first the target's own law


def right(scores: Sequence[Tensor], texts: Sequence[Sequence[int]]) -> float:
    """Share of tokens, the first of each text left out, that have the best score [n, vocab] at the place before."""
    hits = [
        best == token
        for rows, text in zip(scores, texts, strict=True)
        for best, token in zip(rows.argmax(-1).tolist(), text[1:], strict=False)
    ]
    return sum(hits) / len(hits)


@torch.inference_mode()
def figures(
    prompts: int = 12, limit: int = 96, strengths: Sequence[tuple[float, float]] = STRENGTHS
) -> ContrastFigures:
    """Rows for all strengths and temperatures: `prompts` texts are written, and all held-out prompts are read."""
    own = method.example()
    target, drafter = own["target"], own["drafter"]
    texts = [zoo.encode(text) for text in zoo.prompts()]
    expert, amateur = ([model(text) for text in texts] for model in (target, drafter))
    rows = []
    for alpha, beta in strengths:
        scores = [method.contrast(p, q, alpha, beta) for p, q in zip(expert, amateur, strict=True)]
        for temperature in TEMPERATURES:
            options = own | {"alpha": alpha, "beta": beta}
            written = [
                method.generate(prompt=text, limit=limit, sampler=Sampler(temperature, seed=seed), **options)
                for seed, text in enumerate(texts[:prompts])
            ]
            tokens = sum(len(result.tokens) for result in written)
            row = ContrastRow(
                alpha=alpha,
                beta=beta,
                temperature=temperature,
                right=right(scores, texts),
                varied=distinct_trigrams([result.tokens for result in written]),
                tokens_per_pass=tokens / sum(result.passes for result in written),
                draft_passes=sum(result.draft_passes for result in written) / tokens,
            )
            rows.append(row)
    return ContrastFigures(
        id=method.__name__.rpartition(".")[2].replace("_", "-"),
        prompts=prompts,
        limit=limit,
        gamma=own["gamma"],
        read=sum(len(text) - 1 for text in texts),
        drafter_right=right(amateur, texts),
        rows=rows,
    )


def main() -> None:
    """Measure and store."""
    from accelgen.project.files import write_whole
    from accelgen.project.places import RESULTS

    text = json.dumps(figures().as_data(), indent=2)
    write_whole(RESULTS / "contrasts.json", text + "\n")


if __name__ == "__main__":
    main()
