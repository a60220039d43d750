"""``smoothinfer evaluate``: a model under several noises and attacks, as rows and a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from torch import nn

from smoothinfer.attacks import ATTACKS, Attack
from smoothinfer.checkpoints import load
from smoothinfer.config.components import Component
from smoothinfer.data import ImageData
from smoothinfer.errors import InputError
from smoothinfer.evaluation import summarise
from smoothinfer.evaluation.audit import audit
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.evaluation.examples import Examples, load_examples
from smoothinfer.evaluation.runner import rows_of
from smoothinfer.evaluation.store import Store, write_table
from smoothinfer.evaluation.rows import Rows
from smoothinfer.runtime.files import write_json, write_whole
from smoothinfer.noise import Gaussian, NoisyModel
from smoothinfer.numerics.balls import Ball
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.reporting.audit_page import print_audit, write_audit
from smoothinfer.reporting.figures import sheet
from smoothinfer.reporting.said import budgets, gains
from smoothinfer.reporting.tables import markdown_table, print_table
from smoothinfer.reporting.votes import first_votes, vote_told
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images

_SHEET = 10  # images in the picture of an attack


def measure(
    model: nn.Module,
    name: str,
    data: ImageData,
    attacks: Mapping[str, Attack],
    ball: Ball,
    out: Path,
    *,
    sigmas: Sequence[float] | None = None,
    units: str = "pixel",
    rules: Sequence[str] = ("prediction",),
    samples: Sequence[int] = (512,),
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    examples: bool = False,
) -> Rows:
    """Evaluate ``model`` at each sigma, print one table, write summary and rows into ``out``.

    Args:
        model: in eval mode.
        name: what the rows call the model.
        data: images and labels.
        attacks: by the names that the rows give them; empty for clean images only.
        ball: where attacks may go, in pixel units.
        out: folder of ``rows/``, ``summary.json`` and ``table.md``; finished work in it is not
            done again. Wall-clock goes to ``costs.json``.
        sigmas: Gaussian input noise to put on the model; ``None`` leaves its own.
        units: of ``sigmas``, ``"pixel"`` or ``"normalised"``.
        rules, samples: voting rules and numbers of passes.
        seed: names the streams.
        settings: what the user asked for, kept in ``out/settings.json``.
        examples: also keep the adversarial examples, see `Examples`.

    Raises:
        InputError: ``sigmas`` are given for a model that cannot carry them, or other bad input.
    """
    processes = Processes()
    model.to(processes.device)
    noises = (
        [(None, model)]
        if sigmas is None
        else [(s, under_noise(model, s, units)) for s in sorted(set(sigmas))]
    )
    console = Console(quiet=not processes.main)
    if processes.main:
        write_json(out / "settings.json", {**(settings or {}), **made_by()})
    console.print_json(data=dict(settings or {}), default=str)
    parts: list[Rows] = []
    done: list[str] = []
    for sigma, noisy in noises:
        under = "" if sigma is None else f"sigma={sigma:g}"
        shards = Examples(out / "examples" / under) if examples else None
        work = prepare(
            SmoothedClassifier(noisy, max(samples)),
            data,
            attack=attacks,
            ball=ball,
            rules=rules,
            samples=samples,
            seed=seed,
            describe={"model": name, "data": data.name, **noise_columns(sigma, units)},
            crafted=shards.parts if shards else None,
        )
        rows = rows_of(work, Store(out / "rows"), progress=True)
        if shards and processes.main:
            shards.write(work)
            _draw(shards, rows, data.classes)
        parts.append(rows)
        done += work.units
    rows = pa.concat_tables(parts)
    summary = {
        "model": name,
        "data": {
            "name": data.name,
            "hash": data.hash,
            "images": len(data),
            "classes": list(data.classes),
        },
        "interval": "95 % (Wilson) over images, noise members fixed by the seed",
        "settings": summarise(rows),
        **made_by(),
    }
    store = Store(out / "rows")
    seconds, summary["computers"] = store.seconds(), store.computers(done)
    said = [gains(summary["settings"]), budgets(summary["settings"], seconds)]
    if processes.main:
        told = {"table": write_table(rows, out / "table.parquet"), "asked": dict(settings or {})}
        write_json(out / "summary.json", summary | told)
        tables = "\n".join([markdown_table(rows), *(part.markdown() for part in said)])
        write_whole(out / "table.md", lambda file: file.write(tables.encode()))
        write_json(out / "costs.json", {"seconds an image": seconds})
    print_table(console, rows)
    for part in said:
        part.print(console)
    console.print(f"rows in {out / 'rows'}, summary in {out / 'summary.json'}", highlight=False)
    return rows


def audit_run(
    model: nn.Module,
    data: ImageData,
    out: Path,
    *,
    ball: Ball,
    sigma: float | None = None,
    rule: str | None = None,
    samples: int | None = None,
    quick: bool = False,
    seed: int = 0,
    seen: Images | None = None,
    settings: Mapping[str, Any] | None = None,
) -> int:
    """Audit ``model``, print the findings, write one page; return 1 if a check fired, else 0.

    Args:
        model: in eval mode.
        data: images and labels.
        out: folder of the page.
        ball: what the attacker may do.
        sigma: Gaussian input noise to put on the model; ``None`` leaves its own.
        rule: how passes are counted, by default those of the prediction.
        samples: most passes of the vote; by default what the effort allows.
        quick: less work.
        seed: names the streams.
        seen: images of training and tuning.
        settings: what the user asked for.
    """
    model.to(Processes().device)
    subject = model if sigma is None else under_noise(model, sigma)
    if samples is not None:
        subject = SmoothedClassifier(subject, samples, rule or "prediction")
    options: dict[str, Any] = {"ball": ball, "quick": quick, "seed": seed, "seen": seen}
    found = audit(subject, data, rule=rule, progress=True, **options)
    told = {**(settings or {}), "data hash": data.hash, **made_by()}
    write_audit(found, out, str(told.get("model", "the model")), told)
    print_audit(Console(), found)
    return int(bool(found.fired))


def _draw(shards: Examples, rows: Rows, classes: Sequence[str]) -> None:
    """Draw a sheet for each attack: images, their votes, and the names of their classes."""
    clean, *attacked = first_votes(rows, _SHEET).items()
    for attack, votes in attacked:
        path = shards.path(attack)
        found = load_examples(path)
        told = [
            [vote_told(held.get(k), classes) for k in range(len(found["labels"][:_SHEET]))]
            for held in (clean[1], votes)
        ]
        names = [f"is {classes[label]}" for label in found["labels"][:_SHEET].tolist()]
        shown = found["images"][:_SHEET], found["moved"][:_SHEET]
        sheet(*shown, [*told, names], path.with_suffix(".png"), attack)


def attack_of(component: Component) -> Attack:
    """Return the attack; a transfer's source is a model by name, with noise of its own or none."""
    options = dict(component.options)
    if component.name == "transfer":
        options["source"] = _source(options)
        if isinstance(options.get("attack"), str):
            options["attack"] = Component.of(options["attack"]).bind("attack", ATTACKS)
    return Component(component.name, options).bind("attack", ATTACKS)


