"""Attaching gates to other libraries' networks, and using these networks afterwards."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.foreign import all_five, image, randomize_gates, small, traces, values
from support.networks import message
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from senetzoo import ECA, SE, SiteMap, attach, create, detach, site_map, stage
from senetzoo.errors import PolicyError
from senetzoo.policies.foreign import hooks

BASIC = "torchvision basic"


def gated(name: str = BASIC) -> nn.Module:
    model = small(name).eval()
    randomize_gates(attach(model, all_five(), seed=0))
    return model


# --- What attach gives ---------------------------------------------------------------------------


def test_the_gates_by_site() -> None:
    model = small(BASIC)
    attached = attach(model, SE(4).on(stage(1)) + ECA().at("post").on(stage(-1)), seed=0)
    assert [site.path for site in attached] == [
        "layer1.0.bn2.senetzoo_standard",
        "layer1.1.bn2.senetzoo_standard",
        "layer4.0.senetzoo_post",
    ]
    first = next(iter(attached))
    assert attached[first] is model.get_submodule(first.path)
    assert (first.stage, first.block, first.stages, first.blocks) == (1, 1, 4, 2)
    assert attached.unsupported == ()
    assert repr(attached).startswith("3 gates in a ResNet\nlayer1.0.bn2.senetzoo_standard: ")


def test_identity_skips_get_a_module_and_lose_it() -> None:
    model = small(BASIC)
    before = traces(model)
    paths = [site.path for site in attach(model, SE(4).at("identity"), seed=0)]
    assert paths == [
        "layer1.0.downsample.senetzoo_identity",
        "layer1.1.downsample.senetzoo_identity",
        "layer2.0.downsample.1.senetzoo_identity",
        "layer3.0.downsample.1.senetzoo_identity",
        "layer4.0.downsample.1.senetzoo_identity",
    ]
    assert "downsample" not in vars(model.get_submodule("layer1.0"))
    assert traces(detach(model)) == before


def test_a_registered_none_comes_back_as_one() -> None:
    model = small(BASIC)
    first = model.get_submodule("layer1.0")
    del first.downsample
    first.register_module("downsample", None)
    before = traces(model)
    attach(model, all_five(), seed=0)
    assert traces(detach(model)) == before
    assert first._modules["downsample"] is None


def test_seed() -> None:
    """A seed gives the same gates for any random state, which doesn't change."""
    states = []
    for noise in (1, 2):
        model = small(BASIC)
        torch.manual_seed(noise)
        expected = torch.rand(2)
        torch.manual_seed(noise)
        attach(model, all_five(), seed=7)
        assert torch.equal(torch.rand(2), expected)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_parameter_groups() -> None:
    model = small(BASIC)
    trunk = list(model.parameters())
    attach(model, SE(4), seed=0)
    attached = attach(model, ECA().at("post"), seed=0)
    groups = attached.parameters(weight_decay=5e-4)
    assert [group["weight_decay"] for group in groups] == [5e-4, 0.0]
    assert list(map(id, groups[0]["params"])) == list(map(id, trunk))
    gates = [p for name, p in model.named_parameters() if ".senetzoo_" in name]
    assert list(map(id, groups[1]["params"])) == list(map(id, gates))
    assert len(gates) == 4 * 5 + 5
    assert "weight_decay" not in attached.parameters()[0]
    optimizer = torch.optim.SGD(attached.parameters(1e-3), lr=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-3, 0.0]


def test_parameter_groups_of_ours() -> None:
    model = create("se_resnet20", seed=0)
    attached = attach(model, ECA().at("post"), seed=0)
    trunk, gates = attached.parameters(1e-4)
    assert len(gates["params"]) == 9 * 4 + 9
    assert len(trunk["params"]) == len(list(create("resnet20", seed=0).parameters()))


# --- What is refused -----------------------------------------------------------------------------


