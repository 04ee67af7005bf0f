"""The reference: a page per public package, of everything that its ``__all__`` names."""

from __future__ import annotations

import ast
from itertools import chain
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "gfb_brevitas": "",
    "gfb_brevitas.search": "",
    "gfb_brevitas.constraints": "",
    "gfb_brevitas.costs": "",
    "gfb_brevitas.dataflow": "",
    "gfb_brevitas.hardware": "",
    "gfb_brevitas.quant": "",
    "gfb_brevitas.samplers": "",
    "gfb_brevitas.evaluation": "",
    "gfb_brevitas.sensitivity": "",
    "gfb_brevitas.distributed": "",
    "gfb_brevitas.configuration": "",
    "gfb_brevitas.report": "",
    "gfb_integrations.qonnx": "integrations",
    "gfb_integrations.onnxruntime": "integrations",
    "gfb_integrations.finn": "integrations",
    "gfb_integrations.mlflow": "integrations",
    "gfb_integrations.optuna_dashboard": "integrations",
    "gfb_integrations.plots": "integrations",
    "gfb_integrations.plots.data": "integrations",
    "gfb_integrations.report": "integrations",
}
"""Packages, and the folder of the repository that each is in."""
INTERNAL = {
    "gfb_brevitas.adapters": "what users need of it is in gfb_brevitas",
    "gfb_brevitas.cli": "the command has a page of its own",
    "gfb_brevitas.prepared": "used through evaluators",
    "gfb_brevitas.surrogate": "used through the search",
}
"""Packages without a page, and why."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give every page its place in the navigation."""
    pages = [{package: _page(package)} for package in PACKAGES]
    for entry in config.nav or []:
        if entry.get("Reference") == "reference":
            entry["Reference"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for package in PACKAGES:
        files.append(File.generated(config, _page(package), content=_content(package)))
    return files


def _page(package: str) -> str:
    return f"reference/{package}.md"


def public_names(package: str) -> list[str]:
    """What the package's ``__all__`` names, read without importing it."""
    for node in _statements(package):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return [name for name in names if not name.startswith("_")]
    raise ValueError(f"{package} has no __all__.")


def _statements(package: str) -> list[ast.stmt]:
    source = ROOT / PACKAGES[package] / package.replace(".", "/") / "__init__.py"
    return ast.parse(source.read_text(encoding="utf-8")).body


def _homes(package: str) -> dict[str, str]:
    """Names that the package takes from other packages with a page, and which."""
    # Some stand below `if TYPE_CHECKING`.
    nodes = chain.from_iterable(map(ast.walk, _statements(package)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return {
        name.name: node.module
        for node in imports
        for name in node.names
        if node.module in PACKAGES and f"{node.module}.{name.name}" not in PACKAGES
    }


def _content(package: str) -> str:
    homes, names = _homes(package), public_names(package)
    parts = [f"# {package}", f"::: {package}", "    options: {members: [], show_root_heading: false}", ""]
    elsewhere = [name for name in names if name in homes]
    if elsewhere:
        parts += [f"These names of `{package}` are described with the package that they are from:", ""]
        parts += [f"- [`{name}`][{homes[name]}.{name}]" for name in elsewhere]
        parts += [""]
    here = [name for name in names if name not in homes and f"{package}.{name}" not in PACKAGES]
    # Errors last; Python's own sorting keeps the order otherwise.
    for name in sorted(here, key=lambda name: name.endswith("Error")):
        parts += [f"::: {package}.{name}", ""]
    return "\n".join(parts)
