r"""SpecDec: a parallel drafter fills in a whole block of the translation, and the model checks it in one pass.

Speculative Decoding: Exploiting Speculative Execution for Accelerating Seq2seq Generation. Heming Xia, Tao Ge, Peiyi
Wang, Si-Qing Chen, Furu Wei, Zhifang Sui. Findings of EMNLP 2023. https://arxiv.org/abs/2203.16487

Idea
----
A translation model writes one word a pass, although the source decides most of the words beforehand. So let a second
model, trained for this alone, fill in a long block at once, and let the model check it in one pass. A good drafter is
accurate, so that long blocks stay, and fast, so that a block is cheap: it has a deep encoder, which reads the source
once, and a shallow decoder, which runs for every block. And where several words would do, the model need not insist on
its own.

Algorithm
---------
1. Both models read the source once.
2. *Draft*: the drafter sees the text so far and $\gamma$ (`gamma`) masks behind it. One pass of its decoder, in which
   all places see each other, gives for every mask the likeliest word: the block $x_1, \dots, x_\gamma$.
3. *Verify*: one pass of the model over the newest word and the block gives its laws $p_1, \dots, p_{\gamma + 1}$. The
   guess $x_i$ stays if it is among the $\beta$ (`beta`) likeliest of $p_i$ and
   $\max_y \log p_i(y) - \log p_i(x_i) \le \tau$ (`tau`).
4. *Commit*: the guesses before the first that is refused, and there the model's likeliest word $\arg\max_y p_i(y)$;
   behind a block that stays whole, the likeliest of $p_{\gamma + 1}$. The cache forgets what was refused.
5. *Training* (`loss`): the drafter begins with the model's encoder (`initialise`) and learns the model's own
   translations. A prefix of random length gets $\gamma$ masks behind it. A first pass counts the wrong words; a share
   of so many masks, drawn at random, is replaced by the right words, and the others are learnt, by cross-entropy with
   label smoothing 0.1. So the drafter learns the easy blocks whole, and of the hard ones first what follows from a few
   words (glancing).

Guarantee
---------
Lossy: what stays need not be the model's own word, but it is likely enough after what really stands before it. With
$\beta = 1$ only the model's own word stays, and the text is that of greedy decoding, whatever the drafter guesses; so
it is with $\tau = 0$, but for words that tie. The rule knows no sampling.

Differences from the paper
--------------------------
1. The paper's drafter has 12 layers of encoder and 2 of decoder for models of 6 and 6; the zoo's has 2 and 1 for a
   model of 2 and 2. Published commands train 6 and 6.
2. Where the drafter ends the text, its block ends; published code also checks what it wrote behind the end, which
   nobody has trained. The block is shorter where the positions of a model end.
3. Equal logits rank as greedy decoding takes them, the lower token first, so that $\beta = 1$ is exact also where
   narrow types make ties; published code leaves their order to its sorting.
4. Step 5 follows the published code: how many words are shown, a share of 0.5 that falls to 0.3, and that any masks may
   be, not those that were wrong.
5. The paper's speedups are over beam search; plain decoding is greedy here.
6. One sentence is decoded at a time; published code has batches as well, and runs them without a cache.
7. The feed-forward halves are gated and the norms come first, as everywhere in this project.

Example
-------
>>> from reference_impls.speculative_decoding.specdec import example, generate
>>> from reference_impls.zoo.tasks import END, task
>>> lite = task("lite")
>>> source = lite.encode("Julia has ordered six cups for Martin at ninety-nine euros on the sixth of February.")
>>> strict = generate(source=source, limit=24, eos=END, **example() | {"beta": 1})
>>> lite.join(lite.decode(strict.tokens)), strict.passes
('sechs Tassen zu neunundneunzig Euro hat Julia am sechsten Februar für Martin bestellt.', 3)
>>> relaxed = generate(source=source, limit=24, eos=END, **example())
>>> lite.join(lite.decode(relaxed.tokens)), relaxed.passes
('am sechsten Februar hat Julia sechs Tassen zu neunundneunzig Euro für Martin bestellt.', 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impls.core.arguments import check_pairs, check_range, checked
from reference_impls.core.drafting import best_guesses, check_draft, check_guesses
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.sampling import Sampler, wide
from reference_impls.core.seq2seq import EncoderDecoder, Memory


@torch.inference_mode()
@checked
def generate(
    model: EncoderDecoder,
    source: Sequence[int],
    limit: int,
    *,
    drafter: SpecDrafter,
    eos: int,
    gamma: int = 25,
    beta: int = 3,
    tau: float = 1.0,
) -> Generation:
    """Translate `source` into up to `limit` tokens: the drafter fills `gamma` places a step, the model checks them.

    A guess stays that is one of the model's `beta` likeliest tokens, at most `tau` nats behind the first. Raises
    ValueError for options that cannot work, a limit beyond the model's positions, or models of different vocabularies.
    """
    check_draft(gamma, model, drafter)
    check_range(0, model.shape.vocab - 1, eos=eos)
    check_options(model, limit, beta, tau)
    greedy, result, tokens = Sampler(temperature=0), Generation(), list[int]()
    memory, draft_memory, cache = model.encode(source), drafter.encode(source), model.new_cache()
    go_on = limit > 0
    # The cache holds the symbol that begins a text and all words but the newest.
    while go_on:
        # Draft: one pass of the drafter fills a block of masks behind the text; what follows its end is no guess.
        masks = min(gamma, model.longest - 1 - len(tokens), drafter.longest - len(tokens))
        block = fill_block(drafter, tokens, masks, draft_memory) if masks > 0 else []
        draft = block[: block.index(eos) + 1] if eos in block else block
        # Verify: one pass of the model over the newest word and the draft; a text begins with its end token, too.
        unseen = [*[eos, *tokens][len(cache) :], *draft]
        logits = model.logits(model.decode(unseen, memory, cache))  # [draft + 1, vocab]
        own = greedy.draw(greedy.probs(logits))  # [draft + 1]
        kept = count_kept(draft, logits, beta, tau)
        count, extra = torch.stack((kept, own[kept])).tolist()
        # Commit: the guesses before the first that is refused, and the model's own word in its place.
        emitted = [*draft[:count], extra]
        tokens += emitted
        cache.crop(len(tokens))
        go_on = result.add(Step(emitted, draft, kept=count, draft_passes=int(masks > 0)), limit, eos)
    return result


def fill_block(drafter: SpecDrafter, tokens: Sequence[int], gamma: int, memory: Memory) -> list[int]:
    """The drafter's likeliest token for each of the `gamma` places behind the text, from a single pass."""
    canvas = torch.tensor([*tokens, *[drafter.mask_id] * gamma], device=drafter.device)
    logits = drafter.logits(drafter.fill(canvas, memory)[-gamma:])  # [gamma, vocab]
    block: list[int] = best_guesses(logits, 1)[:, 0].tolist()
    check_guesses(block)
    return block