def test_positions_that_are_not_there() -> None:
    assert message(lambda: attach(small("torchvision vgg"), SE().at("identity")), PolicyError) == (
        "se@identity isn't supported in VGG.\n"
        "At features.0, there is no skip in the block; there it has pre, standard.\n"
        "Type for example: @standard"
    )
    assert message(lambda: attach(small("timm inception_resnet"), "se@pre/s1"), PolicyError) == (
        "se@pre/s1 isn't supported in Sequential.\n"
        "At 1.0, the branch starts at several modules, and the skip uses the block's input, too; "
        "there it has standard, post.\n"
        "Type for example: @post"
    )
    assert message(lambda: attach(small(BASIC), SE().on(stage(5))), PolicyError) == (
        "se/s5 selects stage 5 of ResNet.\nResNet has 4 stages of 2, 1, 1, 1 blocks.\n"
        "Select a stage from 1 to 4, or stage(-1) for the last"
    )


def test_what_some_blocks_refuse() -> None:
    attached = attach(small("torchvision mobilenet_v2"), SE(4).at("identity").on(stage(2, 3)))
    assert [(site.stage, site.block) for site in attached] == [(2, 2), (3, 2), (3, 3)]
    assert [str(refusal) for refusal in attached.unsupported] == [
        "features.2: identity, there is no skip in the block",
        "features.4: identity, there is no skip in the block",
    ]


@pytest.mark.parametrize("policy", ["se@identity", "se@identity+eca", "se/s9"])
def test_a_refused_policy_changes_nothing(policy: str) -> None:
    model = small("torchvision vgg")
    before = traces(model)
    message(lambda: attach(model, policy), PolicyError)
    assert traces(model) == before


def test_wrapped_networks() -> None:
    model = small(BASIC)
    parallel, compiled = nn.DataParallel(model), torch.compile(model, backend="eager")
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1)))
    built = small(BASIC)
    built.compile(backend="eager")
    several = "It copies its network to several devices for each batch."
    fixed = "It runs code that was compiled before."
    rows: list[tuple[Callable[[], object], str, str, str]] = [
        (lambda: attach(parallel, SE()), "attach got a DataParallel.", several,
         "Type attach(model.module, policy), then create a new DataParallel"),
        (lambda: attach(nn.Sequential(nn.Identity(), parallel), SE()),
         "attach got a DataParallel at '1'.", several,
         "Type attach(model.module, policy), then create a new DataParallel"),
        (lambda: attach(compiled, SE()), "attach got a OptimizedModule.", fixed,  # type: ignore[arg-type]
         "Type attach(model._orig_mod, policy), then create a new OptimizedModule"),
        (lambda: detach(compiled), "detach got a OptimizedModule.", fixed,  # type: ignore[type-var]
         "Type detach(model._orig_mod), then create a new OptimizedModule"),
        (lambda: attach(scripted, SE()), "attach got a ScriptModule.", "Its forward pass is fixed.",
         "Type attach(model, policy) first"),
        (lambda: attach(built, SE()), "attach got a ResNet after its compile().", fixed,
         "Type attach(model, policy) first"),
    ]  # fmt: skip
    for call, *lines in rows:
        assert message(call, PolicyError) == "\n".join(lines)


def test_ours_inside_another() -> None:
    model = nn.Sequential(nn.Identity(), create("se_lenet", seed=0))
    assert message(lambda: attach(model, SE()), PolicyError) == (
        "attach got a Sequential.\nIt contains a LeNet of this zoo at '1'.\n"
        "Type attach(model.get_submodule('1'), policy)"
    )
    assert set(detach(model)[1].state_dict()) == set(create("lenet", seed=0).state_dict())


def test_a_flattened_map_of_another_size() -> None:
    model: Any = small("timm swin").eval()
    attach(model, SE(4).on(stage(1)), seed=0)
    model.set_input_size((64, 64))
    assert message(lambda: model(torch.ones(1, 3, 64, 64)), PolicyError) == (
        "A gate for maps of 8x8 got a tensor of (1, 256, 24).\n"
        "The size of the flattened map is read from the network when the gate is attached.\n"
        "Set the size of the images first, then detach and attach again"
    )
    assert message(lambda: attach(model, SE(4).on(stage(1))), PolicyError) == (
        "A Identity already has a gate 'senetzoo_standard', before it.\n"
        "The new one would sit elsewhere, or get a map of another size.\n"
        "Type first: detach(model)"
    )
    attach(detach(model), SE(4).on(stage(1)), seed=0, sample=torch.ones(1, 3, 64, 64))


