"""The page: everything in one file."""

from __future__ import annotations

import base64
import gzip
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from gfb_brevitas import __version__
from gfb_brevitas.search import RecordedRun, RecordedSeeds
from gfb_integrations.plots.data.table import cell_text
from gfb_integrations.report import asked, outcome, proof
from gfb_integrations.report.charts import charts, comparison_chart
from gfb_integrations.report.files import linked_files
from gfb_integrations.report.finn import finn_sections
from gfb_integrations.report.seeds import SeedsTable


def rendered(run: RecordedRun, folder_of_page: Path, seeds: RecordedSeeds | None = None) -> str:
    """The page of a run.

    Args:
        run: The run.
        folder_of_page: The folder that it will stand in, for its links.
        seeds: The runs of all seeds, if it is one of several.
    """
    search = run.configuration.get("search", {})
    text = (
        _environment()
        .get_template("page.html")
        .render(
            run=run,
            name=(run if seeds is None else seeds).path.resolve().name,
            seeds=None if seeds is None else SeedsTable(seeds=seeds),
            version=__version__,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            ended=run.summary is not None,
            progress=outcome.progress_in_words(run),
            sentences=list(outcome.in_words(run)),
            key_figures=list(outcome.key_figures(run)),
            budget_uses=outcome.budget_uses(run),
            budgets=asked.budgets_table(run),
            ranges=list(asked.ranges_in_words(run)),
            plan=[asked.plan_in_words(run), *asked.evaluators_in_words(run)],
            warnings=run.warnings,
            uniform_costs=asked.uniform_costs_table(run),
            search_settings=asked.settings_table(search),
            training_settings=asked.settings_table(run.configuration.get("training")),
            comparison=comparison_chart(run),
            charts=list(charts(run)),
            verification=proof.verification_table(run),
            proven=proof.proven(run),
            finn=list(finn_sections(run)),
            files=list(linked_files(run, folder_of_page)),
            plotly=compressed_plotly(),
            style=Markup(_asset("page.css")),
            script=Markup(_asset("page.js")),
        )
    )
    # A name may hold half a character of UTF-16, which no file can.
    return text.encode("utf-8", errors="replace").decode("utf-8")


@lru_cache(maxsize=1)
def compressed_plotly() -> str:
    """plotly.js, compressed, as text: 2 MB instead of 5."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode("utf-8"), 9, mtime=0)).decode("ascii")


def embedded_json(text: str) -> Markup:
    r"""JSON inside a script element, which no text in it can end.

    Example:
        >>> embedded_json('{"name": "</script>"}')
        Markup('{"name": "\\u003c/script\\u003e"}')
    """
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return Markup("".join(escapes.get(character, character) for character in text))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell_text
    environment.filters["embedded"] = embedded_json
    return environment


def _asset(name: str) -> str:
    return resources.files(__package__ or "").joinpath("assets", name).read_text(encoding="utf-8")
