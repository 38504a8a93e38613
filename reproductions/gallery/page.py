"""The page as HTML: `render` makes it of what `content.collect` returns."""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from common.datasets import SPECS
from common.evaluation import DRAWN
from reproductions import program
from reproductions.evidence.equivalence import Comparison
from reproductions.gallery.charts import (
    Curve,
    chart,
    comparisons,
    curves_of,
    points_of,
    quick_note,
)
from reproductions.gallery.content import ModuleView, RunView
from reproductions.gallery.markup import (
    capital,
    cell,
    csp_hash,
    escaped,
    number,
    prose,
    script_json,
)
from reproductions.gallery.pictures import Picture

TEMPLATE = Path(__file__).with_name("page.html")
PHRASES = Path(__file__).with_name("zh.json")  # English -> Chinese
CAPTIONS = {
    "manifold": "The plane of codes, decoded",
    "samples": "Pictures that the model invents: each digit from 0 to 9 drawn from its prior, by"
    " the same 12 draws of noise",
    "latent": "Where the encoder puts the test images: a dot for each, coloured by its class",
    "reconstructions": "Test images above, below each what the decoder makes of its code",
}
SAMPLES = {  # where there is more to say of them
    "elbo_cvae": "Left: pictures that the model invents, from codes of the prior. Right:"
    " reconstructions of test images, from codes of their posteriors.",
    "mlp_cvae": f"{CAPTIONS['samples']}. Where a 1 cannot be read, the code lies where the encoder"
    " puts no image of a 1.",
}
PROOF_COLUMNS = (
    "precision", "verdict", "steps", "digits at step 1", "by 10", "by 100",
    "largest relative difference",
)  # fmt: skip
WHOLE_RUN_COLUMNS = (
    "metric", "verdict", "the port (seeds)", "the original (seeds)", "difference",
)  # fmt: skip
NO_RUN = (
    "This page shows no run, because it was made in a folder that has none. The project's checkout"
    " has the port's runs in artifacts/reference/; your own runs are in artifacts/runs/."
)
FILM_WIDTH = 560  # pixels on the page: frames are magnified by whole numbers up to this


class Part(NamedTuple):
    """A part of a module: the contents link to its heading."""

    name: str  # with which the address of the heading ends
    title: str  # of the heading; "" if there is none
    html: str  # what stands below the heading


def render(views: Sequence[ModuleView]) -> str:
    """Makes the HTML page of what `content.collect` returns."""
    template = TEMPLATE.read_text(encoding="utf-8")
    [script] = re.findall(r"<script>(.*?)</script>", template, re.DOTALL)
    names = [view["document"].module for view in views]
    return string.Template(template).substitute(
        script_hash=csp_hash(string.Template(script).substitute()),
        phrases=script_json(json.loads(PHRASES.read_text(encoding="utf-8"))),
        navigation="\n".join(map(_navigation, views)),
        cards="\n".join(map(_card, views)),
        missing="" if any(v["runs"] for v in views) else f"<p class=warning>{NO_RUN}</p>",
        modules="\n".join(map(_module, views, ["", *names[:-1]], [*names[1:], ""])),
    )


def _navigation(view: ModuleView) -> str:
    module, document = view["document"].module, view["document"].name
    return f'<li><a href="#{module}">{module} <small>{document}</small></a></li>'


def _card(view: ModuleView) -> str:
    """A module on the overview."""
    document = view["document"]
    port = program(document.module)
    last = next((run["last_frame"] for run in view["runs"] if run["last_frame"]), None)
    picture = _image(last, "") if last else "<span class=blank></span>"
    return (
        f'<a class=card href="#{document.module}"><span class=thumb>{picture}</span><span>'
        f"<strong>{document.module}</strong>"
        f"<small>document {document.name} · {SPECS[port.dataset].title}</small>"
        f"<span>{escaped(capital(port.summary))}</span>{_badge(view)}</span></a>"
    )


def _badge(view: ModuleView) -> str:
    """The verdict in a few words."""
    for verdict in view["lockstep"]:
        if verdict["precision"] == "float64":
            digits = math.floor(verdict["digits"]["10"])
            return f"<em class=good>equal to {digits} digits over 10 steps</em>"
    if view["document"].unrecorded:
        return "<em>described without a program</em>"
    return "<em>not verified yet</em>" if view["runs"] else "<em>no run yet</em>"


