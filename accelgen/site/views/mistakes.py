"""Errata: where published code deviates from the rule it stands for, each with the numbers of one small example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelgen.exports.markdown import front_matter, join, note, section, table
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Taxonomy

COMMAND = "python -m accelgen.measuring.counterexamples"
LEAD = (
    "Where published code deviates from the rule it stands for: where it was seen, what a reader who copies it gets,"
    " and what to do instead."
)
WHY = (
    "Published code is how this field learns, and every method here owes something to it. Some of it deviates from its"
    " own rule in a line or two, mostly where it samples: the text stays fluent, and only the law is another. So each"
    " deviation stands beside a small example in which both outcomes are computed exactly, by enumeration or in closed"
    f" form; `{COMMAND}` computes all of them anew. Links lead to the lines at the commit that was read; later"
    " versions may differ."
)
NOTHING = 1e-9  # below this a distance is rounding


@dataclass(frozen=True)
class Seen:
    """Lines of a file in a public repository, at the commit that was read."""

    repository: str
    commit: str
    path: str
    lines: str

    @property
    def link(self) -> str:
        """A link to the very lines."""
        url = f"https://github.com/{self.repository}/blob/{self.commit}/{self.path}#{self.lines}"
        return f"[{self.repository}]({url}), `{self.path.rsplit('/', 1)[-1]}` at `{self.commit[:7]}`"


@dataclass(frozen=True)
class Erratum:
    """One deviation. `id` names its numbers in the results; {names} in `example` stand for the example's numbers."""

    id: str
    title: str
    method: str
    seen: Sequence[Seen]
    rule: str
    code: str
    example: str
    instead: str
    since: str = ""  # what became of it, and in a word or two
    state: str = ""


