import pytest

from hybridcsp.analysis.learning_curve import LearningCurve, bars, verdict
from hybridcsp.generators.base import Epoch


def epochs(held_out, train=None, at_start=None):
    train = train or held_out
    return [
        Epoch(number=i + 1, losses={"train": t, "held_out": h}, at_start=at_start)
        for i, (h, t) in enumerate(zip(held_out, train, strict=True))
    ]


FALLING = [1 / (1 + i) for i in range(12)]
LEVEL = [0.5 + 0.5 * 0.3**i for i in range(20)]
OVERFITTED = [1.0, 0.6, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("held_out", "train", "expected"),
    [
        (FALLING, None, "still falling"),
        (LEVEL, None, "no longer falling"),
        (OVERFITTED, [1 - 0.1 * i for i in range(8)], "overfitted"),
        ([1.0, 0.5], None, "too few epochs"),
        ([1.0] * 6, None, "no longer falling"),
    ],
)
def test_assessment_follows_held_out_loss(held_out, train, expected):
    text = verdict(epochs(held_out, train), pretrained=False)
    assert expected in text
    assert "initial weights" not in text
    assert f"held-out loss {min(held_out):.4f}" in text


def test_pretrained_weights_are_compared_with_initial_ones():
    assert "better than the initial weights on the held-out set (0.7000)" in verdict(
        epochs([0.6, 0.5, 0.5, 0.5, 0.5], at_start=0.7), pretrained=True
    )
    assert "not better than the initial weights" in verdict(
        epochs([0.6, 0.5, 0.5, 0.5, 0.5], at_start=0.4), pretrained=True
    )


def test_sparkline_spans_range_and_fits_line():
    assert bars([4.0, 3.0, 1.0]) == "█▆▁"
    assert bars([1.0, 1.0]) == "██"
    many = bars([1 / (1 + i) for i in range(1000)])
    assert len(many) <= 61
    assert (many[0], many[-1]) == ("█", "▁")


def test_curve_continues_only_for_resumed_training(tmp_path):
    curve = LearningCurve(tmp_path / "curve.csv")
    for epoch in epochs([1.0, 0.5], at_start=2.0):
        curve.add(epoch)
    again = LearningCurve(tmp_path / "curve.csv", resumed=True)
    assert again.parts == curve.parts
    assert not LearningCurve(tmp_path / "curve.csv").parts
    (tmp_path / "curve.csv").write_text("not a table")
    assert not LearningCurve(tmp_path / "curve.csv", resumed=True).parts


def competition(scores, warned=()):
    return [
        Epoch(
            number=i + 1,
            losses={"held_out": 1 - s, "critic": -0.5, "critic penalty": 0.1, "generator": 2.0, "validity": s}
            | {"coverage": s},
            warning="collapse: all equal" if i + 1 in warned else "",
        )
        for i, s in enumerate(scores)
    ]


def test_competing_networks_are_assessed_by_their_samples(tmp_path):
    learned = competition([0.1, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert "validity 50 %, coverage 50 %; no longer improving" in verdict(learned, pretrained=False)
    rising = competition([0.1 * i for i in range(9)])
    assert "still improving" in verdict(rising, pretrained=False)
    lost = competition([0.1, 0.4, 0.5, 0.2, 0.1, 0.1], warned=(5, 6))
    text = verdict(lost, pretrained=False)
    assert "collapse: all equal (2 epochs from 5 to 6); the weights of epoch 3 are kept" in text

    curve = LearningCurve(tmp_path / "curve.csv")
    for epoch in lost:
        curve.add(epoch)
    again = LearningCurve(tmp_path / "curve.csv", resumed=True)
    assert again.parts == curve.parts
    assert [line.split()[0] for line in again.lines()] == ["Validity", "Coverage"]
    again.draw(tmp_path / "curve.svg", "a title")
    text = (tmp_path / "curve.svg").read_text()
    assert all(f"<!-- {name} -->" in text for name in ("critic", "generator", "validity", "coverage", "warning"))
    assert "critic penalty" not in text
