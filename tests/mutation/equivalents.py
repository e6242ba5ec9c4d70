"""Changes that provably change nothing observable, each with the reason in one sentence: they are not drawn.

A change that merely no test finds does not belong here: write the test.
"""

from .changes import Change

EQUIVALENTS: dict[Change, str] = {
    Change(
        "reference_impls/core/sampling.py",
        "torch.promote_types(logits.dtype, torch.float32)",
        "torch.promote_types(torch.float32, logits.dtype)",
    ): "the wider of two types does not depend on their order",
    Change(
        "reference_impls/speculative_decoding/speculative_contrastive_decoding.py",
        "check_guesses(draft[-1:])",
        "check_guesses(draft[-2:])",
    ): "the guess before the last was checked when it was the last",
    Change(
        "reference_impls/core/layers.py",
        "flat = q.dim() == 3",
        "flat = q.dim() == 2",
    ): "a batch dimension of one around the kernel changes which kernel computes, and not what it gives",
    Change(
        "reference_impls/core/verify.py",
        "one_hot(x.squeeze(-1), law",
        "one_hot(x.squeeze(1), law",
    ): "the last dimension of a matrix is its dimension 1",
    Change(
        "reference_impls/core/rescoring.py",
        "real.sum(-1, keepdim=True)",
        "real.sum(1, keepdim=True)",
    ): "the last dimension of a matrix is its dimension 1",
    Change(
        "reference_impls/early_exiting/free.py",
        "** 2).sum(-1) / total",
        "** 2).sum(1) / total",
    ): "the last dimension of a matrix is its dimension 1",
    Change(
        "reference_impls/testing/laws.py",
        "if chance > IMPOSSIBLE",
        "if chance >= IMPOSSIBLE",
    ): "no law that rounding leaves gives an outcome exactly the chance at which it counts as impossible",
    Change(
        "reference_impls/speculative_decoding/spectr.py",
        "turns).sum(-1, keepdim=True)",
        "turns).sum(1, keepdim=True)",
    ): "the last dimension of a matrix is its dimension 1",
    Change(
        "reference_impls/speculative_decoding/spectr.py",
        "passing.sum(-1, keepdim=True)",
        "passing.sum(1, keepdim=True)",
    ): "the last dimension of a matrix is its dimension 1",
    Change(
        "reference_impls/speculative_decoding/specdec.py",
        "torch.arange(logits.shape[-1], device=logits.device)",
        "torch.arange(logits.shape[1], device=logits.device)",
    ): "the last of two dimensions is the second",
    Change(
        "reference_impls/speculative_decoding/specdec.py",
        "gap = logits.amax(-1) - score[:, 0]",
        "gap = logits.amax(1) - score[:, 0]",
    ): "the last of two dimensions is the second",
    Change(
        "reference_impls/speculative_decoding/specdec.py",
        "return chance.argsort(-1).argsort(-1) < count[:, None]",
        "return chance.argsort(-1).argsort(1) < count[:, None]",
    ): "the last of two dimensions is the second",
    Change(
        "reference_impls/speculative_decoding/specdec.py",
        "return chance.argsort(-1).argsort(-1) < count[:, None]",
        "return chance.argsort(1).argsort(-1) < count[:, None]",
    ): "the last of two dimensions is the second",
    Change(
        "reference_impls/speculative_decoding/specdec.py",
        "shown = random_places(learnt, (wrong.sum(-1) * share).long(), generator)",
        "shown = random_places(learnt, (wrong.sum(1) * share).long(), generator)",
    ): "the last of two dimensions is the second",
    Change(
        "reference_impls/speculative_decoding/specdec.py",
        "return ((better.sum(-1) < beta) & (gap <= tau)).cumprod(0).sum()",
        "return ((better.sum(1) < beta) & (gap <= tau)).cumprod(0).sum()",
    ): "the last of two dimensions is the second",
    Change(
        "reference_impls/speculative_decoding/specdec.py",
        "block: list[int] = best_guesses(logits, 1)[:, 0].tolist()",
        "block: list[int] = best_guesses(logits, 2)[:, 0].tolist()",
    ): "the best of two is the best",
    Change(
        "reference_impls/speculative_decoding/specdec.py",
        "start = (chance * real.sum(-1)).long()[:, None]",
        "start = (chance * real.sum(1)).long()[:, None]",
    ): "the last of two dimensions is the second",
    Change(
        "reference_impls/speculative_decoding/triforce.py",
        "scored, rate, go_on = -stride, 1.0, limit > 0",
        "scored, rate, go_on = -stride, 0.5, limit > 0",
    ): "the first turn drafts nothing and always retrieves, and with that the rate begins anew",
    Change(
        "reference_impls/speculative_decoding/blockwise_parallel_decoding.py",
        "target.embed(tokens[:, :-2])",
        "target.embed(tokens[:, :-1])",
    ): "no head is judged at the place more, and no earlier place sees it",
}
