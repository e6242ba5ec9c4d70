"""Translation with guesses: a small encoder-decoder writes two words ahead, and the model says how many are right."""

import torch

from reference_impls.core.drafting import check_vocabulary
from reference_impls.core.generation import Generation, Step
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.testing.case import Case

CASE = Case()


@torch.inference_mode()
def generate(model: EncoderDecoder, source, limit, *, drafter: EncoderDecoder, eos: int):
    check_vocabulary(model, drafter)
    if limit > model.longest:
        raise ValueError(f"limit is {limit}; the model has {model.longest} positions, so ask for no more tokens")
    result, greedy, tokens, go_on = Generation(), Sampler(0), [], limit > 0
    memory, own, cache = model.encode(source), drafter.encode(source), model.new_cache()
    while go_on:
        draft = []
        for _ in range(min(2, model.longest - 1 - len(tokens))):
            state = drafter.decode([eos, *tokens, *draft], own)[-1]
            draft.append(int(drafter.logits(state).argmax()))
        unseen = [*[eos, *tokens][len(cache) :], *draft]
        law = greedy.probs(model.logits(model.decode(unseen, memory, cache)))
        words = greedy.draw(law).tolist()
        kept = next((i for i, (a, b) in enumerate(zip(draft, words, strict=False)) if a != b), len(draft))
        emitted = words[: kept + 1]
        tokens += emitted
        cache.crop(len(tokens))
        go_on = result.add(Step(emitted, draft, kept=kept, draft_passes=len(draft)), limit, eos)
    return result
