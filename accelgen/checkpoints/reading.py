"""Real checkpoints: folders in the format of transformers, or ids of a hub, as models that every method can run.

Weights come from safetensors only, never from pickles, which can run code. They are read one tensor at a time, straight
into the layout of `LanguageModel`: loading needs the memory of the model and of its largest tensor, no second copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from accelgen.checkpoints.naming import check_dtype, local
from reference_impls import zoo
from reference_impls.core.device import find_device
from reference_impls.core.from_transformers import check_config, from_weights, shape_of
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.zoo.texts import check_unicode

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILES = ["*.json", "model*.safetensors", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt"]  # to be fetched
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"
)  # fmt: skip
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
CONTEXT = 8  # tokens before a token that can change how it is written


@dataclass(frozen=True)
class Checkpoint:
    """A model with its tokenizer, and the tokens after which its texts end: one, several or none."""

    name: str
    model: Any  # a LanguageModel; with `keep`, what stands in for one
    tokenizer: Any
    eos: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with what the tokenizer puts before it. Raises ValueError where there is nothing."""
        check_unicode(text)
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise ValueError("the prompt is empty; give at least one character")
        return list(tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special ones included."""
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def pieces(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[str]:
        """The text of each token after those of the prompt; some tokenizers write the first word without its space."""
        before = list(prompt[-CONTEXT:])
        return zoo.pieces([*before, *tokens], self.decode)[len(before) :]


class Weights(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors files by name, each read when it is asked for.

    Raises ValueError for files that are missing, damaged or pickles, and for a name that they do not have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, Any] = {}
        if not (folder / SINGLE).is_file() and (folder / INDEX).is_file():  # the order of transformers
            listed = _read_json(folder / INDEX).get("weight_map")
            if not isinstance(listed, dict):
                raise ValueError(f"{folder / INDEX} has no weight_map: fetch the checkpoint again")
            self._place = {name: folder / file for name, file in listed.items()}
        else:
            self._place = dict.fromkeys(self._open(_single(folder)).keys(), folder / SINGLE)
        for path in sorted(set(self._place.values())):
            if not path.is_file():
                raise ValueError(f"{path.name}, which {folder / INDEX} names, is missing: fetch the checkpoint again")
            self._open(path)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._place:
            raise ValueError(f"{self.folder} has no weight {name!r}, which its config.json asks for")
        path = self._place[name]
        with _damage(path):
            return self._open(path).get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._place

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def _open(self, path: Path) -> Any:
        if path not in self._files:
            with _damage(path):
                self._files[path] = safe_open(path, framework="pt")
        return self._files[path]


def load(
    place: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    keep: bool = False,
) -> Checkpoint:
    """The checkpoint in a folder, or of this id on a hub, frozen, in `dtype` on `device`.

    Embeddings are often padded past the last token that the tokenizer knows, to other widths in other sizes of one
    family. What has no text is left out, so that models of one tokenizer have laws over the same tokens.

    `keep` leaves the model as it is in transformers, behind `adapter.TransformersModel`: slower, for families that
    `from_transformers` does not know and, with device "auto", for weights spread over devices. Raises ValueError for
    everything that is missing, damaged or not supported.
    """
    transformers = library()
    dtype, on = dtype_of(dtype), None if keep and device == "auto" else find_device(device)
    folder = find(place)
    config = _config(transformers, folder)
    shape = None if keep else _shape(transformers, folder, config)
    tokenizer, known = _tokenizer(transformers, folder)
    model: Any
    if shape is None or on is None:
        model = _kept(transformers, folder, dtype, on, known)
    else:
        model = from_weights(shape, Weights(folder), dtype, on, known).requires_grad_(False)
    return Checkpoint(str(place), model, tokenizer, _ends(folder, config, tokenizer, model.shape.vocab))


def outlines(*places: str | Path) -> list[LanguageModel]:
    """Models without sense, as deep as these checkpoints and of as many tokens as the smallest: they judge options.

    Only the configurations are read. Raises ValueError for one that is missing or describes no model.
    """
    depths, vocabularies = list[int](), list[int]()
    for folder in map(find, places):
        config = _config(library(), folder)
        with _understood(folder / "config.json"):
            text = config.get_text_config(decoder=True)
            depths.append(text.num_hidden_layers)
            vocabularies.append(text.vocab_size)
    vocab = min(vocabularies)
    shapes = [Shape(vocab, dim=2, layers=n, heads=1, kv_heads=1, head_dim=2, hidden=1) for n in depths]
    return list(map(LanguageModel, shapes))


def check_vocabulary(target: Checkpoint, *drafters: Checkpoint) -> None:
    """Raise ValueError for drafters whose tokens are not those of the target: same ids, same texts, same number."""
    ours = target.tokenizer.get_vocab()
    for drafter in drafters:
        theirs = drafter.tokenizer.get_vocab()
        other = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        if other:
            raise ValueError(
                f"the vocabularies of {target.name} and {drafter.name} differ in {len(other)} tokens, such as "
                f"{other[0]!r}, so one cannot check the other's guesses; choose a drafter of the same family"
            )
        widths = [one.model.shape.vocab for one in (target, drafter)]
        if widths[0] != widths[1]:
            raise ValueError(
                f"{target.name} and {drafter.name} share a tokenizer, but one has logits for {widths[0]} tokens and "
                f"the other for {widths[1]}; choose a drafter with as many"
            )


def library() -> Any:
    """The package transformers. Raises ValueError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ValueError("real checkpoints need the package transformers: pip install transformers") from None
    return transformers


def dtype_of(name: torch.dtype | str) -> torch.dtype:
    """The type of this name. Raises ValueError for one that is not supported."""
    if isinstance(name, torch.dtype):
        return name
    check_dtype(name)
    found: torch.dtype = getattr(torch, name)
    return found


def find(place: str | Path) -> Path:
    """The folder of a checkpoint, fetched from the hub if it is not here. Raises ValueError if it cannot be had."""
    if (folder := local(place)) is not None:
        return folder
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(huggingface_hub.snapshot_download(str(place), allow_patterns=FILES))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"there is no folder {place} here, and the hub did not give it ({reason})") from None


