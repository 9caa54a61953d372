"""Weights in eight bits: half the bytes, errors of at most half a step, and what does not fit is named."""

import pytest
import torch

from minivdm.guards import BadFile
from minivdm.networks import eight_bits
from minivdm.training import checkpoints


def weights():
    generator = torch.Generator().manual_seed(0)
    rows = torch.logspace(-4, 2, 16)[:, None, None, None]  # outputs of very different sizes
    return {
        "conv.weight": rows * torch.randn(16, 8, 3, 3, generator=generator),
        "conv.bias": torch.randn(16, generator=generator),
        "count": torch.tensor([3]),
        "nothing": torch.zeros(4, 5),
    }


def test_error_of_a_weight_is_at_most_half_a_step_of_its_row():
    before = weights()
    after = eight_bits.unpack(eight_bits.pack(before))
    assert after.keys() == before.keys()
    for name in ("conv.weight", "nothing"):
        step = before[name].flatten(1).abs().amax(1) / 127
        error = (after[name] - before[name]).flatten(1).abs().amax(1)
        assert (error <= step / 2 * (1 + 1e-4)).all()  # rounding of float32 in the division and the product
    assert torch.equal(after["conv.bias"], before["conv.bias"].half()) and torch.equal(after["count"], before["count"])


def test_packing_again_changes_nothing():
    once = eight_bits.pack(weights())
    twice = eight_bits.pack(eight_bits.unpack(once))
    assert all(torch.equal(once[name], twice[name]) for name in once if not name.endswith(eight_bits.SCALE))


def test_file_holds_a_byte_a_weight_and_is_read_in_full(tmp_path):
    path, matrix = tmp_path / "a.safetensors", {"w": torch.randn(64, 512, generator=torch.Generator().manual_seed(1))}
    checkpoints.write_tensors(path, eight_bits.pack(matrix))
    assert path.stat().st_size < 1.05 * matrix["w"].numel()
    found, _ = checkpoints.read_tensors(path)
    assert found["w"].dtype == torch.float32 and (found["w"] - matrix["w"]).abs().max() < 0.02


@pytest.mark.parametrize("scale", [torch.ones(3), torch.ones(4, 1)])
def test_scale_that_does_not_fit_is_named(scale, tmp_path):
    wrong = {"w": torch.zeros(4, 2, dtype=torch.int8), "w.int8_scale": scale}
    with pytest.raises(BadFile, match="w.int8_scale: expected one number for each row"):
        eight_bits.unpack(wrong)
    with pytest.raises(BadFile, match="expected one number"):
        eight_bits.unpack({"v.int8_scale": torch.ones(2)})
    checkpoints.write_tensors(tmp_path / "a.safetensors", wrong)
    with pytest.raises(checkpoints.DamagedCheckpoint, match="w.int8_scale"):
        checkpoints.read_tensors(tmp_path / "a.safetensors")
