"""MkDocs calls this before every build, so that `mkdocs serve` and `mkdocs build` need no other command first."""  # noqa: INP001 - MkDocs loads it by its path

from __future__ import annotations

from typing import TYPE_CHECKING

from mkdocs.exceptions import Abort

from reference_impls.knowledge.loading import TaxonomyError
from reference_impls.knowledge.pages import navigation
from reference_impls.knowledge.publish import publish

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write the generated pages and set the navigation."""
    try:
        config.nav = navigation(publish())
    except TaxonomyError as error:
        raise Abort(str(error)) from None
    return config
