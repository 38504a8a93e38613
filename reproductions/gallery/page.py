"""The page as HTML: `render` makes it of what `content.collect` returns."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.evaluation import DRAWN
from reproductions import program
from reproductions.evidence.whole_runs import Comparison
from reproductions.gallery.charts import (
    Curve,
    chart,
    comparisons,
    curves_of,
    points_of,
    quick_note,
)
from reproductions.gallery.content import ModuleView, Page, RunView
from reproductions.gallery.markup import (
    capital,
    cell,
    escaped,
    language,
    number,
    prose,
    script_json,
)
from reproductions.gallery.pictures import Picture

DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
CAPTIONS = {
    "manifold": "The plane of codes, decoded",
    "class-8": "Asked for an 8: the codes around the prior mean of class 8, decoded",
    "class-9": "Asked for a 9: the codes around the prior mean of class 9, decoded",
    "samples": "Pictures that the model invents: the same 12 standard normal codes, drawn as each"
    " digit from 0 to 9",
    "latent": "Where the encoder puts the test images: a dot for each, coloured by its class",
    "reconstructions": "Test images above, below each what the decoder makes of its code",
}
SAMPLES = {  # where there is more to say of them
    "elbo_cvae": "Left: pictures that the model invents, from codes of the prior. Right:"
    " reconstructions of test images, from codes of their posteriors.",
    "mlp_cvae": f"{CAPTIONS['samples']}. Where a 1 is noise, the code lies where the encoder puts"
    " no image of a 1.",
}
PROOF_COLUMNS = (
    "precision", "verdict", "steps", "digits at step 1", "by 10", "by 100",
    "largest relative difference",
)  # fmt: skip
WHOLE_RUN_COLUMNS = (
    "metric", "verdict", "the port (seeds)", "the original (seeds)", "difference",
)  # fmt: skip
PHRASES = Path(__file__).with_name("zh.json")  # English -> Chinese
NO_RUN = (
    "This page shows no run, because it was made in a folder that has none. The project's checkout"
    " has the port's runs in artifacts/reference/; your own runs are in artifacts/runs/."
)
FILM_WIDTH = 560  # pixels on the page: frames are magnified by whole numbers up to this


def render(page: Page, template: str) -> str:
    """Makes the HTML page.

    Args:
      page: what to show, see `collect`.
      template: page.html.
    """
    views = page["modules"]
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    text = string.Template(script[1] if script else "").substitute()
    digest = hashlib.sha256(text.encode()).digest()
    sections = [
        _module(view, views[i - 1] if i else None, views[i + 1] if i + 1 < len(views) else None)
        for i, view in enumerate(views)
    ]
    return string.Template(template).substitute(
        script_hash=base64.b64encode(digest).decode(),
        phrases=script_json(json.loads(PHRASES.read_text(encoding="utf-8"))),
        navigation="\n".join(_navigation(view) for view in views),
        cards="\n".join(_card(view) for view in views),
        missing="" if any(v["runs"] for v in views) else f"<p class=warning>{NO_RUN}</p>",
        modules="\n".join(sections),
    )


def _navigation(view: ModuleView) -> str:
    module, document = escaped(view["document"].module), escaped(view["document"].name)
    return f'<li><a href="#{module}">{module} <small>{document}</small></a></li>'


def _card(view: ModuleView) -> str:
    """A module on the overview."""
    document = view["document"]
    port = program(document.module)
    last = next((run["last_frame"] for run in view["runs"] if run["last_frame"]), None)
    picture = _image(last, "") if last else "<span class=blank></span>"
    return (
        f'<a class=card href="#{escaped(document.module)}"><span class=thumb>{picture}</span><span>'
        f"<strong>{escaped(document.module)}</strong>"
        f"<small>document {escaped(document.name)} · {escaped(DATASETS[port.dataset])}</small>"
        f"<span>{escaped(capital(port.summary))}</span>{_badge(view)}</span></a>"
    )


def _badge(view: ModuleView) -> str:
    """The verdict in a few words."""
    verdicts = view["lockstep"]
    if any(v.get("passed") is not True for v in verdicts):
        return "<em class=bad>differs from the original</em>"
    if verdicts:
        digits = [v.get("digits") for v in verdicts if v.get("precision") == "float64"]
        best = digits[0].get("10") if digits and isinstance(digits[0], dict) else None
        if isinstance(best, (int, float)):
            return f"<em class=good>equal to {math.floor(best)} digits over 10 steps</em>"
        return "<em class=good>equal to the original</em>"
    if view["document"].unrecorded:
        return "<em>described without a program</em>"
    return "<em>not verified yet</em>" if view["runs"] else "<em>no run yet</em>"


def _module(view: ModuleView, before: ModuleView | None, after: ModuleView | None) -> str:
    """A module's part of the page."""
    document, text = view["document"], view["text"]
    port = program(document.module)
    what = text.get("what") or port.summary
    date = text.get("date") or "no date in the text"
    source = f"<p class=source lang=en>{prose(text['source'])}</p>" if text.get("source") else ""
    title = text.get("title", "")
    body = "\n".join(
        [
            _curves(view),
            _compared(view),
            _asked(view),
            *(_run(view, i) for i in range(len(view["runs"]))),
            _proof(view),
            _points(view, "Kept quirks", text.get("quirks", [])),
            _points(view, "Deviations", text.get("deviations", [])),
        ]
    )
    around = [(before, "prev", "← "), (after, "next", "")]
    links = "".join(
        f'<a rel={rel} href="#{name}">{arrow}{name}{" →" if rel == "next" else ""}</a>'
        for other, rel, arrow in around
        if other
        for name in [escaped(other["document"].module)]
    )
    return "\n".join(
        [
            f"<section class=module id={escaped(document.module)}><header>",
            f"<p class=kicker>Document {escaped(text.get('number') or document.name)} · "
            f"{escaped(date)} · {escaped(DATASETS[port.dataset])}</p>",
            f"<h2>{escaped(document.module)}</h2>",
            f"<p class=title{language(title)}>{escaped(title)}</p>" if title else "",
            f"<p class=lead>{prose(capital(what))}</p>",
            f"<p>{prose(text.get('trains', ''))}</p>{source}",
            _command(f"python -m reproductions.{document.module}"),
            f'<p><a href="explorer.html#{escaped(document.module)}">Try it live in the explorer'
            "</a></p>",
            _contents(body),
            "</header>",
            body,
            f"<nav class=around aria-label=Neighbours>{links}</nav></section>",
        ]
    )


