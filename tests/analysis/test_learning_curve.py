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
    ("held_out", "train", "said"),
    [
        (FALLING, None, "still falling"),
        (LEVEL, None, "levelled off"),
        (OVERFITTED, [1 - 0.1 * i for i in range(8)], "overfitted"),
        ([1.0, 0.5], None, "too few epochs"),
        ([1.0] * 6, None, "levelled off"),
    ],
)
def test_a_training_is_judged_by_the_course_of_its_held_out_loss(held_out, train, said):
    text = verdict(epochs(held_out, train), pretrained=False)
    assert said in text
    assert "starting weights" not in text
    assert f"held-out loss {min(held_out):.4f}" in text


def test_weights_that_had_learned_already_are_compared_with():
    assert "better than the starting weights on the held-out part (0.7000)" in verdict(
        epochs([0.6, 0.5, 0.5, 0.5, 0.5], at_start=0.7), pretrained=True
    )
    assert "no better than the starting weights" in verdict(
        epochs([0.6, 0.5, 0.5, 0.5, 0.5], at_start=0.4), pretrained=True
    )


def test_bars_go_from_the_highest_to_the_lowest_value_and_fit_a_line():
    assert bars([4.0, 3.0, 1.0]) == "█▆▁"
    assert bars([1.0, 1.0]) == "██"
    many = bars([1 / (1 + i) for i in range(1000)])
    assert len(many) <= 61
    assert (many[0], many[-1]) == ("█", "▁")


def test_a_curve_goes_on_where_it_was_unless_the_training_is_another(tmp_path):
    curve = LearningCurve(tmp_path / "curve.csv")
    for epoch in epochs([1.0, 0.5], at_start=2.0):
        curve.add(epoch)
    again = LearningCurve(tmp_path / "curve.csv", going_on=True)
    assert again.parts == curve.parts
    assert not LearningCurve(tmp_path / "curve.csv").parts
    (tmp_path / "curve.csv").write_text("what is this")
    assert not LearningCurve(tmp_path / "curve.csv", going_on=True).parts
