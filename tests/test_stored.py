from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, save

from senetzoo.weights.load import stored

TENSORS = {
    "b.weight": torch.arange(6, dtype=torch.float16).view(2, 3),
    "a": torch.tensor([1, 2, 3]),
    "empty": torch.zeros(0, 4),
}
ABOUT = {"format": "pt", "tag": 'né "x"\n', "model": "se_resnet20", "é": "", "a": "1", "z": "{}"}


def test_the_same_content_is_the_same_bytes() -> None:
    # safetensors itself writes a random order.
    assert len({save(TENSORS, metadata=ABOUT) for _ in range(20)}) > 1
    contents = {stored(TENSORS, ABOUT) for _ in range(20)}
    contents.add(stored(TENSORS, dict(reversed(ABOUT.items()))))
    assert len(contents) == 1


def test_the_content_is_what_safetensors_writes(tmp_path: Path) -> None:
    content = stored(TENSORS, ABOUT)
    assert len(content) == len(save(TENSORS, metadata=ABOUT))
    read = load(content)
    assert set(read) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata() == ABOUT