def _heading(view: ModuleView, name: str, text: str) -> str:
    """The heading of a part of a module; its address ends with the name."""
    return f"<h3 id={escaped(view['document'].module)}-{name}>{escaped(text)}</h3>"


def _contents(body: str) -> str:
    """Links to the headings of a module's parts."""
    links = re.findall(r"<h3 id=(\S+?)>(.*?)</h3>", body)
    items = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in links)
    return f"<nav class=contents aria-label=Contents><ul>{items}</ul></nav>"


def _command(command: str) -> str:
    return (
        f"<div class=command><code>{escaped(command)}</code>"
        "<button type=button class=copy hidden>Copy</button></div>"
    )


def _curves(view: ModuleView) -> str:
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
            squared = (
                column == "reconstruction" and program(document.module).likelihood == "gaussian"
            )
            unit = "½ squared error per image" if squared else "nats per image"
            small = chart(curves, x_name, f"{name}, {unit}", size=(420, 300))
            parts.append(small)
    said = "".join(
        f"<li><b>{escaped(capital(run['name']))}{quick_note(run)}</b>"
        + "".join(f"<br>{escaped(sentence)}" for sentence in comparisons(view, run))
        for run in runs
    )
    return (
        f"{_heading(view, 'training', 'Training')}{''.join(drawn)}<ul class=plain>{said}</ul>"
        f"<div class=two>{''.join(parts)}</div>"
    )


def _compared(view: ModuleView) -> str:
    """The pictures that the original drew, too, beside its own."""
    original = view["original"]
    rows = []
    for name, theirs in (original["pictures"] if original else {}).items():
        shows = _caption(view, name)
        caption = f"the original, TensorFlow {original['tensorflow'] if original else ''}"
        figures = [_figure(theirs, caption, f"{name}: {caption}", "grid")]
        for run in view["runs"]:
            caption = f"{run['name']}{quick_note(run)}"
            if name in run["pictures"]:
                figures.append(
                    _figure(run["pictures"][name], caption, f"{name}: {caption}", "grid")
                )
            elif run["reference"]:
                missing = f"{capital(caption)} drew no such picture."
                figures.append(f"<p class=none>{escaped(missing)}</p>")
        rows.append(f"<h4>{escaped(shows)}</h4><div class=two>{''.join(figures)}</div>")
    if not rows:
        return ""
    note = (
        "Another seed turns and mirrors the plane of codes, so the same digits lie elsewhere: what"
        " is to be compared is how they look."
    )
    greys = (
        "Both sheets are drawn from their darkest value to their brightest, as the document's"
        " program does it; the output of this model is not confined to 0 … 1, so the background of"
        " one is not as grey as the other's."
    )
    linear = program(view["document"].module).likelihood == "gaussian"
    more = f"<p>{greys}</p>" if linear else ""
    heading = _heading(view, "compared", "Compared with the original")
    return f"{heading}<p>{note}</p>{more}{''.join(rows)}"


