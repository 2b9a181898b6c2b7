"""Forecasts of thinking tokens: one length prices every rung, so no forecast falls as the cap rises."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from router.bundle.featurizer import Featurizer
from router.bundle.manifest import QUANTILES, Bundle
from router.domain import SLACK, BudgetLadder, Prompt
from router.scoring import outputs
from tests.support.synthetic import asked
from training.arrays import Matrix, Vector
from training.certification.rules import choose
from training.data import dataset
from training.data.outcomes import Outcomes
from training.model import inference, lengths
from training.model.families import PooledLogit
from training.model.fit import caps
from training.prediction import Prediction

ROOT = Path(__file__).parents[3]
PUZZLE = "How many legs do 3 cows and 2 hens have?"
CAPS = np.array([0, 10, 50, 100])


@pytest.fixture(scope="module")
def held_out() -> Outcomes:
    """Prompts of the pocket reasoner that the shipped bundle was not fitted on."""
    return dataset.splits(dataset.read(ROOT / "benchmarks/data/pocket_outcomes.parquet"))["test"]


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> onnxruntime.InferenceSession:
    """The shipped graph."""
    return onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])


def require_coherent(prediction: Prediction, ladder: BudgetLadder) -> None:
    """No forecast falls as the cap rises, or exceeds the cap; a quantile is at least every lower one."""
    for forecast in (prediction.mean_tokens, *np.moveaxis(prediction.token_quantiles, 2, 0)):
        assert (np.diff(forecast, axis=1) >= 0).all()
        assert (forecast >= 0).all() and (forecast <= caps(ladder)).all()
        assert (forecast[:, caps(ladder) == 0] == 0).all()
    assert (np.diff(prediction.token_quantiles, axis=2) >= 0).all()


def test_no_forecast_of_a_held_out_prompt_falls_as_the_cap_rises(bundle: Bundle, held_out: Outcomes) -> None:
    predicted = inference.predict(bundle, [*asked([PUZZLE]), *held_out.prompts])
    require_coherent(predicted, bundle.manifest.ladder)
    assert (predicted.mean_tokens[:, 1:] > 0).all()


@pytest.fixture(scope="module")
def featurizer(bundle: Bundle) -> Featurizer:
    """What turns prompts into the inputs of the shipped graph."""
    return Featurizer(bundle.tokenizer, bundle.manifest.max_tokens)


def test_a_longer_rung_is_chosen_for_a_higher_chance_alone(bundle: Bundle, held_out: Outcomes) -> None:
    predicted = inference.predict(bundle, held_out.prompts)
    assert predicted.far is not None
    near = predicted.take(np.flatnonzero(~predicted.far))
    for certificate in bundle.manifest.certificates:
        chosen = choose(near.quality, near.cost, certificate.threshold)
        shorter = np.arange(len(bundle.manifest.ladder)) < chosen[:, None]
        here = np.take_along_axis(near.quality, chosen[:, None], axis=1)
        assert (here > near.quality)[shorter].all()


@given(text=st.text(max_size=200))
def test_no_forecast_of_any_text_falls_as_the_cap_rises(
    text: str, bundle: Bundle, graph: onnxruntime.InferenceSession, featurizer: Featurizer
) -> None:
    predicted = Prediction(*graph.run(outputs.NAMES, featurizer([Prompt.of(text)])))
    require_coherent(predicted, bundle.manifest.ladder)


@given(data=st.data())
def test_no_forecast_falls_whatever_the_graph_is_given(
    data: st.DataObject, bundle: Bundle, graph: onnxruntime.InferenceSession
) -> None:
    width = graph.get_inputs()[0].shape[1]
    features = data.draw(arrays(np.float32, (3, width), elements=st.floats(-1e4, 1e4, width=32), fill=st.just(0)))
    given_inputs = {"features": features, "tokens": np.full((3, 1), -1)}
    predicted = Prediction(*graph.run(outputs.NAMES, given_inputs))
    require_coherent(predicted, bundle.manifest.ladder)


def test_quantiles_of_the_shipped_bundle_cover_what_they_promise(bundle: Bundle, held_out: Outcomes) -> None:
    quantiles = inference.predict(bundle, held_out.prompts).token_quantiles
    covered = (held_out.thinking_tokens[:, :, None] <= quantiles + 1e-6).mean(axis=0)
    p50, p90, p99 = covered[1:].T
    assert p99 == pytest.approx(0.99, abs=0.005)
    # Where a cap binds for most prompts, the median is the cap and covers all of them.
    assert (p90 >= 0.87).all() and (p50 >= 0.46).all()


def test_forecasts_of_the_shipped_bundle_are_close(bundle: Bundle, held_out: Outcomes) -> None:
    forecast = inference.predict(bundle, held_out.prompts).mean_tokens
    errors = np.abs(forecast - held_out.thinking_tokens).mean(axis=0)
    assert errors[-1] < 4 and errors.sum() < 12


def drawn(prompts: int, seed: int = 0) -> tuple[Matrix, Vector]:
    """One scaled feature, and lengths that it governs: exponential with a mean of 10 or of 40 tokens."""
    random = np.random.default_rng(seed)
    kind = random.integers(2, size=prompts)
    return np.asarray(kind[:, None] * 2.0 - 1), random.exponential(np.array([10.0, 40.0])[kind])


@pytest.fixture(scope="module")
def quickly() -> Iterator[None]:
    """One feature needs no network, and the logit of all segments is fitted at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "NETWORK", PooledLogit(1e-6))
        yield