def _module(view: ModuleView, before: str, after: str) -> str:
    """A module's section of the page, with links to the modules before and after it."""
    document, text = view["document"], view["text"]
    module, port = document.module, program(document.module)
    made = [
        _curves(view),
        _compared(view),
        _asked(view),
        *(_run(view, i) for i in range(len(view["runs"]))),
        _proof(view),
        _points("quirks", "Kept quirks", text.quirks),
        _points("deviations", "Deviations", text.deviations),
    ]
    parts = [part for part in made if part]
    contents = "".join(
        f'<li><a href="#{module}-{part.name}">{escaped(part.title)}</a></li>'
        for part in parts
        if part.title
    )
    return "\n".join(
        [
            f"<section class=module id={module}><header>",
            f"<p class=kicker>Document {document.name} · "
            f"{document.date or 'no date in the text'} · {SPECS[port.dataset].title}</p>",
            f"<h2>{module}</h2>",
            f"<p class=title lang=zh>{escaped(document.title)}</p>",
            f"<p class=lead>{prose(capital(text.what))}</p>",
            f"<p>{prose(text.trains)}</p><p class=source lang=en>{prose(text.source)}</p>",
            _command(f"python -m reproductions.{module}"),
            f'<p><a href="explorer.html#{module}">Try it live in the explorer</a></p>',
            f"<nav class=contents aria-label=Contents><ul>{contents}</ul></nav>",
            "</header>",
            *(_with_heading(module, part) for part in parts),
            "<nav class=around aria-label=Neighbours>",
            f'<a rel=prev href="#{before}">← {before}</a>' if before else "",
            f'<a rel=next href="#{after}">{after} →</a>' if after else "",
            "</nav></section>",
        ]
    )


def _with_heading(module: str, part: Part) -> str:
    title = f"<h3 id={module}-{part.name}>{escaped(part.title)}</h3>" if part.title else ""
    return f"{title}{part.html}"


def _command(command: str) -> str:
    return (
        f"<div class=command><code>{escaped(command)}</code>"
        "<button type=button class=copy hidden>Copy</button></div>"
    )


def _curves(view: ModuleView) -> Part:
    """The losses in the course of the training, and what is said of them."""
    document, runs = view["document"], view["runs"]
    x_name = document.round_name
    drawn = [chart(curves_of(view), x_name, document.unit)]
    if not runs:
        drawn.insert(0, "<p class=none>No run yet: the command above makes one.</p>")
    parts = []
    for column, name in (("reconstruction", "Reconstruction"), ("kl", "KL")):
        curves = [
            Curve(f"{run['name']}{quick_note(run)}", points_of(run, column), f"line run-{i % 5}")
            for i, run in enumerate(runs)
        ]
        if any(c.points for c in curves):
            port = program(document.module)
            unit = port.reconstruction_unit if column == "reconstruction" else "nats per image"
            small = chart(curves, x_name, f"{name}, {unit}", size=(420, 300))
            parts.append(small)
    said = "".join(
        f"<li><b>{escaped(capital(run['name']))}{quick_note(run)}</b>"
        + "".join(f"<br>{escaped(sentence)}" for sentence in comparisons(view, run))
        for run in runs
    )
    html = f"{''.join(drawn)}<ul class=plain>{said}</ul><div class=two>{''.join(parts)}</div>"
    return Part("training", "Training", html)


def _compared(view: ModuleView) -> Part | None:
    """The pictures that the original drew, too, beside its own."""
    document = view["document"]
    if not view["original_pictures"]:
        return None
    rows = []
    for name, theirs in view["original_pictures"].items():
        drawn = [(f"the original, TensorFlow {document.tensorflow}", theirs)]
        drawn += [
            (f"{run['name']}{quick_note(run)}", run["pictures"][name])
            for run in view["runs"]
            if name in run["pictures"]
        ]
        figures = [_figure(picture, whose, f"{name}: {whose}") for whose, picture in drawn]
        caption = escaped(_caption(view, name))
        rows.append(f"<h4>{caption}</h4><div class=two>{''.join(figures)}</div>")
    note = (
        "Another seed turns and mirrors the plane of codes, so the same digits lie elsewhere: what"
        " is to be compared is how they look."
    )
    greys = (
        "Both sheets are drawn from their darkest value to their brightest, as the document's"
        " program does it; the output of this model is not confined to 0 … 1, so the background of"
        " one is not as grey as the other's."
    )
    linear = program(document.module).likelihood == "gaussian"
    more = f"<p>{greys}</p>" if linear else ""
    return Part("compared", "Compared with the original", f"<p>{note}</p>{more}{''.join(rows)}")


