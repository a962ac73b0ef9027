"""What one training is: a TOML recipe and ``key=value`` changes to it. Unknown keys are errors."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.errors import ConfigError
from edge.models.manifest import content_hash
from export.data.augment import AugmentSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Part):
    """Where pictures come from and what size the network sees.

    Attributes:
        train, val: ``coco:FILE.json``, ``voc:DIR``, ``yolo:DIR``, ``masks:DIR``, ``classes:DIR``
            or ``synthetic:street?…``.
        width, height: model input in pixels, multiples of 32.
        crop_width, crop_height: train on crops of this size at the model's scale, 0 for whole pictures: many more steps
            in the same time, because small objects need little of the picture around them. Evaluation and export use
            the whole size.
        workers: loader threads; 0 loads in the training thread.
        cache: keep decoded pictures in the run folder, so that later epochs are cheap.
        bad: what to do with faulty pictures and labels.
        terms: under which terms the data may be used; goes into the manifest.
    """

    train: str
    val: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    crop_width: int = Field(default=0, ge=0)
    crop_height: int = Field(default=0, ge=0)
    workers: int = Field(default=0, ge=0)
    cache: bool = True
    bad: Literal["refuse", "skip"] = "refuse"
    terms: str = ""

    @field_validator("width", "height", "crop_width", "crop_height")
    @classmethod
    def _whole_strides(cls, value: int) -> int:
        if value % 32:
            raise ValueError("expected a multiple of 32, the network's coarsest stride")
        return value


class ModelSettings(_Part):
    """The network.

    Attributes:
        size: of the backbone.
        nms: export the many-boxes branch, whose overlapping boxes the runtime must suppress.
        keep: boxes in the exported graph's output; 0 for 100, or 300 where the many boxes of each object are suppressed
            after that: 100 of them are a dozen objects.
        prototypes: maps that the masks of objects are mixed of, 8 to 32; 0 for a detector without masks.
        keypoints: names of the key points that objects of the data set have, in its order; none for a detector without.
            ``left_`` and ``right_`` of the same name change places in mirrored pictures.
        dropout: share of features dropped before a classifier's last layer.
        tiny_input: keep the full resolution in the first two layers, for pictures of 32x32 or so.
    """

    size: Literal["nano", "small", "medium"] = "nano"
    nms: bool = False
    keep: int = Field(default=0, ge=0)
    prototypes: int = Field(default=0, ge=0, le=64)
    keypoints: tuple[str, ...] = ()
    dropout: float = Field(default=0.1, ge=0, lt=1)
    tiny_input: bool = False

    def num_kept(self, *, many: bool) -> int:
        """Boxes in the output of a graph with the many-boxes or the one-box branch."""
        return self.keep or (300 if many else 100)


class OptimSettings(_Part):
    """How the weights are found.

    Attributes:
        batch_size: pictures per step, over all processes.
        lr: highest learning rate; ``final_lr`` is its share at the end of the cosine.
        warmup_steps: steps of linear growth at the start.
        clip_norm: longest gradient allowed, 0 for no limit.
        ema_decay: of the averaged weights that are evaluated and exported; 0 switches averaging off.
        ema_steps: steps over which the averaging grows from short to long.
        amp: mixed precision; ``auto`` takes bfloat16 where the processor multiplies it natively.
        plain_epochs: last epochs without mosaic, mixup and CutMix.
        balance: rare classes count more in the loss (segmentation, classification) or are drawn more often (detection).
        scales: factors of the input size to choose from at random for each step.
        freeze_bn: keep the batch norms' statistics as loaded (fine-tuning, tiny batches).
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    epochs: int = Field(default=50, gt=0)
    batch_size: int = Field(default=16, gt=0)
    lr: float = Field(default=0.02, gt=0)
    final_lr: float = Field(default=0.02, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    clip_norm: float = Field(default=10.0, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    ema_steps: int = Field(default=300, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    plain_epochs: int = Field(default=5, ge=0)
    balance: bool = False
    scales: tuple[float, ...] = (1.0,)
    freeze_bn: bool = False


class TransferSettings(_Part):
    """What to start from.

    Attributes:
        weights: an ONNX file, whose network is trained on then; a checkpoint of ours, a torch state dict or a
            ``.safetensors`` file, matched by name and shape.
        backbone: ``timm:NAME`` or ``torchvision:NAME``, a network of an installed library without its last layers;
            ``weights`` is a file for it then, or None for random ones, and the head is always a fresh one.
        head: ``keep`` the rows of known classes of an ONNX file's head where it can be read, or put a ``fresh`` one on.
        activation: exchange SiLU, hard-swish and leaky ReLU of an ONNX file for this one; every kernel is then fitted
            again to what it used to compute.
        original: the ONNX file whose maps and boxes are imitated while learning; its head must have been kept.
        imitation: weight of that in the loss; labels have the weight 1.
        freeze: name prefixes of layers that do not learn (``backbone``, ``trunk.s2``).
        thaw_epochs: let one frozen prefix learn after so many epochs, the last one first, then the next; 0 for never.
        rates: name prefix → share of the learning rate, ``{trunk = 0.1}``; the longest fitting prefix counts.
        renew: classes that the start has learned never to see: their rows of the last layers begin as the mean of the
            others' rows. Our own detectors only.
    """

    weights: Path | None = None
    backbone: str = ""
    head: Literal["keep", "fresh"] = "keep"
    activation: Literal["", "relu", "relu6"] = ""
    original: Path | None = None
    imitation: float = Field(default=1.0, gt=0)
    freeze: tuple[str, ...] = ()
    thaw_epochs: int = Field(default=0, ge=0)
    rates: dict[str, float] = Field(default_factory=dict)
    renew: tuple[str, ...] = ()


class TeacherSettings(_Part):
    """A trained detector whose feature maps are imitated while learning; boxes of a teacher are data (edge teach).

    Attributes:
        model: an ONNX file; None for no teacher.
        tensors: names of its feature maps, or of the nodes that make them; at least one at each of the strides 8, 16
            and 32.
        weight: of the imitation in the loss.
    """

    model: Path | None = None
    tensors: tuple[str, ...] = ()
    weight: float = Field(default=4.0, gt=0)


class RunSettings(_Part):
    """The course of a training.

    Attributes:
        seed: the same seed, recipe, data and thread count give the same result.
        threads: CPU threads, 0 for all.
        eval_every: epochs between evaluations; the last epoch is always evaluated.
        eval_images: how many of the validation pictures choose the best epoch, 0 for all; the last one is judged on all
            of them as well.
        save_every_s: seconds between checkpoints within an epoch.
        patience: evaluations without progress before training stops early, 0 for never.
        channels_last: memory order that CPU convolutions and tensor cores like best.
    """

    seed: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0)
    eval_every: int = Field(default=5, gt=0)
    eval_images: int = Field(default=0, ge=0)
    save_every_s: float = Field(default=120.0, gt=0)
    patience: int = Field(default=0, ge=0)
    channels_last: bool = True


class TrainSettings(_Part):
    """A recipe."""

    task: Literal["detect", "segment", "classify"]
    name: str
    data: DataSettings
    model: ModelSettings = ModelSettings()
    optim: OptimSettings = OptimSettings()
    augment: AugmentSettings = Field(default_factory=AugmentSettings)
    transfer: TransferSettings = TransferSettings()
    teacher: TeacherSettings = TeacherSettings()
    run: RunSettings = RunSettings()

    @property
    def has_instances(self) -> bool:
        """Whether masks or key points are learned next to the boxes."""
        return bool(self.model.prototypes or self.model.keypoints)

    @model_validator(mode="after")
    def _instances_have_boxes(self) -> TrainSettings:
        if self.has_instances and self.task != "detect":
            raise ValueError(f"model.prototypes and model.keypoints go with the task detect, not {self.task}")
        if len(set(self.model.keypoints)) != len(self.model.keypoints):
            raise ValueError("model.keypoints names a point twice")
        return self

    @property
    def sha256(self) -> str:
        """Identity of everything that decides the result."""
        return content_hash(self.model_dump(mode="json", exclude={"run": {"save_every_s"}}))


def load_config(recipe: str | Path, changes: Sequence[str] = ()) -> TrainSettings:
    """Read a recipe.

    Args:
        recipe: a TOML file, or the name of a packaged recipe (``street-synthetic``).
        changes: ``optim.epochs=3``; the value is TOML, or plain text where it is no TOML.

    Raises:
        ConfigError: no such file, no TOML, an unknown key, a wrong value or one without effect in this task.
    """
    path = _find(recipe)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: no valid TOML: {error}") from None
    config = parse_config(changed_tree(tree, changes), path.name)
    if idle := config.augment.without_effect(config.task):
        raise ConfigError(
            f"{path.name}: augment.{idle[0]} changes nothing in a recipe for {config.task!r}: set it to 0"
        )
    return config


def changed_tree(tree: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A copy of a recipe's tree with these ``key=value`` changes.

    Raises:
        ConfigError: one is no such change.
    """
    copied = copy.deepcopy(dict(tree))
    for change in changes:
        _apply(copied, change)
    return copied


def parse_config(tree: Mapping[str, Any], where: str) -> TrainSettings:
    """Check a recipe that is already a tree of values; ``where`` names it in messages.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    try:
        return TrainSettings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def _find(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.is_file():
        return path
    packaged = RECIPES / f"{recipe}.toml"
    if packaged.is_file():
        return packaged
    names = ", ".join(packaged_recipes())
    raise ConfigError(f"no recipe {str(recipe)!r}: expected a TOML file or one of {names}")


def _apply(tree: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"expected key=value, found {change!r}; for example: optim.epochs=3")
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{key}: {parent} is a value and has no keys")
    tree[leaf] = _value(text)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    """The first fault of a recipe as one sentence."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        near = difflib.get_close_matches(key, list(known_keys()), n=1, cutoff=0.5)
        return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if first["type"] == "missing":
        return f"missing key {key!r}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, found {first['input']!r:.80}"


def known_keys(model: type[Any] = TrainSettings, prefix: str = "") -> Iterator[str]:
    """All keys of a recipe, dotted."""
    is_model = issubclass(model, BaseModel)
    kinds = {name: field.annotation for name, field in model.model_fields.items()} if is_model else {}
    for name in kinds or [field.name for field in dataclasses.fields(model)]:
        yield prefix + name
        kind = kinds.get(name)
        if isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
            yield from known_keys(kind, f"{prefix}{name}.")
