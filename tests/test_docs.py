"""What the documentation says is so: blocks run, messages exist, the site builds, links lead on.

Blocks of a page run in its order. A Python block with a title, ``python title="name.py"``, is a file of the
page; the others share one namespace. YAML blocks are configurations, or parts of them. Shell blocks run where
``<!-- run -->`` stands in front of them: their lines that begin with ``gfb``. All other calls of ``gfb``, in
shell blocks and in sentences, are parsed by the command itself.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer
import typer.main
import yaml
from typer.testing import CliRunner

from gfb_brevitas.cli import app, starting
from gfb_brevitas.configuration import ConfiguredRun, Document, read_document
from gfb_brevitas.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
NEEDS_FINN = "needs FINN"
PART_OF_A_CONFIGURATION = {
    "model": "network:make",
    "loss": "cross_entropy",
    "train_batches": "network:train",
    "run_folder": "runs/part",
}


@dataclass(frozen=True)
class Block:
    """A block of code, and what the page says about it."""

    language: str
    title: str | None
    mark: str | None
    code: str


def blocks_of(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(
        r"(?:^<!-- (?P<mark>[^\n]+?) -->\n\n)?"
        r"^(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
        r"(?P<code>.*?)^(?P=indent)```$",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    return [Block(m["language"], m["title"], m["mark"], textwrap.dedent(m["code"])) for m in found]


WITH_BLOCKS = [page for page in ("README.md", *DOCS) if blocks_of(page)]


@pytest.fixture
def folder_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, the current one, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])  # as for a program in the folder
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("document", WITH_BLOCKS)
def test_blocks_run(document: str, folder_of_the_page: Path) -> None:
    names: dict[str, object] = {"__name__": document}
    for number, block in enumerate(blocks_of(document), start=1):
        place = f"{document}, block {number}"
        if block.mark == NEEDS_FINN and not os.environ.get("GFB_FINN_PYTHON"):
            continue
        if block.title is not None:
            (folder_of_the_page / block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.code, place, "exec"), names)
        if block.language == "yaml":
            check_configuration(block, folder_of_the_page)
        if block.language == "sh" and block.mark == "run":
            run_commands(block.code, place)


def check_configuration(block: Block, folder: Path) -> None:
    path = folder / (block.title or "part.yaml")
    path.write_text(block.code, encoding="utf-8")
    document = read_document(path)
    if block.title is None:
        document = replace(document, content={**PART_OF_A_CONFIGURATION, **document.content})
    ConfiguredRun.of(document)


def run_commands(code: str, place: str) -> None:
    lines = code.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("gfb ")]
    assert commands, f"{place} has no command to run"
    for command in commands:
        result = CliRunner(env={"COLUMNS": "100"}).invoke(app, command[1:])
        assert result.exit_code == 0, f"{place}: {shlex.join(command)}\n{result.output}"


APPS = {
    "finn": "gfb_integrations.finn.cli",
    "mlflow": "gfb_integrations.mlflow.cli",
}


def parse(arguments: list[str]) -> None:
    """Have the command parse its arguments, and do nothing."""
    match arguments:
        case [("finn" | "mlflow") as name, *rest]:
            parsed_by(importlib.import_module(APPS[name]).app, rest)
        case ["run", program, *rest] if program.endswith((".yaml", ".yml")):
            parsed_by(starting._configured, [program, *rest])
            changed = Document(path=Path(program), content={"budgets": [{}, {}], "rules": [{}, {}]}, lines={})
            for assignment in rest:
                if not assignment.startswith("-"):
                    changed = changed.with_override(assignment)
        case ["run", program, *_] if program.startswith("examples/"):
            assert (ROOT / f"{program.removesuffix('.py')}.py").is_file(), program
        case _:
            parsed_by(app, arguments)


def parsed_by(of: typer.Typer, arguments: list[str]) -> None:
    top: Any = typer.main.get_command(of)
    for command in (top, *getattr(top, "commands", {}).values()):
        command.callback = lambda **_: None
    top.main(args=arguments, prog_name="gfb", standalone_mode=False)


def calls(code: str) -> Iterator[list[str]]:
    """The arguments of every call of ``gfb`` in a piece of shell."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words = list(lexer)
        while words:
            end = next((i for i, word in enumerate(words) if set(word) <= set("&|;")), len(words))
            command = [word for i, word in enumerate(words[:end]) if i or "=" not in word]
            if command and Path(command[0]).name == "gfb":
                yield command[1:]
            words = words[end + 1 :]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *DOCS])
def test_commands_are_those_that_there_are(document: str) -> None:
    for block in blocks_of(document):
        if block.language in ("sh", "bash", "console"):
            for arguments in calls(block.code):
                parse(arguments)
    text = (ROOT / document).read_text(encoding="utf-8")
    for span in re.findall(r"`gfb ([^`]+)`", text):
        name, *rest = shlex.split(span)
        if rest and name not in ("COMMAND", *APPS):
            parse([name, *rest])
        elif name in APPS:  # the command alone: how it is used is said elsewhere
            commands: Any = typer.main.get_command(importlib.import_module(APPS[name]).app)
            assert not rest or rest[0] in commands.commands, span
        else:
            known: Any = typer.main.get_command(app)
            assert name in {*known.commands, "COMMAND"} or name in ("--help", "--install-completion"), span