def test_sites_of_ours_are_their_own() -> None:
    model = create("lenet", seed=0)
    assert message(lambda: attach(model, SE(), sites=SiteMap(())), PolicyError) == (
        "attach got a SiteMap for a LeNet of this zoo.\n"
        "Networks of this zoo declare their own sites.\nLeave out sites"
    )


def test_a_subclass_with_its_own_forward_is_not_known() -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    class Other(BasicBlock):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return self.conv1(x)  # type: ignore[no-any-return]

    class Same(BasicBlock):  # type: ignore[misc]
        pass

    assert "None of its blocks is known" in message(
        lambda: attach(ResNet(Other, [1, 1, 1, 1]), SE()), PolicyError
    )
    assert len(attach(ResNet(Same, [1, 1, 1, 1]), SE())) == 4


# --- What can be done with an attached network ---------------------------------------------------


def test_deep_copy_has_gates_of_its_own() -> None:
    model, x = gated(), image(BASIC)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        y = model(x)
        for _, _, gate in hooks.gates_in(model):
            for parameter in gate.parameters():
                parameter.zero_()
        assert torch.equal(twin(x), y)
        assert not torch.equal(model(x), y)


def test_pickle_and_save() -> None:
    model, x = gated("timm bottleneck"), image("timm bottleneck")
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for twin in (loaded, pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            assert torch.equal(twin(x), model(x))
        assert values(detach(twin)) == values(small("timm bottleneck").eval())


def test_state_dict_round_trip() -> None:
    model, x = gated(), image(BASIC)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin = small(BASIC).eval()
    attach(twin, all_five(), seed=5)
    with torch.no_grad():
        assert not torch.equal(twin(x), model(x))
        twin.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(twin(x), model(x))


@pytest.mark.parametrize(
    "name",
    ["pytorchcv basic", "timm swin"]
    + [pytest.param(n, marks=pytest.mark.slow) for n in (BASIC, "torchvision mobilenet_v2")],
)
def test_compile_and_export(name: str) -> None:
    model = small(name).eval()
    x = image(name)
    gates = attach(model, "+".join(f"se4@{p}" for p in sorted({
        place.position for place in site_map(model).places
    })), seed=0)  # fmt: skip
    randomize_gates(gates)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(x), expected, atol=1e-6)
        exported = torch.export.export(model, (x,), strict=False).module()
        assert torch.allclose(exported(x), expected, atol=1e-6)


def test_channels_last_and_bfloat16() -> None:
    model = small(BASIC).eval().to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    attached = attach(model, all_five(SE(4, init="identity")), seed=0)
    assert {p.dtype for p in attached.gate_parameters()} == {torch.bfloat16}
    x = image(BASIC).to(torch.bfloat16).to(memory_format=torch.channels_last)
    maps: list[Tensor] = []
    model.get_submodule("layer2").register_forward_hook(lambda m, a, y: maps.append(y))
    with torch.no_grad():
        expected = model(x)
        assert maps[0].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(detach(model)(x), expected)


def test_meta() -> None:
    with torch.device("meta"):
        model = small("torchvision bottleneck")
    attached = attach(model, all_five(), seed=0)
    assert {p.device.type for p in attached.gate_parameters()} == {"meta"}


def test_a_block_that_is_there_twice_has_one_gate() -> None:
    model = small(BASIC).eval()
    stages = model.get_submodule("layer1")
    stages._modules["1"] = stages._modules["0"]
    before = traces(model)
    attached = attach(model, all_five(), seed=0, sample=image(BASIC))
    assert sum(site.stage == 1 for site in attached) == 5
    fired: list[int] = []
    gate = attached[next(iter(attached))]
    gate.register_forward_hook(lambda m, a, y: fired.append(1))
    model(image(BASIC)).sum().backward()
    assert len(fired) == 2
    assert all(p.grad is not None for p in attached.gate_parameters())
    assert traces(detach(model)) == before


