"""The report as one HTML page that needs no other file."""

from __future__ import annotations

from base64 import b64encode
from html import escape

from bench.papers.chapter import VERDICTS, Chapter, overview
from bench.papers.experiments.experiment import Block, Figure, Finding

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
    body = [f"<h1>The papers' experiments</h1><p>{escape(opening)}</p>", _contents(chapters), "<h2>All findings</h2>"]
    headers, rows = overview(chapters)
    linked = [
        [name and f'<a href="#{name}">{name}</a>', escape(claim), escape(here), _verdict(verdict)]
        for name, claim, here, verdict in rows
    ]
    body.append(_table(headers, linked, "findings"))
    for chapter in chapters:
        about = chapter.experiment
        body.append(f'<h2 id="{about.name}">{escape(about.title)}</h2>')
        body.append(f'<p class="caption"><b>{about.name}</b> · {about.paper}, {escape(about.shows)}</p>')
        body.append(f"<ul>{''.join(map(finding, chapter.findings))}</ul>")
        body += [block(each, pictures) for each in chapter.blocks]
        body.append(f'<p class="small">{escape(chapter.conditions)}</p>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The papers\' experiments</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _contents(chapters: list[Chapter]) -> str:
    groups: dict[str, str] = {"L2R": "", "reimplementation": "", "FSR": ""}
    for about in (chapter.experiment for chapter in chapters):
        groups[about.paper] += f'<li><a href="#{about.name}">{escape(about.title)}</a></li>'
    parts = (f"<div><b>{group}</b><ul>{entries}</ul></div>" for group, entries in groups.items() if entries)
    return f"<nav>{''.join(parts)}</nav>"


def finding(found: Finding) -> str:
    return f"<li>{escape(found.claim)}: {escape(found.here)}. {_verdict(VERDICTS[found.holds])}</li>"


def block(part: Block, pictures: dict[str, bytes]) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>"
    caption = escape(part.caption)
    if isinstance(part, Figure):
        image = b64encode(pictures[part.name]).decode()
        shown = f'<img src="data:image/png;base64,{image}" alt="{caption}">'
        return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"
    rows = [[escape(cell) for cell in row] for row in part.rows]
    return f'<div class="caption">{caption}</div>' + _table([*map(escape, part.headers)], rows, "numbers")


def _verdict(text: str) -> str:
    kind = {VERDICTS[True]: "true", VERDICTS[False]: "false"}.get(text)
    return f'<span class="{kind}">{text}</span>' if kind else ""


def _table(headers: list[str], rows: list[list[str]], kind: str) -> str:
    head = "".join(f"<th>{header}</th>" for header in headers)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'
