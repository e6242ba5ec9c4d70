"""Two toy translation tasks with every legal answer known, so that exact match needs no reference translation.

`lite` translates short English sentences into German, which may order their parts in four ways of the same length.
`frh` spells English number words in French, in the traditional or the 1990 spelling, again of the same length. What a
parallel decoder finds hard is in both: several answers are right, and a mixture of two is wrong.
"""

from __future__ import annotations

import hashlib
import random
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

from num2words import num2words

from reference_impls.zoo.errors import ZooError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PAD, END, MASK = 0, 1, 2  # the first tokens of every vocabulary
SPECIAL = ("<pad>", "<end>", "<mask>")
HELD_OUT = 50  # one source in so many never comes into training
Side = Literal["train", "development", "test"]

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Julia", "Lena", "Lukas", "Martin", "Max", "Nina", "Paul",
    "Peter", "Simon", "Sophie", "Tom",
)  # fmt: skip
MONTHS = {
    "January": "Januar", "February": "Februar", "March": "März", "April": "April", "May": "Mai", "June": "Juni",
    "July": "Juli", "August": "August", "September": "September", "October": "Oktober", "November": "November",
    "December": "Dezember",
}  # fmt: skip
THINGS = {
    "apples": "Äpfel", "books": "Bücher", "chairs": "Stühle", "cups": "Tassen", "flowers": "Blumen",
    "keys": "Schlüssel", "lamps": "Lampen", "letters": "Briefe", "pictures": "Bilder", "roses": "Rosen",
    "tables": "Tische", "tickets": "Karten",
}  # fmt: skip
QUANTITIES = range(2, 21)
PRICES = (*range(2, 100), *range(100, 1000, 100))
DAYS = range(1, 29)
UNITS = "ein zwei drei vier fünf sechs sieben acht neun zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig"
MORPH = re.compile("|".join(sorted([*UNITS.split(), "und", "hundert", "sten"], key=len, reverse=True)))
PIECE = re.compile(r"[\w@]+-?|[^\w\s]")  # a word with its joining mark, or a punctuation mark
SCALES = (1_000, 1_000_000, 1_000_000_000)


@cache
def words(number: int, language: str, *, ordinal: bool = False) -> str:
    """The words of a number, separated by spaces; a word that goes on without one ends in a hyphen or in `@@`."""
    text = num2words(number, lang=language, to="ordinal" if ordinal else "cardinal")
    if language == "de":
        return compound(text + "n" if ordinal else text)
    return text.replace("-", "- ").replace(",", " ,")


@cache
def compound(word: str) -> str:
    """A German number word in its parts, `ein@@ und@@ zwanzig`, if these parts make up all of it."""
    parts = MORPH.findall(word)
    return "@@ ".join(parts) if "".join(parts) == word else word


@dataclass(frozen=True)
class Example:
    """A source sentence and the complete set of its legal translations, in the order of the task's modes."""

    source: str
    references: tuple[str, ...]


