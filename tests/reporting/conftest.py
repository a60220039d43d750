"""Results to report: a sweep, an audit, certificates and adversarial examples."""

import pytest
import torch

from smoothinfer.cli import main
from smoothinfer.reporting.report import write_report
from smoothinfer.workflows.sweep import run_sweep
from tests.conftest import sweep_recipe


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """A sweep with an awkward name, an audit, certificates and adversarial examples."""
    folder = tmp_path_factory.mktemp("results")
    torch.set_num_threads(1)
    options = {"limit": 40, "sigma": ["0:0.1:0.05"], "samples": [1, 2, 4], "seeds": [0, 1]}
    models = {"</script><!--<script> & line_1": "tests.conftest:line"}
    run_sweep(sweep_recipe(models=models, **options), folder / "sweep")
    line = ["tests.conftest:line", "--data", "digits", "--limit", "10"]
    main(["audit", *line, "--quick", "--radius", "0.1", "--out", str(folder / "audit")])
    certify = ["certify", *line, "--sigma", "0.2", "--samples", "50"]
    main([*certify, "--out", str(folder / "certified")])
    attack = ["attack", *line, "--attack", "fgsm", "--sigma", "0.1", "--samples", "2"]
    main([*attack, "--out", str(folder / "attack")])
    return folder


@pytest.fixture(scope="session")
def page(results):
    folders = [results / name for name in ("sweep", "audit", "certified", "attack")]
    return write_report(folders, results / "report", "All of it")
