r"""Lookahead (trie retrieval): a trie of what was asked and what was answered drafts several branches at once.

Lookahead: An Inference Acceleration Framework for Large Language Model with Lossless Generation Accuracy. Yao Zhao,
Zhitian Xie, Chen Liang, Chenyi Zhuang, Jinjie Gu. KDD 2024. https://arxiv.org/abs/2312.12728

Idea
----
A service answers much alike hour after hour, and an answer repeats its prompt. So keep a *trie* of short branches of
both and let it draft: what followed the newest tokens before, in all its variants, becomes a tree that the target reads
in one pass. The trie grows while it decodes. What the present prompt says weighs far more than what other answers said,
and what nobody repeats is forgotten.

Algorithm
---------
1. *Begin*: insert every branch of the prompt, a token and up to $\gamma + 1$ after it, so that $\gamma$ follow a key of
   two. Each node on the way counts one occurrence in the prompt.
2. *Draft*: the last `longest` tokens are the key. Below the node that they lead to, take up to `nodes` nodes: first
   `(nodes + 1) // 2` of the outputs' commonest, then those of the largest $(1 - w) f_{prompt} + w f_{output}$. If fewer
   than $\gamma$ come back, the root among them, try a key that is one token shorter.
3. *Verify*: one pass of the target over the tree gives the law $p$ after the root and after each node. Draw a token
   from $p$ at the root; as long as a child carries the token drawn, go there and draw again.
4. *Commit*: the tokens drawn, the last of which no child carried; the cache keeps the path.
5. *Learn*: insert each branch of the output as soon as it is complete; its nodes count occurrences in outputs.
6. *End*: insert the branches that are not complete, set all counts of the prompt to 0, and when 1,024 tries have
   changed since the last time, prune those among them that are too large: nodes with $f_{output} \le 1$ go with all
   below them, and the others keep half their count.

Guarantee
---------
Exact distribution, whatever the trie holds: each token is one draw from the target's law, whether a node carries it or
not. `verify_tree` reaches the same law with fewer copies from the device: it keeps child $x$ with probability $p(x)$
and takes $x$ out of $p$ after a rejection. The trie changes while it decodes, and only drafts depend on it.

Differences from the paper
--------------------------
1. The target's first pass reads the prompt without guesses, because a prompt under a tree's mask would cost a long text
   dearly, and emits a token.
2. The budget works as it is meant. Later versions of the published trie lose which node a count belongs to, so that the
   ranking by both counts has no effect once the tree is too large, and the prompt's nodes can all be dropped, though
   they carry the larger weight.
3. How large a trie is, is counted when it may be pruned. Published code counts a node as the output's where an output
   made it, so one that a prompt made is never counted.
4. One request at a time: published code keeps the counts of several prompts apart, for a batch of them.
5. Published code cuts every text at its first end and leaves out a prompt's first token, and where a tree fits into the
   budget it drafts what only forgotten prompts hold as well. Here a text is learned as it is, and what counts 0 is not
   drafted.
6. A sampler's settings look at one law and at nothing before it. Penalties for repetition, which published code works
   out along each path, would be a target of their own.

Example
-------
>>> from reference_impls import zoo
>>> from reference_impls.core.sampling import Sampler
>>> from reference_impls.speculative_decoding.lookahead_trie import Trie, example, generate
>>> trie = Trie(gamma=3)
>>> trie.begin([3, 1, 4, 1, 5])
>>> tree = trie.draft([2, 7, 1], longest=2, depth=2, nodes=8)
>>> tree.tokens, tree.parents
([4, 5, 1], [-1, -1, 0])
>>> prompt, trie = zoo.encode("def read_lines(path):"), Trie()
>>> runs = [generate(prompt=prompt, limit=24, sampler=Sampler(0), trie=trie, **example()) for _ in range(2)]
>>> runs[0].tokens == runs[1].tokens, runs[1].passes < runs[0].passes
(True, True)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from reference_impls.core.arguments import checked
from reference_impls.core.drafting import check_draft, room
from reference_impls.core.generation import Ends, Generation, Step, check_length
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import Tree
from reference_impls.core.verify import verify_tree


@torch.inference_mode()
@checked
def generate(
    target: LanguageModel,
    prompt: Sequence[int],
    limit: int,
    *,
    sampler: Sampler,
    trie: Trie | None = None,
    longest: int = 2,
    nodes: int = 63,
    eos: Ends | None = None,
) -> Generation:
    """Generate up to `limit` tokens after `prompt`, with up to `nodes` guesses from `trie` in each pass.

    The trie learns from this text; without one, a new one begins and ends with it. Up to `longest` tokens are the key.
    The defaults are those of the published code. Raises ValueError for numbers below 1, and for a trie with tokens that
    the target does not have.
    """
    trie = Trie() if trie is None else trie
    check_options(target, prompt, trie, longest, nodes)
    check_length(target, prompt, limit)
    result, tokens, cache = Generation(), list(prompt), target.new_cache()
    trie.begin(prompt)
    go_on = limit > 0
    # Between turns the cache holds all tokens but the last, and the trie all branches of the output but the last ones.
    while go_on:
        # Draft: what followed the newest tokens in this prompt and in all outputs, once the prompt has been read.
        depth = room(len(tokens), trie.gamma, target) if result.steps else 0
        tree = trie.draft(tokens, longest=longest, depth=depth, nodes=nodes)
        # Verify: one pass over the whole tree, every node at the place of its depth.
        unseen = tokens[len(cache) :]
        depths, visible = tree.layout(len(unseen))
        inputs, positions = [*unseen, *tree.tokens], len(cache) + depths
        p = sampler.probs(target(inputs, cache, last=len(tree) + 1, positions=positions, visible=visible))
        path, extra = verify_tree(sampler, tree, p)
        # Commit: the accepted path and the target's own token after it; the trie learns what is complete by now.
        cache.keep(len(tokens), path)
        emitted = [*(tree.tokens[node] for node in path), extra]
        tokens += emitted
        go_on = result.add(Step(emitted, tree.tokens, parents=tree.parents, kept=len(path)), limit, eos)
        trie.learn(result.tokens)
    trie.end(result.tokens)
    return result


def check_options(target: LanguageModel, prompt: Sequence[int], trie: Trie, longest: int, nodes: int) -> None:
    """One clear sentence for options that cannot work, and for a prompt that the trie must not learn."""
    if longest < 1 or nodes < 1:
        raise ValueError(f"longest is {longest} and nodes is {nodes}; a key has at least 1 token, and a draft 1 node")
    vocab = target.shape.vocab
    if not all(0 <= token < vocab for token in prompt):
        raise ValueError(f"the prompt holds tokens that a vocabulary of {vocab} lacks: use the target's tokenizer")
    if trie.largest >= vocab:
        raise ValueError(f"the trie holds tokens that a vocabulary of {vocab} lacks: use it with one tokenizer only")


@dataclass
class Node:
    """The end of a path from a first token on: how often it occurred in the prompt and in outputs, and what follows."""

    prompt: float = 0
    output: float = 0
    children: dict[int, Node] = field(default_factory=dict)

    def below(self) -> Iterator[Node]:
        """All nodes below this one."""
        for child in self.children.values():
            yield child
            yield from child.below()


class Trie:
    """Branches of the present prompt and of all outputs: a token and up to `gamma + 1` after it.

    `weight` is that of an output's occurrence beside a prompt's. What begins with one token is a trie of its own: after
    `patience` of them have changed, those with more than `most` nodes or `most_output` nodes of outputs are pruned.
    """

    @checked
    def __init__(
        self, gamma: int = 12, *, weight: float = 1e-4, most: int = 65536, most_output: int = 512, patience: int = 1024
    ) -> None:
        check_draft(gamma)
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is {weight}; the share of outputs in the ranking lies between 0 and 1")
        if min(most, most_output, patience) < 1:
            raise ValueError(f"most is {most}, most_output {most_output} and patience {patience}; each is 1 or more")
        self.gamma, self.weight, self.most, self.most_output, self.patience = gamma, weight, most, most_output, patience
        self.root, self.largest = Node(), -1  # the largest of all tokens that it ever held
        self.of_prompt: list[Node] = []  # what the present prompt counts at
        self.learned = 0  # how many branches of the present output it has
        self.changed: set[int] = set()  # first tokens of branches, since it was pruned

    def begin(self, prompt: Sequence[int]) -> None:
        """Insert the branches of a prompt, in the place of the last one's."""
        self.forget()
        for start in range(len(prompt) - 1):
            for node in self.path(prompt[start : start + self.gamma + 2]):
                node.prompt += 1
                self.of_prompt.append(node)

    def learn(self, written: Sequence[int], *, whole: bool = False) -> None:
        """Insert the branches of the output that are complete, or all that are left of the `whole` output."""
        for start in range(self.learned, len(written) - (1 if whole else self.gamma + 1)):
            for node in self.path(written[start : start + self.gamma + 2]):
                node.output += 1
            self.learned = start + 1

    def end(self, written: Sequence[int]) -> None:
        """Insert the rest of the output, forget the prompt, and prune if it is time."""
        self.learn(written, whole=True)
        self.forget()
        if len(self.changed) >= self.patience:
            for top in (self.root.children[first] for first in self.changed):
                every = list(top.below())
                if len(every) > self.most or sum(node.output > 0 for node in every) > self.most_output:
                    halve(top)
            self.changed.clear()

    def path(self, branch: Sequence[int]) -> Iterator[Node]:
        """The nodes of a branch from its first token on, made where there are none."""
        node = self.root
        self.largest = max(self.largest, *branch)
        self.changed.add(branch[0])
        for token in branch:
            node = node.children.setdefault(token, Node())
            yield node

    def forget(self) -> None:
        """Set the counts of the prompt to 0; the next output begins anew."""
        for node in self.of_prompt:
            node.prompt = 0
        self.of_prompt, self.learned = [], 0

    def find(self, key: Sequence[int]) -> Node:
        """The node that a key leads to; one without anything below where it leads to none."""
        node = self.root
        for token in key:
            node = node.children.get(token, Node())
        return node

    def draft(self, context: Sequence[int], *, longest: int, depth: int, nodes: int) -> Tree:
        """Up to `nodes` nodes of continuations of the last `longest` tokens of `context`, at most `depth` deep.

        Where fewer than `depth` come back, the root among them, a shorter key is tried.
        """
        tree = Tree()
        for n in range(min(longest, len(context)), 0, -1):
            tree = self.cut(self.find(context[-n:]), depth, nodes) or tree  # an empty one counts for nothing
            if len(tree) + 1 >= depth:  # with the root, as in published code
                break
        return tree

    def cut(self, top: Node, depth: int, nodes: int) -> Tree:
        """The `nodes` weightiest nodes below `top`, at most `depth` deep, as a tree."""
        found = [(-1, -1, 0, top)]  # token, number of the parent, level, node; parents first; it grows while it is read
        for number, (_, _, level, node) in enumerate(found):
            live = {x: child for x, child in node.children.items() if child.prompt or child.output}
            found += [(x, number, level + 1, child) for x, child in live.items() if level < depth]
        tree, place = Tree(), {0: -1}  # number -> node of the tree; 0 is top itself
        for number in (i + 1 for i in chosen([node for *_, node in found[1:]], nodes, self.weight)):
            token, parent, *_ = found[number]
            place[number] = tree.add(token, place[parent])
        return tree


def chosen(found: Sequence[Node], nodes: int, weight: float) -> list[int]:
    """The numbers of up to `nodes` nodes: one half the commonest of the outputs, the rest the weightiest of all.

    No node counts more than its parent, which stands before it, so parents are chosen first.
    """
    of_outputs = sorted((i for i, node in enumerate(found) if node.output), key=lambda i: -found[i].output)
    of_both = sorted(range(len(found)), key=lambda i: -(1 - weight) * found[i].prompt - weight * found[i].output)
    return sorted(list(dict.fromkeys([*of_outputs[: (nodes + 1) // 2], *of_both]))[:nodes])


def halve(top: Node) -> None:
    """Remove what stands below a node and is of one output at most, and halve the counts of the rest."""
    top.children = {token: node for token, node in top.children.items() if node.output > 1}
    for node in top.children.values():
        node.output /= 2
        halve(node)


def example() -> dict[str, Any]:
    """Models and options of the example run, shared by tests, page and benchmark."""
    from reference_impls import zoo

    return {"target": zoo.load("target")}
