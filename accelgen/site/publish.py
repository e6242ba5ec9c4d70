"""Writes the generated files below docs/: only what changed, and nothing stale stays."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from accelgen.project.places import REFERENCE, SOURCE, TOOL
from accelgen.site.pages import FOLDERS, navigation, pages
from accelgen.site.results import read_results
from accelgen.site.views.glossary import tooltips
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Taxonomy


def publish(root: Path = SOURCE, *, directories: bool = True) -> Taxonomy:
    """Bring docs/ of the project at `root` up to date with its taxonomy. Raises TaxonomyError if that is not valid.

    `directories` says whether the site will give every page a folder of its own, as opposed to a file.
    """
    taxonomy_file = root / "taxonomy.yaml"
    taxonomy = load_taxonomy(taxonomy_file)
    results = replace(read_results(taxonomy, taxonomy_file), directories=directories)
    write(pages(taxonomy, results), root / "docs")
    return taxonomy


def stage(folder: Path, root: Path = SOURCE) -> None:
    """Lay the site out anew in `folder`, where it needs no hooks: for Zensical, and outside a checkout.

    There stand docs/ with the generated pages, and mkdocs.yml with what docs/hooks.py gives to MkDocs: the navigation
    and the glossary. Raises TaxonomyError if the taxonomy is not valid.
    """
    taxonomy_file = root / "taxonomy.yaml"
    taxonomy = load_taxonomy(taxonomy_file)
    files = pages(taxonomy, read_results(taxonomy, taxonomy_file))
    shutil.rmtree(folder, ignore_errors=True)
    generated = shutil.ignore_patterns(*FOLDERS, "__pycache__")
    shutil.copytree(root / "docs", folder / "docs", ignore=generated)
    write(files, folder / "docs")
    for package in (REFERENCE, TOOL):
        (folder / package.name).symlink_to(package)  # for the pages of the API
    config = (root / "mkdocs.yml").read_text(encoding="utf-8")
    config = re.sub(r"^(hooks:\n(  .*\n)+|watch: .*\n)", "", config, flags=re.MULTILINE)
    glossary, nav = json.dumps({"glossary": tooltips(taxonomy)}), json.dumps(navigation(taxonomy))  # JSON is YAML
    config = config.replace("  - abbr\n", f"  - abbr: {glossary}\n") + f"\nnav: {nav}\n"
    (folder / "mkdocs.yml").write_text(config, encoding="utf-8")


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
