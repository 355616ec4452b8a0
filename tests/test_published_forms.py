"""Forms of published files that differ from what the library of today builds.

Each is made by a rule that the library's own code documents, and checked by that code.
"""

from __future__ import annotations

import re

import torch
from support.networks import on_meta, randomize
from support.parity import from_library, numbered, numbers, old_densenet, skeleton_of
from torch import Tensor, nn

from senetzoo import create
from senetzoo.weights import dialects
from senetzoo.weights.dialects import Counterpart, counterpart


def ghost(dialect: str, name: str) -> nn.Module:
    """Their network on the meta device."""
    return on_meta(lambda: from_library(dialect, name))


def filled(model: nn.Module) -> dict[str, Tensor]:
    """Random weights of a network of theirs."""
    randomize(model)
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}


def test_old_densenet() -> None:
    """Checked by torchvision's own code for such files, and by timm's."""
    from timm.models.densenet import _filter_torchvision_pretrained
    from torchvision.models import densenet

    class Published:
        @staticmethod
        def get_state_dict(**_options: object) -> dict[str, Tensor]:
            return dict(old)

    reference = from_library("torchvision", "densenet121")
    state = filled(reference)
    old = old_densenet(state)
    assert len(state) == len(old) + 121
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert len([key for key in old if re.search(r"\.(norm|conv)\.[12]\.", key)]) == 58 * 10
    again = from_library("torchvision", "densenet121")
    densenet._load_state_dict(again, Published(), progress=False)
    expected = again.state_dict()

    model = create("densenet121", seed=0)
    read, notes = dialects.reading(old, "torchvision", model)
    assert notes == (
        "580 names are those of an older version.",
        "121 missing num_batches_tracked are 0.",
    )
    assert list(read) == list(expected)
    assert all(torch.equal(read[key], expected[key]) for key in expected)
    by_timm, timm_notes = dialects.reading(_filter_torchvision_pretrained(dict(old)), "timm", model)
    assert timm_notes == notes[1:]
    assert all(torch.equal(by_timm[key], expected[key]) for key in expected)


def test_torchvision_files_with_auxiliary_heads() -> None:
    for name, heads, tensors in (("googlenet", "aux1.", 20), ("inception_v3", "AuxLogits.", 14)):
        file = numbered(ghost("torchvision", name).state_dict())
        assert any(key.startswith(heads) for key in file)
        other = counterpart("torchvision", name)
        assert (other.mean, other.std) == ((0.5,) * 3, (0.5,) * 3)
        read, notes = dialects.reading(file, "torchvision", skeleton_of(other))
        assert notes == (f"{tensors} tensors of auxiliary heads are left out.",)
        # With the heads, which ours can have too, nothing is left out.
        whole = Counterpart(other.model, {"aux": True})
        read, notes = dialects.reading(file, "torchvision", skeleton_of(whole))
        assert notes == ()
        assert len(read) == len(file)


def authors_swin(model: nn.Module) -> dict[str, Tensor]:
    """As Microsoft publishes it: merging ends a stage, ``head``, index and masks are there."""
    state: dict[str, Tensor] = {}
    for key, tensor in filled(model).items():
        key = re.sub(
            r"^layers\.(\d)\.downsample", lambda at: f"layers.{int(at[1]) - 1}.downsample", key
        )
        state[key.replace("head.fc.", "head.")] = tensor
    buffers = ("relative_position_index", "attn_mask")
    state |= {key: b for key, b in model.named_buffers() if key.endswith(buffers)}
    return state


def test_authors_swin() -> None:
    """Checked by timm's own code for such files."""
    from timm.models.swin_transformer import checkpoint_filter_fn

    name = "swin_tiny_patch4_window7_224"
    reference = from_library("timm", name)
    file = authors_swin(reference)
    assert "layers.0.downsample.reduction.weight" in file
    assert "layers.0.blocks.1.attn_mask" in file
    reference.load_state_dict(checkpoint_filter_fn(dict(file), reference), strict=True)

    model = create("swin_t", seed=0)
    read, notes = dialects.reading(file, "timm", model)
    assert notes == (
        "11 names are those of an older version.",
        "5 masks of windows are left out: they follow from the image.",
    )
    assert read.keys() == model.state_dict().keys()
    written = dialects.write(read, "timm", model)
    expected = reference.state_dict()
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], expected[key]) for key in expected)
    index = "features.1.0.attn.relative_position_index"
    assert torch.equal(read[index], model.state_dict()[index])


def test_vgg_of_torchvision_as_timm_takes_it() -> None:
    """Checked by timm's own code for such files."""
    from timm.models.vgg import _filter_fn

    model = skeleton_of(Counterpart("vgg11"))
    file = numbered(ghost("torchvision", "vgg11").state_dict())
    filtered = _filter_fn(dict(file))
    reference = ghost("timm", "vgg11").state_dict()
    assert {k: v.shape for k, v in filtered.items()} == {k: v.shape for k, v in reference.items()}
    by_torchvision = dialects.read(file, "torchvision", model)
    read, notes = dialects.reading(file, "timm", model)
    assert notes == ("6 names are those of an older version.",)
    assert numbers(read) == numbers(by_torchvision)
    assert numbers(dialects.read(filtered, "timm", model)) == numbers(by_torchvision)
