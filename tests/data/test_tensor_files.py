"""Tensors that strangers saved: plain ones are read, all others are refused."""

import pytest
import torch

import smoothinfer as si
from smoothinfer.data.tensor_files import read_state_dict, read_tensors


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(3).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(2, dtype=torch.cfloat)],
    ids=["sparse", "without contents", "complex"],
)
def test_tensors_that_are_not_plain_are_refused(tensor, tmp_path):
    torch.save({"adversarial": tensor}, tmp_path / "a.pt")
    for read in (read_tensors, read_state_dict):
        with pytest.raises(si.InputError, match=r"'adversarial' in .* must be a plain tensor"):
            read(tmp_path / "a.pt")
