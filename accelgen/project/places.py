"""Where the project's files stand, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

import reference_impls

TOOL = Path(__file__).resolve().parents[1]
REFERENCE = Path(reference_impls.__file__).resolve().parent
ROOT = TOOL.parent  # of a checkout; beside an installed package there are neither tests nor docs
CHECKOUT = (ROOT / "mkdocs.yml").is_file()
SOURCE = ROOT if CHECKOUT else TOOL / "project" / "source"  # of taxonomy.yaml, mkdocs.yml and docs/
TAXONOMY = SOURCE / "taxonomy.yaml"
RESULTS = TOOL / "measuring" / "results"
TRACES = RESULTS / "traces"
