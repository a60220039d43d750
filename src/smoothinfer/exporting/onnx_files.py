"""ONNX files: one pass by torch's exporter, and around it the loop of a vote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothinfer.errors import InputError
from smoothinfer.exporting.torch_files import dynamic, first_line, silenced

_INSTALL = "ONNX files need onnx, onnxscript and onnxruntime: pip install 'smoothinfer[export]'"


def write_onnx(module: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Export one pass to ``path``: inputs as named, output ``logits``.

    Raises:
        InputError: the exporter cannot trace it, or is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{_INSTALL} ({error})") from None
    try:
        with silenced():
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_shapes=dynamic(inputs),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # an exporter fails in many ways
        raise InputError(f"torch.onnx does not take the model: {first_line(error)}") from error


def add_loop(one: Path, vote: Path, samples: int, classes: int, noise: int) -> None:
    """Write ``vote``, which runs the pass of the file ``one`` under fresh noise and counts.

    Args:
        one: from ``images``, and ``noise`` if there is any, to ``logits``.
        vote: from ``images`` to ``labels``, ``counts`` and ``probabilities``.
        samples, classes: passes, and classes of the model.
        noise: length of the noise; 0 where the pass draws its own.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(one))
    graph, info, real = model.graph, helper.make_tensor_value_info, TensorProto.FLOAT
    table: list[str | int | None] = ["count", classes]
    outputs = [
        info("labels", TensorProto.INT64, ["count"]),
        info("counts", TensorProto.INT64, table),
        info("probabilities", real, table),
    ]
    joined = helper.make_graph(
        _vote_nodes(_pass_body(graph, classes, noise)),
        "vote",
        [each for each in graph.input if each.name == "images"],
        outputs,
        initializer=[*graph.initializer, *_constants(samples, classes)],
    )
    made = helper.make_model(
        joined,
        opset_imports=model.opset_import,
        functions=model.functions,
        ir_version=model.ir_version,
    )
    onnx.checker.check_model(made)
    onnx.save(made, str(vote))


def _pass_body(graph: Any, classes: int, noise: int) -> Any:
    """Return the body of the loop: a pass, its answer counted, its softmax added up."""
    from onnx import TensorProto, helper

    node, info = helper.make_node, helper.make_tensor_value_info
    whole, real, truth = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
    table: list[str | int | None] = ["count", classes]
    depth = ["vote.first", "vote.depth", "vote.none_or_one"]
    return helper.make_graph(
        [
            *([node("RandomNormal", [], ["noise"], shape=[noise], dtype=real)] if noise else []),
            *graph.node,
            node("ArgMax", ["logits"], ["vote.first"], axis=1, keepdims=0),
            node("OneHot", depth, ["vote.votes"], axis=1),
            node("Add", ["vote.counts_before", "vote.votes"], ["vote.counts_after"]),
            node("Cast", ["logits"], ["vote.real_logits"], to=real),
            node("Softmax", ["vote.real_logits"], ["vote.shares"], axis=1),
            node("Add", ["vote.total_before", "vote.shares"], ["vote.total_after"]),
            node("Identity", ["vote.more_before"], ["vote.more_after"]),
        ],
        "pass",
        [
            info("vote.number", whole, []),
            info("vote.more_before", truth, []),
            info("vote.counts_before", whole, table),
            info("vote.total_before", real, table),
        ],
        [
            info("vote.more_after", truth, []),
            info("vote.counts_after", whole, table),
            info("vote.total_after", real, table),
        ],
    )


def _vote_nodes(body: Any) -> list[Any]:
    """Return the nodes around the loop: empty counts before it, label and means after it."""
    from onnx import TensorProto, helper

    node, tensor = helper.make_node, helper.make_tensor
    zero = tensor("vote.zero", TensorProto.INT64, [1], [0])
    nil = tensor("vote.nil", TensorProto.FLOAT, [1], [0.0])
    start = ["vote.samples", "vote.true", "vote.no_counts", "vote.no_total"]
    return [
        node("Shape", ["images"], ["vote.number_of_images"], start=0, end=1),
        node("Concat", ["vote.number_of_images", "vote.width"], ["vote.table"], axis=0),
        node("ConstantOfShape", ["vote.table"], ["vote.no_counts"], value=zero),
        node("ConstantOfShape", ["vote.table"], ["vote.no_total"], value=nil),
        node("Loop", start, ["counts", "vote.total"], body=body),
        node("ArgMax", ["counts"], ["labels"], axis=1, keepdims=0),
        node("Div", ["vote.total", "vote.real_samples"], ["probabilities"]),
    ]


def _constants(samples: int, classes: int) -> list[Any]:
    from onnx import TensorProto, helper

    whole, real = TensorProto.INT64, TensorProto.FLOAT
    return [
        helper.make_tensor("vote.samples", whole, [], [samples]),
        helper.make_tensor("vote.real_samples", real, [], [float(samples)]),
        helper.make_tensor("vote.depth", whole, [], [classes]),
        helper.make_tensor("vote.width", whole, [1], [classes]),
        helper.make_tensor("vote.none_or_one", whole, [2], [0, 1]),
        helper.make_tensor("vote.true", TensorProto.BOOL, [], [True]),
    ]


def run_onnx(path: Path, calls: list[dict[str, Tensor]]) -> list[list[Tensor]]:
    """Run the file on each of ``calls`` in onnxruntime; return the outputs.

    Raises:
        InputError: the file does not run, or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{_INSTALL} ({error})") from None
    try:
        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return [
            [torch.from_numpy(each) for each in session.run(None, _arrays(call))] for call in calls
        ]
    except Exception as error:  # of a compiled extension, with kinds of its own
        raise InputError(f"{path} does not run in onnxruntime: {first_line(error)}") from error


def _arrays(call: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in call.items()}