@pytest.mark.parametrize(
    "line",
    [
        "gfb shw RUN",
        "FOO=1 gfb show RUN --jsn",
        "cd x && .venv/bin/gfb compare",
        "gfb mlflow deliver RUN --time 3",
        "gfb finn chek net:make",
        "gfb run search.yaml --quite",
        "gfb run search.yaml budgets.9.rho=3",
        "gfb run examples/nothing",
    ],
)
def test_commands_that_there_are_not_are_found(line: str) -> None:
    (arguments,) = calls(f"{line}   # as written")
    misuse: Any = typer.BadParameter.__base__  # of the click that typer has
    with pytest.raises((misuse, ConfigurationError, AssertionError)):
        parse(arguments)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *DOCS])
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        if "reference/" not in target:  # pages that are made from docstrings; see the tests of the site
            assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


# --- messages ----------------------------------------------------------------------------------


def texts_of_the_sources() -> str:
    """All strings of both packages, with … in place of values."""
    texts = []
    for package in ("gfb_brevitas", "integrations/gfb_integrations"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                    texts.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(re.sub(r"%[sdgr]", "…", node.value))
                elif isinstance(node, ast.ClassDef):
                    texts.append(node.name)
    return "\n".join(texts)


def messages_of(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    tables = re.findall(r"^\| message[^\n]*\n\|[-| ]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    rows = (row for table in tables for row in table.splitlines())
    return [re.split(r"(?<!`)`{1,3}(?!`)", row, maxsplit=2)[1].strip() for row in rows]


WITH_MESSAGES = [page for page in DOCS if messages_of(page)]


@pytest.mark.parametrize("document", WITH_MESSAGES)
def test_messages_are_those_of_the_sources(document: str) -> None:
    known = texts_of_the_sources()
    for message in messages_of(document):
        for piece in re.split(r"…|\.\.\.|: |\bNAME\b|'first'", message):
            assert piece.strip(" .:`'") in known, f"{document} explains {message!r}, which nothing says"


# --- the site ----------------------------------------------------------------------------------


class Page(HTMLParser):
    """Addresses and anchors of a page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        loads = tag in ("script", "img", "source", "iframe") or given.get("rel") in (
            "stylesheet",
            "preconnect",
        )
        if loads:
            self.loaded += [given[name] for name in ("src", "href") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning is an error."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_links_of_the_site_resolve(site: Path) -> None:
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 30
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)} links to {link}"
            if target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{path.relative_to(site)}: {link}"


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path.read_text(encoding="utf-8"))
        assert page.loaded
        assert not [address for address in page.loaded if urlsplit(address).netloc]
    for path in (site / "assets").rglob("*.css"):
        assert "url(http" not in path.read_text(encoding="utf-8")


def test_no_role_of_restructured_text_is_left(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not re.search(r":(?:class|func|meth|mod|attr):", path.read_text(encoding="utf-8")), path.name


def hook_named(name: str) -> Any:
    """A hook of the site, as a module."""
    specification = importlib.util.spec_from_file_location(f"{name}_hook", ROOT / f"docs/hooks/{name}.py")
    assert specification is not None and specification.loader is not None
    hook = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(hook)
    return hook


def test_the_reference_of_the_command_is_that_of_the_code() -> None:
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    current = hook_named("commands").filled(text) == text
    assert current, "docs/cli.md is of another state of the code: `make reference` writes it anew"


def test_every_public_package_has_a_page(site: Path) -> None:
    hook = hook_named("reference")
    for root in ("gfb_brevitas", "integrations/gfb_integrations"):
        for path in (ROOT / root).glob("*/__init__.py"):
            if "__all__" in path.read_text(encoding="utf-8"):
                package = ".".join(path.parent.relative_to(ROOT).parts).removeprefix("integrations.")
                assert package in hook.PACKAGES or package in hook.INTERNAL, package
    for package in hook.PACKAGES:
        text = (site / "reference" / f"{package}.html").read_text(encoding="utf-8")
        for name in hook.public_names(package):
            shown = f'id="{package}.{name}"', f"<code>{name}</code>"  # here, or a link to its own package
            described = any(piece in text for piece in shown) or f"{package}.{name}" in hook.PACKAGES
            assert described, f"{package}.{name} is not described"


def test_the_page_of_the_command_knows_every_setting(site: Path) -> None:
    from gfb_brevitas.configuration import RunConfiguration

    text = (site / "cli.html").read_text(encoding="utf-8")
    assert 'href="reference/gfb_brevitas.search.html#gfb_brevitas.search.SearchConfig"' in text
    assert all(f"<code>{name}</code>" in text for name in RunConfiguration.model_fields)
    assert all(f"gfb {name}" in text for name in ("run", "resume", "inspect", "finn check", "mlflow deliver"))


def test_the_site_is_configured_in_plain_yaml() -> None:
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["strict"] is True
