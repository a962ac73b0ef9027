"""The names in a stored moment's picture: none covers another, and the one that it is about is told first."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.diagnose.pictured import TRACK, Label, label_size, placed

SIZE = (640, 360)
BOXES = st.tuples(st.floats(-50, 690), st.floats(-50, 400), st.floats(0, 200), st.floats(0, 200)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
LABELS = st.lists(
    st.builds(Label, st.text("person #1", max_size=14), BOXES, st.just(TRACK), st.integers(0, 2)), max_size=30
)


@settings(deadline=None)
@given(LABELS)
def test_no_name_covers_another_or_is_cut(labels: list[Label]) -> None:
    rectangles = []
    for label, left, top in placed(labels, *SIZE):
        wide, high = label_size(label.text)
        assert left >= 0 and top >= 0 and left + wide <= SIZE[0] and top + high <= SIZE[1]
        rectangles.append((left, top, left + wide, top + high))
    for one, other in combinations(rectangles, 2):
        assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


def test_what_it_is_about_has_its_name_whatever_stands_around_it() -> None:
    crowd = [Label(f"person #{number} 80%", (300, 100 + number, 340, 200), TRACK) for number in range(20)]
    about = Label("person #99 50%", (305, 105, 345, 205), TRACK, rank=0)
    names = [label.text for label, _, _ in placed([*crowd, about], *SIZE)]
    assert names[0] == about.text and len(names) > 1
