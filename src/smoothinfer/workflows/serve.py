"""``smoothinfer serve``: an HTTP endpoint that answers pictures by vote, in time."""

import contextlib
import logging
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from smoothinfer.cli.computing import set_computing
from smoothinfer.cli.image_shape import add_shape, shape_and_classes
from smoothinfer.cli.numbers import decimal_number, optional_number, whole_number
from smoothinfer.cli.options import MODEL_HELP, add_sigma, load_model, weights_hash
from smoothinfer.config.user_code import trusting_code
from smoothinfer.engine.pool import NetworkPool
from smoothinfer.engine.prediction import Prediction
from smoothinfer.errors import InputError, plain_float
from smoothinfer.reporting.shapes import SHARE, Maybe, check_shape
from smoothinfer.runtime.files import read_json
from smoothinfer.runtime.modes import device_of
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.smoothing.abstention import KnownShares
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images

if TYPE_CHECKING:
    from fastapi import FastAPI

_INSTALL = "serving needs FastAPI and uvicorn: pip install 'smoothinfer[serve]'"
_CALIBRATION = {
    "sigma": Maybe(SHARE),
    "rule": str,
    "samples": int,
    "stop": str,
    "units": str,
    "sha256": Maybe(str),
    "abstention": {"least share": dict},
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    add_sigma(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=whole_number, default=8000, help="port; 0 takes a free one")
    parser.add_argument("--rule", help="voting rule; by default prediction")
    parser.add_argument("--samples", type=whole_number, help="most passes of a vote; 64")
    parser.add_argument("--stop", help="when a vote ends, see evaluate --help; value by default")
    parser.add_argument(
        "--budget",
        type=decimal_number,
        default=50.0,
        metavar="MS",
        help="milliseconds from a request to its answer",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="calibration.json of smoothinfer calibrate, which brings sigma, rule, samples and "
        "stop, and says when to abstain",
    )
    parser.add_argument(
        "--abstain",
        type=decimal_number,
        metavar="RISK",
        help="abstain so that at most this share of the answers given is wrong; one of the risks "
        "in the calibration",
    )
    parser.add_argument(
        "--pool",
        type=whole_number,
        metavar="NETWORKS",
        help="keep this many drawn networks in memory, such as 256, for models with noise on their "
        "weights; votes on up to 8 images share them",
    )
    parser.add_argument(
        "--renew",
        type=decimal_number,
        default=32.0,
        metavar="RATE",
        help="networks of the pool that are drawn anew each second",
    )
    add_shape(parser)
    parser.add_argument(
        "--ray", action="store_true", help="serve on Ray Serve, on one machine or a cluster"
    )
    parser.add_argument(
        "--replicas", metavar="N", help="processes of Ray that answer, or auto; 1 by default"
    )


def run(options: Namespace) -> int:
    try:
        import uvicorn

        from smoothinfer.serving.listening import bound_socket, start_listening
        from smoothinfer.serving.on_ray import replicas_of, serve_on_ray
    except ImportError as error:
        raise InputError(f"{_INSTALL} ({error})") from None
    if options.replicas is not None and not options.ray:
        raise InputError("--replicas is Ray's: give --ray too")
    replicas = replicas_of(options.replicas or "1")
    if options.ray and options.port == 0:
        raise InputError("--ray needs a --port of your choice")
    listener = bound_socket(options.host, options.port)
    app = application(options)  # on Ray too: what cannot be served is refused here
    if options.ray:
        listener.close()  # Ray binds the port itself
        build = partial(application_in_replica, options)
        serve_on_ray(build, "smoothinfer", options.host, options.port, replicas)
    start_listening(listener)  # who asks from now on is answered once the server has started
    Terminal().print(
        f"ask it: curl --data-binary @picture.png -H 'Content-Type: image/png' "
        f"http://{options.host}:{listener.getsockname()[1]}/predict",
        markup=False,
    )
    logging.basicConfig(level=logging.INFO)
    config = uvicorn.Config(app, log_level="info", lifespan="on")
    uvicorn.Server(config).run([listener])
    return 0


def application_in_replica(options: Namespace) -> "FastAPI":
    """Return the application, in a process of Ray that knows the arguments alone."""
    with trusting_code() if options.trust_code else contextlib.nullcontext():
        set_computing(options)
        return application(options)


def application(options: Namespace) -> "FastAPI":
    """Return the application that the arguments describe; its capacity is measured and printed.

    Raises:
        InputError: the arguments do not go together, or not even one image is answered in time.
    """
    from smoothinfer.serving.application import Service, make_application
    from smoothinfer.serving.batcher import Batcher
    from smoothinfer.serving.capacity import measure_capacity

    budget = plain_float("budget", options.budget, above=0)
    smooth = _classifier(options)
    shape, classes = shape_and_classes(options, smooth.model)
    if smooth.pool is not None and not smooth.engine(torch.rand(1, *shape), 0, smooth.pool).pooled:
        raise InputError(
            f"{options.model} has no noise on its weights to draw in advance, or runs pass by "
            "pass: leave --pool out"
        )
    device = device_of(smooth.model)

    def answer(images: Images, left: float) -> Prediction:
        how = {"stop": options.stop, "abstain": options.abstain, "budget_ms": left}
        found = smooth.predict(images.to(device), **how)
        if options.abstain is None:
            return found
        # The shares were learned on votes that had time to end.
        return replace(found, abstained=found.abstained | ~found.decided)

    answer(torch.rand(1, *shape), budget)  # what does not go together fails here
    capacity = measure_capacity(smooth, shape, budget)
    Terminal().print(f"{options.model}: {capacity}, within {budget:g} ms", markup=False)
    service = Service(str(options.model), classes, shape, warm=True)
    return make_application(service, Batcher(answer, capacity.most, budget))


def _classifier(options: Namespace) -> SmoothedClassifier:
    """Return the classifier that the arguments and the calibration describe, tried once."""
    known = None
    if options.abstain is not None and options.calibration is None:
        raise InputError(
            "--abstain needs --calibration FILE, the calibration.json of smoothinfer calibrate"
        )
    if options.calibration is not None:
        known = _take_calibration(options)
    options.samples = 64 if options.samples is None else options.samples
    options.stop = options.stop or "value"
    model = load_model(options)
    optional_number("sigma", options.sigma)
    pool = None if options.pool is None else _pool(options)
    rule = options.rule or "prediction"
    smooth = SmoothedClassifier(model, options.samples, rule, abstention=known, pool=pool)
    if options.abstain is not None:
        smooth.least_share(options.abstain)
    return smooth


def _take_calibration(options: Namespace) -> KnownShares:
    """Take sigma, rule, samples and stop from the calibration; others given beside it are refused.

    Shares of passes mean something only for votes that are cast alike.
    """
    file = options.calibration
    found = check_shape(read_json(Path(file)), _CALIBRATION, file)
    if found["units"] != "pixel":
        raise InputError(f"{file} is not in pixel units: calibrate in pixel")
    for name in ("sigma", "rule", "samples", "stop"):
        given = getattr(options, name)
        given = optional_number("sigma", given) if name == "sigma" else given
        if given is not None and given != found[name]:
            raise InputError(
                f"{file} was made with {name} {found[name]}, not {given}: leave it out"
            )
        setattr(options, name, found[name])
    ours = weights_hash(options.model)
    if found.get("sha256") is not None and ours is not None and found["sha256"] != ours:
        raise InputError(f"{file} was made with another model: calibrate {options.model}")
    return KnownShares.read(found["abstention"]["least share"], file)


def _pool(options: Namespace) -> NetworkPool:
    try:
        return NetworkPool(options.pool, options.renew)
    except InputError as error:
        raise InputError(f"--pool {options.pool}, --renew {options.renew}: {error}") from None
