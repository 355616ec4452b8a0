"""Policies: the laws of their algebra, their text form, and their errors."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.networks import message, on_meta, same, tiny
from torch import nn

from senetzoo import (
    BAM,
    CBAM,
    ECA,
    ESE,
    FCA,
    GC,
    GCT,
    GE,
    NONE,
    SCSE,
    SE,
    SRM,
    CoordinateAttention,
    NonLocal,
    Policy,
    SimAM,
    block,
    branch,
    stage,
)
from senetzoo.errors import PolicyError
from senetzoo.gates import GATES
from senetzoo.nn.slots import BRANCHES, POSITIONS, Position, Site
from senetzoo.policies.algebra import Gate, resolve
from senetzoo.policies.selectors import EVERYWHERE, Selector
from senetzoo.policies.text import MAX_NESTING, MAX_RULES, parse
from senetzoo.zoo import create

SITES = on_meta(lambda: tiny(depths=(2, 3, 1))).sites()
BRANCHED = tuple(dataclasses.replace(site, branch=name) for site in SITES for name in BRANCHES)
Meaning = dict[Site, Gate]

law = settings(deadline=None, max_examples=100)

ratios = st.one_of(
    st.integers(1, 64), st.lists(st.integers(1, 64), min_size=1, max_size=4).map(tuple)
)
inits = st.sampled_from(["paper", "identity"])
above_zero = st.floats(1e-30, 1e30)
biases = st.booleans()
one_of = st.sampled_from
# With all values of all fields, for the text form; the laws don't depend on the gate.
any_gate: st.SearchStrategy[Gate] = st.one_of(
    one_of([gate() for gate in GATES.values()]),
    st.builds(
        SE,
        reduction=ratios,
        width=st.one_of(one_of(["floor", "round8"]), st.integers(1, 99)),
        bias=biases,
        act=one_of(["relu", "silu"]),
        gate=one_of(["sigmoid", "hardsigmoid"]),
        scale=st.just(1.0),
        squeeze=one_of(["avg", "max"]),
        drop=st.floats(0, 1, exclude_max=True),
        init=inits,
    ),
    st.builds(SE, scale=above_zero),
    st.builds(ECA, one_of([0, 1, 3, 9]), st.floats(0.1, 1e30), st.floats(-1e30, 1e30), inits),
    st.builds(
        CBAM, ratios, one_of(["both", "channel", "spatial"]), one_of([1, 3, 7]), biases, inits
    ),
    st.builds(SCSE, ratios, one_of(["both", "cse", "sse"]), one_of(["sum", "max"]), biases, inits),
    st.builds(GE, extent=one_of([0, 2, 3, 5, 8])),
    st.builds(GE, one_of([2, 4, 8]), one_of(["theta", "theta-plus"]), ratios, init=inits),
    st.builds(GE, variant=one_of(["theta", "theta-plus"]), side=ratios, init=inits),
    st.builds(SRM, biases, inits),
    st.builds(GCT, one_of(["l2", "l1"]), above_zero, inits),
    st.builds(CoordinateAttention, ratios, biases, inits),
    st.builds(ESE, one_of(["sigmoid", "hardsigmoid"]), inits),
    st.builds(BAM, ratios, st.integers(1, 9), one_of(["sum", "product"])),
    st.builds(SimAM, above_zero),
    st.builds(GC, ratios, one_of(["add", "scale"]), inits),
    st.builds(FCA, ratios, st.integers(1, 16), inits),
    st.builds(NonLocal, ratios, one_of(["none", "sqrt"])),
)
gates: st.SearchStrategy[Gate] = one_of([SE(), SE(8), ECA(), GE(4, "theta")])
numbers = st.lists(st.sampled_from([1, 2, 3, 4, -1, -2, -3]), min_size=1, max_size=4)
selectors: st.SearchStrategy[Selector] = st.recursive(
    st.one_of(
        st.just(EVERYWHERE),
        numbers.map(lambda n: stage(*n)),
        numbers.map(lambda n: block(*n)),
        st.sampled_from(BRANCHES).map(branch),
    ),
    lambda inner: st.one_of(
        inner.map(lambda s: ~s),
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
    ),
    max_leaves=5,
)
positions: st.SearchStrategy[Position] = st.sampled_from(POSITIONS)


def rules_of(gates: st.SearchStrategy[Gate]) -> st.SearchStrategy[Policy]:
    return st.one_of(
        gates,
        st.just(NONE),
        st.builds(lambda g, p: g.at(p), gates, positions),
        st.builds(lambda g, p, s: g.at(p).on(s), gates, positions, selectors),
    )


def policies_of(gates: st.SearchStrategy[Gate]) -> st.SearchStrategy[Policy]:
    return st.recursive(
        rules_of(gates),
        lambda inner: st.one_of(
            st.builds(lambda p, q: p + q, inner, inner),
            st.builds(lambda p, q: p | q, inner, inner),
            st.builds(lambda p, s: p.on(s), inner, selectors),
            st.builds(lambda p, s: p.off(s), inner, selectors),
        ),
        max_leaves=5,
    )


rules, policies = rules_of(gates), policies_of(gates)


def meaning(policy: Policy) -> Meaning | None:
    """What a policy resolves to; None if ``+`` puts two gates at one site."""
    try:
        return policy.resolve(SITES)
    except PolicyError as error:
        if "puts two gates at" not in str(error):
            raise
        return None


def sound(policy: Policy) -> Meaning:
    """What a policy resolves to, for laws about those that resolve."""
    found = meaning(policy)
    assume(found is not None)
    assert found is not None
    return found


def only(found: Meaning, selector: Selector) -> Meaning:
    return {site: gate for site, gate in found.items() if selector.matches(site)}


# --- The algebra ---------------------------------------------------------------------------------


@law
@given(policies, policies)
def test_sum_is_the_disjoint_union(p: Policy, q: Policy) -> None:
    assert NONE.resolve(SITES) == {}
    left, right = sound(p), sound(q)
    assert meaning(p + q) == (None if left.keys() & right.keys() else {**left, **right})


@law
@given(rules, rules, rules)
def test_sum_associates(p: Policy, q: Policy, r: Policy) -> None:
    assert meaning((p + q) + r) == meaning(p + (q + r))


@law
@given(policies, policies)
def test_override_is_the_union_in_which_the_right_wins(p: Policy, q: Policy) -> None:
    assert meaning(p | q) == {**sound(p), **sound(q)}


@law
@given(policies, policies, selectors)
def test_on_distributes(p: Policy, q: Policy, s: Selector) -> None:
    assert meaning((p | q).on(s)) == meaning(p.on(s) | q.on(s))
    assert meaning((p + q).on(s)) == meaning(p.on(s) + q.on(s))


@law
@given(policies, selectors, selectors)
def test_on_and_off_restrict(p: Policy, s: Selector, t: Selector) -> None:
    whole = sound(p)
    assert meaning(p.on(s)) == only(whole, s)
    assert meaning(p.off(s)) == {site: g for site, g in whole.items() if not s.matches(site)}
    assert meaning(p.on(s).on(t)) == meaning(p.on(s & t)) == meaning(p.on(t).on(s))
    assert meaning(p.on(s) + p.off(s)) == whole


@law
@given(gates, selectors, positions, positions)
def test_at_moves(gate: Gate, s: Selector, first: Position, then: Position) -> None:
    expected = {site: gate for site in SITES if site.position == then and s.matches(site)}
    assert meaning(gate.at(first).on(s).at(then)) == expected
    assert meaning(gate.on(s).at(then)) == expected


@law
@given(selectors, selectors)
def test_selectors_are_sets(s: Selector, t: Selector) -> None:
    for site in (*SITES, *BRANCHED):
        one, other = s.matches(site), t.matches(site)
        assert (s & t).matches(site) == (one and other)
        assert (s | t).matches(site) == (one or other)
        assert (~s).matches(site) == (not one)


def test_numbers_count_from_either_end() -> None:
    def blocks(selector: Selector) -> set[tuple[int, int]]:
        return {(s.stage, s.block) for s in SITES if selector.matches(s)}

    everything = {(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1)}
    assert blocks(EVERYWHERE) == everything
    assert blocks(stage(1, 3)) == {(1, 1), (1, 2), (3, 1)}
    assert blocks(stage(-1)) == {(3, 1)}
    assert blocks(block(-1)) == {(1, 2), (2, 3), (3, 1)}
    assert blocks(block(2)) == {(1, 2), (2, 2)}
    assert blocks(block(1, -1) & ~stage(2)) == {(1, 1), (1, 2), (3, 1)}
    assert blocks(stage(9)) == set()


def test_branches_are_told_apart_by_name() -> None:
    attention = SE().on(branch("attn")).resolve(BRANCHED)
    assert {site.branch for site in attention} == {"attn"}
    assert 2 * len(attention) == len(SE().resolve(BRANCHED))
    assert SE().off(branch("mlp")).resolve(BRANCHED) == attention
    assert SE().on(branch("attn")).resolve(SITES) == {}


# --- The text form -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=250)
@given(policies_of(any_gate))
def test_text_round_trip(p: Policy) -> None:
    again = parse(str(p), GATES)
    # The same tree of rules, so also the same meaning and the same text.
    assert again.as_tree() == p.as_tree()
    assert hash(again.as_tree()) == hash(p.as_tree())
    assert meaning(again) == meaning(p)
    assert str(again) == str(p)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("se", SE()),
        ("se16", SE()),
        ("se8", SE(8)),
        (" se8 @ pre / s3-4 ", SE(8).at("pre").on(stage(3, 4))),
        ("se8@pre/s3-4+eca/s1-2", SE(8).at("pre").on(stage(3, 4)) + ECA().on(stage(1, 2))),
        ("se|eca/s-1", SE() | ECA().on(stage(-1))),
        ("se+eca@pre|none", SE() + ECA().at("pre") | NONE),
        ("se@pre|(eca|se8)", SE().at("pre") | (ECA() | SE(8))),
        ("(se|eca/b1)/s1", (SE() | ECA().on(block(1))).on(stage(1))),
        ("se/~s1&b1,-1", SE().on(~stage(1) & block(1, -1))),
        ("se/(s1&b1|s2)", SE().on((stage(1) & block(1)) | stage(2))),
        ("se/~~s1", SE().on(stage(1))),
        ("se/*", SE()),
        ("se4(bias=false,act=silu)", SE(4, bias=False, act="silu")),
        ("se(reduction=4:8:16:16)", SE((4, 8, 16, 16))),
        ("se(reduction=4:)", SE((4,))),
        ("se(width=round8,drop=1e-1)", SE(width="round8", drop=0.1)),
        ("se(width=32)", SE(width=32)),
        ("se(init=identity)", SE(init="identity", scale=2.0)),
        ("eca5@inner", ECA(5).at("inner")),
        ("eca(gamma=1.5,beta=-2)", ECA(gamma=1.5, beta=-2)),
        ("cbam8(part=channel)@post", CBAM(8, part="channel").at("post")),
        ("scse(reduction=2:4:8:16,combine=max)", SCSE((2, 4, 8, 16), combine="max")),
        ("ge8(variant=theta-plus,init=identity)", GE(8, "theta-plus", init="identity")),
        ("ge(variant=theta,side=56:28:14:7)", GE(variant="theta", side=(56, 28, 14, 7))),
        (
            "coord16/s1+bam4(combine=product)/s2",
            CoordinateAttention(16).on(stage(1)) + BAM(4, combine="product").on(stage(2)),
        ),
        ("srm(unbiased=true)", SRM(unbiased=True)),
        ("gct(norm=l1)|ese(gate=sigmoid)", GCT("l1") | ESE("sigmoid")),
        ("simam(eps=1e-3)", SimAM(1e-3)),
        ("none", NONE),
        ("none+none", NONE),
        ("se/attn", SE().on(branch("attn"))),
        (
            "se@pre/s1&mlp+eca/( mlp | b2 )",
            SE().at("pre").on(stage(1) & branch("mlp")) + ECA().on(branch("mlp") | block(2)),
        ),
    ],
)
def test_texts_by_hand(text: str, value: Policy) -> None:
    assert parse(text, GATES).as_tree() == value.as_tree()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (SE(), "se"),
        (SE(8).at("pre").on(stage(4, 3)), "se8@pre/s3-4"),
        (SE(init="identity"), "se(init=identity)"),
        (SE((4, 8)), "se(reduction=4:8)"),
        (SE((4,)), "se(reduction=4:)"),
        (SE(scale=1e20), "se(scale=1e+20)"),
        (SE() + (ECA() + SE()), "se+eca+se"),
        ((SE() | ECA()) + NONE, "se|eca"),
        ((SE() | ECA()) + GE(), "(se|eca)+ge"),
        (SE() | ECA() + GE(), "se|eca+ge"),
        (SE().on(stage(1) | (stage(2) | block(1))), "se/(s1|s2|b1)"),
        (SE().on(branch("attn") & stage(1)), "se/attn&s1"),
        (SE().off(branch("mlp")), "se/~mlp"),
        (SE().on(stage(1, 2, 4, -1)), "se/s1-2,4,-1"),
        (SE().off(stage(1) | block(2)), "se/~(s1|b2)"),
        (SE().off(stage(1) & block(2)), "se/~(s1&b2)"),
    ],
)
def test_texts_of_values(value: Policy, text: str) -> None:
    assert str(value) == text


OWN = "For your own gate: senetzoo.register, or --register MODULE:NAME"
HELP = "Type for example: se16@pre/s3-4+eca/s1-2"
SELECT = "Type for example: se16/s3-4"
POSITION = "expected a position: pre, standard, post, identity, inner."
BLOCKS = "expected s for stages, b for blocks, or a branch: attn, mlp."
NAMES = ", ".join(GATES)
SE_FIELDS = "reduction, width, bias, act, gate, scale, squeeze, drop, init"


def test_and_and_or_are_errors() -> None:
    """Python would take one side of them, without a word."""
    for asked in (
        lambda: stage(1) or block(-1),
        lambda: stage(1) and block(-1),
        lambda: not SE(),
        lambda: SE() or ECA(),
        lambda: NONE or SE(),
    ):
        said = message(asked, PolicyError)
        assert "is neither true nor false.\nPython's and, or and not" in said
        assert "& | ~ for selectors and + | for policies" in said


def test_a_gate_needs_a_name() -> None:
    @dataclasses.dataclass(frozen=True)
    class MyGate(Gate):
        def build(self, site: Site) -> nn.Module:
            return nn.Identity()

    assert message(MyGate, PolicyError) == (
        "The gate MyGate has no name.\nIts name stands for it in the text of a policy.\n"
        'Write in its class: name: ClassVar[str] = "my_gate"'
    )


@pytest.mark.parametrize(
    ("text", "true", "remedy"),
    [
        ("", "At its end: expected the name of a gate.", HELP),
        ("  ", "At its end: expected the name of a gate.", HELP),
        ("SE", "At 'SE': expected the name of a gate.", HELP),
        ("see", "At 'see': 'see' isn't a gate.", f"Did you mean 'se'? {OWN}"),
        ("se+foo8", f"At 'foo8': 'foo' isn't one of the gates {NAMES}.", OWN),
        (
            "se|my.gates:Mine@pre",
            "At 'my.gates:Mine@pre': a text names gates, and imports no classes.",
            "Type --register my.gates:Mine, or senetzoo.register, and in the policy the name",
        ),
        ("se(widht=8)", f"At 'widht=8)': se has the fields {SE_FIELDS}.", "Did you mean 'width'?"),
        ("eca(zzz=1)", "At 'zzz=1)': eca has the fields kernel, gamma, beta, init.", HELP),
        ("se@pree", f"At 'pree': {POSITION}", "Did you mean 'pre'?"),
        ("se@", f"At its end: {POSITION}", HELP),
        ("se/sx", "At 'x': expected a number.", SELECT),
        ("se/s1,", "At its end: expected a number.", SELECT),
        ("se/s99999999999", "At '99999999999': expected a number.", SELECT),
        ("se/s4-3", "At '4-3': the range 4-3 runs backwards.", HELP),
        ("se/s1-999999999", "At '1-999999999': the range 1-999999999 has over 1000 numbers.", HELP),
        ("se/s-3-1", "At '-1': expected + or | or the end.", HELP),
        ("se/x", f"At 'x': {BLOCKS}", SELECT),
        ("se/attn2", f"At 'attn2': {BLOCKS}", SELECT),
        ("se/", f"At its end: {BLOCKS}", SELECT),
        ("se/(s1|b2", "At its end: expected ).", HELP),
        ("(se+eca", "At its end: expected ).", HELP),
        ("se(bias=false", "At its end: expected , or ).", HELP),
        ("se(", "At its end: expected field=value.", HELP),
        ("se(bias)", "At 'bias)': expected field=value.", HELP),
        ("se8(reduction=4)", "At 'reduction=4)': reduction is given twice.", HELP),
        ("se(bias=true,bias=false)", "At 'bias=false)': bias is given twice.", HELP),
        (
            "se+foo(width=round8,bias=false)@pre/s1-2",
            f"At 'foo(width=round8,bias=false)@pre/s1-2': 'foo' isn't one of the gates {NAMES}.",
            OWN,
        ),
        ("se)", "At ')': expected + or | or the end.", HELP),
        ("se eca", "At 'eca': expected + or | or the end.", HELP),
        ("se++eca", "At '+eca': expected the name of a gate.", HELP),
        ("none@pre", "At '@pre': expected + or | or the end.", HELP),
        ("se+gct8", "At '8': gct takes no number.", "Type for example: gct(norm=l2)"),
        ("simam(widht=8)", "At 'widht=8)': simam has the fields eps.", HELP),
    ],
)
def test_wrong_texts(text: str, true: str, remedy: str) -> None:
    assert (
        message(lambda: parse(text, GATES), PolicyError)
        == f"{text!r} isn't a policy.\n{true}\n{remedy}"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("se0", "SE got reduction=0.\n"
         "reduction is a whole number of at least 1 or a tuple of one or more whole "
         "numbers of at least 1.\nType for example: reduction=16"),
        ("se(bias=0)", "SE got bias=0.\nbias is True or False.\nType for example: bias=True"),
        ("se(scale=nan)",
         "SE got scale=nan.\nscale is a number above 0.\nType for example: scale=1.0"),
        ("eca(gamma=wide)",
         "ECA got gamma='wide'.\ngamma is a number above 0.\nType for example: gamma=2.0"),
    ],
)  # fmt: skip
def test_wrong_values_in_text(text: str, said: str) -> None:
    assert message(lambda: parse(text, GATES), PolicyError) == said


def test_texts_too_deep_or_too_long() -> None:
    deep = "(" * MAX_NESTING + "se" + ")" * MAX_NESTING
    assert parse(deep, GATES) == SE()
    for text in (f"({deep})", "(" * 100_000, "se/" + "(" * 100_000):
        with pytest.raises(PolicyError, match=f": more than {MAX_NESTING} parentheses are open\\."):
            parse(text, GATES)
    assert parse("se/" + "~" * 100_001 + "s1", GATES).as_tree() == SE().off(stage(1))
    long = "|".join(["se"] * MAX_RULES)
    assert meaning(parse(long, GATES)) == meaning(SE())
    assert str(parse(long, GATES)) == long
    with pytest.raises(PolicyError, match=f": it has more than {MAX_RULES} gates\\."):
        parse(f"{long}|se", GATES)
    with pytest.raises(PolicyError):
        parse("se" + "9" * 10_000, GATES)
    said = message(lambda: parse("(" * 100_000, GATES), PolicyError)
    cut = f"'{'(' * 76}..."
    assert said.startswith(f"{cut} isn't a policy.\nAt {cut}: more than")


# --- Wrong policies ------------------------------------------------------------------------------

NO_SELECTOR = (
    "Select blocks with stage(...), block(...) and branch(...), combined by & | ~.\n"
    "Type for example: SE().on(stage(3, 4) & block(-1))"
)
NO_POSITION = (
    "isn't a position in a block.\nPositions are 'pre', 'standard', 'post', 'identity', 'inner'."
)
STAGE = (
    "A stage is a whole number: 1 is the first, -1 the last.\n"
    "Type for example: stage(1, 2) or stage(-1)"
)


WRONG: list[tuple[Callable[..., object], object, str]] = [
    (SE().at, "foo", f"position='foo' {NO_POSITION}"),
    (SE().at, "Inner", f"position='Inner' {NO_POSITION}\nDid you mean 'inner'?"),
    (partial(SE().at, "pre"), "post", ".at('pre', 'post') needs one position.\n"
     "Gates at several positions are policies joined by +.\n"
     'Type for example: SE().at("pre") + SE().at("post")'),
    (SE().at, ["pre", "post"], ".at(['pre', 'post']) needs one position.\n"
     "Gates at several positions are policies joined by +.\n"
     'Type for example: SE().at("pre") + SE().at("post")'),
    (SE().on, "s3", f"'s3' isn't a selector.\n{NO_SELECTOR}"),
    (partial(SE().on, stage(1)), stage(2), f"Got several selectors.\n{NO_SELECTOR}"),
    ((SE() + ECA().at("pre")).off, 3, f"3 isn't a selector.\n{NO_SELECTOR}"),
    (stage, 0, f"stage(0) selects nothing.\n{STAGE}"),
    (stage, True, f"stage(True) selects nothing.\n{STAGE}"),
    (stage, "3", f"stage('3') selects nothing.\n{STAGE}"),
    (partial(stage, 1), 0, f"stage(1, 0) selects nothing.\n{STAGE}"),
    (lambda _: stage(), None, f"stage() selects nothing.\n{STAGE}"),
    (block, 1.0, f"block(1.0) selects nothing.\n{STAGE.replace('stage', 'block')}"),
    (branch, "atn",
     "branch('atn') selects nothing.\nBranches are 'attn', 'mlp'.\nDid you mean 'attn'?"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "value", "text"), WRONG)
def test_wrong_calls(call: Callable[[object], object], value: object, text: str) -> None:
    assert message(lambda: call(value), PolicyError) == text


@pytest.mark.parametrize(
    ("name", "policy", "message"),
    [
        ("resnet18", SE() + ECA().at("pre").on(stage(9)),
         "eca@pre/s9 selects stage 9 of resnet18.\nresnet18 has 4 stages of 2, 2, 2, 2 blocks.\n"
         "Select a stage from 1 to 4, or stage(-1) for the last"),
        ("resnet20", SE().at("pre").on(stage(*range(1, 10))),
         "se@pre/s1-9 selects stage 4-9 of resnet20.\nresnet20 has 3 stages of 3, 3, 3 blocks.\n"
         "Select a stage from 1 to 3, or stage(-1) for the last"),
        ("resnet50", SE().off(stage(1) & block(3, 6, 7, -8)),
         "se/~(s1&b3,6-7,-8) selects block 7, -8 of resnet50.\n"
         "resnet50 has 4 stages of 3, 4, 6, 3 blocks.\n"
         "Select a block from 1 to 6, or block(-1) for the last"),
        ("resnet50", SE().on(stage(1) & block(6)), "se/s1&b6 matches nothing in resnet50.\n"
         "resnet50 has 4 stages of 3, 4, 6, 3 blocks.\nSelect other blocks"),
        ("resnet20", SE().on(branch("attn") & stage(2)), "se/attn&s2 matches nothing in resnet20.\n"
         "The blocks of resnet20 have only one branch, without a name.\nLeave out the branch"),
        ("swin_t", SE().at("inner").on(branch("mlp")), "se@inner/mlp matches nothing in swin_t.\n"
         "In swin_t, the position inner is in the branch attn only."),
        ("lenet", SE().at("inner"), "se@inner matches nothing in lenet.\n"
         "lenet has the positions pre, standard, not inner.\nType for example: @pre"),
        ("resnet18", SE().on(stage(1, 2)) + ECA().on(stage(2, 3)),
         "se/s1-2+eca/s2-3 puts two gates at 2 sites.\n"
         "The standard position of stage 2 block 1 would get both se and eca.\n"
         "Select different blocks, or type | instead of + to let the right side win"),
        ("resnet18", SE() + ECA().on(stage(4) & block(-1)),
         "se+eca/s4&b-1 puts two gates at 1 site.\n"
         "The standard position of stage 4 block 2 would get both se and eca.\n"
         "Select different blocks, or type | instead of + to let the right side win"),
        ("resnet20", SE((4, 8, 16, 16)), "SE got 4 reductions, (4, 8, 16, 16).\n"
         "The network has 3 stages.\nGive one reduction per stage, or one for all"),
    ],
)  # fmt: skip
def test_policies_that_do_not_fit(name: str, policy: Policy, message: str) -> None:
    with torch.device("meta"), pytest.raises(PolicyError) as caught:
        create(name, policy=policy, seed=0)
    assert str(caught.value) == message


def test_a_rule_that_is_overridden_everywhere_still_matches() -> None:
    assert resolve(SE() | ECA(), SITES, "it") == meaning(ECA())


@pytest.mark.parametrize("join", [operator.add, operator.or_])
@pytest.mark.parametrize(
    ("other", "remedy"),
    [
        ("eca@pre", "Type senetzoo.policy('eca@pre')"),
        (ECA, "Type ECA()"),
        *((other, "Type for example: SE().at(") for other in (None, 0, [ECA()], stage(1))),
    ],
)
def test_joining_a_policy_with_something_else(
    join: Callable[[object, object], object], other: object, remedy: str
) -> None:
    pairs: list[tuple[object, object]] = [(SE(), other)]
    if not isinstance(other, Selector):  # its own error for |
        pairs.append((other, SE()))
    for pair in pairs:
        said = message(partial(join, *pair), PolicyError)
        assert said.startswith(f"{other!r} isn't a policy.\n")
        assert f"\n{remedy}" in said


@pytest.mark.parametrize("join", [operator.and_, operator.or_])
@pytest.mark.parametrize("other", ["s2", 2, None, ECA()])
def test_joining_a_selector_with_something_else(
    join: Callable[[object, object], object], other: object
) -> None:
    said = f"{other!r} isn't a selector.\n{NO_SELECTOR}"
    assert message(partial(join, stage(1), other), PolicyError) == said
    if not isinstance(other, Policy):  # its own error for |
        assert message(partial(join, other, stage(1)), PolicyError) == said


# --- Object, text and name -----------------------------------------------------------------------


def test_object_and_text_build_the_same_network() -> None:
    by_value = create("resnet20", policy=SE(reduction=8).at("pre").on(stage(2, 3)), seed=3)
    by_text = create("resnet20+se8@pre/s2-3", seed=3)
    assert same(by_value, by_text)
    gates = [name for name in by_text.state_dict() if name.endswith("fc1.weight")]
    blocks = [f"layer{stage}.{n}" for stage in (2, 3) for n in range(3)]
    assert gates == [f"{name}.slots.pre.fc1.weight" for name in blocks]
    assert by_text.get_submodule("layer3.0.slots.pre.fc1").out_features == 32 // 8
    trunk = create("resnet20", seed=3).state_dict()
    state = by_value.state_dict()
    assert all(torch.equal(state[name], value) for name, value in trunk.items())


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", [pytest.param("resnet18", marks=pytest.mark.slow), "resnet20"])
def test_every_position_keeps_the_trunk(name: str, position: Position) -> None:
    model = create(name, policy=SE().at(position), seed=7)
    assert same(model, create(f"{name}+se@{position}", seed=7))
    trunk, state = create(name, seed=7).state_dict(), model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in trunk.items())
    blocks = sum(len(blocks) for blocks in model.stages())
    assert len(set(state) - set(trunk)) == 4 * blocks
    # Another seed changes trunk and gates; another policy doesn't change gates at the same sites.
    other = create(name, policy=SE().at(position), seed=8).state_dict()
    weights = [key for key, value in state.items() if value.ndim > 1]
    assert not any(torch.equal(state[key], other[key]) for key in weights)
    partly = create(name, policy=SE().at(position).on(stage(-1)), seed=7).state_dict()
    assert len(set(partly) - set(trunk)) > 0
    assert all(torch.equal(state[key], value) for key, value in partly.items())
