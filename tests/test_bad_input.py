"""Wrong calls and their messages: what was asked, what is true, what to type."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from support.networks import message
from support.weights import RAW, Shelf

from senetzoo import (
    SE,
    Backbone,
    attach,
    config,
    create,
    detach,
    explain,
    export,
    finetune,
    list_models,
    load,
    propose,
    push,
    save,
    transforms,
)
from senetzoo.cli import main
from senetzoo.errors import ConfigError, PolicyError, SenetzooError

TITLES = (
    "AlexNet, BN-Inception, ConvNeXt, DenseNet, EfficientNet, GhostNet, GoogLeNet, Inception v2, "
    "Inception v3, Inception v4, Inception-ResNet, LeNet, MNASNet, MobileNet, MobileNetV2, "
    "MobileNetV3, Plain, PreResNet, RegNet, RepVGG, ResNeSt, ResNet, SENet, SKNet, ShuffleNetV2, "
    "SqueezeNet, Swin, VGG, Xception"
)


IMAGE = torch.zeros(1, 3, 32, 32)


def any_(value: object) -> Any:
    """A value of a type that the signature doesn't allow."""
    return value


NO_NAME = 'It needs a name, which is text, or a folder.\nType for example: "se_resnet50"'
NO_WEIGHTS = (
    "There are no pretrained weights of 'resnet18'.\n"
    "Networks with weights are resnet20.\n"
    "Those with weights are listed by: senetzoo list --pretrained"
)
OPTIONS = (
    "Its options are reference, policy, pretrained, weights, preprocessing, num_classes, "
    "in_chans, channels, stem, dropout, "
    "drop_path, seed."
)
NO_SEED = "A seed is a whole number from 0 to 2**63 - 1.\nType for example: seed=0"
NO_POLICY = (
    "A policy is a gate such as SE(), a combination of them, or senetzoo.policy(text).\n"
    'Type for example: SE().at("pre").on(stage(3)) + ECA()'
)

