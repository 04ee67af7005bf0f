"""The reference: a page per public package, of everything that its ``__all__`` names."""

from __future__ import annotations

import ast
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
TOP = "gfb_brevitas"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give every page its place in the navigation."""
    pages = [{package: _page(package)} for package in PACKAGES]
    for entry in config.nav or []:
        if entry.get("Reference") == "reference":
            entry["Reference"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    homes = {
        name: package for package in reversed(PACKAGES) for name in public_names(package) if package != TOP
    }
    for package in PACKAGES:
        files.append(File.generated(config, _page(package), content=_content(package, homes)))
    return files


def _page(package: str) -> str:
    return f"reference/{package}.md"


def public_names(package: str) -> list[str]:
    """What the package's ``__all__`` names, read without importing it."""
    source = ROOT / PACKAGES[package] / package.replace(".", "/") / "__init__.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return [name for name in names if not name.startswith("_")]
    raise ValueError(f"{source} has no __all__.")


def _content(package: str, homes: dict[str, str]) -> str:
    parts = [f"# {package}", f"::: {package}", "    options: {members: [], show_root_heading: false}", ""]
    elsewhere = [name for name in public_names(package) if package == TOP and name in homes]
    if elsewhere:
        parts += ["These names of `gfb_brevitas` are described with the package that they are from:", ""]
        parts += [f"- [`{name}`][{homes[name]}.{name}]" for name in elsewhere]
        parts += [""]
    for name in public_names(package):
        if name not in elsewhere and f"{package}.{name}" not in PACKAGES:
            parts += [f"::: {package}.{name}", ""]
    return "\n".join(parts)