ACCEPTING = (
    Erratum(
        "residual-forgotten",
        "A rejected guess is redrawn from the target's law",
        "space",
        [Seen("cteant/SPACE", "07531ce608cf399b79c2779a6598ab63c49569c3", "tests/eval_infer.py", "L194-L220")],
        "After a rejection the next token comes from the residual $\\mathrm{norm}(\\max(0, p - q))$. Kept guesses"
        " already carry the mass $\\min(p, q)$, and the residual adds what is missing.",
        "With `do_sample`, a guess is kept with probability $\\min(1, p/q)$, and after a rejection the token is drawn"
        " from $p$ itself. It comes out with $\\min(p, q) + (1 - \\alpha)\\, p$: what the drafter likes too much is"
        " written too often. Greedy decoding is not affected.",
        "With $p = {p}$ and $q = {q}$:",
        "Use `residual` or `verify_chain` of the [core](../api/core.md).",
    ),
    Erratum(
        "middle-level",
        "A middle level that calls its tokens what they are not",
        "triforce",
        [Seen("Infini-AI-Lab/TriForce", "164c8c0131cf49951eefdea89a3fbcccb8ca326b", "utils/decoding.py", "L192-L217")],
        "Each level hands up tokens together with the law they were drawn from. A middle level with the law $\\hat p$"
        " earns the right to name it by drawing from the residual $\\mathrm{norm}(\\max(0, \\hat p - q))$ after it"
        " rejects a guess.",
        "After a rejection in the middle the token is drawn from $\\hat p$, and is still handed up as a draw from"
        " $\\hat p$. The target trusts that label, so its own exact test cannot repair the bias; even a middle level"
        " with $\\hat p = p$ leaves $\\min(p, q) + (1 - \\alpha)\\, p$.",
        "With the drafter $q = {q}$, the middle level $\\hat p = {p_hat}$ and the target $p = {p}$:",
        "Let the middle level verify like any target; the outer test then needs no change.",
    ),
    Erratum(
        "chosen-not-drawn",
        "An argmax draft, judged as if it were drawn",
        "self-speculative-decoding",
        [
            Seen(
                "dilab-zju/self-speculative-decoding",
                "688db8b74a782af21777b7ad5aeb399d7eb26faf",
                "decoding.py",
                "L248-L281",
            )
        ],
        "$q$ is the law that the guess was drawn from. A guess that was chosen has a one-hot law: it is kept with"
        " probability $p(x)$, and otherwise the token comes from $p$ without $x$.",
        "With `do_sample=True` and the default `do_sample_draft=False` the draft is an argmax, and the test divides by"
        " its soft probability. The likeliest guess is kept far too often. With `do_sample_draft=True` the rule is"
        " exact.",
        "Two tokens, the first with $p = {p}$ and $q = {q}$, the second with laws that depend on it:",
        "Hand the law to `verify_chain` that the guess really came from; at temperature 0 `Sampler.probs` gives the"
        " one-hot one.",
    ),
    Erratum(
        "greedy-with-soft-laws",
        "Greedy decoding with soft acceptance",
        "speculative-decoding-leviathan",
        [
            Seen(
                "romsto/Speculative-Decoding",
                "db7db67604359d0380c330c240c276ec1f85ba65",
                "sampling/speculative_decoding.py",
                "L138-L171",
            ),
            Seen("jaymody/speculative-sampling", "85239e41a6bdadf4baa1d3cb739e216a8be0532f", "main.py", "L18-L63"),
        ],
        "Greedy decoding is temperature 0: both laws become one-hot, a guess is kept if and only if it is the target's"
        " argmax, and the text is the target's greedy text.",
        "In two teaching copies greedy decoding replaces the draws by an argmax and leaves the laws soft. So chance"
        " decides whether a guess is kept, a wrong one can stay, and what replaces it is the argmax of the residual,"
        " not of $p$.",
        "One token with $p = {p}$ and $q = {q}$; greedy text has only a:",
        "Treat temperature 0 as a law (`Sampler(0)`), not as another way to draw; then there is no second code path to"
        " get wrong.",
        "The author of the second [corrected](https://github.com/jaymody/speculative-sampling/pull/4) it.",
        "one of two corrected",
    ),
    Erratum(
        "several-draws",
        "A draw of its own for every path of a tree",
        "rest",
        [
            Seen("FasterDecoding/REST", "50a5fc197382ed8df5b3e946dad2f8337511b541", "rest/model/utils.py", "L196-L279"),
            Seen(
                "FasterDecoding/Medusa",
                "e2a5d20c048a9b0a4092e6933c34313687422518",
                "medusa/model/utils.py",
                "L350-L402",
            ),
        ],
        "One draw from $p$ at each node; if a child carries it, go there; if none does, the token drawn is the output.",
        "In nucleus sampling every path from root to leaf draws for itself and the longest agreement wins, so a guess"
        " shared by $r$ paths is tried $r$ times. A draw that agrees with no guess is thrown away and made anew. Guess"
        " $x$ is missed only with probability $(1 - p(x))^{r+1}$. Greedy decoding is exact, and Medusa's typical"
        " acceptance does not claim to be.",
        "With $p = {p}$ and the guess a on {paths} paths (on a single path the distance is {one_path}):",
        "Walk down the tree with `verify_tree`, which needs no draft law for retrieved or chosen guesses.",
    ),
    Erratum(
        "picked-candidates",
        "The best candidates, judged as if they were drawn",
        "multi-candidate-speculative-decoding",
        [
            Seen(
                "NJUNLP/MCSD",
                "8aadd6501a9e987ba5fca6cc8f9ad5949e480ec7",
                "MCSD/inference/strategies.py",
                "L487-L494",
            )
        ],
        "Each candidate is judged by the law that it was drawn from, given its elder siblings. Candidates that were"
        " picked have one-hot laws: $x$ is kept with what is left of $p(x)$.",
        "Drafter and target have a temperature each. With `draft_model_temp=0` the $k$ best tokens are picked, and"
        " judged by the softmax over these $k$ as if they had been drawn. The evaluation script sets both temperatures"
        " alike, where nothing is wrong; whoever calls the generator with 0 for the drafter alone gets another law.",
        "With $p = {p}$, $q = {q}$ and two candidates:",
        "Give the drafter the sampler of the target, and hand `verify_tree` the laws that `siblings` returns; for"
        " picked candidates hand it none.",
    ),
    Erratum(
        "temperature-forgotten",
        "Temperature and top-p forgotten after the last guess",
        "eagle",
        [Seen("SafeAILab/EAGLE", "4a9cf3a1f6cd4a294e6d30a4e7c77cba246d7ca5", "eagle/model/utils.py", "L407-L411")],
        "The extra token after a fully accepted path is a draw from the target's law, under the same settings as every"
        " other token.",
        "On the branch of EAGLE-1 this one token comes from the plain softmax of the logits. The better the drafter,"
        " the more often it happens.",
        "Two tokens at temperature {temperature} with a faultless drafter; at temperature 1 each has the law {p}:",
        "Apply the settings once, where logits become laws, and verify laws only.",
        "The code of EAGLE-2 and EAGLE-3 [applies them]"
        "(https://github.com/SafeAILab/EAGLE/blob/cb7e0841fe0c206c6ed74a197ad5e2a1f13f5a2b/eagle/model/utils.py).",
        "applied by its successors",
    ),
    Erratum(
        "block-rule",
        "A block rule by products of uniform numbers",
        "block-verification",
        [
            Seen(
                "vllm-project/vllm-ascend",
                "11e0583474434de15a8968b7fe76a8d5da40f6e7",
                "vllm_ascend/ops/triton/reject_sample.py",
                "L369-L434",
            )
        ],
        "Block verification keeps the longest prefix that passes a test of its own with probability $h_i$, which looks"
        " at the residual mass after it, and draws the extra token from"
        " $\\mathrm{norm}(\\max(0, w_\\tau\\, p_{\\tau+1} - q_{\\tau+1}))$.",
        "The rule under this name kept the longest prefix with $w_i \\ge u_1 \\cdots u_i$ for uniform $u_j$, and drew"
        " the extra token from the residual of a single token. It was used for drafts of three tokens and more.",
        "The first token of a draft of three, with $p = {p}$ and $q = {q}$ everywhere:",
        "Use `verify_block` of [Block Verification](../methods/block-verification.md).",
        "[Reported](https://github.com/vllm-project/vllm-ascend/issues/7807) and"
        " [corrected](https://github.com/vllm-project/vllm-ascend/pull/7808) since.",
        "corrected",
    ),
)

