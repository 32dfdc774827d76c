"""The batch follows the memory that is free."""

import pytest
import torch
from nets import Plain, seeded
from torch import nn

from xailib.networks import memory
from xailib.networks.forward import forward_batches
from xailib.networks.memory import bytes_of_pass, fitting_batch, free_memory

PICTURES = torch.zeros(60, 3, 32, 32)


class Largest(nn.Module):
    """Takes note of the largest batch."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.inside = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))

    def forward(self, batch):
        self.seen.append(len(batch))
        return self.inside(batch)


def test_a_pass_takes_its_input_and_what_its_leaves_return():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 5))
    values = 3 * 32 * 32 + 4 * 30 * 30 * 3 + 5
    assert bytes_of_pass(module, PICTURES[:1]) == 4 * values
    assert not any(part._forward_hooks for part in module.modules())


def test_hooks_are_gone_after_a_failure():
    module = seeded(Plain)
    with pytest.raises(RuntimeError):
        bytes_of_pass(module, torch.zeros(1, 7, 8, 8))
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(("pictures_free", "wanted"), [(0.5, 1), (2, 1), (8, 4), (1000, 16)])
def test_half_of_the_free_memory_is_used(monkeypatch, pictures_free, wanted):
    module = Largest()
    one = bytes_of_pass(module, PICTURES[:1])
    monkeypatch.setattr(memory, "free_memory", lambda _device: int(pictures_free * one))
    assert fitting_batch(module, PICTURES, 16, {}, "") == wanted
    module.seen.clear()
    forward_batches(module, lambda start, stop: PICTURES[start:stop], 60, engine="eager")
    assert max(module.seen) == wanted
    assert sum(module.seen) == 60 + 1  # one was measured


def test_unknown_memory_changes_nothing(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda _device: None)
    assert fitting_batch(Largest(), PICTURES, 16, {}, "") == 16


def test_a_container_s_limit_counts(monkeypatch, tmp_path):
    assert free_memory(torch.device("meta")) is None
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert free_memory(torch.device("cpu")) == 4000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(torch.device("cpu")) == 4000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory(torch.device("cpu")) == 4000
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 300\nactive_file 9\n")
    assert free_memory(torch.device("cpu")) == 4300  # copies of files give way
    (tmp_path / "memory.stat").unlink()
    (tmp_path / "memory.max").write_text("500\n")
    assert free_memory(torch.device("cpu")) == 0
    meminfo.unlink()
    (tmp_path / "memory.max").unlink()
    assert free_memory(torch.device("cpu")) is None