CALLS: list[tuple[Callable[[], object], type[SenetzooError], str]] = [
    # Options of gates, and none with a place
    (lambda: SE(**any_({"reducton": 8})), ConfigError, "SE has no option 'reducton'.\n"
     "Did you mean 'reduction'?"),
    (lambda: create("se_resnet20+none/s3"), PolicyError,
     "'none/s3' isn't a policy.\nAt '/s3': none applies to the whole network.\n"
     "Type for example: se16/~s3"),
    # Names
    (lambda: create(any_(None)), ConfigError,
     f"A network can't be found by a NoneType.\n{NO_NAME}"),
    (lambda: create(any_(50)), ConfigError,
     f"A network can't be found by a int.\n{NO_NAME}"),
    (lambda: explain(any_(3)), ConfigError,
     f"A network can't be found by a int.\n{NO_NAME}"),
    (lambda: create(""), ConfigError,
     "There is no network ''.\nNo name is similar.\nType: senetzoo list; "
     "for your own network: --register MODULE:NAME"),
    (lambda: create("resnet-50"), ConfigError, "There is no network 'resnet-50'.\n"
     "The nearest names are resnet50, resnest50, skresnet50.\n"
     "Type for example: resnet50"),
    (lambda: create("ResNet50+se"), ConfigError, "There is no network 'ResNet50'.\n"
     "The nearest names are resnet50, resnest50, skresnet50.\n"
     "Type for example: resnet50"),
    (lambda: list_models(family="vgg19"), ConfigError,
     "There is no family 'vgg19'.\nDid you mean 'vgg'?"),
    # Weights
    (lambda: create("resnet18", pretrained=True), ConfigError, NO_WEIGHTS),
    (lambda: create("resnet18.pets_v1"), ConfigError, NO_WEIGHTS),
    (lambda: create("resnet20.pets_v2"), ConfigError,
     "There are no weights 'pets_v2' of 'resnet20'.\nIts tags are pets_v1.\n"
     "Did you mean 'pets_v1'?"),
    (lambda: create("resnet20", pretrained="imagenet"), ConfigError,
     "There are no weights 'imagenet' of 'resnet20'.\nIts tags are pets_v1.\n"
     "Type for example: resnet20.pets_v1"),
    (lambda: create("resnet20."), ConfigError,
     "There are no weights '' of 'resnet20'.\nIts tags are pets_v1.\n"
     "Type for example: resnet20.pets_v1"),
    (lambda: create("resnet20.pets_v1", pretrained="pets_v2"), ConfigError,
     "'resnet20.pets_v1' and pretrained='pets_v2' name different weights.\n"
     "A network has one set of weights.\nLeave one of them out"),
    (lambda: create("resnet20", pretrained=any_(1)), ConfigError,
     "pretrained=1 doesn't name any weights.\npretrained is True, False, or a tag.\n"
     "Type for example: create('resnet20', pretrained=True)"),
    (lambda: create("resnet20", in_chans=1, channels="sum"), ConfigError,
     "channels='sum' was given without weights.\n"
     "It says how the first convolution of the weights is adapted to in_chans.\n"
     "Leave out channels, or type pretrained=True"),
    (lambda: create("resnet20", pretrained=True, channels="sum"), ConfigError,
     "channels='sum' was given without in_chans.\n"
     "It says how the first convolution of the weights is adapted to in_chans.\n"
     "Type for example: in_chans=1, channels='sum'"),
    (
        lambda: create("resnet20", pretrained=True, in_chans=1, channels="summ"),  # type: ignore[arg-type]
        ConfigError,
        "channels='summ' isn't a way to adapt channels.\n"
        "The ways are 'sum', 'tile', 'random'.\nDid you mean 'sum'?",
    ),
    # Options
    (
        lambda: create("resnet20", pretraind=True),  # type: ignore[call-arg]
        ConfigError,
        "create() has no option 'pretraind'.\nDid you mean 'pretrained'?",
    ),
    (
        lambda: create("resnet20", num_clases=3),  # type: ignore[call-arg]
        ConfigError,
        "create() has no option 'num_clases'.\nDid you mean 'num_classes'?",
    ),
    (
        lambda: create("resnet20", zzz=3),  # type: ignore[call-arg]
        ConfigError,
        f"create() has no option 'zzz'.\n{OPTIONS}",
    ),
    (lambda: create("resnet20", num_classes=-1), ConfigError, "ResNet got num_classes=-1.\n"
     "num_classes is a whole number of at least 0.\nType for example: num_classes=1000"),
    (lambda: create("resnet20", num_classes=any_("10")), ConfigError,
     "ResNet got num_classes='10'.\nnum_classes is a whole number of at least 0.\n"
     "Type for example: num_classes=1000"),
    (lambda: create("resnet20", pretrained=True, in_chans=-1), ConfigError,
     "ResNet got in_chans=-1.\nin_chans is a whole number of at least 1.\n"
     "Type for example: in_chans=3"),
    (lambda: create("lenet", seed=-1), ConfigError, f"seed=-1 isn't a seed.\n{NO_SEED}"),
    (lambda: create("lenet", seed=True), ConfigError, f"seed=True isn't a seed.\n{NO_SEED}"),
    (lambda: attach(create("lenet", seed=0), SE(), seed=any_("x")), ConfigError,
     f"seed='x' isn't a seed.\n{NO_SEED}"),
    (lambda: config("resnet20").replace(depth=3), ConfigError,
     "The config of resnet20 has no option 'depth'.\nDid you mean 'depths'?"),
    # Policies
    (lambda: create("resnet20", policy=any_(3)), PolicyError,
     f"3 isn't a policy.\n{NO_POLICY}"),
    (lambda: create("resnet20", policy=any_(SE)), PolicyError,
     "<class 'senetzoo.gates.se.SE'> isn't a policy.\n"
     f"{NO_POLICY.partition(chr(10))[0]}\nType SE()"),
    (lambda: attach(create("lenet", seed=0), any_(None)), PolicyError,
     f"None isn't a policy.\n{NO_POLICY}"),
    (lambda: config("resnet20").replace(policy=[]), PolicyError,
     f"[] isn't a policy.\n{NO_POLICY}"),
    (lambda: create("resnet20+"), PolicyError,
     "'' isn't a policy.\nAt its end: expected the name of a gate.\n"
     "Type for example: se16@pre/s3-4+eca/s1-2"),
    (lambda: create("resnet20+se(reduction=4)@pre,post"), PolicyError,
     "'se(reduction=4)@pre,post' isn't a policy.\nAt ',post': a gate has one position.\n"
     "Type: se(reduction=4)@pre+se(reduction=4)@post"),
    (lambda: attach(any_(torch.nn.Linear(2, 2)), SE()), PolicyError, "attach got a Linear.\n"
     "None of its blocks is known. Known are those of many networks of torchvision, timm, "
     "pytorchcv, transformers and ultralytics.\nSay where gates can sit: attach(model, policy, "
     "sites=propose(model, example_input))"),
    (lambda: attach(any_("resnet50"), SE()), PolicyError,
     "attach got a str.\nIt takes a network, a torch.nn.Module.\n"
     'Type for example: attach(create("resnet50"), SE())'),
    (lambda: detach(any_(None)), PolicyError,
     "detach got a NoneType.\nIt takes a network, a torch.nn.Module.\n"
     'Type for example: detach(create("resnet50"))'),
    (lambda: attach(torch.nn.ReLU(), SE(), sites=any_(["conv1"])), PolicyError,
     "attach got sites=['conv1'].\nIt takes a SiteMap.\n"
     "Type for example: sites=propose(model, example_input)"),
    (lambda: attach(Backbone(create("resnet20", seed=0)), SE()), PolicyError,
     "attach got a Backbone.\nIt only shares modules with the network that it was made of.\n"
     "Attach the gates to that network first, then: Backbone(network)"),
    (lambda: propose(Backbone(create("resnet20", seed=0)), IMAGE), PolicyError,
     "propose got a Backbone.\nIt only shares modules with the network that it was made of.\n"
     "Attach the gates to that network first, then: Backbone(network)"),
    (lambda: propose(create("resnet20", seed=0), IMAGE), PolicyError,
     "propose got a ResNet of this zoo.\nNetworks of this zoo declare their own sites.\n"
     "Type attach(model, policy), without sites"),
    (lambda: propose(torch.nn.DataParallel(torch.nn.ReLU()), IMAGE), PolicyError,
     "propose got a DataParallel.\n"
     "It copies its network to several devices for each batch.\n"
     "Type propose(model.module, example_input), then create a new DataParallel"),
    (lambda: propose(any_("resnet20"), IMAGE), PolicyError,
     "propose got a str.\nIt takes a network, a torch.nn.Module.\n"
     "Type for example: propose(model, example_input)"),
    # Paths
    *((call, ConfigError,
       f"A path can't be {value!r}.\nIt is text or a pathlib.Path.\nType for example: \"runs\"")
      for call, value in (
          (lambda: save(create("lenet", seed=0), any_(None)), None),
          (lambda: save(create("lenet", seed=0), any_(b"net")), b"net"),
          (lambda: load("lenet", weights=any_(3)), 3),
          (lambda: export(create("lenet", seed=0), any_(None)), None),
          (lambda: finetune(any_(None)), None))),
    (lambda: push(create("lenet", seed=0), any_(None)), ConfigError,
     "'None' isn't the name of a repository on the Hugging Face Hub.\n"
     "It is owner/name, both made of letters, digits, and single ., - and _ between them.\n"
     "Type for example: hf-hub:owner/name, or hf-hub:owner/name@v1 for a revision"),
    # Use
    (lambda: transforms(any_(torch.nn.Linear(2, 2))), ConfigError,
     "transforms got a Linear.\nIt takes a network made by senetzoo.create.\n"
     'Type for example: transforms(create("resnet50"))'),
    (lambda: transforms(create("lenet", in_chans=4, seed=0)), ConfigError,
     "There are no transforms for images with 4 channels.\n"
     "Image files are read as gray (1 channel) or RGB (3 channels).\n"
     "Stack and normalize the channels yourself: the network takes (N, 4, H, W)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), CALLS)
def test_wrong_calls(
    shelf: Shelf, call: Callable[[], object], kind: type[SenetzooError], text: str
) -> None:
    shelf.entries["resnet20.pets_v1"] = RAW  # no file: no call gets as far as that
    shelf.write()
    assert message(lambda: call(), kind) == text
    assert len(text.splitlines()) <= 3


def test_weights_before_there_are_any(shelf: Shelf) -> None:
    assert message(lambda: create("resnet18", pretrained=True), ConfigError) == (
        "There are no pretrained weights of 'resnet18'.\n"
        "This version of senetzoo has none at all.\n"
        "Those with weights are listed by: senetzoo list --pretrained"
    )


USAGE = re.compile(r"\AUsage: .*\nTry '.* --help' for help\.\n\nError: ")

# Each exits with 2 and prints one of our messages to stderr, and nothing else.
COMMANDS: list[tuple[list[str], str]] = [
    (["list", "foo*"], "No network matches 'foo*'.\n* matches any characters.\n"
     "Type for example: senetzoo list '*resnet*'"),
    (["list", "lenet*", "--pretrained"], "No network matches 'lenet*' with these options.\n"
     "* matches any characters.\nType for example: senetzoo list '*resnet*'"),
    (["list", "--family", "vit"], f"There is no family 'vit'.\nFamilies are {TITLES}."),
    (["explain", "resnet2"], "There is no network 'resnet2'.\n"
     "The nearest names are resnet32, resnet26, resnet20.\n"
     "Type for example: resnet32"),
    (["explain", "lenet", "--policy", "se@post"], "se@post matches nothing in lenet.\n"
     "lenet has the positions pre, standard, not post.\nType for example: @pre"),
    (["weights", "verify", "resnet18"], NO_WEIGHTS),
    (["train", "digit"],
     "There is no recipe 'digit'.\nThe recipes are digits, cifar_small, cifar10_resnet, "
     "cifar10_four_nets, cifar10_stem, cifar10_at_224, cifar10_noisy_train, cifar10_depth, "
     "flowers_small, flowers_depth, flowers_key_drop, imagenet_rsb_a3, imagenet_se, "
     "ablation_positions, ablation_gates, ablation_reduction, ablation_stages, "
     "cifar100_attention.\nDid you mean 'digits'?"),
    (["train", "digits", "--set", "modle=lenet5"],
     "The recipe has no option 'modle'.\nDid you mean 'model'?"),
    (["train", "digits", "--set", "batch"], "--set got 'batch'.\nIt takes key=value.\n"
     "Type for example: --set batch=64"),
    (["train", "flowers_small", "--out", "nowhere"],
     "The recipe flowers_small trains on the five kinds of flowers.\nNo folder was given.\n"
     "Type --data FOLDER"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "message"), COMMANDS, ids=[" ".join(a) for a, _ in COMMANDS])
def test_wrong_commands(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    shelf.entries["resnet20.pets_v1"] = RAW  # no file: no call gets as far as that
    shelf.write()
    monkeypatch.chdir(shelf.folder)
    result = CliRunner().invoke(main, args)
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {message}\n"
    assert not (shelf.folder / "nowhere").exists()


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["Exprot"], "There is no command 'Exprot'. Did you mean 'export'?"),
        (
            ["zzz"],
            "There is no command 'zzz'. The commands are app, bench, compare, eval, explain, "
            "export, finetune, inspect, list, predict, push, report, train, weights.",
        ),
        (
            ["weights", "zzz"],
            "There is no command 'zzz'. The commands are convert, get, list, show, verify.",
        ),
        (["predict"], "Missing argument '[NETWORK] IMAGE...'."),
    ],
)
def test_wrong_usage(args: list[str], error: str) -> None:
    result = CliRunner().invoke(main, args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert USAGE.sub("", result.stderr) == f"{error}\n"
