"""Small models that are really trained, so that every example shows real acceptance and real speed on a laptop.

>>> from reference_impls import zoo
>>> tokens = zoo.encode("import os")
>>> zoo.decode(tokens)
'import os'
"""

from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.storage import load, manifest
from reference_impls.zoo.texts import decode, encode, pieces, prompts, quotations, tokenizer

__all__ = ["ZooError", "decode", "encode", "load", "manifest", "pieces", "prompts", "quotations", "tokenizer"]
