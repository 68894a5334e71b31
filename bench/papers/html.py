"""The report as one HTML page that needs no other file: the Markdown page with contents, anchors and pictures."""

from __future__ import annotations

import re
from base64 import b64encode
from html import escape

from markdown_it import MarkdownIt

from bench.papers.experiments.experiment import Experiment

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The papers' experiments</title>
<style>
:root { color-scheme: light; --soft: #666; --line: #ddd; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; }
h2 { font-size: 1.25rem; margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
a { color: #005a8d; }
nav { columns: 18rem; font-size: .9rem; }
nav div { break-inside: avoid; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: .88rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top; }
h2 ~ h2 ~ table :is(th, td):not(:first-child) { text-align: right; white-space: nowrap; }
li p { margin: 0; }
img { max-width: 100%%; height: auto; }
em, small { font-size: .88rem; font-style: normal; color: var(--soft); }
.true { color: #00734f; font-weight: 600; }
.false { color: #a63c00; font-weight: 600; }
</style>
</head>
<body>
%s</body>
</html>
"""


def page(markdown: str, experiments: list[Experiment], pictures: dict[str, bytes]) -> str:
    """`markdown` is that of `bench.papers.markdown.page` for the same experiments."""
    body = render(markdown)
    for each in experiments:
        title = escape(each.title, quote=False)
        body = body.replace(f"<h2>{title}</h2>", f'<h2 id="{each.name}">{title}</h2>')
        body = body.replace(f"<td>{each.name}</td>", f'<td><a href="#{each.name}">{each.name}</a></td>')
    for name, image in pictures.items():
        body = body.replace(f'src="plots/{name}.png"', f'src="data:image/png;base64,{b64encode(image).decode()}"')
    return PAGE % body.replace("<h2>", contents(experiments) + "<h2>", 1)


def render(markdown: str) -> str:
    """All text is escaped but the `<sub>` of the conditions; verdicts are in their colours."""
    body = MarkdownIt("js-default").render(markdown)
    body = body.replace("&lt;sub&gt;", "<small>").replace("&lt;/sub&gt;", "</small>")
    for verdict, kind in (("holds", "true"), ("does not hold", "false")):
        body = re.sub(rf"<(td|strong)>({verdict}\.?)<", rf'<\1 class="{kind}">\2<', body)
    return body


def contents(experiments: list[Experiment]) -> str:
    """Links to the experiments, by paper."""
    groups = dict.fromkeys((each.paper for each in experiments), "")
    for each in experiments:
        groups[each.paper] += f'<li><a href="#{each.name}">{escape(each.title)}</a></li>'
    return "<nav>" + "".join(f"<div><b>{paper}</b><ul>{links}</ul></div>" for paper, links in groups.items()) + "</nav>"
