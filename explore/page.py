"""An exploration as a page of HTML: plots of accuracy against cost, and a table that sorts."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ..golden.errors import MissingExtra
from ..report.page import document
from ..report.plots import INK, svg_of
from .rows import COSTS

__all__ = ["label_of", "page", "varying_of"]

MOST_LABELS = 40  # in a plot; the table has the others
COLUMNS = {"accuracy": "accuracy, %", "lut_per_mac": "LUT per MAC", "mmacs_per_s_per_klut": "M MAC/s per 1,000 LUT",
           "gates_per_mac": "gates per MAC", "um2_per_mac": "um2 per MAC", "energy_pj_per_mac": "pJ per MAC",
           "energy_uj_per_step": "uJ per step", "cycles_per_step": "cycles per step", "utilisation": "share of peak",
           "bits_per_operand": "bits per operand"}
FORMS = {"utilisation": "{:.1%}", "cycles_per_step": "{:,.0f}", "um2_per_mac": "{:,.0f}",
         "mmacs_per_s_per_klut": "{:,.0f}", "gates_per_mac": "{:,.0f}", "bits_per_operand": "{:.2f}"}
# A click on a head sorts by its column, a second one turns the order. Rows without a value stand last.
SCRIPT = """\
document.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], rows = [...body.rows], down = head.dataset.order !== "down";
  document.querySelectorAll("th").forEach(each => { delete each.dataset.order; });
  head.dataset.order = down ? "down" : "up";
  const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
  rows.sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  });
  body.append(...rows);
}));
"""
STYLE = """\
body { max-width: 84rem; }
th { cursor: pointer; user-select: none; }
th[data-order=down]::after { content: " \\2193"; }
th[data-order=up]::after { content: " \\2191"; }
td.why { color: var(--bad); max-width: 24rem; }
"""


def varying_of(rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Return the settings, as (option, name), that are not the same in all rows."""
    flat = [_flat(row["settings"]) for row in rows]
    names = {name for each in flat for name in each}
    return {name for name in names if len({str(each.get(name)) for each in flat}) > 1}


def _flat(settings: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    flat: dict[tuple[str, str], Any] = {}
    for option, value in settings.items():
        if isinstance(value, dict):
            flat |= {(option, name): each for name, each in value.items()}
        else:
            flat[option, ""] = value
    return flat


def label_of(row: Mapping[str, Any], varying: set[tuple[str, str]]) -> str:
    """Return the settings of a row by which it differs from others, in a few words."""
    words = [str(value) if option in ("recipe", "system") else f"{name or option}={value}"
             for (option, name), value in _flat(row["settings"]).items() if (option, name) in varying]
    return " ".join(words) or str(row["settings"].get("recipe", "bfp"))


def _scatter(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], cost: str, case: str) -> str:
    """Return the plot of one case against one cost, with its front."""
    shown = [(row[cost], 100 * row["accuracy"]["median"], row, label) for row, label in zip(rows, labels)
             if row["case"] == case and row[cost] is not None and row["accuracy"] is not None]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for x, y, row, _ in shown:
            ends = [[y - 100 * row["accuracy"]["min"]], [100 * row["accuracy"]["max"] - y]]
            on = cost in row["pareto"]
            axes.errorbar([x], [y], yerr=ends, fmt="o", color="#e0762d" if on else "#3f87d6", markersize=7 if on else 5,
                          elinewidth=0.8, alpha=1 if on else 0.6)
        front = sorted((x, y) for x, y, row, _ in shown if cost in row["pareto"])
        axes.plot(*zip(*front), color="#e0762d", linewidth=1)
        for x, y, _, label in shown[:MOST_LABELS]:
            axes.annotate(label, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
        axes.set(xlabel=COSTS[cost], ylabel="test accuracy, %", title=case)
        low, high = min(x for x, *_ in shown), max(x for x, *_ in shown)
        if low > 0 and high > 20 * low:
            axes.set_xscale("log")
        axes.margins(x=0.15, y=0.1)

    return svg_of(f"accuracy against {COSTS[cost]}, {case}", draw, height=4.2).replace(INK, "currentColor")


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if value is None:
        return '<td class="number" data-key=""></td>'
    if column == "accuracy":
        key, text = value["median"], " to ".join(f"{100 * value[end]:.2f}" for end in ("min", "max"))
        text = f"{100 * key:.2f} ({text})"
    else:
        key, text = value, FORMS.get(column, "{:,.1f}").format(value)
    return f'<td class="number" data-key="{key!r}">{text}</td>'


def _table(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    columns = [name for name in COLUMNS if any(row[name] is not None for row in rows)]
    heads = ["point", "case", *(COLUMNS[name] for name in columns), "on the front of", "why not", "command", "digest"]
    lines = ["<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>"]
    for row, label in zip(rows, labels):
        front = ", ".join(COLUMNS[name] for name in row["pareto"])
        lines.append("<tr>" + f"<td>{html.escape(label)}</td><td>{html.escape(row['case'])}</td>"
                     + "".join(_cell(row, name) for name in columns)
                     + f"<td>{front}</td><td class=\"why\">{html.escape('; '.join(row['failures']))}</td>"
                     + f"<td><code>{html.escape(row['command'])}</code></td>"
                     + f"<td><code>{(row['digest'] or '')[:12]}</code></td></tr>")
    body = "\n".join(lines[1:])
    return f'<div class="table"><table><thead>{lines[0]}</thead><tbody>{body}</tbody></table></div>'


def page(result: Mapping[str, Any]) -> str:
    """Return the page of what `explore` returns; MissingExtra where Matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401  # the plots need it: say so before any is drawn
    except ImportError:
        raise MissingExtra("the report of explore needs matplotlib: pip install 'narrowgauge[explore]'") from None
    rows = result["rows"]
    varying = varying_of(rows)
    labels = [label_of(row, varying) for row in rows]
    failed = sum(bool(row["failures"]) for row in rows)
    parts = [f"<h1>{html.escape(result['space'])}</h1>", f"<p>{html.escape(result['about'])}</p>",
             f"<p>{len(rows)} points, {failed} of which have something to say under <em>why not</em>. Accuracy is the "
             "median of the seeds, and its range. Orange points are on the front: no other point of their case is as "
             "accurate at no more cost. Areas, delays and energies are pre-layout. A click on a head sorts.</p>"]
    if not result["complete"]:
        parts.append('<p class="bad">The time was up before all was run. The same command goes on.</p>')
    for case in dict.fromkeys(row["case"] for row in rows):
        for cost in COSTS:
            if any(row["case"] == case and row[cost] is not None and row["accuracy"] for row in rows):
                parts.append(f"<figure>{_scatter(rows, labels, cost, case)}</figure>")
    parts.append(_table(rows, labels))
    return document(f"narrowgauge explore: {html.escape(result['space'])}", "\n".join(parts), STYLE, SCRIPT)
