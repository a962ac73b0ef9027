"""Recipes: what is accepted, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import ConfigError
from export.config import known_keys, load_config, packaged_recipes

RECIPE = """
task = "detect"
name = "x"
[data]
train = "coco:a.json"
val = "coco:b.json"
width = 64
height = 32
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_are_valid(name: str) -> None:
    assert load_config(name).name


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("optim.epochs=3", ("optim", "epochs"), 3),
        ("optim.lr=1e-3", ("optim", "lr"), 0.001),
        ("model.size=small", ("model", "size"), "small"),
        ("data.train=voc:/d?split=val", ("data", "train"), "voc:/d?split=val"),
        ('transfer.freeze=["backbone"]', ("transfer", "freeze"), ("backbone",)),
        ("optim.balance=true", ("optim", "balance"), True),
        ("augment.flip=0.25", ("augment", "flip"), 0.25),
    ],
)
def test_changes_on_the_command_line_win(recipe: Path, change: str, key: tuple[str, str], value: object) -> None:
    config = load_config(recipe, [change])
    assert getattr(getattr(config, key[0]), key[1]) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optim.epoch=3", "r.toml: unknown key 'optim.epoch'; did you mean 'optim.epochs'?"),
        ("augment.cutmix=0.5", "r.toml: augment.cutmix changes nothing in a recipe for 'detect': set it to 0"),
        ("modl.size=nano", "r.toml: unknown key 'modl'; did you mean 'model'?"),
        ("augment.mosiac=1.0", "did you mean 'augment.mosaic'?"),
        ("optim.lr=-1", "optim.lr: input should be greater than 0, found -1"),
        ("data.width=100", "data.width: expected a multiple of 32, the network's coarsest stride, found 100"),
        ("model.size=huge", "model.size: input should be 'nano', 'small' or 'medium', found 'huge'"),
        ("optim.epochs", "expected key=value, found 'optim.epochs'"),
        ("task.x=1", "task is a value and has no keys"),
        ("augment.flip=7", "flip is a probability in [0, 1], found 7"),
    ],
)
def test_wrong_changes_are_named(recipe: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, [change])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('task = "detect"\nname = "x"\n[data]\ntrain = "a"\n')
    with pytest.raises(ConfigError, match=r"missing key 'data\.val'"):
        load_config(tmp_path / "r.toml")


def test_no_toml_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("task = = 1")
    with pytest.raises(ConfigError, match=r"r\.toml: no valid TOML"):
        load_config(tmp_path / "r.toml")


def test_unknown_recipe_names_the_packaged_ones() -> None:
    with pytest.raises(ConfigError, match="street-synthetic"):
        load_config("street")


def test_every_part_of_a_recipe_is_known() -> None:
    keys = set(known_keys())
    assert {"optim.lr", "augment.mosaic", "transfer.weights", "run.seed"} <= keys


def test_identity_changes_with_what_matters_only(recipe: Path) -> None:
    same = load_config(recipe).sha256
    assert load_config(recipe, ["run.save_every_s=9"]).sha256 == same
    assert load_config(recipe, ["run.seed=9"]).sha256 != same


def test_boxes_are_many_where_those_of_one_object_are_suppressed_later(recipe: Path) -> None:
    model = load_config(recipe).model
    assert (model.num_kept(many=False), model.num_kept(many=True)) == (100, 300)
    assert load_config(recipe, ["model.keep=20"]).model.num_kept(many=True) == 20