def _asked(view: ModuleView) -> Part | None:
    """What the original, the port and other models drew when asked for each digit."""
    if not view["asked"]:
        return None
    caption = (
        "The number above a column is the digit that was asked for. Four models drew five rows"
        " each, from top to bottom: the original, mlp_cvae, tfp_cvae, and tfp_cvae with --objective"
        " elbo --mean-spread 64. The original and its port draw another digit in more than half of"
        " their pictures, the last model hardly ever."
    )
    alt = "Five pictures of each digit by each of four models"
    return Part("asked", "Asked for each digit", _figure(view["asked"], caption, alt, "asked"))


def _run(view: ModuleView, i: int) -> Part:
    """Run number i: its films, its other pictures, its evaluation, its settings."""
    run = view["runs"][i]
    others = [
        _figure(picture, _caption(view, name), f"{_caption(view, name)} ({run['name']})")
        for name, picture in run["pictures"].items()
        if name not in view["original_pictures"]
    ]
    warnings = ["A quick run, not the document's training"] * run["record"].quick + run["problems"]
    films = "".join(_film(view, run, name) for name in run["films"])
    try:
        evaluation = _evaluation(run)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        evaluation = ""
        warnings.append("The evaluation in run.json cannot be read")
    shown = [
        *(f"<p class=warning>{escaped(warning)}.</p>" for warning in warnings),
        f'<div class="two films">{films}</div>' if len(run["films"]) > 1 else films,
        f"<div class=sheet>{''.join(others)}</div>" if others else "",
        evaluation,
    ]
    facts = _facts(asdict(run["record"]))
    table = "".join(f"<tr><th scope=row>{escaped(k)}<td>{escaped(v)}" for k, v in facts)
    settings = f"Settings and final metrics, {run['name']}{quick_note(run)}"
    return Part(
        f"run-{i}",
        capital(run["name"]) if any(shown) else "",
        f"{''.join(shown)}"
        f"<details><summary>{escaped(settings)}</summary><table>{table}</table></details>",
    )


