"""The agent: profile, propose, ask a person, apply, leave the files.

All computing is in steps, so that a copy of the agent that is run again after the approval or a
crash only asks for recorded results. What a step needs of an earlier one's work it finds in
`resolved`'s memory, or computes again from the same bytes with the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onbelay_agent import AgentCallError, Context, Expired, Rejected, agent
from onbelay_server.blueprints.data_cleanup import cleaning
from onbelay_server.blueprints.data_cleanup.overview import overview
from onbelay_server.blueprints.data_cleanup.page import counted, question, rules_markdown
from onbelay_server.blueprints.data_cleanup.proposal import proposal
from onbelay_server.blueprints.data_cleanup.resolution import (
    DEFAULT_MIN_PROBABILITY,
    Progress,
    Settings,
    resolved,
)
from onbelay_server.blueprints.data_cleanup.roles import detect_roles
from onbelay_server.blueprints.data_cleanup.table import CleanupError, read_table

Json = dict[str, Any]

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}


@agent(name="data-cleanup", child=True)
async def data_cleanup(
    ctx: Context,
    table: str = "input.csv",
    columns: dict[str, str] | None = None,
    min_probability: float = DEFAULT_MIN_PROBABILITY,
    rules_off: list[str] | None = None,
) -> Json:
    """Find which rows of a CSV table are the same entity, and clean the table once a person has
    approved the rules.

    `table` is the input artifact's name. `columns` says which column plays which role (name,
    address, zip, city, phone, email, id, source) where detection should be overruled;
    `min_probability` from which probability a pair is joined; `rules_off` names rules not to apply.
    Fails with CleanupError, whose message says why, when the table cannot be used.
    """
    settings = Settings.of(columns, min_probability, rules_off)
    data = await _read(ctx, table)

    ctx.emit("Reading the table.\n")
    profile = _usable(await ctx.step("profile", lambda: _guarded(_profile, data, settings)))
    ctx.report("profile", _brief(profile))
    ctx.emit(
        f"{counted(profile['rows'], 'row')} in {counted(len(profile['columns']), 'column')}. "
        "Looking for rows that are the same entity.\n"
    )

    progress = _progress_of(ctx)
    rules = _usable(
        await ctx.step(
            "propose rules",
            lambda: _guarded(lambda: proposal(resolved(data, settings, progress))),
        )
    )
    ctx.report("rules", {"digest": rules["digest"], "quality": rules["quality"]})
    ctx.emit(
        f"{counted(rules['pairs_compared'], 'pair')} compared; "
        f"{counted(rules['quality']['joined_pairs'], 'pair')} of rows would be joined, leaving "
        f"{counted(rules['entities'], 'entity', 'entities')}. Waiting for approval.\n"
    )

    try:
        approved = await ctx.approve(
            question(rules),
            rules_markdown(rules),
            _evidence(rules),
        )
    except (Rejected, Expired) as no:
        expired = isinstance(no, Expired)
        words = "Nobody decided in time." if isinstance(no, Expired) else no.comment
        ctx.emit(f"Not approved: {words or 'no reason given'}. Nothing is joined.\n")
        files = await ctx.step(
            "write the report",
            lambda: _refusal_files(data, settings, profile, rules, words, expired),
        )
        return {
            "outcome": "expired" if expired else "rejected",
            "comment": words,
            "rows": rules["rows"],
            "rules": rules["digest"],
            "artifacts": await _saved(ctx, files),
        }

    ctx.emit("Approved. Applying the rules.\n")
    verdict = {"by": str(approved.by), "comment": str(approved.comment or "")}
    files = _usable(
        await ctx.step(
            "apply the rules",
            lambda: _guarded(_files, data, settings, profile, rules, verdict, progress),
        )
    )
    saved = await _saved(ctx, files)
    quality = rules["quality"]
    ctx.emit(f"Done: {rules['rows']:,} rows are {rules['entities']:,} entities.\n")
    return {
        "outcome": "cleaned",
        "rows": rules["rows"],
        "entities": rules["entities"],
        "estimated_precision": quality["precision"],
        "estimated_recall": quality["recall"],
        "rules": rules["digest"],
        "approved_by": verdict["by"],
        "artifacts": saved,
    }


async def _read(ctx: Context, table: str) -> bytes:
    try:
        return await ctx.artifacts.read(table)
    except AgentCallError as missing:
        raise CleanupError(
            f"The table {table!r} cannot be read: {missing.message}. Give it when the run is "
            f"started: onbelay run data-cleanup --file {table}=my-table.csv"
        ) from missing


def _progress_of(ctx: Context) -> Progress:
    def progress(done: int, total: int, note: str) -> None:
        ctx.progress(done, total, note)

    return progress


def _guarded(work: Callable[..., Json], *args: Any) -> Json:
    """What `work` returns, or why the table cannot be used: an answer, not a crash of the step."""
    try:
        return {"ok": work(*args)}
    except CleanupError as unusable:
        return {"unusable": str(unusable)}


def _usable(answer: Json) -> Json:
    if "unusable" in answer:
        raise CleanupError(answer["unusable"])
    found: Json = answer["ok"]
    return found


def _profile(data: bytes, settings: Settings) -> Json:
    table = read_table(data)
    return overview(table, detect_roles(table, dict(settings.columns)))


def _brief(profile: Json) -> Json:
    """The profile small enough for an event, however many columns the table has."""
    return {
        "rows": profile["rows"],
        "copied_rows": profile["copied_rows"],
        "columns": len(profile["columns"]),
        "roles": {c["role"]: c["name"] for c in profile["columns"] if c["role"]},
        "notes": profile["notes"],
    }


def _evidence(rules: Json) -> Json:
    """What the decision rests on, beside the page: counts, estimates and sample pairs."""
    kept = (
        "digest", "table_sha256", "columns", "min_probability", "quality", "rules", "guards",
        "weights", "pairs_compared", "notes",
    )  # fmt: skip
    return {key: rules[key] for key in kept}


def _files(
    data: bytes, settings: Settings, profile: Json, rules: Json, verdict: Json, progress: Progress
) -> Json:
    """All output files by name. Refuses when what would be applied is not what was approved."""
    from onbelay_server.blueprints.data_cleanup.lineage import lineage_picture
    from onbelay_server.blueprints.data_cleanup.report import report_html

    resolution = resolved(data, settings, progress)
    again = proposal(resolution)
    if again["digest"] != rules["digest"]:
        raise CleanupError(
            f"The rules computed now ({again['digest']}) are not the rules approved "
            f"({rules['digest']}): nothing was applied."
        )
    writers: dict[str, Callable[[], str]] = {
        "cleaned.csv": lambda: cleaning.cleaned_csv(resolution),
        "entities.csv": lambda: cleaning.entities_csv(resolution),
        "lineage.json": lambda: cleaning.lineage_json(resolution),
        "lineage.svg": lambda: lineage_picture(resolution),
        "report.html": lambda: report_html(resolution, profile, rules, approved=verdict),
    }
    files = {}
    for done, (name, write) in enumerate(writers.items()):
        progress(done, len(writers), f"Writing {name}")
        files[name] = write()
    progress(len(writers), len(writers), "Files written")
    return files


def _refusal_files(
    data: bytes, settings: Settings, profile: Json, rules: Json, words: str, expired: bool
) -> Json:
    from onbelay_server.blueprints.data_cleanup.report import report_html

    resolution = resolved(data, settings)
    page = report_html(resolution, profile, rules, rejected=words, expired=expired)
    return {"report.html": page}


async def _saved(ctx: Context, files: Json) -> list[Json]:
    saved = []
    for name, text in sorted(files.items()):
        artifact = await ctx.artifacts.save(
            name, text.encode(), media_type=MEDIA_TYPES[name.rsplit(".", 1)[1]]
        )
        saved.append({"name": name, "id": artifact.id, "sha256": artifact.sha256})
    return saved