def count_kept(draft: Sequence[int], logits: Tensor, beta: int, tau: float) -> Tensor:
    """How many drafted tokens stay, a number on the device: those before the first that is refused.

    Row i of logits [draft + 1, vocab] judges guess i. Equal logits rank as greedy decoding takes them, the lower token
    first, so that with `beta` 1 no other token passes.
    """
    logits = logits[:-1].to(wide(logits))
    guess = torch.tensor(draft, device=logits.device, dtype=torch.long)[:, None]  # [draft, 1]
    score, tokens = logits.gather(-1, guess), torch.arange(logits.shape[-1], device=logits.device)
    better = (logits > score) | ((logits == score) & (tokens < guess))  # [draft, vocab]
    gap = logits.amax(-1) - score[:, 0]
    return ((better.sum(-1) < beta) & (gap <= tau)).cumprod(0).sum()


def check_options(model: EncoderDecoder, limit: int, beta: int, tau: float) -> None:
    """One clear sentence for options that cannot work."""
    if beta < 1:
        raise ValueError(f"beta is {beta}; at least 1 token, the model's own, must be let through")
    if tau < 0:
        raise ValueError(f"tau is {tau}; it is a distance in nats from the likeliest token, so give 0 or more")
    if limit > model.longest:
        raise ValueError(f"limit is {limit}; the model has {model.longest} positions, so ask for no more tokens")


