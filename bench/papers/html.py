"""The report as one HTML page that needs no other file."""

from __future__ import annotations

from base64 import b64encode
from html import escape

from bench.papers.section import Figure, Section, Table
from bench.papers.telling import GROUPS, VERDICTS, Chapter, conditions, overview

STYLE = """
:root { color-scheme: light; --ink: #1c1c1c; --soft: #666; --line: #ddd; --good: #00734f; --bad: #a63c00; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 3rem; border-top: 1px solid var(--line);
padding-top: 1rem; } nav { columns: 18rem; font-size: .9rem; } nav ul { margin: 0 0 1rem; padding-left: 1.1rem; }
nav div { break-inside: avoid; } a { color: #005a8d; }
.scroll { overflow-x: auto; margin: .5rem 0 1.2rem; } table { border-collapse: collapse; font-size: .88rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top; }
th { border-bottom-color: var(--ink); } .numbers td:not(:first-child), .numbers th:not(:first-child) {
text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; padding-left: .7rem; padding-right: 0; }
.findings td { min-width: 6rem; } figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; }
figcaption, .caption { font-size: .88rem; color: var(--soft); } .small { font-size: .8rem; color: var(--soft); }
.true { color: var(--good); font-weight: 600; } .false { color: var(--bad); font-weight: 600; }
"""


def page(opening: str, chapters: list[Chapter], pictures: dict[str, bytes]) -> str:
    headers, rows = overview(chapters)
    body = [f"<h1>The papers' experiments</h1><p>{escape(opening)}</p>", _contents(chapters), "<h2>All findings</h2>"]
    linked = [
        [row[0] and f'<a href="#{row[0]}">{row[0]}</a>', escape(row[1]), escape(row[2]), _verdict(row[3])]
        for row in rows
    ]
    body.append(_table([escape(header) for header in headers], linked, "findings"))
    for experiment, results, section in chapters:
        body.append(f'<h2 id="{experiment.name}">{escape(experiment.title)}</h2>')
        body.append(f'<p class="caption"><b>{experiment.name}</b> · {experiment.paper}, {escape(experiment.shows)}</p>')
        body.append(_section(section, pictures))
        body.append(f'<p class="small">{escape(conditions(experiment, results))}</p>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The papers\' experiments</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _contents(chapters: list[Chapter]) -> str:
    parts = []
    for group in GROUPS:
        entries = [f'<li><a href="#{e.name}">{escape(e.title)}</a></li>' for e, _, _ in chapters if e.paper == group]
        if entries:
            parts.append(f"<div><b>{group}</b><ul>{''.join(entries)}</ul></div>")
    return f"<nav>{''.join(parts)}</nav>"


def _section(section: Section, pictures: dict[str, bytes]) -> str:
    parts = []
    if section.findings:
        items = [f"<li>{escape(f.claim)}: {escape(f.here)}. {_verdict(VERDICTS[f.holds])}</li>"
                 for f in section.findings]  # fmt: skip
        parts.append(f"<ul>{''.join(items)}</ul>")
    for block in section.blocks:
        if isinstance(block, Table):
            rows = [[escape(cell) for cell in row] for row in block.rows]
            parts.append(f'<div class="caption">{escape(block.caption)}</div>')
            parts.append(_table([escape(header) for header in block.headers], rows, "numbers"))
        elif isinstance(block, Figure):
            image = b64encode(pictures[block.name]).decode()
            alt = escape(block.caption, quote=True)
            parts.append(f'<figure><img src="data:image/png;base64,{image}" alt="{alt}">')
            parts.append(f"<figcaption>{escape(block.caption)}</figcaption></figure>")
        else:
            parts.append(f"<p>{escape(block)}</p>")
    return "".join(parts)


def _verdict(text: str) -> str:
    kind = {VERDICTS[True]: "true", VERDICTS[False]: "false"}.get(text)
    return f'<span class="{kind}">{text}</span>' if kind else "" if text == VERDICTS[None] else escape(text)


def _table(headers: list[str], rows: list[list[str]], kind: str) -> str:
    head = "".join(f"<th>{header}</th>" for header in headers)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'