def _source(options: dict[str, Any]) -> nn.Module:
    """Return the source that ``options`` name; take what concerns it alone out of them."""
    if not isinstance(options.get("source"), str):
        raise InputError("transfer needs a source: 'transfer(source=\"runs/other\", steps=7)'")
    sigma, noise = options.pop("sigma", None), options.pop("noise", True)
    if not isinstance(noise, bool) or not (noise or sigma is None):
        raise InputError("noise of a source is True or False, and False leaves no sigma to give")
    source = load(options["source"]).to(Processes().device)
    if not noise and isinstance(source, NoisyModel):
        source = source.module
    return source if sigma is None else under_noise(source, float(sigma))


def under_noise(model: nn.Module, sigma: float, units: str = "pixel") -> nn.Module:
    """Return ``model`` with Gaussian noise of ``sigma`` on its inputs, instead of its own."""
    noise = Gaussian(sigma, units)
    if isinstance(model, NoisyModel):
        return model.with_inputs(noise)
    if sigma == 0:
        return model
    if units == "normalised":
        raise InputError("normalised units need a smoothinfer model; use units=pixel")
    return NoisyModel(model, inputs=noise).eval() if model.training else NoisyModel(model, noise)


def noise_columns(sigma: float | None, units: str) -> dict[str, Any]:
    """Return how rows describe noise put on a model."""
    return {} if sigma is None else {"sigma": float(sigma), "units": units}
