"""What `manifest.json` may say: the identity of a bundle, and the size and digest of each of its files."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from stream.bundle.signature import SIGNATURE_NAME
from stream.errors import BundleError

__all__ = [
    "MANIFEST_NAME",
    "MAX_BUNDLE_BYTES",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_JSON_BYTES",
    "SCHEMA_VERSION",
    "FileEntry",
    "ImageInput",
    "Manifest",
    "Modality",
    "ModelInput",
    "PolicyInput",
    "Role",
    "TextForm",
    "TextInput",
    "TrainingSource",
    "explain",
    "parse_manifest",
    "refuse_newer",
]

SCHEMA_VERSION: Final = 1
"""Version of the bundle format. Any change of fields raises it: a field not understood is a promise not kept."""

MANIFEST_NAME = "manifest.json"

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Largest JSON file of a bundle. Six harms with full histograms by role are 200 kB; this allows twenty times that."""

MAX_FILE_BYTES = 2**31 - 1
"""Largest file of a bundle. A model is one protobuf message, which cannot be longer."""

MAX_BUNDLE_BYTES = 2**32
"""Largest sum of files: two models of the largest size. A bundle is held in memory while it is loaded."""

MAX_FILES = 64
"""Most files in a bundle: two artefacts, four JSON files, a card and generous room, so that a scan is bounded."""

MAX_PIECE_PIXELS = 2**25
"""Pixels of all pieces of one image together, 100 MB: 8 frames of 1024 x 1024 in 4 pieces."""

_SHOWN = 3  # problems named in one error: enough to see a pattern, short enough for a log line

_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,3}")


def _check_path(path: str) -> str:
    """Refuse paths that could leave the folder, hide, or mean different files on different systems."""
    if not _PATH.fullmatch(path):
        raise ValueError("must be a plain relative path: letters, digits, '.', '_', '-' and at most three '/'")
    if path in {MANIFEST_NAME, SIGNATURE_NAME}:
        raise ValueError("the manifest cannot list itself or its signature")
    return path


BundlePath = Annotated[str, AfterValidator(_check_path)]
Role = Literal["prompt", "output", "post"]
Modality = Literal["text", "image"]
"""What a model looks at; whatever else some content has, it does not see."""