def _evaluation(run: RunView) -> str:
    """What the trained model is worth, as `run.json` has it."""
    found = run["record"].evaluation
    if not found:
        return ""
    worth = [
        ("reconstruction", found.get("reconstruction"), ".2f"),
        ("KL", found.get("kl"), ".2f"),
        ("ELBO", found.get("elbo"), ".2f"),
        ("log-likelihood", found.get("log_likelihood"), ".2f"),
        ("weight of the KL", found.get("kl_weight"), ".2g"),
    ]
    tables = [("The test set: nats per image, and the weight of the KL in training", worth)]
    wanted = found.get("wanted_digits")
    if wanted:
        shares = [(str(digit), n / DRAWN, ".1%") for digit, n in enumerate(wanted["right"])]
        title = "How often a wanted digit came out, by a classifier"
        tables.append((title, [*shares, ("all", wanted["share"], ".1%")]))
    return "".join(
        f"<h4>{title}</h4>"
        + _table(
            "Evaluation",
            [name for name, _, _ in cells],
            "<tr>" + "".join(f"<td>{cell(value, form)}" for _, value, form in cells),
        )
        for title, cells in tables
    )


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plain entries of run.json, those of `config` and its like without their heading."""
    facts: list[tuple[str, str]] = []
    for name, value in record.items():
        if isinstance(value, dict):
            more = _facts(value)
            facts += [(f"{name} {k}", v) for k, v in more] if name == "seconds" else more
        elif isinstance(value, float):
            facts.append((name, number(value)))
        elif not isinstance(value, list):
            facts.append((name, "none" if value is None else str(value)))
        elif value and all(isinstance(item, str) for item in value):
            facts.append((name, ", ".join(value)))
    return facts


def _film(view: ModuleView, run: RunView, name: str) -> str:
    """A film with its controls; without JavaScript its last frame."""
    film = run["films"][name]
    caption = "The same codes, decoded again and again as the training goes on."
    if name == "document":
        caption = (
            f"The document's own GIF keeps {len(film['labels'])} of these pictures, more of them"
            " from the beginning of the training than from its end."
        )
    elif program(view["document"].module).draw:
        caption = (
            "Pictures from the same draws of noise, again and again as the training goes on; a"
            " column for each digit from 0 to 9."
        )
    last = len(film["labels"]) - 1
    row, column = divmod(last, film["columns"])
    zoom = max(1, FILM_WIDTH // film["width"])
    style = (
        f"--w:{film['width']};--h:{film['height']};--zoom:{zoom};--columns:{film['columns']};"
        f"--row:{row};--column:{column}"
    )
    alt = f"What the model draws in the course of the training ({run['name']})"
    return (
        f'<figure class=film data-columns={film["columns"]} style="{style}">'
        f"<div class=screen>{_image(film['sheet'], alt)}</div>"
        "<div class=controls hidden><button type=button class=play>Play</button>"
        f'<input type=range min=0 max={last} value={last} aria-label="Frame of the film">'
        f"<output>{escaped(film['labels'][-1])}</output></div>"
        f"<figcaption>{escaped(caption)}</figcaption>"
        f'<script type="application/json">{script_json(film["labels"])}</script></figure>'
    )


def _proof(view: ModuleView) -> Part:
    """What was found of the port against the original: in lockstep, and of whole runs."""
    document = view["document"]
    whole_runs = _whole_runs(view["whole_runs"])
    if document.unrecorded:
        html = f"<p>There is no recording: {escaped(document.unrecorded)}.</p>"
    elif view["lockstep"]:
        html = _lockstep(view["lockstep"]) + whole_runs
    else:
        command = _command(
            f"python -m reproductions.evidence.full_runs {document.module} --part proof"
        )
        missing = "<p class=none>No verdict is stored. This one finds it:</p>"
        html = f"{missing}{command}{whole_runs}"
    return Part("proof", "Proof", html)


def _lockstep(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """The verdicts of the lockstep; those that are kept passed, see `full_runs.make_proof`."""
    lines = []
    for v in verdicts:
        agreed = "".join(f"<td>{cell(digits, '.1f')}" for digits in v["digits"].values())
        lines.append(
            f"<tr><th scope=row>{v['precision']}<td class=good>equal<td>{v['steps']}{agreed}"
            f"<td>{cell(v['largest_difference'], '.1e')} at step {v['largest_step']}"
        )
    return (
        "<p>The port got the weights, batches and noise of a recording of the original, and ran"
        " the loop that trains. The losses of every step are compared for as long as the original"
        " stays close to itself when its weights are moved by one unit in the last place.</p>"
        + _table("Lockstep", PROOF_COLUMNS, "".join(lines))
    )


def _whole_runs(whole_runs: Sequence[Comparison]) -> str:
    """Whole runs of both sides as distributions, see `reproductions/evidence/equivalence.py`."""
    lines = []
    for c in whole_runs:
        means = "".join(f"<td>{number(side.mean())} ({len(side)})" for side in (c.ours, c.theirs))
        lines.append(
            f"<tr><th scope=row>{cell(c.quantity)}<td class=words>{cell(c.verdict)}"
            f"{means}<td>{cell(c.difference, '+.2%')}"
        )
    if not lines:
        return ""
    return (
        "<p>Beyond that, whole runs with seeds of their own are compared by their means.</p>"
        + _table("Runs", WHOLE_RUN_COLUMNS, "".join(lines))
    )


def _table(label: str, columns: Sequence[str], rows: str) -> str:
    """A table that scrolls sideways where it is too wide; `rows` is HTML."""
    head = "".join(f"<th scope=col>{column}" for column in columns)
    return (
        f"<div class=scroll role=region aria-label={label} tabindex=0>"
        f"<table class=proof><thead><tr>{head}<tbody>{rows}</table></div>"
    )


def _points(name: str, title: str, points: Sequence[str]) -> Part:
    """A numbered list; the first sentence of each point stands out."""
    items = []
    for point in points:
        first, *rest = re.split(r"(?<=[.:;]) (?=[A-Z`])", point, maxsplit=1)
        more = f" <span class=more>{prose(rest[0])}</span>" if rest else ""
        items.append(f"<li>{prose(first)}{more}</li>")
    return Part(name, title, f"<ol class=points lang=en>{''.join(items)}</ol>")


def _caption(view: ModuleView, name: str) -> str:
    if name == "samples" and view["document"].module in SAMPLES:
        return SAMPLES[view["document"].module]
    if name.startswith("manifold-"):
        return f"The plane of codes, decoded as {name.removeprefix('manifold-')}"
    if name.startswith("class-"):
        digit = name.removeprefix("class-")
        return f"Asked for the digit {digit}: the codes around its prior mean, decoded"
    return CAPTIONS.get(name, name)


def _figure(picture: Picture, caption: str, alt: str, kind: str = "picture") -> str:
    return (
        f"<figure class={kind}>{_image(picture, alt)}"
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def _image(picture: Picture, alt: str) -> str:
    return (
        f'<img src="{picture["src"]}" width={picture["width"]} height={picture["height"]}'
        f' alt="{escaped(alt)}" decoding=async>'
    )
