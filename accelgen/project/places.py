"""Where the project's files stand."""

from __future__ import annotations

from pathlib import Path

import reference_impls

TOOL = Path(__file__).resolve().parents[1]
REFERENCE = Path(reference_impls.__file__).resolve().parent
ROOT = TOOL.parent  # of a checkout, with docs/, tests/ and mkdocs.yml; an installed package has no such files
CHECKOUT = (ROOT / "mkdocs.yml").is_file()
TAXONOMY = ROOT / "taxonomy.yaml" if CHECKOUT else TOOL / "taxonomy.yaml"  # a wheel carries it inside
RESULTS = TOOL / "measuring" / "results"
TRACES = RESULTS / "traces"