COUNTING = (
    Erratum(
        "zero-is-a-value",
        "A threshold of 0 turns into the default",
        "bild",
        [
            Seen(
                "kssteven418/BigLittleDecoder",
                "ad37f5641d403c955e7e7c90d946b0ebc3986eb1",
                "src/transformers/models/t5/modeling_t5.py",
                "L1884-L1885",
            )
        ],
        "With a rollback threshold of 0 every token has to equal the large model's own choice: the strict end of the"
        " range, where the text has the large model's law.",
        "`rollback_threshold or 5.0` takes 0 for a missing value, so whoever asks for the strict end gets the"
        " default. The script that starts it does the same once more.",
        "Two tokens between two tiny random models, asked for {asked}, run with {used}:",
        "Ask `is None`, or put the default into the signature.",
    ),
    Erratum(
        "index-is-no-count",
        "The index of the last pass, reported as the number of passes",
        "jacobi-parallel-decoding",
        [
            Seen(
                "teelinsan/parallel-decoding",
                "0605a6c3f44fadb2aee58a11082217eb2da4f3c8",
                "src/ipi/decoders/jacobi.py",
                "L88-L158",
            )
        ],
        "An iteration is a pass of the model; the autoregressive run beside it counts every pass.",
        "The loop counts from 0 and returns its index, so one pass is missing from every sentence, and the shorter the"
        " run, the more the speed-up by iterations gains. Times are not affected.",
        "Passes reported, divided by passes made, for texts of three lengths of a tiny random model:",
        "Let the model count: a hook on its forward pass cannot be off by one.",
    ),
    Erratum(
        "alpha-at-the-token",
        "Acceptance counted at the token that was drawn",
        "online-speculative-decoding",
        [
            Seen(
                "LiuXiaoxuanPKU/OSD",
                "788a403d5495896b4fc5b7f56cfd41de5ae61967",
                "distill/specInfer/generator.py",
                "L81-L92",
            )
        ],
        "A guess from $q$ is kept with probability $\\alpha = \\sum_x \\min(p(x), q(x))$.",
        "The figure called alpha adds up $\\min(p(x), q(x))$ at the one token $x$ that was drawn. Its mean is $\\sum_x"
        " q(x) \\min(p(x), q(x))$, which is less; for a drafter that equals its target it is not 1. The code draws at"
        " temperature 0.01, where laws are nearly one-hot and the two nearly agree.",
        "The share of guesses that are kept, with $p = {p}$ and three draft laws:",
        "Count what was kept, or add up $\\min(1, p(x)/q(x))$ at the token drawn, whose mean is $\\alpha$.",
    ),
    Erratum(
        "shared-layers",
        "A list times n holds one layer n times",
        "medusa",
        [
            Seen(
                "FasterDecoding/Medusa",
                "e2a5d20c048a9b0a4092e6933c34313687422518",
                "medusa/model/medusa_model.py",
                "L111-L119",
            )
        ],
        "A head of several residual blocks has weights of its own in each.",
        "`[ResBlock(…)] * medusa_num_layers` repeats one object, so all blocks of a head share their weights. The"
        " default is one block, where nothing changes.",
        "Trained parameters, counted in layers:",
        "Build the layers in a comprehension: `[ResBlock(…) for _ in range(n)]`.",
    ),
)

