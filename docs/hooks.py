"""MkDocs calls this before every build, so that `mkdocs serve` and `mkdocs build` need no other command first."""  # noqa: INP001 - MkDocs loads it by its path

from __future__ import annotations

from typing import TYPE_CHECKING

from mkdocs.exceptions import Abort

from accelgen.site.pages import navigation
from accelgen.site.publish import publish
from accelgen.site.views.glossary import tooltips
from accelgen.taxonomy.loading import TaxonomyError

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write the generated pages, set the navigation, and give the glossary's words their tooltips."""
    try:
        taxonomy = publish(directories=config.use_directory_urls)
    except TaxonomyError as error:
        raise Abort(str(error)) from None
    config.nav = navigation(taxonomy)
    config.mdx_configs["abbr"] = {"glossary": tooltips(taxonomy)}
    return config
