"""Schedules against curves of PyTorch, Keras and Optax; their promises as properties; what a fit makes of them."""

import copy
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish.schedules import (
    Constant,
    CosineAnnealing,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    Lambda,
    Linear,
    MultiStep,
    Noam,
    OneCycle,
    Polynomial,
    StepDecay,
    WarmupStableDecay,
    join,
    warmup,
)

CURVES = {
    name: curve["lr"]
    for name, curve in json.loads((Path(__file__).parent / "golden" / "schedules.json").read_text()).items()
}
EXACT = 1e-12
SINGLE = 2e-7  # Keras computes cosines in float32, of which 1.2e-7 is the spacing at 1


class Case(NamedTuple):
    """A schedule of ours and the curve that it has to follow."""

    name: str
    schedule: bn.schedules.Schedule
    values: list
    tolerance: float


def closed(name, schedule, formula, n=60):
    """Compare with a formula in plain Python, where there is no golden curve."""
    return Case(name, schedule, [formula(t) for t in range(n)], EXACT)


def stable_then_sqrt(t):
    if t < 5:
        return 0.1 * (t + 1) / 5
    return 0.1 if t < 25 else 0.01 + 0.09 * (1 - math.sqrt(min((t - 25) / 10, 1)))


def case(name, schedule, tolerance=EXACT, first=None):
    """Compare with the first values of a golden curve, all by default."""
    return Case(name, schedule, CURVES[name][:first], tolerance)