# ---- parts of loading ---------------------------------------------------------------------------------------------


def _config(transformers: Any, folder: Path) -> Any:
    path = folder / "config.json"
    found = _read_json(path)
    if "model_type" not in found:
        raise ValueError(f"{path} names no model_type, so it is not the configuration of a model")
    for name in SIZES:
        if isinstance(size := found.get(name), int) and size < 1:
            raise ValueError(f"{path} says that {name} is {size}; it must be at least 1: fetch the checkpoint again")
    with _understood(path):
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _tokenizer(transformers: Any, folder: Path) -> tuple[Any, int]:
    """The tokenizer, and how many tokens it knows."""
    try:
        found = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return found, max(found.get_vocab().values()) + 1
    except Exception as error:  # noqa: BLE001 - the package tokenizers raises Exception itself
        reason = " ".join(str(error).split()).rstrip(" :.")
        raise ValueError(f"{folder} has no tokenizer that can be read ({type(error).__name__}: {reason})") from None


def _shape(transformers: Any, folder: Path, config: Any) -> Shape:
    """The shape that `core.model` needs. Raises ValueError for a model that it does not have."""
    try:
        check_config(config)
    except ValueError as error:
        hint = "--keep-transformers (in Python, keep=True) runs it as it is, but slower"
        raise ValueError(f"{folder}: {error}; {hint}") from None
    with _understood(folder / "config.json"), torch.device("meta"):
        return shape_of(transformers.AutoModelForCausalLM.from_config(config))


def _kept(transformers: Any, folder: Path, dtype: torch.dtype, device: torch.device | None, known: int) -> Any:
    """The model of transformers behind the adapter, on a device or, with None, spread over all there are."""
    from accelgen.checkpoints.adapter import TransformersModel

    Weights(folder)  # what is missing or damaged is told better there
    if device is None and find_spec("accelerate") is None:
        raise ValueError("device auto spreads a model with the package accelerate: pip install accelerate")
    spread = {"device_map": "auto"} if device is None else {}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, **spread
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - of a damaged checkpoint transformers makes every kind of error
        raise ValueError(f"{folder}: transformers cannot load it ({' '.join(str(error).split())})") from None
    model = model if device is None else model.to(device)
    width = model.config.get_text_config(decoder=True).vocab_size
    return TransformersModel(model.eval().requires_grad_(False), vocab=min(known, width))


def _ends(folder: Path, config: Any, tokenizer: Any, vocab: int) -> tuple[int, ...]:
    """Every token that ends a text for `generate` of transformers; where none is declared, the tokenizer's own."""
    path = folder / "generation_config.json"
    declared = (_read_json(path) if path.is_file() else {}).get("eos_token_id", getattr(config, "eos_token_id", None))
    for found in (declared, tokenizer.eos_token_id):
        ends = [end for end in (found if isinstance(found, list) else [found]) if isinstance(end, int) and end < vocab]
        if ends:
            return tuple(ends)
    return ()


def _single(folder: Path) -> Path:
    """The folder's only file of weights. Raises ValueError where there is none."""
    if (folder / SINGLE).is_file():
        return folder / SINGLE
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ValueError(
            f"{folder} has its weights as pickle only ({pickles[0]}), which can run code and is not opened here; "
            "store it anew as safetensors: save_pretrained of transformers does"
        )
    raise ValueError(f"{folder} has neither {SINGLE} nor {INDEX}, so there are no weights to load")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing, so this is no checkpoint in the format of transformers") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): fetch the checkpoint again") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object: fetch the checkpoint again")  # noqa: TRY004 - a bad file
    return data


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from None


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Whatever transformers makes of a configuration that it cannot use: a sentence that names the file."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a broken configuration breaks it in every way there is
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} describes no model that can be made: {type(error).__name__}: {reason}") from None