class Task(ABC):
    """A vocabulary for both languages, an endless seeded supply of examples, and the judgement of an answer.

    `modes` gives the share of each reference among the raw training targets; `longest` bounds source and target.
    """

    name: ClassVar[str]
    longest: ClassVar[int]
    modes: ClassVar[tuple[float, ...]]

    def __init__(self) -> None:
        self.vocabulary = (*SPECIAL, *sorted(set(" ".join(self._texts()).split())))
        self._ids = {piece: i for i, piece in enumerate(self.vocabulary)}

    @abstractmethod
    def _texts(self) -> Iterable[str]:
        """Texts that together hold every word of both languages."""

    @abstractmethod
    def draw(self, chance: random.Random) -> Example:
        """A random example; the same one may come again."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text of this task, as one writes it or in its parts. Raises ZooError for an unknown word."""
        pieces = " ".join(map(compound, PIECE.findall(text))).split()
        unknown = [piece for piece in pieces if piece not in self._ids]
        if unknown:
            raise ZooError(f"the task {self.name} has no word {unknown[0]!r}: task({self.name!r}).vocabulary lists all")
        return [self._ids[piece] for piece in pieces]

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """The written form of each token."""
        return [self.vocabulary[token] for token in tokens]

    def decode(self, tokens: Iterable[int]) -> str:
        """The words of tokens up to the end, compounds still in their parts."""
        return " ".join(self.pieces(clean(tokens)))

    def join(self, text: str) -> str:
        """A decoded text as one writes it."""
        return text.replace("@@ ", "").replace("- ", "-").replace(" ,", ",").replace(" .", ".")

    def examples(self, side: Side = "test", *, seed: int = 0) -> Iterator[Example]:
        """Distinct examples without end. The hash of a source alone decides on which `side` it lies."""
        if side not in ("train", "development", "test"):
            raise ValueError(f"a task has no side {side!r}; its sides are train, development and test")
        chance, seen = random.Random(seed), set()
        while True:
            example = self.draw(chance)
            if example.source not in seen and side_of(example.source) == side:
                seen.add(example.source)
                yield example

    def pairs(self, count: int, side: Side, *, seed: int = 0) -> list[tuple[list[int], list[int]]]:
        """`count` encoded pairs; each target is one reference, chosen at random with the shares of `modes`."""
        chance = random.Random(f"{seed} modes")
        found = islice(self.examples(side, seed=seed), count)
        return [(self.encode(e.source), self.encode(chance.choices(e.references, self.modes)[0])) for e in found]

    def is_correct(self, tokens: Sequence[int], example: Example) -> bool:
        """Exact match with any legal reference."""
        return self.decode(tokens) in example.references


class Lite(Task):
    """English to German: three templates, and four legal German orders of the same length.

    What comes first tells the order: the date, the subject, a phrase with `für`, or the object.
    """

    name = "lite"
    longest = 24
    modes = (0.4, 0.2, 0.2, 0.2)

    def _texts(self) -> Iterable[str]:
        chance = random.Random(0)
        yield " ".join((*NAMES, *MONTHS, *MONTHS.values(), *THINGS, *THINGS.values()))
        for number in {*QUANTITIES, *PRICES}:
            yield f"{words(number, 'en')} {words(number, 'de')}"
        for day in DAYS:
            yield f"{words(day, 'en', ordinal=True)} {words(day, 'de', ordinal=True)}"
        for template in (self._pay, self._sell, self._order):
            for _ in range(4):  # a fronted date or not, whatever the chance
                example = template(chance)
                yield " ".join((example.source, *example.references))

    def draw(self, chance: random.Random) -> Example:
        """A payment, a sale or an order between two people, on some day."""
        return chance.choice((self._pay, self._sell, self._order))(chance)

    def _pay(self, chance: random.Random) -> Example:
        a, b, (goods, Ware), (price, Preis), (date, Datum) = _parts(chance)
        return Example(
            _dated(chance, f"{a} paid {b} {price} for {goods}", date),
            (
                f"{Datum} zahlte {a} {b} {Preis} für {Ware} .",
                f"{a} zahlte {b} {Datum} {Preis} für {Ware} .",
                f"für {Ware} zahlte {a} {b} {Datum} {Preis} .",
                f"{Preis} zahlte {a} {b} {Datum} für {Ware} .",
            ),
        )

    def _sell(self, chance: random.Random) -> Example:
        a, b, (goods, Ware), (price, Preis), (date, Datum) = _parts(chance)
        return Example(
            _dated(chance, f"{a} sold {b} {goods} for {price}", date),
            (
                f"{Datum} verkaufte {a} {b} {Ware} für {Preis} .",
                f"{a} verkaufte {b} {Datum} {Ware} für {Preis} .",
                f"für {Preis} verkaufte {a} {b} {Datum} {Ware} .",
                f"{Ware} verkaufte {a} {b} {Datum} für {Preis} .",
            ),
        )

    def _order(self, chance: random.Random) -> Example:
        a, b, (goods, Ware), (price, Preis), (date, Datum) = _parts(chance)
        return Example(
            _dated(chance, f"{a} has ordered {goods} for {b} at {price}", date),
            (
                f"{Datum} hat {a} {Ware} zu {Preis} für {b} bestellt .",
                f"{a} hat {Datum} {Ware} zu {Preis} für {b} bestellt .",
                f"für {b} hat {a} {Datum} {Ware} zu {Preis} bestellt .",
                f"{Ware} zu {Preis} hat {a} {Datum} für {b} bestellt .",
            ),
        )


