"""Blocks of a document as a page of HTML."""

import html
import re

from .markdown import numeric
from .plots import INK

__all__ = ["STYLE", "document", "page"]


def page(blocks, plots):
    """Return the blocks of a document as a page of HTML, with the plots, SVG texts by name, in it."""
    render = {
        "heading": lambda text: f"<h2>{_inline(text)}</h2>",
        "good": lambda text: f'<p class="good">{_inline(text)}</p>',
        "bad": lambda text: f'<p class="bad" role="alert">{_inline(text)}</p>',
        "text": lambda text: f"<p>{_inline(text)}</p>",
        "list": lambda items: "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>",
        "table": _table,
        "code": lambda lines: "<pre>" + html.escape("\n".join(lines)) + "</pre>",
        "plot": lambda name, caption: (f"<figure>{plots[name].replace(INK, 'currentColor')}"
                                       f"<figcaption>{_inline(caption)}</figcaption></figure>"),
    }
    body = "\n".join(render[kind](*content) for kind, *content in blocks)
    return document("narrowgauge report", f"<h1>narrowgauge report</h1>\n{body}")


def document(title, body, style="", script=""):
    """Return a page of HTML in the project's style, with more style and a script if given: all four are HTML."""
    return HTML.format(title=title, style=STYLE + style, body=body, script=script and f"<script>\n{script}</script>\n")


def _table(head, rows):
    right = [' class="number"' if each else "" for each in numeric(head, rows)]

    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}{mark}>{_inline(cell)}</{tag}>"
                                for cell, mark in zip(cells, right, strict=True)) + "</tr>"

    return "\n".join(['<div class="table"><table>', f"<thead>{line(head, 'th')}</thead>", "<tbody>",
                      *(line(row, "td") for row in rows), "</tbody></table></div>"])


def _inline(text):
    """Return text as HTML, with `code` and **strong** as in Markdown."""
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*(.*?)\*\*", r"<strong>\1</strong>", text)


HTML = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
{script}</body>
</html>
"""

STYLE = """\
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --back: #ffffff; --code: #f3f5f7;
  --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #3d444d; --back: #14181d; --code: #1f252c;
    --good: #3fb950; --bad: #ff6b62; } }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1.25rem; color: var(--ink); background: var(--back);
  font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.8rem; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
p, ul { max-width: 48rem; }
.good, .bad { max-width: none; padding: .6rem 1rem; border-left: .35rem solid var(--good); background: var(--code);
  font-weight: 600; }
.bad { border-color: var(--bad); color: var(--bad); }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: bottom; }
th { color: var(--soft); font-weight: 600; }
td { vertical-align: top; }
td code { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font: .85em/1.5 ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; }
pre { padding: .6rem 1rem; background: var(--code); overflow-x: auto; }
figure { margin: 1.25rem 0; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 48rem; }
"""