def test_a_second_gate_replaces_the_first() -> None:
    model = small(BASIC).eval()
    attach(model, all_five(), seed=0)
    attach(model, ECA().at("identity") + ECA(), seed=0)
    keys = model.state_dict().keys()
    assert "layer1.0.bn2.senetzoo_standard.conv.weight" in keys
    assert "layer1.0.bn2.senetzoo_standard.fc1.weight" not in keys
    assert "layer1.0.downsample.senetzoo_identity.conv.weight" in keys
    fired: list[int] = []
    model.get_submodule("layer1.0.bn2.senetzoo_standard").register_forward_hook(
        lambda m, a, y: fired.append(1)
    )
    model(image(BASIC))
    assert fired == [1]


def test_hooks_of_others() -> None:
    """They stay, and get the same tensors as the rest of the network."""
    model = small(BASIC).eval()
    seen: list[Tensor] = []
    model.get_submodule("layer1.0.bn2").register_forward_hook(lambda m, a, y: seen.append(y))
    model.get_submodule("layer1.0.conv1").register_forward_pre_hook(lambda m, a: None)
    before = traces(model)
    gates = attach(model, SE(4) + SE(4).at("pre"), seed=0)
    outputs: list[Tensor] = []
    gates[next(iter(gates))].register_forward_hook(lambda m, a, y: outputs.append(y))
    standard = next(site for site in gates if site.position == "standard")
    gates[standard].register_forward_hook(lambda m, a, y: outputs.append(y))
    model(image(BASIC))
    assert seen[0] is outputs[1]
    assert traces(detach(model)) == before


@pytest.mark.parametrize("name", ["torchvision swin", "torchvision swin_v2", "timm swin"])
def test_a_branch_of_swin_is_selected_by_name(name: str) -> None:
    model, x = small(name).eval(), image(name)
    before = traces(model)
    both = list(attach(model, "se4+se4@pre", seed=0, sample=x))
    detach(model)
    for chosen in ("attn", "mlp"):
        gates = attach(model, f"se4/{chosen}+se4@pre/{chosen}", seed=0, sample=x)
        assert set(gates) == {site for site in both if site.branch == chosen}
        assert 2 * len(gates) == len(both)
        detach(model)
    assert traces(model) == before


@pytest.mark.parametrize("order", [("post", "identity"), ("identity", "post")])
def test_identity_comes_before_post_in_any_order(order: tuple[str, str]) -> None:
    """Both gates are hooks of a block that computes the sum itself."""
    name = "torchvision mobilenet_v2"
    model, x = small(name).eval(), image(name)
    for position in order:
        randomize_gates(attach(model, f"se4@{position}", seed=0))
    there = model.get_submodule("features.3")._forward_hooks.values()
    names = [getattr(hook, "key", None) for hook in there]
    assert names == ["senetzoo_identity", "senetzoo_post"]
    assert model(x).isfinite().all()


def test_flags_stay() -> None:
    model = small(BASIC).eval()
    model.get_submodule("layer3").train()
    model.get_submodule("layer1").requires_grad_(False)
    before = traces(model)
    attached = attach(model, all_five(), seed=0, sample=image(BASIC))
    assert all(not gate.training for gate in attached.values())
    assert all(p.requires_grad for p in attached.gate_parameters())
    assert traces(detach(model)) == before


def test_inside_ddp(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    model = small("pytorchcv basic")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        attached = attach(model, all_five(), seed=0)
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped(image("pytorchcv basic")).sum().backward()
        assert all(p.grad is not None for p in attached.gate_parameters())
        assert message(lambda: attach(wrapped, SE()), PolicyError) == (
            "attach got a DistributedDataParallel.\n"
            "It synchronizes only the parameters that it was created with.\n"
            "Type attach(model.module, policy), then create a new DistributedDataParallel"
        )
        from torch.distributed.fsdp import fully_shard

        sharded: Any = fully_shard(small("pytorchcv basic"), mesh=init_device_mesh("cpu", (1,)))
        assert message(lambda: attach(sharded, SE()), PolicyError) == (
            "attach got a FSDPModule.\nIts parameters have been sharded.\n"
            "Type attach(model, policy) first"
        )
    finally:
        torch.distributed.destroy_process_group()