@pytest.mark.usefixtures("quickly")
def test_one_length_prices_every_rung_though_the_top_cuts_it() -> None:
    x, length = drawn(4_000)
    forecast = lengths.fit(x, np.minimum(length[:, None], CAPS), CAPS)
    mean, _ = forecast.predict(np.array([[-1.0], [1.0]]))
    # E min(cap, L) of an exponential length.
    true = np.array([[scale * (1 - np.exp(-cap / scale)) for cap in CAPS] for scale in (10, 40)])
    assert mean == pytest.approx(true, rel=0.1)


@pytest.mark.usefixtures("quickly")
def test_conformal_quantiles_cover_new_prompts_where_no_cap_binds() -> None:
    x, length = drawn(1_000)
    most = np.array([0, np.inf])
    calibration, fresh = drawn(2_000, 1), drawn(5_000, 2)
    forecast = lengths.fit(x, np.minimum(length[:, None], most), most)
    forecast = forecast.conformal(calibration[0], np.minimum(calibration[1][:, None], most))
    _, quantiles = forecast.predict(fresh[0])
    covered = (fresh[1][:, None] <= quantiles[:, 1]).mean(axis=0)
    assert covered == pytest.approx(QUANTILES, abs=0.03)


@settings(max_examples=25)
@given(
    tokens=arrays(float, (8, 4), elements=st.floats(0, 500, allow_subnormal=False)),
    lower=st.lists(st.integers(0, 400), min_size=3, max_size=3).map(sorted),
)
def test_no_forecast_falls_though_recorded_tokens_do(tokens: Matrix, lower: list[int], quickly: None) -> None:
    most = np.array([*lower, np.inf])
    x = np.linspace(-1, 1, 8)[:, None]
    mean, quantiles = lengths.fit(x, tokens, most).predict(x)
    held = np.where(np.logical_and.accumulate((tokens <= most + SLACK).all(axis=0)), most + SLACK, np.inf)
    for forecast in (mean, *np.moveaxis(quantiles, 2, 0)):
        assert (np.diff(forecast, axis=1) >= 0).all() and (forecast <= held).all() and (forecast >= 0).all()


@pytest.mark.usefixtures("quickly")
def test_the_token_that_ends_a_thought_lies_within_the_forecast() -> None:
    x, length = drawn(1_000)
    used = np.minimum(length[:, None], CAPS) + 1
    _, quantiles = lengths.fit(x, used, CAPS).predict(x)
    assert (used <= quantiles[:, :, 2] + 1e-6).mean() > 0.97 and (quantiles <= CAPS[:, None] + 1 + 1e-6).all()


@pytest.mark.usefixtures("quickly")
def test_a_budget_that_thoughts_exceed_bounds_no_forecast() -> None:
    x, length = drawn(1_000)
    used = np.minimum(length[:, None], CAPS) * 1.5
    _, quantiles = lengths.fit(x, used, CAPS).predict(x)
    assert (quantiles[:, 2, 2] > CAPS[2]).any() and (used <= quantiles[:, :, 2] + 1e-6).mean() > 0.97


@pytest.mark.usefixtures("quickly")
def test_efforts_without_caps_use_their_shares_of_the_longest() -> None:
    x, length = drawn(2_000)
    efforts = length[:, None] * np.array([0.1, 0.4, 1.0])
    forecast = lengths.fit(x, efforts, np.full(3, np.inf))
    mean, _ = forecast.predict(x)
    assert mean.mean(axis=0) == pytest.approx(efforts.mean(axis=0), rel=0.1)


@pytest.mark.usefixtures("quickly")
def test_a_soft_budget_is_not_forecast_as_if_it_were_used_up() -> None:
    x, length = drawn(2_000)
    used = np.minimum(length[:, None], CAPS) * np.array([1, 0.7, 0.8, 1])
    mean, _ = lengths.fit(x, used, CAPS).predict(x)
    assert mean.mean(axis=0) == pytest.approx(used.mean(axis=0), rel=0.1)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("same", [0.0, 7.0, 100.0])
def test_thoughts_of_one_length_are_forecast_as_such(same: float) -> None:
    x, _ = drawn(50)
    used = np.minimum(np.full((50, 1), same), CAPS)
    mean, quantiles = lengths.fit(x, used, CAPS).predict(x)
    for forecast in (mean, quantiles[:, :, 0], quantiles[:, :, 2]):
        assert forecast == pytest.approx(used, rel=0.05, abs=0.5)


@pytest.mark.usefixtures("quickly")
def test_a_rung_without_recorded_tokens_has_no_forecast_and_spoils_no_other() -> None:
    x, length = drawn(2_000)
    used = np.minimum(length[:, None], CAPS)
    used[:, 3], used[5, 1] = np.nan, np.nan
    mean, quantiles = lengths.fit(x, used, CAPS).predict(x)
    for forecast in (mean, quantiles[:, :, 2]):
        assert np.isnan(forecast).all(axis=0).tolist() == [False, True, False, True]
        assert np.isfinite(forecast[:, [0, 2]]).all()
    assert mean[:, 2].mean() == pytest.approx(used[:, 2].mean(), rel=0.1)
