"""`export`: a random model as files for other runtimes, checked before they are put in place."""

from __future__ import annotations

import copy
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smoothinfer.attacks.checks import is_random
from smoothinfer.errors import InputError, choose, plain_int
from smoothinfer.exporting.checking import Run, check_pass, check_vote
from smoothinfer.exporting.noisy_pass import NoisyPass, Shape, Vote, hidden_noise
from smoothinfer.exporting.onnx_files import add_loop, run_onnx, write_onnx
from smoothinfer.exporting.torch_files import run_torch, write_torch
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.modes import check_eval, count_classes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.types import Images


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        ending: of its name.
        run: runs a file.
    """

    ending: str
    run: Run


FORMATS = {"onnx": Format(".onnx", run_onnx), "torch": Format(".pt2", run_torch)}
_NO_NOISE = "the model has no noise: one pass of it is the vote"
_MOST = 2**20  # passes
_IMAGES = 4  # on which files are checked


def export(
    model: nn.Module,
    path: str | Path,
    *,
    samples: int = 64,
    shape: Shape | None = None,
    images: Images | None = None,
    format: str | None = None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a whole vote to ``path``, one pass beside it, and what both take and give.

    ``vote.onnx`` takes ``images`` (N, C, H, W), pixels in [0, 1], and gives ``labels`` (N,),
    ``counts`` (N, K) of passes and mean ``probabilities`` (N, K); its noise comes from the
    runtime's generator. onnxruntime seeds that by the clock, once for a process: where somebody
    might guess it, call ``onnxruntime.set_seed`` with a secret before the file is loaded.

    ``vote.pass.onnx`` takes ``noise`` too, standard normal numbers, and gives ``logits`` (N, K):
    who must choose the generator draws them and counts. ``vote.onnx.json`` tells the length of the
    noise and the figures of the checks. In a format that `torch.export` reads the names end in
    ``.pt2``.

    Both files are run before they are put in place: the pass under the noise of the same seed as
    `passes`, the vote several times, in onnxruntime or a fresh process.

    Args:
        model: a `NoisyModel` or any random module, in eval mode.
        path: of the vote.
        samples: passes of the vote.
        shape: (C, H, W) of an image; not needed beside ``images``.
        images: (N, C, H, W) on which the files are checked; random ones by default.
        format: ``"onnx"`` or ``"torch"``; by default the ending of ``path`` tells.
        about: written to the JSON file too.

    Returns:
        The content of the JSON file.

    Raises:
        InputError: the ending or the format is unknown, the exporter does not take the model, or a
            check fails; then no file is written.
    """
    path = Path(path)
    kind = _format_of(path, format)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file")
    plain_int("samples", samples, 1, _MOST)
    check_eval(model)
    shown = _images(images, shape)
    model = copy.deepcopy(model).cpu().float()
    classes, random = count_classes(model, shown), is_random(model, shown)
    hidden = hidden_noise(model) if random or isinstance(model, NoisyModel) else _NO_NOISE
    one = model
    if isinstance(model, NoisyModel) and not hidden:
        one = NoisyPass(model, (shown.shape[1], shown.shape[2], shown.shape[3]))
    path.parent.mkdir(parents=True, exist_ok=True)
    single = path.with_name(f"{path.stem}.pass{path.suffix}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder, torch.no_grad():
        drafts = {each: Path(folder, each.name) for each in (path, single)}
        _write(one, shown, drafts[single], drafts[path], samples, classes, kind)
        run = FORMATS[kind].run
        checks: dict[str, Any] = {}
        if isinstance(one, NoisyPass):
            checks["pass"] = check_pass(drafts[single], run, one, model, shown)
        checks["vote"] = check_vote(drafts[path], run, model, samples, shown)
        files = {"vote": path} | ({} if hidden else {"pass": single})
        for each in files.values():
            os.replace(drafts[each], each)
    content = {
        **(about or {}),
        "format": kind,
        "files": {name: each.name for name, each in files.items()},
        "samples": samples,
        "shape": list(shown.shape[1:]),
        "classes": classes,
        "random": random,
        "noise": one.length if isinstance(one, NoisyPass) else 0,
        "inputs": {"vote": ["images"], "pass": None if hidden else ["images", "noise"]},
        "outputs": {"vote": ["labels", "counts", "probabilities"], "pass": ["logits"]},
        "no pass": hidden or None,
        "checks": checks,
        **made_by(),
    }
    write_json(path.with_name(f"{path.name}.json"), content)
    return content


def _format_of(path: Path, format: str | None) -> str:
    endings = {each.ending: name for name, each in FORMATS.items()}
    found = endings.get(path.suffix)
    if format is not None:
        choose("format", FORMATS, format)
    if found is None or format not in (None, found):
        wanted = " or ".join(endings) if format is None else FORMATS[format].ending
        raise InputError(f"{path} must end in {wanted}")
    return found


def _images(images: Images | None, shape: Shape | None) -> Images:
    if images is not None:
        return images[:_IMAGES].detach().cpu().float()
    if shape is None:
        raise InputError("give the shape=(C, H, W) of an image, or some images")
    for size in shape:
        plain_int("shape", size, at_least=1)
    return torch.rand(_IMAGES, *shape, generator=torch.Generator().manual_seed(0))


def _write(
    one: nn.Module,
    images: Images,
    single: Path,
    vote: Path,
    samples: int,
    classes: int,
    kind: str,
) -> None:
    """Write the files of one pass and of a vote."""
    length = one.length if isinstance(one, NoisyPass) else 0
    given = {"images": images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)}
    with_noise = given | ({"noise": torch.zeros(length)} if length else {})
    with isolated_rng(0):
        if kind == "torch":
            # A loop takes steps that are traced already, whatever the network is written in.
            traced = write_torch(one, with_noise, single)
            write_torch(Vote(traced, samples, classes, length), given, vote)
        else:
            write_onnx(one, with_noise, single)
            add_loop(single, vote, samples, classes, length)