def _asked(view: ModuleView) -> str:
    """What the original, the port and other models drew when asked for each digit."""
    if not view["asked"]:
        return ""
    caption = (
        "The number above a column is the digit that was asked for. Four models drew five rows"
        " each, from top to bottom: the original, mlp_cvae, tfp_cvae, and tfp_cvae with --objective"
        " elbo --mean-spread 64. The original and its port draw another digit in more than half of"
        " their pictures, the last model hardly ever."
    )
    alt = "Five pictures of each digit by each of four models"
    heading = _heading(view, "asked", "Asked for each digit")
    return f"{heading}{_figure(view['asked'], caption, alt, 'asked')}"


def _run(view: ModuleView, i: int) -> str:
    """Run number i: its films, its other pictures, its evaluation, its settings."""
    run = view["runs"][i]
    shared = view["original"]["pictures"] if view["original"] else {}
    others = [
        _figure(picture, _caption(view, name), f"{_caption(view, name)} ({run['name']})")
        for name, picture in run["pictures"].items()
        if name not in shared
    ]
    record = run["record"]
    warnings = list(run["problems"])
    if record.get("quick"):
        warnings.insert(0, "a quick run, not the document's training")
    facts = [("module", view["document"].module), *_facts(record)]
    table = "".join(f"<tr><th scope=row>{escaped(k)}<td>{escaped(v)}" for k, v in facts)
    settings = f"Settings and final metrics, {run['name']}{quick_note(run)}"
    films = "".join(_film(view, run, name) for name in run["films"])
    shown = [
        *(f"<p class=warning>{escaped(capital(warning))}.</p>" for warning in warnings),
        f'<div class="two films">{films}</div>' if len(run["films"]) > 1 else films,
        f"<div class=sheet>{''.join(others)}</div>" if others else "",
        _evaluation(run),
    ]
    title = _heading(view, f"run-{i}", capital(run["name"])) if any(shown) else ""
    return (
        f"{title}{''.join(shown)}"
        f"<details><summary>{escaped(settings)}</summary><table>{table}</table></details>"
    )


def _evaluation(run: RunView) -> str:
    """What the trained model is worth, as `run.json` has it."""
    found = run["record"].get("evaluation")
    if not isinstance(found, dict):
        return ""
    worth = [
        ("reconstruction", found.get("reconstruction"), ".2f"),
        ("KL", found.get("kl"), ".2f"),
        ("ELBO", found.get("elbo"), ".2f"),
        ("log-likelihood", found.get("log_likelihood"), ".2f"),
        ("weight of the KL", found.get("kl_weight"), ".2g"),
    ]
    tables = [("The test set, nats per image", worth)]
    wanted = found.get("wanted_digits")
    if isinstance(wanted, dict) and isinstance(wanted.get("right"), list):
        shares = [
            (str(digit), right / DRAWN if isinstance(right, (int, float)) else right, ".0%")
            for digit, right in enumerate(wanted["right"])
        ]
        title = "How often a wanted digit came out, by a classifier"
        tables.append((title, [*shares, ("all", wanted.get("share"), ".0%")]))
    return "".join(
        f"<h4>{title}</h4>"
        + _table(
            "Evaluation",
            [name for name, _, _ in cells],
            "<tr>" + "".join(f"<td>{cell(value, form)}" for _, value, form in cells),
        )
        for title, cells in tables
    )


