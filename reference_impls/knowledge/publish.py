"""Writes the generated files below docs/: only what changed, and nothing stale stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reference_impls.knowledge.loading import PROJECT_ROOT, load_taxonomy
from reference_impls.knowledge.pages import FOLDERS, pages
from reference_impls.knowledge.results import read_results
from reference_impls.knowledge.taxonomy import Taxonomy


def publish(root: Path = PROJECT_ROOT, *, directories: bool = True) -> Taxonomy:
    """Bring docs/ of the project at `root` up to date with its taxonomy. Raises TaxonomyError if that is not valid.

    `directories` says whether the site will give every page a folder of its own, as opposed to a file.
    """
    taxonomy_file = root / "taxonomy.yaml"
    taxonomy = load_taxonomy(taxonomy_file)
    results = replace(read_results(taxonomy, taxonomy_file), directories=directories)
    write(pages(taxonomy, results), root / "docs")
    return taxonomy


def write(files: dict[str, str], docs: Path) -> list[str]:
    """Write files below `docs`, delete other files in the generated folders; the paths that were touched.

    A file that is up to date is left alone, so that a server that watches the folder does not build for ever.
    """
    touched = []
    for name, text in files.items():
        path = docs / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            touched.append(name)
    for folder in FOLDERS:
        for path in (docs / folder).rglob("*"):
            name = path.relative_to(docs).as_posix()
            if path.is_file() and name not in files:
                path.unlink()
                touched.append(name)
    return touched
