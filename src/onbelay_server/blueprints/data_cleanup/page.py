"""The page a person decides on, and how its numbers are said."""

from __future__ import annotations

from typing import Any

from onbelay_server.blueprints.data_cleanup.proposal import SHOWN_ROLES
from onbelay_server.blueprints.data_cleanup.rules import RULE_NAMES

Json = dict[str, Any]


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 pair, 2 pairs."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def question(rules: Json) -> str:
    """What the person is asked, in one line."""
    rows = counted(rules["rows"], "row")
    entities = counted(rules["entities"], "entity", "entities")
    if not rules["quality"]["joined_pairs"]:
        return f"Nothing to join: {rows}, {entities}. Write the files all the same?"
    return f"Join {rows} into {entities}?"


def rules_markdown(rules: Json) -> str:
    """The proposal as a page a person reads before deciding; it names the digest it stands for."""
    quality = rules["quality"]
    pairs = counted(quality["joined_pairs"], "pair")
    believed = (
        "Precision and recall: too few pairs to tell."
        if quality["precision"] is None
        else f"Believed precision **{quality['precision']:.1%}** "
        f"({_range(quality['precision_range'])}), believed recall "
        f"**{quality['recall']:.1%}** ({_range(quality['recall_range'])})."
    )
    lines = [
        f"# {question(rules)}",
        "",
        f"{pairs} of rows would be joined. {believed}",
        "",
        "Columns used: "
        + ", ".join(f"{role} = “{name}”" for role, name in sorted(rules["columns"].items()))
        + f". A pair is joined from a probability of {rules['min_probability']:.0%}.",
        "",
        "## Rules",
        "",
        "| | rule | pairs of rows | believed right | of them in conflict |",
        "|---|---|---:|---:|---:|",
    ]
    for number, rule in enumerate(rules["rules"], 1):
        lines.append(
            f"| {number} | {rule['title']}{'' if rule['applied'] else ' (switched off)'} "
            f"| {rule['row_pairs']:,} | {believed_right(rule)} | {rule['conflicts']:,} |"
        )
    # Below, not in the table: a narrow terminal would cut a name there.
    names = [
        f"{number} `{rule['name']}`"
        for number, rule in enumerate(rules["rules"], 1)
        if rule["name"] in RULE_NAMES
    ]
    lines += [
        "",
        f"Their names: {', '.join(names)}. "
        "To go without a rule, reject this and run again with its name: "
        '`--input \'{"rules_off": ["near-place"]}\'`.',
    ]
    for number, rule in enumerate(rules["rules"], 1):
        if not rule["row_pairs"]:
            continue
        lines += ["", f"**{number}. {rule['title']}.** {rule['meaning']}", ""]
        lines += [_pair_line(sample) for sample in rule["samples"][:3]]
    lines += ["", "## Never joined", ""]
    for guard in rules["guards"]:
        lines += [
            f"**{guard['title']}** ({counted(guard['refused_row_pairs'], 'likely-looking pair')} "
            f"refused). {guard['meaning']}",
            "",
        ]
        lines += [_pair_line(sample) for sample in guard["samples"][:2]]
        lines.append("")
    if rules["notes"]:
        lines += ["## About the file", ""] + [f"- {_plain(note)}" for note in rules["notes"]] + [""]
    lines += [f"Approving applies exactly the rule set `{rules['digest']}` to this table.", ""]
    return "\n".join(lines)


def believed_right(rule: Json) -> str:
    """The share of a rule's pairs believed right, as text."""
    if not rule["row_pairs"]:
        return "–"
    right = rule["estimated_precision"]
    return "too few to tell" if right is None else f"{right:.1%}"


def _range(pair: list[float]) -> str:
    return f"{pair[0]:.1%} to {pair[1]:.1%}"


def _pair_line(sample: Json) -> str:
    why = f"; {sample['why']}" if sample["why"] else ""
    return f"- {_side(sample['a'])} ⟷ {_side(sample['b'])} ({sample['probability']:.0%}{why})"


def _side(row: Json) -> str:
    parts = [str(row[role]) for role in SHOWN_ROLES if role in row]
    return f"row {row['row']}: " + (_plain(" · ".join(parts)) or "(empty)")


def _plain(text: str) -> str:
    """Data inside Markdown must stay data: no table cells, links, emphasis or code of its own."""
    return "".join("\\" + c if c in "\\`*_[]<>|#!~" else c for c in text)