def _facts(record: Mapping[str, Any], depth: int = 3) -> list[tuple[str, Any]]:
    """The plain entries of run.json, those of `config` and its like without their heading."""
    facts: list[tuple[str, Any]] = []
    for name, value in record.items():
        if isinstance(value, dict):
            more = _facts(value, depth - 1) if depth else []
            facts += [(f"{name} {k}", v) for k, v in more] if name == "seconds" else more
        elif isinstance(value, float):
            facts.append((name, number(value)))
        elif not isinstance(value, list) and name != "module":
            facts.append((name, "none" if value is None else str(value)))
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
        caption = f"{caption[:-1]}; a column for each digit from 0 to 9."
    last = len(film["labels"]) - 1
    row, column = divmod(last, film["columns"])
    zoom = max(1, FILM_WIDTH // film["width"])
    style = (
        f"--w:{film['width']};--h:{film['height']};--zoom:{zoom};--columns:{film['columns']};"
        f"--row:{row};--column:{column}"
    )
    alt = f"The same codes, decoded in the course of the training ({run['name']})"
    return (
        f'<figure class=film data-columns={film["columns"]} style="{style}">'
        f"<div class=screen>{_image(film['sheet'], alt)}</div>"
        "<div class=controls hidden><button type=button class=play>Play</button>"
        f'<input type=range min=0 max={last} value={last} aria-label="Frame of the film">'
        f"<output>{escaped(film['labels'][-1])}</output></div>"
        f"<figcaption>{escaped(caption)}</figcaption>"
        f'<script type="application/json">{script_json(film["labels"])}</script></figure>'
    )


def _proof(view: ModuleView) -> str:
    """What was found of the port against the original: in lockstep, and of whole runs."""
    document, verdicts = view["document"], view["lockstep"]
    heading = _heading(view, "proof", "Proof")
    if document.unrecorded:
        return f"{heading}<p>There is no recording: {escaped(document.unrecorded)}.</p>"
    if not verdicts:
        command = _command(f"python -m reproductions.evidence.full_runs --renew {document.module}")
        missing = f"<p class=none>No verdict is stored. This one finds it:</p>{command}"
        return f"{heading}{missing}{_whole_runs(view['whole_runs'])}"
    lines = []
    problems: list[Any] = []
    for v in verdicts:
        digits = v["digits"] if isinstance(v.get("digits"), dict) else {}
        problems += v["problems"] if isinstance(v.get("problems"), list) else []
        verdict = "<td class=good>equal" if v.get("passed") is True else "<td class=bad>different"
        agreed = "".join(f"<td>{cell(digits.get(n), '.1f')}" for n in ("1", "10", "100"))
        lines.append(
            f"<tr><th scope=row>{cell(v.get('precision'))}{verdict}"
            f"<td>{cell(v.get('steps'))}{agreed}"
            f"<td>{cell(v.get('largest_difference'), '.1e')}"
            f" at step {cell(v.get('largest_step'))}"
        )
    return (
        f"{heading}<p>The port got the weights, batches and noise of a recording of the original,"
        " and ran the loop that trains. The losses of every step are compared for as long as the"
        " original stays close to itself when its weights are moved by one unit in the last"
        " place.</p>"
        + _table("Lockstep", PROOF_COLUMNS, "".join(lines))
        + "".join(f"<p class=warning>{escaped(problem)}</p>" for problem in problems)
        + _whole_runs(view["whole_runs"])
    )


def _whole_runs(whole_runs: Sequence[Comparison]) -> str:
    """Whole runs of both sides as distributions, see `reproductions/evidence/whole_runs.py`."""
    lines = []
    for c in whole_runs:
        means = "".join(f"<td>{number(side.mean())} ({len(side)})" for side in (c.ours, c.theirs))
        lines.append(
            f"<tr><th scope=row>{cell(c.figure)}<td class=words>{cell(c.verdict)}"
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


def _points(view: ModuleView, title: str, points: Sequence[str]) -> str:
    """A numbered list; the first sentence of each point stands out."""
    if not points:
        return ""
    items = []
    for point in points:
        first, *rest = re.split(r"(?<=[.:;]) (?=[A-Z`])", point, maxsplit=1)
        more = f" <span class=more>{prose(rest[0])}</span>" if rest else ""
        items.append(f"<li>{prose(first)}{more}</li>")
    heading = _heading(view, title.split()[-1].lower(), title)
    return f"{heading}<ol class=points lang=en>{''.join(items)}</ol>"


def _caption(view: ModuleView, name: str) -> str:
    if name == "samples" and view["document"].module in SAMPLES:
        return SAMPLES[view["document"].module]
    if name.startswith("manifold-"):
        return f"The plane of codes, decoded as {name.removeprefix('manifold-')}"
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