Word = Annotated[str, Field(min_length=1, max_length=128)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FileEntry(_Strict):
    """Size and digest of one file."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class TextForm(_Strict):
    """What the model reads beside the text: a word for its role before it, and between them what it answers."""

    lead: dict[Role, Annotated[str, Field(max_length=64)]] = Field(default_factory=dict)
    """What comes before a text of each role, as it is, its space included; nothing for a role that is not here."""
    prompt_characters: Annotated[int, Field(ge=0, le=8192)] = 0
    """Characters of what the content answers that are read, the last ones; 0 for none."""
    prompt_end: Annotated[str, Field(max_length=64)] = ""
    """What comes between the prompt and the text, where there is a prompt."""


class TextInput(_Strict):
    """How a text becomes rows of a classifier: overlapping windows of tokens."""

    modality: ClassVar[Modality] = "text"

    kind: Literal["text"] = "text"
    max_tokens: Annotated[int, Field(ge=8, le=8192)]
    """Length of a window in tokens, special tokens included."""
    stride: Annotated[int, Field(ge=0)]
    """Tokens that a window shares with the one before it."""
    max_windows: Annotated[int, Field(ge=1, le=256)] = 8
    """Windows that the evaluation read a text in at most."""
    form: TextForm = TextForm()

    @model_validator(mode="after")
    def _check_progress(self) -> TextInput:
        if self.stride >= self.max_tokens - 2:  # two special tokens frame a window; the next one must begin later
            raise ValueError(f"stride ({self.stride}) must be below max_tokens - 2 ({self.max_tokens - 2})")
        return self


class PolicyInput(_Strict):
    """How a text becomes a question to a language model, asked once per harm: is this guideline violated? [S01]."""

    modality: ClassVar[Modality] = "text"

    kind: Literal["policy"]
    max_tokens: Annotated[int, Field(ge=64, le=4096)]
    """Length of one question in tokens, the text and the special tokens included; the middle of a longer text is cut.
    """
    templates: BundlePath
    """The file of the questions: its digest, in `files`, is part of what the calibration was fitted on."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Added to the probability of either answer, which pulls a score to one half where neither is likely."""
    min_answer_mass: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Below this probability of both answers together the model did not answer the question, and there is no score."""

    @property
    def needs_likelihoods(self) -> bool:
        """Whether the model is to give log-likelihoods, or any two numbers with the same difference will do."""
        return self.alpha > 0 or self.min_answer_mass > 0


class ImageInput(_Strict):
    """How an image becomes rows of a model: in which size, cut how, and in what numbers.

    It is turned as its EXIF says and read as RGB, alpha on white. What a piece has beyond the image is black.
    """

    modality: ClassVar[Modality] = "image"

    kind: Literal["image"]
    height: Annotated[int, Field(ge=8, le=2048)]
    width: Annotated[int, Field(ge=8, le=2048)]
    resize: Literal["stretch", "shorter_side", "none"]
    """To the model's size whatever the shape; until the shorter side is `resize_to` and then cut; or only cut."""
    resize_to: Annotated[int, Field(ge=8, le=4096)] | None = None
    """With `stretch`, both sides become this and are then cut."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """As Pillow does it: where an image becomes smaller, every pixel of it counts."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Taken from red, green and blue in [0, 1]."""
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """And then they are divided by this."""
    crops: Annotated[int, Field(ge=1, le=5)] = 1
    """Pieces of a larger image that are scored: the centre, then the corners; their probabilities are averaged."""
    max_frames: Annotated[int, Field(ge=1, le=64)] = 8
    """Frames of an animation that the evaluation looked at, at most; the score is that of the worst of them."""

    @model_validator(mode="after")
    def _check_sizes(self) -> ImageInput:
        if self.resize == "shorter_side" and self.resize_to is None:
            raise ValueError("resize shorter_side needs resize_to")
        if self.resize == "none" and self.resize_to is not None:
            raise ValueError("resize_to belongs to a model whose images are resized")
        if self.resize_to is not None and self.resize_to < max(self.height, self.width):
            raise ValueError("resize_to must be at least height and width, which are cut out of it")
        if self.crops > 1 and self.resize == "stretch" and self.resize_to is None:
            raise ValueError("crops belong to a model whose images are cut")
        if min(self.deviation) <= 0:
            raise ValueError("deviation must be above 0")
        if self.height * self.width * self.crops * self.max_frames > MAX_PIECE_PIXELS:
            raise ValueError(f"height x width x crops x max_frames must be at most {MAX_PIECE_PIXELS}")
        return self


def _kind(value: Any) -> str:  # Any: JSON
    return str(value.get("kind", "text") if isinstance(value, dict) else value.kind)


ModelInput = Annotated[
    Annotated[TextInput, Tag("text")] | Annotated[PolicyInput, Tag("policy")] | Annotated[ImageInput, Tag("image")],
    Discriminator(_kind),
]
"""What a model reads, and how content becomes that."""


class TrainingSource(_Strict):
    """One source of training data, as its licence asks to be named."""

    source: Word
    licence: Word
    rows: Annotated[int, Field(ge=0)]


class Manifest(_Strict):
    """The whole of `manifest.json`. It lists every other file, so its own digest pins the bundle."""

    schema_version: Literal[1]
    name: Word
    version: Word
    created_at: AwareDatetime
    harms: Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)]
    """Harms in the order of the columns of the model's logits."""
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    """Roles of content that the model was trained on."""
    input: ModelInput
    artefacts: dict[Literal["cpu", "cuda"], BundlePath]
    """Model file by execution provider."""
    tokenizer: BundlePath | None = None
    """For a model that reads text."""
    calibration: BundlePath
    evaluation: BundlePath
    card: BundlePath
    golden: BundlePath | None = None
    """Events with the logits they had when the bundle was packed; a worker uses no bundle without."""
    training_data: tuple[TrainingSource, ...]
    code_version: Word
    files: Annotated[dict[BundlePath, FileEntry], Field(max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _check_together(self) -> Manifest:
        if (self.tokenizer is None) != (self.input.kind == "image"):
            raise ValueError("a model that reads text has a tokenizer, one that reads images has none")
        named = [self.calibration, self.evaluation, self.card, *self.artefacts.values()]
        named += [name for name in (self.tokenizer, self.golden) if name is not None]
        named += [self.input.templates] if self.input.kind == "policy" else []
        missing = sorted(set(named) - set(self.files))
        if missing:
            raise ValueError(f"files does not list {', '.join(missing)}")
        if "cpu" not in self.artefacts:
            raise ValueError("artefacts must have one for cpu")
        if len(set(self.harms)) != len(self.harms):
            raise ValueError("harms must be distinct")
        return self


class _Head(BaseModel):
    """The one field that is read before anything else is believed."""

    schema_version: Annotated[int, Field(strict=True, ge=1)]


def parse_manifest(content: bytes) -> Manifest:
    """Parse the bytes of `manifest.json`; raise `BundleError` naming each field that is wrong."""
    refuse_newer(content, MANIFEST_NAME)
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(explain(error, MANIFEST_NAME)) from None


def refuse_newer(content: bytes, name: str) -> None:
    """Raise `BundleError` if the JSON file `name` is absurdly long, or written for a later version of this service."""
    if len(content) > MAX_JSON_BYTES:
        raise BundleError(
            f"{name} is longer than {MAX_JSON_BYTES} bytes, the most it may have: export the bundle again"
        )
    try:
        version = _Head.model_validate_json(content).schema_version
    except ValidationError as error:
        raise BundleError(explain(error, name)) from None
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{name} has schema version {version}, this service reads up to {SCHEMA_VERSION}: upgrade the service"
        )


def explain(error: ValidationError, name: str) -> str:
    """Say in one line which fields of the JSON file `name` are wrong, without their values."""
    problems = error.errors(include_input=False, include_url=False)
    shown = [f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}" for problem in problems[:_SHOWN]]
    more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
    return f"{name} is not valid: {'; '.join(shown)}{more}"