class SpecDrafter(EncoderDecoder):
    """A drafter that fills in masks: a deep encoder, which runs once for a source, and a shallow decoder."""

    @checked
    def __init__(self, shape: Shape, longest: int, *, pad: int, mask_id: int, decoder_layers: int = 2) -> None:
        check_range(0, shape.vocab - 1, pad=pad, mask_id=mask_id)
        check_range(1, decoder_layers=decoder_layers)
        super().__init__(shape, longest)
        self.pad, self.mask_id = pad, mask_id
        self.decoder = self.decoder[:decoder_layers]

    def fill(self, canvas: Tensor, memory: Memory) -> Tensor:
        """Hidden states [..., tokens, dim] of a canvas [..., tokens] whose real tokens and masks all see each other."""
        return self.decode(canvas, memory, visible=(canvas != self.pad)[..., None, :])


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    models = {"model": zoo.load("translation-ar"), "drafter": zoo.load("translation-drafter")}
    return models | {"gamma": 25, "beta": 3, "tau": 1.0}


@checked
def loss(
    drafter: SpecDrafter,
    source: Tensor,
    target: Tensor,
    *,
    gamma: int = 25,
    share: float = 0.5,
    generator: torch.Generator | None = None,
    smoothing: float = 0.1,
) -> Tensor:
    """Glancing training: cross-entropy in nats of the places of a block that stay masked, smoothed.

    Sources [batch, source] and targets [batch, target], which close with their end, are padded. Each row gets a prefix
    of random length and `gamma` masks behind it. A first pass counts its wrong places; so many of the masks, times
    `share` and rounded down, are replaced by what should stand there, and the others are learnt in a second pass.

    Raises ValueError for texts without a token, for what is no token, and for options out of range.
    """
    check_pairs(drafter, source, target, never=drafter.mask_id)
    check_draft(gamma, drafter)
    check_range(0, 1, smoothing=smoothing)
    if not 0 <= share < 1:
        raise ValueError(
            f"share is {share}; of the wrong places at least one must stay masked, so give 0 or more, below 1"
        )
    wanted = F.pad(target, (0, gamma - 1), value=drafter.pad)[:, : drafter.longest]
    canvas, learnt = masked_block(drafter, wanted, gamma, generator)
    memory = drafter.encode(source, source != drafter.pad)
    with torch.no_grad():
        wrong = learnt & (drafter.logits(drafter.fill(canvas, memory)).argmax(-1) != wanted)
    shown = random_places(learnt, (wrong.sum(-1) * share).long(), generator)
    hidden = drafter.fill(torch.where(shown, wanted, canvas), memory)
    asked = learnt & ~shown
    return F.cross_entropy(drafter.logits(hidden[asked]), wanted[asked], label_smoothing=smoothing)


def masked_block(
    drafter: SpecDrafter, wanted: Tensor, gamma: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Canvases [batch, tokens] with a prefix and `gamma` masks, and which of these have a token to be learnt.

    The prefix of a text of N tokens, its end included, has 0, …, N - 1 of them, each as likely.
    """
    real = wanted != drafter.pad
    chance = torch.rand(len(wanted), generator=generator, device=wanted.device, dtype=torch.float64)
    start = (chance * real.sum(-1)).long()[:, None]  # [batch, 1]
    places = torch.arange(wanted.shape[-1], device=wanted.device)
    block = (places >= start) & (places < start + gamma)
    canvas = torch.where(block, drafter.mask_id, wanted).masked_fill(places >= start + gamma, drafter.pad)
    return canvas, block & real


def random_places(among: Tensor, count: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """True [batch, tokens] at `count` [batch] random places of those that are True in `among` [batch, tokens]."""
    chance = torch.rand(among.shape, generator=generator, device=among.device).masked_fill(~among, 2.0)
    return chance.argsort(-1).argsort(-1) < count[:, None]


@torch.no_grad()
def initialise(drafter: SpecDrafter, model: EncoderDecoder) -> None:
    """Begin with the model's own reading of a source: its embedding, its positions and its encoder."""
    known = model.state_dict()
    for name, parameter in drafter.state_dict().items():
        if name.startswith(("embedding", "positions", "encoder")):
            parameter.copy_(known[name])