def _parts(chance: random.Random) -> tuple[str, str, tuple[str, str], tuple[str, str], tuple[str, str]]:
    """Two names, then goods, price and date, each in English and German."""
    a, b = chance.sample(NAMES, 2)
    quantity, thing = chance.choice(QUANTITIES), chance.choice(tuple(THINGS))
    price, day, month = chance.choice(PRICES), chance.choice(DAYS), chance.choice(tuple(MONTHS))
    goods = f"{words(quantity, 'en')} {thing}", f"{words(quantity, 'de')} {THINGS[thing]}"
    cost = f"{words(price, 'en')} euros", f"{words(price, 'de')} Euro"
    first, second = words(day, "en", ordinal=True), words(day, "de", ordinal=True)
    return a, b, goods, cost, (f"on the {first} of {month}", f"am {second} {MONTHS[month]}")


def _dated(chance: random.Random, clause: str, date: str) -> str:
    """The English sentence, its date in front or behind."""
    return f"{date} {clause} ." if chance.random() < 1 / 2 else f"{clause} {date} ."


class Frh(Task):
    """English number words to French ones: the traditional spelling, or hyphens everywhere as allowed since 1990."""

    name = "frh"
    longest = 32
    modes = (0.5, 0.5)

    def _texts(self) -> Iterable[str]:
        for number in (*range(1, 101), 200, 280, 1_100, *SCALES, *(2 * n for n in SCALES)):
            yield words(number, "en")
            yield from (
                form for piece in words(number, "fr").split() for form in (piece, f"{piece.removesuffix('-')}-")
            )

    def draw(self, chance: random.Random) -> Example:
        """A number of 5 to 12 digits, every count of digits as likely."""
        digits = chance.randint(5, 12)
        return self._of(chance.randrange(10 ** (digits - 1), 10**digits))

    def _of(self, number: int) -> Example:
        traditional = words(number, "fr")
        return Example(words(number, "en"), (traditional, hyphenated(traditional)))

    def is_mixed(self, tokens: Sequence[int], example: Example) -> bool:
        """Whether an answer has the right content in neither spelling, but in a mixture of both."""
        answer = self.decode(tokens)
        return answer not in example.references and hyphenated(answer) == example.references[1]


def hyphenated(text: str) -> str:
    """French number words with a hyphen after every word but the last."""
    return "- ".join(piece.removesuffix("-") for piece in text.split())


def clean(tokens: Iterable[int]) -> list[int]:
    """Tokens up to the first END, without padding."""
    kept: list[int] = []
    for token in tokens:
        if token == END:
            break
        if token != PAD:
            kept.append(token)
    return kept


def side_of(source: str) -> Side:
    """The side of a source, decided by its hash: of those that are held out, one half is for choices, one for figures.

    What is chosen by trial, such as how many lengths are tried, is chosen on `development`; figures are from `test`.
    """
    place = int.from_bytes(hashlib.sha256(source.encode()).digest()[:4], "big") % (2 * HELD_OUT)
    sides: dict[int, Side] = {0: "test", HELD_OUT: "development"}
    return sides.get(place, "train")


TASKS = {kind.name: kind for kind in (Lite, Frh)}


@cache
def task(name: str) -> Task:
    """The task of this name. Raises ZooError for an unknown one."""
    if name not in TASKS:
        raise ZooError(f"there is no task {name!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]()