TRAINING = (
    Erratum(
        "same-matrix-everywhere",
        "A dynamic chain that is the same at every place",
        "nart-crf",
        [
            Seen(
                "facebookresearch/fairseq",
                "3d262bb25690e4eb2e7d3c1309b1e9c406ca4b99",
                "fairseq/modules/dynamic_crf_layer.py",
                "L26-L95",
            )
        ],
        "Dynamic transitions depend on the place: $E_1\\, f([h_{i-1}; h_i])\\, E_2^\\top$, with a network $f$ that"
        " reads the decoder's states.",
        "The layer called `DynamicCRF` has the one matrix $E_1 E_2^\\top$ for all places, as its own comment says.",
        "Two right answers, aab and bba, and no preference for a word: the likeliest law that each can have. One matrix"
        " cannot ask for equal neighbours first and different ones then, and does no better than words drawn apart:",
        "Add $f$, as [NART-CRF](../methods/nart-crf.md) does with `dynamic`, or call the chain static.",
    ),
    Erratum(
        "centred-on-itself",
        "A reward centred on a mean that contains it",
        "nat-fertility",
        [Seen("salesforce/nonauto-nmt", "55f039182b01cb93eb7b0cee170cb7e49bd959a7", "train.py", "L270-L275")],
        "A baseline leaves the expected gradient of REINFORCE as it is, as long as it does not depend on the sample.",
        "The mean that is taken from the rewards runs over the batch, the sample itself among them. With $B$ sentences"
        " $1 - 1/B$ of the gradient remain; a factor of 0.1 follows. The direction is right, the weight beside the"
        " other losses is not the one that was set.",
        "The expected gradient for two sentences that are alike, with the law {p} and the rewards {reward}:",
        "Take the mean over the *other* samples, or a baseline that is fixed before the draw, as the paper's average"
        " plan is.",
    ),
    Erratum(
        "one-place-late",
        "What follows an error is learnt, and not the error",
        "online-speculative-decoding",
        [
            Seen(
                "LiuXiaoxuanPKU/OSD",
                "788a403d5495896b4fc5b7f56cfd41de5ae61967",
                "distill/distill_trainer.py",
                "L153-L174",
            )
        ],
        "A model's logits at a token foretell the next one. To learn what should have stood at place $t$, a drafter has"
        " to change its logits at place $t - 1$.",
        "In the online step the mask selects the index of the corrected token itself, and the logits of both models are"
        " not shifted. So the drafter learns to foretell what follows the token that it got wrong, and is not told what"
        " should have stood there. The offline step shifts its logits.",
        "How much the loss pulls at the drafter's logits after each token of a text, of which token {error} took the"
        " place of a rejected guess (the sum of the gradient's absolute values):",
        "Select the place before, as the `loss` of"
        " [Online Speculative Decoding](../methods/online-speculative-decoding.md) does.",
    ),
)

SECTIONS: Mapping[str, Sequence[Erratum]] = {
    "Accepting guesses": ACCEPTING,
    "Settings and counts": COUNTING,
    "Models and training": TRAINING,
}