CASES = [
    case("torch:OneCycleLR(max_lr=1,total_steps=10)", OneCycle(1, 10)),
    case("torch:OneCycleLR(max_lr=1,total_steps=10,three_phase)", OneCycle(1, 10, three_phase=True)),
    case("torch:OneCycleLR(max_lr=1,total_steps=10,linear)", OneCycle(1, 10, anneal="linear")),
    case("torch:OneCycleLR(max_lr=1,total_steps=100)", OneCycle(1, 100)),
    # up to T_max, where PyTorch rises again and we hold
    case("torch:CosineAnnealingLR(T_max=4,eta_min=.1)", CosineAnnealing(1, 4, 0.1), first=5),
    case("torch:CosineAnnealingWarmRestarts(T_0=2,T_mult=2,eta_min=.1)", CosineRestarts(1, 2, 2, 0.1)),
    case("torch:StepLR(3,.5)", StepDecay(1, 3, 0.5)),
    case("torch:MultiStepLR([2,2,5],.1)", MultiStep(1, [2, 2, 5], 0.1)),
    case("torch:ExponentialLR(.9)", Exponential(1, 0.9)),
    case("torch:LinearLR(1/3,1,4)", Linear(1 / 3, 1, 4)),
    case("torch:ConstantLR(.5,3)", join([0.5, 1], [3])),
    case("torch:PolynomialLR(4,2)", Polynomial(1, 4, 2)),
    case("torch:CyclicLR(.1,1,up=2,triangular,gamma=.9)", Cyclic(0.1, 1, 2, gamma=0.9)),
    case("torch:CyclicLR(.1,1,up=2,triangular2,gamma=.9)", Cyclic(0.1, 1, 2, mode="triangular2", gamma=0.9)),
    case("torch:CyclicLR(.1,1,up=2,exp_range,gamma=.9)", Cyclic(0.1, 1, 2, mode="exp_range", gamma=0.9)),
    case(
        "torch:SequentialLR(LinearLR(.25,1,4),CosineAnnealingLR(4),[4])",
        join([Linear(0.25, 1, 4), CosineAnnealing(1, 4)], [4]),
    ),
    case(
        "torch:ChainedScheduler(ConstantLR(.1,2),ExponentialLR(.9))",
        join([Exponential(0.1, 0.9), Exponential(0.81, 0.9)], [2]),
    ),
    case("keras:CosineDecay(1,4,alpha=.1)", CosineAnnealing(1, 4, 0.1), SINGLE),
    case(
        "keras:CosineDecay(0,4,warmup_target=1,warmup_steps=3)",
        join([Linear(0, 1, 3), CosineAnnealing(1, 4)], [3]),
        SINGLE,
    ),
    case(
        "keras:CosineDecayRestarts(1,2,t_mul=2,m_mul=.5,alpha=.1)",
        join(
            [CosineAnnealing(0.1 + 0.9 * 0.5**cycle, 2 ** (cycle + 1), 0.1) for cycle in range(4)],
            [2, 6, 14],
        ),
        SINGLE,
    ),
    case("keras:ExponentialDecay(1,3,.5)", Exponential(1, 0.5 ** (1 / 3))),
    case("keras:ExponentialDecay(1,3,.5,staircase)", StepDecay(1, 3, 0.5)),
    case("keras:InverseTimeDecay(1,2,.5)", Lambda(lambda t: 1 / (1 + 0.5 * t / 2))),
    case("keras:InverseTimeDecay(1,2,.5,staircase)", Lambda(lambda t: 1 / (1 + 0.5 * (t // 2)))),
    # Keras switches one update after the boundary
    case("keras:PiecewiseConstantDecay([2,4],[1,.5,.1])", join([1, 0.5, 0.1], [3, 5])),
    case("keras:PolynomialDecay(1,4,.1,2)", Polynomial(1, 4, 2, 0.1)),
    case(
        "keras:PolynomialDecay(1,4,.1,1,cycle)",
        join([Linear(1, 0.1, 4), Linear(0.4375, 0.1, 3), Linear(0.325, 0.1, 3)], [5, 9]),
    ),
    # Optax's rise ends at pct_start · steps and its fall at steps, ours one earlier
    case("optax:cosine_onecycle(10,1)", OneCycle(1, 11, pct_start=4 / 11)),
    case(
        "optax:linear_onecycle(10,1)",
        join([Linear(0.04, 1, 3), Linear(1, 0.04, 5), Linear(0.04, 0.04 / 1e4, 2)], [3, 8]),
    ),
    case("optax:warmup_cosine(0,1,3,7)", join([Linear(0, 1, 3), CosineAnnealing(1, 4)], [3])),
    case("optax:exponential_decay(1,3,.5)", Exponential(1, 0.5 ** (1 / 3))),
    case("optax:piecewise_constant(1,{2:.5,4:.2})", join([1, 0.5, 0.1], [2, 4])),
    case("optax:polynomial(1,.1,2,4)", Polynomial(1, 4, 2, 0.1)),
    closed("formula:Constant(.1)", Constant(0.1), lambda t: 0.1),
    closed("formula:Noam(64,10)", Noam(64, 10), lambda t: 64**-0.5 * min((t + 1) ** -0.5, (t + 1) * 10**-1.5)),
    closed(
        "formula:InverseSqrt(.1,10)",
        InverseSqrt(0.1, 10),
        lambda t: 0.1 * (t + 1) / 10 if t < 10 else 0.1 * math.sqrt(10 / (t + 1)),
    ),
    closed(
        "formula:WarmupStableDecay(.1,5,20,10,.01,sqrt)",
        WarmupStableDecay(0.1, 5, 20, 10, 0.01, anneal="sqrt"),
        stable_then_sqrt,
    ),
    closed(
        "formula:warmup(8,Exponential(.1,.9))",
        warmup(8, then=Exponential(0.1, 0.9)),
        lambda t: 0.1 * (t + 1) / 8 if t < 8 else 0.1 * 0.9 ** (t - 8),
    ),
]

# One of each, with every unit that can be said; functions apart.
EVERY = [
    Constant(0.1),
    StepDecay(0.1, 7),
    MultiStep(0.1, [3, 9, 9]),
    Exponential(0.1, 0.97),
    Polynomial(0.1, 40, 0.9, 0.01),
    Linear(0.01, 0.1, 33),
    CosineAnnealing(0.1, 50, 0.001),
    CosineRestarts(0.1, 3, 2, 0.001),
    CosineRestarts(0.1, 5),
    OneCycle(0.1, 60),
    OneCycle(0.1, 60, three_phase=True, anneal="linear"),
    Cyclic(0.01, 0.1, 3, 5, "triangular2"),
    Cyclic(0.01, 0.1, 4, mode="exp_range", gamma=0.99),
    Noam(64, 10),
    InverseSqrt(0.1, 10),
    WarmupStableDecay(0.1, 5, 20, 10, 0.01),
    WarmupStableDecay(0.1, 0, 0, 10, anneal="cosine"),
    WarmupStableDecay(0.1, 3, 4, 10, anneal="sqrt"),
    warmup(6, then=CosineAnnealing(0.1, 30)),
    join([0.1, warmup(2, then=0.2), Exponential(0.1, 0.9)], [4, 12]),
    0.5 * CosineAnnealing(0.1, 20),
]
several = settings(max_examples=40)
names = pytest.mark.parametrize("schedule", EVERY, ids=repr)


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_curve(row):
    np.testing.assert_allclose(row.schedule.values(len(row.values)), row.values, rtol=0, atol=row.tolerance)


def test_every_golden_curve_is_followed():
    assert {row.name for row in CASES if not row.name.startswith("formula:")} == set(CURVES)


def test_every_schedule_is_put_to_the_properties():
    made = {type(schedule).__name__ for schedule in EVERY} - {"Warmup", "Join", "Scaled"}
    others = {"Lambda", "Schedule", "from_config", "join", "warmup", "warmup_steps"}
    assert made | others == set(bn.schedules.__all__)


def test_the_table_is_printed():
    script = Path(__file__).parent / "parity.py"
    done = subprocess.run([sys.executable, script], capture_output=True, encoding="utf-8", check=True, timeout=60)
    assert all(f"| {row.name} |" in done.stdout for row in CASES)


@names
@several
@given(indices=st.lists(st.integers(0, 10_000), max_size=20), shape=st.sampled_from([(-1,), (-1, 1), (1, -1, 1)]))
def test_scalar_and_array_agree_to_the_bit(schedule, indices, shape):
    many = schedule(np.array(indices, dtype=np.int32).reshape(shape) if indices else indices)
    assert many.dtype == np.float64
    one_by_one = [schedule(index) for index in indices]
    assert all(type(rate) is float for rate in one_by_one)
    np.testing.assert_array_equal(many.ravel(), one_by_one)
    assert indices == [] or many.shape == np.zeros(len(indices)).reshape(shape).shape


@names
def test_curves_are_finite_not_negative_and_resume_anywhere(schedule):
    curve = schedule.values(200)
    assert np.isfinite(curve).all()
    assert (curve >= 0).all()
    for start in (1, 13, 199):
        np.testing.assert_array_equal(schedule(np.arange(start, 200)), curve[start:])
    far = schedule(np.array([10**6, 10**9, 2**53]))
    assert np.isfinite(far).all()
    assert (far >= 0).all()


@names
def test_copies_are_equal_and_cannot_be_changed(schedule):
    rebuilt = bn.schedules.from_config(json.loads(json.dumps(schedule.config())))
    for twin in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), rebuilt):
        assert twin == schedule
        assert hash(twin) == hash(schedule)
        assert repr(twin) == repr(schedule)
        np.testing.assert_array_equal(twin.values(70), schedule.values(70))
    assert schedule != 2 * schedule
    assert schedule != 0.1
    with pytest.raises(AttributeError, match="cannot be changed"):
        schedule.unit = "epoch"
    with pytest.raises(AttributeError, match="cannot be changed"):
        del schedule.unit


@names
def test_repr_makes_it_again(schedule):
    assert eval(repr(schedule), vars(bn.schedules).copy()) == schedule


@names
def test_epochs_are_floors(schedule):
    if type(schedule).__name__ in {"Warmup", "Join", "Scaled"}:
        return
    config = {**schedule.config(), "unit": "epoch"}
    epochs = bn.schedules.from_config(config)
    np.testing.assert_array_equal(epochs.values(50), schedule.values(50))
    updates = np.arange(350)
    np.testing.assert_array_equal(epochs(updates, updates_per_epoch=7), schedule(updates // 7))
    np.testing.assert_array_equal(schedule(updates, updates_per_epoch=7), schedule(updates))
    assert "unit='epoch'" in repr(epochs)
    assert epochs != schedule


@several
@given(steps=st.integers(1, 50), then=st.sampled_from(EVERY), index=st.integers(0, 200))
def test_warmup_rises_to_the_start_and_follows(steps, then, index):
    schedule = warmup(steps, then=then)
    if then(0) > 0:
        assert schedule(0) > 0
    assert schedule(steps - 1) == then(0)
    assert schedule(steps + index) == then(index)
    rising = schedule.values(steps)
    np.testing.assert_allclose(rising, then(0) * np.arange(1, steps + 1) / steps, rtol=1e-15)


@several
@given(
    parts=st.lists(st.sampled_from(EVERY), min_size=2, max_size=4),
    lengths=st.lists(st.integers(1, 30), min_size=3, max_size=3),
)
def test_join_switches_at_the_boundaries(parts, lengths):
    boundaries = np.cumsum(lengths[: len(parts) - 1]).tolist()
    schedule = join(parts, boundaries)
    expected = [part.values(length) for part, length in zip(parts, lengths, strict=False)][: len(parts) - 1]
    expected.append(parts[-1].values(20))
    np.testing.assert_array_equal(schedule.values(boundaries[-1] + 20), np.concatenate(expected))


@several
@given(first=st.integers(1, 6), mult=st.integers(1, 4), index=st.integers(0, 3000))
def test_restarts_by_counting(first, mult, index):
    place, length = index, first
    while place >= length:
        place, length = place - length, length * mult
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * place / length)) / 2
    assert CosineRestarts(1, first, mult, 0.1)(index) == pytest.approx(expected, abs=1e-14)


@several
@given(
    steps=st.integers(1, 60),
    pct=st.floats(0.01, 0.99),
    anneal=st.sampled_from(["cosine", "linear"]),
    three=st.booleans(),
)
def test_one_cycle_ends_where_it_should(steps, pct, anneal, three):
    if three and pct > 0.5:
        pct /= 2
    schedule = OneCycle(1, steps, pct, anneal=anneal, three_phase=three)
    curve = schedule.values(steps + 5)
    assert curve.max() <= 1
    np.testing.assert_allclose(curve[steps - 1 :], 1 / 25 / 1e4, atol=1e-15)
    if pct * steps >= 1:
        whole = OneCycle(1, steps, math.floor(pct * steps) / steps, anneal=anneal)
        assert whole.values(steps).max() == pytest.approx(1, abs=1e-12)
        assert steps == 1 or whole(0) == pytest.approx(1 if math.floor(pct * steps) == 1 else 0.04, abs=1e-12)


@several
@given(d_model=st.integers(1, 2048), steps=st.integers(1, 8000))
def test_noam_is_an_inverse_square_root(d_model, steps):
    highest = 1 / math.sqrt(d_model * steps)
    indices = np.array([0, steps // 2, steps - 1, steps, 10 * steps])
    np.testing.assert_allclose(Noam(d_model, steps)(indices), InverseSqrt(highest, steps)(indices), rtol=1e-12)
    assert Noam(d_model, steps)(steps - 1) == pytest.approx(highest, rel=1e-12)


def test_warmup_stable_decay_is_a_join():
    linear = join([warmup(5, then=0.1), Linear(0.1, 0.01, 10)], [25])
    np.testing.assert_allclose(WarmupStableDecay(0.1, 5, 20, 10, 0.01).values(60), linear.values(60), rtol=1e-14)
    cosine = join([warmup(5, then=0.1), CosineAnnealing(0.1, 10, 0.01)], [25])
    schedule = WarmupStableDecay(0.1, 5, 20, 10, 0.01, anneal="cosine")
    np.testing.assert_allclose(schedule.values(60), cosine.values(60), rtol=1e-14)
    assert WarmupStableDecay(1, 0, 0, 4, anneal="sqrt").values(5).tolist() == [1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0]


def test_cosine_holds_where_pytorch_rises_again():
    assert CosineAnnealing(1, 4, 0.1)([4, 5, 8, 1000]).tolist() == [0.1] * 4


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (-1, ValueError),
        ([0, -1], ValueError),
        (2**53 + 1, ValueError),
        ([2**63], ValueError),
        (1.0, TypeError),
        ([1.0], TypeError),
        (True, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
@pytest.mark.parametrize("schedule", [Constant(1), join([1, 2], [3])], ids=repr)
def test_bad_indices(schedule, index, error):
    with pytest.raises(error):
        schedule(index)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Constant(-1), ValueError, "`learning_rate` must be a finite number of at least 0, got -1"),
        (lambda: Constant(True), TypeError, "`learning_rate`"),
        (lambda: Constant(float("nan")), ValueError, "`learning_rate`"),
        (lambda: Constant(1, unit="batch"), ValueError, "`unit`: unknown name 'batch'"),
        (lambda: StepDecay(1, 0), ValueError, "`every` must be an integer of at least 1, got 0"),
        (lambda: StepDecay(1, 2.0), TypeError, "`every`"),
        (lambda: StepDecay(1, 2, -0.1), ValueError, "`factor`"),
        (lambda: MultiStep(1, []), TypeError, "`milestones` must be a list of at least one integer"),
        (lambda: MultiStep(1, 5), TypeError, "`milestones`"),
        (lambda: MultiStep(1, [5, 3]), ValueError, r"`milestones` must ascend, got \[5, 3\]"),
        (lambda: MultiStep(1, [0]), ValueError, r"`milestones\[0\]`"),
        (lambda: Exponential(1, -0.9), ValueError, "`gamma`"),
        (lambda: Polynomial(1, 0), ValueError, "`steps`"),
        (lambda: Polynomial(1, 4, 0), ValueError, "`power` must be a finite number greater than 0"),
        (lambda: Linear(-1, 1, 4), ValueError, "`start`"),
        (lambda: Linear(1, 1, 0), ValueError, "`steps`"),
        (lambda: CosineAnnealing(1, 4, 2), ValueError, "`min` must not be above `learning_rate`, got 2 and 1"),
        (lambda: CosineRestarts(1, 0), ValueError, "`first`"),
        (lambda: CosineRestarts(1, 2, 0), ValueError, "`mult`"),
        (lambda: CosineRestarts(1, 2, 1.5), TypeError, "`mult`"),
        (lambda: OneCycle(1, 10, 0), ValueError, r"`pct_start` must be a finite number in \(0, 1\), got 0"),
        (lambda: OneCycle(1, 10, 1), ValueError, "`pct_start`"),
        (lambda: OneCycle(1, 10, 0.6, three_phase=True), ValueError, "`pct_start` must be at most 0.5"),
        (lambda: OneCycle(1, 10, div=0), ValueError, "`div`"),
        (lambda: OneCycle(1, 10, final_div=0), ValueError, "`final_div`"),
        (lambda: OneCycle(1, 10, anneal="cos"), ValueError, "did you mean 'cosine'"),
        (lambda: OneCycle(1, 10, three_phase=1), TypeError, "`three_phase`"),
        (lambda: Cyclic(2, 1, 3), ValueError, "`low` must not be above `high`"),
        (lambda: Cyclic(0, 1, 0), ValueError, "`up`"),
        (lambda: Cyclic(0, 1, 1, 0), ValueError, "`down`"),
        (lambda: Cyclic(0, 1, 1, mode="triangle"), ValueError, "did you mean 'triangular'"),
        (lambda: Noam(0, 1), ValueError, "`d_model`"),
        (lambda: Noam(1, 0), ValueError, "`warmup`"),
        (lambda: InverseSqrt(1, 0), ValueError, "`warmup`"),
        (lambda: WarmupStableDecay(1, -1, 0, 1), ValueError, "`warmup`"),
        (lambda: WarmupStableDecay(1, 0, 0, 0), ValueError, "`decay`"),
        (lambda: Lambda(0.1), TypeError, "`function` must be a function"),
        (lambda: Lambda(lambda t: "fast")(0), TypeError, "`learning_rate` must return a number, got 'fast'"),
        (lambda: Lambda(lambda t: -1)(3), ValueError, "got -1.0 for update 3"),
        (lambda: Lambda(lambda t: 10**400)(3), ValueError, "got inf for update 3"),
        (lambda: warmup(0, then=1), ValueError, "`steps`"),
        (lambda: warmup(1, then="cosine"), TypeError, "`then` must be a number of at least 0, got 'cosine'"),
        (lambda: join([1], []), TypeError, "`schedules` must be a list of at least two"),
        (lambda: join([1, 2], [1, 2]), ValueError, "`boundaries` must hold one index between any two of 2"),
        (lambda: join([1, 2, 3], [2, 2]), ValueError, "`boundaries` must ascend strictly"),
        (lambda: join([1, "x"], [2]), TypeError, r"`schedules\[1\]`"),
        (lambda: Constant(1) * -1, ValueError, "`factor`"),
        (lambda: Constant(1) * Constant(1), TypeError, "`factor`"),
        (lambda: Constant(1).values(-1), ValueError, "`n`"),
        (lambda: Constant(1)(0, updates_per_epoch=0), ValueError, "`updates_per_epoch`"),
        (lambda: Exponential(1, 10)(400), ValueError, "got inf for update 400"),
        (lambda: Lambda(lambda t: 1).config(), TypeError, "no plain form"),
        (lambda: bn.schedules.from_config({"name": "Cosine"}), ValueError, "unknown name 'Cosine'"),
        (lambda: bn.schedules.from_config({"name": "Lambda", "function": "x"}), ValueError, "unknown name 'Lambda'"),
        (lambda: bn.schedules.from_config({"name": "Schedule"}), ValueError, "unknown name"),
        (lambda: bn.schedules.from_config([]), TypeError, "`config` must be a dict with a name"),
    ],
)
def test_bad_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_a_lambda_is_called_once_for_each_index():
    seen = []
    schedule = Lambda(lambda t: seen.append(t) or t / 10)
    np.testing.assert_array_equal(schedule([3, 1, 3, 2]), [0.3, 0.1, 0.3, 0.2])
    assert seen == [1, 2, 3]
    assert all(type(t) is int for t in seen)


def test_scaling():
    schedule = CosineAnnealing(0.1, 20)
    np.testing.assert_array_equal((3 * schedule).values(30), 3 * schedule.values(30))
    assert 2.0 * (schedule * 1.5) == 3 * schedule
    assert repr(0.5 * Constant(1)) == "0.5 * Constant(learning_rate=1.0)"


def test_the_rule_of_thumb():
    assert bn.schedules.warmup_steps() == 1000
    assert bn.schedules.warmup_steps(0.99) == 100
    assert bn.schedules.warmup_steps(0) == 1
    assert bn.schedules.warmup_steps("adamw") == 1000
    assert bn.schedules.warmup_steps(bn.optimizers.Adam) == 1000
    assert bn.schedules.warmup_steps(bn.optimizers.Adam(betas=(0.9, 0.95))) == 20
    for bad in (1, -0.1, "sgd"):
        with pytest.raises(ValueError, match="`beta2`"):
            bn.schedules.warmup_steps(bad)


def test_scale_learning_rate():
    scale = bn.tuning.scale_learning_rate
    assert scale(0.1, 256, 1024) == 0.4
    assert scale(0.1, 256, 1024, "sqrt") == 0.2
    assert scale(0.1, 1024, 256) == 0.025
    np.testing.assert_array_equal(scale(Linear(0, 1, 4), 32, 64).values(6), 2 * Linear(0, 1, 4).values(6))
    assert scale(lambda update: 0.1 * update, 100, 400, rule="sqrt")(3) == pytest.approx(0.6)
    for arguments, match in [
        ((0.1, 0, 1), "`from_batch`"),
        ((0.1, 1, 0), "`to_batch`"),
        ((-0.1, 1, 1), "`learning_rate`"),
        ((0.1, 1, 1, "cubic"), "`rule`"),
    ]:
        with pytest.raises(ValueError, match=match):
            scale(*arguments)


# Units that are nested.

MIXED = warmup(6, then=StepDecay(0.1, 2, 0.5, unit="epoch"))


def test_parts_have_the_unit_around_them_unless_they_say_their_own():
    schedule = warmup(2, then=CosineAnnealing(1, 4), unit="epoch")
    assert schedule.values(8).tolist() == warmup(2, then=CosineAnnealing(1, 4)).values(8).tolist()
    updates = np.arange(40)
    np.testing.assert_array_equal(schedule(updates, updates_per_epoch=5), schedule(updates // 5))
    # in epochs of four updates: six updates of warm-up, then a decay that counts its own epochs from there
    expected = [0.1 * (t + 1) / 6 if t < 6 else 0.1 * 0.5 ** ((t - 6) // 4 // 2) for t in range(40)]
    np.testing.assert_allclose(MIXED.values(40, updates_per_epoch=4), expected, rtol=1e-15)
    # two epochs of ten updates, then a decay by updates
    schedule = join([1.0, Exponential(0.5, 0.9, unit="step")], [2], unit="epoch")
    expected = [1.0 if t < 20 else 0.5 * 0.9 ** (t - 20) for t in range(40)]
    np.testing.assert_allclose(schedule.values(40, updates_per_epoch=10), expected, rtol=1e-14)


def test_mixed_units_need_the_length_of_an_epoch():
    for use in (lambda: MIXED(0), lambda: MIXED.values(3), MIXED.plot, lambda: (2 * MIXED)(0)):
        with pytest.raises(ValueError, match="mixes steps and epochs"):
            use()
    assert join([0.1, 0.2], [3], unit="epoch").values(4)[3] == 0.2  # constants have no unit


def test_plot():
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = CosineAnnealing(1, 10).plot()
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), np.arange(11))
    np.testing.assert_array_equal(line.get_ydata(), CosineAnnealing(1, 10).values(11))
    assert figure.axes[0].get_xlabel() == "update"
    assert CosineAnnealing(1, 10, unit="epoch").plot(5).axes[0].get_xlabel() == "epoch"
    mixed = MIXED.plot(updates_per_epoch=4)
    assert mixed.axes[0].lines[0].get_xdata()[-1] == 6 + 10 * 4 - 1
    assert Linear(0, 1, 10**9).plot(axis=figure.axes[0]) is figure
    assert figure.axes[0].lines[1].get_xdata()[-1] == 10**9
    for schedule in EVERY:
        assert len(schedule.plot().axes[0].lines[0].get_xdata()) > 1
        plt.close("all")