def page(taxonomy: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/errata.md."""
    found = results.errata
    head = [front_matter(title="Errata", description=LEAD), "# Errata", f'<p class="lead">{LEAD}</p>']
    if not found:
        return join([*head, note("Not computed yet", f"`{COMMAND}` computes it.", "planned")])
    findings = found["findings"]
    return join(
        [
            *head,
            WHY,
            section("At a glance", _glance(taxonomy, findings)),
            *(
                section(title, *(_erratum(erratum, taxonomy, findings[erratum.id]) for erratum in errata))
                for title, errata in SECTIONS.items()
            ),
            section("What looks wrong and is not", _harmless(found["harmless"])),
        ]
    )


def _glance(taxonomy: Taxonomy, findings: Mapping[str, Any]) -> str:
    rows = [
        (
            f"[{erratum.title}](#{erratum.id})",
            _method(erratum, taxonomy),
            _amount(findings[erratum.id]["distance"]["published"]) + ("" if findings[erratum.id]["law"] else "\\*"),
            erratum.state,
        )
        for errata in SECTIONS.values()
        for erratum in errata
    ]
    lead = "The distance is the total variation between both laws of the example; with a star, the largest difference."
    return f"{table(('Deviation', 'Method', 'Distance', 'Since then'), rows)}\n\n{lead}"


def _method(erratum: Erratum, taxonomy: Taxonomy) -> str:
    return f"[{taxonomy.method(erratum.method).name}](../methods/{erratum.method}.md)"


def _erratum(erratum: Erratum, taxonomy: Taxonomy, finding: Mapping[str, Any]) -> str:
    example = erratum.example.format(**{name: _given(value) for name, value in finding["given"].items()})
    seen = "; ".join(seen.link for seen in erratum.seen)
    word = "Text" if finding["law"] else "Quantity"
    return join(
        [
            f"### {erratum.title} {{ #{erratum.id} }}",
            f"{_method(erratum, taxonomy)}. Seen in {seen}. {erratum.since}",
            f"**The rule.** {erratum.rule}",
            f"**The code.** {erratum.code}",
            f"**Computed.** {example}",
            table((word, "by the rule", "this project", "as published"), [_row(*row) for row in finding["rows"]]),
            _distance(finding),
            f"**Instead.** {erratum.instead}",
        ]
    ).rstrip()


def _row(outcome: str, *values: float) -> tuple[str, ...]:
    return (outcome, *(f"{value:.3f}" if abs(value - round(value)) > NOTHING else f"{value:.0f}" for value in values))


def _distance(finding: Mapping[str, Any]) -> str:
    word = "Total variation from the rule" if finding["law"] else "Largest difference from the rule"
    distance = finding["distance"]
    return f"{word}: **{_amount(distance['published'])}** as published, {_amount(distance['ours'])} in this project."


def _amount(value: float) -> str:
    return "0" if value < NOTHING else f"{value:.2f}"


def _given(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_given, value))})"
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _harmless(found: Mapping[str, float]) -> str:
    distance = _amount(max(found["equality"], found["shared"]))
    lead = f"Two habits look like mistakes. Enumerated, their distance from the target's law is {distance}."
    equality = (
        "**Keep a guess if a fresh draw from $p$ equals it, else write the draw**"
        " ([thread](https://github.com/z-lab/dflash/issues/74)). The output is that draw in either case, however the"
        " guess was made. It costs acceptance alone: $\\sum_x p(x)\\, q(x)$ instead of $\\sum_x \\min(p(x), q(x))$,"
        f" here {found['kept_by_equality']:.2f} instead of {found['kept_by_rejection']:.2f}. For a guess that was"
        " chosen and not drawn, as an argmax or a retrieved token, it costs nothing."
    )
    shared = (
        "**One random number decides whether a draft goes on and whether its token is accepted** (the code of"
        " [self-speculative decoding](../methods/self-speculative-decoding.md)). The number is read only after the"
        " token was drawn, so its acceptance is a fair test; and what follows has the target's law with more draft or"
        " without."
    )
    return join([lead, equality, shared]).rstrip()
