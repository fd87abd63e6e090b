"""A scorer of images: events in, logits per harm out, whatever single images do; what they are made of is not kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.bundle import Bundle
from stream.errors import BundleError, ScoringError
from stream.events import EventBatch, FailCondition, Scores
from stream.scoring.bare import PictureError
from stream.scoring.batching import MicroBatch
from stream.scoring.calls import bit, open_compared, refuse_difference, run_or_split
from stream.scoring.modality import find_images
from stream.scoring.picture import Picture, PictureReader
from stream.scoring.session import OnnxSession, Provider, RunError, open_session, reads_pixels

__all__ = ["ImageScorer"]

CALL_PIXELS = 2**20
"""Pixels of one model call on CUDA, 20 pieces of 224 x 224: 12 MB of input, and some hundred megabytes within a
network. Images are decoded until a call is full and let go after it, so no more of them are in memory, however long
the batch.

On the CPU each piece is a call of its own: a small ViT takes 15 ms for one alone and 25 ms for each of 20, a ResNet-50
72 and 71 (measured), and what is alone has no company that its bits could depend on."""


class ImageScorer:
    """Scores images with one loaded model. Threads may share it.

    Same image, same bundle, same provider: same bits, whatever the batch-mates. On CUDA, where pieces run together, all
    calls have the same number of rows, idle ones included, and only one if at load company changed a probe's logits. An
    image's logit is the largest over the frames that are looked at, and a frame's the mean probability of its pieces as
    a logit [S38].
    """

    def __init__(self, session: OnnxSession, reader: PictureReader, *, harms: tuple[str, ...]) -> None:
        """Warm `session` up. Raises `BundleError` where the model does not fit its manifest."""
        self.harms = harms
        self.provider: str = session.provider
        self._session = session
        self._reader = reader
        fitting = max(1, CALL_PIXELS // (reader.given.height * reader.given.width))
        self._rows = fitting if session.provider == "cuda" else 1
        self._warm_up()
        if self._rows > 1 and self._is_swayed_by_mates():
            self._rows = 1
            self._warm_up()

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, provider: Provider, max_frames: int | None = None) -> ImageScorer:
        """Load a verified bundle for `provider`; `max_frames` None is as many as its evaluation looked at.

        Without an artefact for CUDA the one for the CPU runs there, provided that every operator does. Raises
        `BundleError` where the bundle cannot be served, `ProviderError` where `provider` is not what would run it.
        """
        manifest, given = bundle.manifest, bundle.manifest.input
        if given.kind != "image":
            raise BundleError(f"{bundle.path} does not read images: it has an input of kind {given.kind}")
        reader = PictureReader(given, max_frames=max_frames)
        signature = reads_pixels(len(manifest.harms), height=given.height, width=given.width)

        def make(model: bytes, place: Provider) -> ImageScorer:
            return cls(open_session(model, place, signature=signature), reader, harms=manifest.harms)

        return open_compared(bundle, provider, make)

    def score(self, events: EventBatch) -> Scores:
        """Score m events; see `Scores`. Raises `ScoringError` where the runtime fails on images that are known to work.

        An image that no decoder reads has NaN logits and `UNSUPPORTED`, one that the model fails on NaN and
        `SCORER_ERROR`.
        """
        viewable = find_images(events)
        logits = np.full((len(events), len(self.harms)), np.nan, dtype=np.float32)
        conditions = viewable.conditions
        counts = np.zeros(len(events), dtype=np.int16)
        waiting: dict[int, Picture] = {}
        for row, image in zip(viewable.rows.tolist(), viewable.images, strict=True):
            try:
                waiting[row] = picture = self._reader.read(image)
            except PictureError:
                conditions[row] |= np.uint8(1 << FailCondition.UNSUPPORTED)
                continue
            counts[row] = len(picture.pieces)
            conditions[row] |= np.uint8((not picture.whole) << FailCondition.TRUNCATED)
            if sum(len(picture.pieces) for picture in waiting.values()) >= self._rows:
                self._score_pictures(waiting, logits)
                waiting = {}
        self._score_pictures(waiting, logits)
        looked_at = counts > 0
        failed = looked_at & np.isnan(logits[:, 0])
        if looked_at.any() and failed.sum() == looked_at.sum():
            self._score_probes()
        return Scores(logits, conditions | bit(FailCondition.SCORER_ERROR, failed), counts)

    def refuse_difference(self, reference: ImageScorer) -> None:
        """Raise `ProviderError` unless the probes' logits agree with those of `reference`."""
        refuse_difference(self._score_probes(), reference._score_probes(), provider=self.provider)

    def _score_pictures(self, pictures: dict[int, Picture], logits: NDArray[np.float32]) -> None:
        """Fill the rows of `logits` that are the keys of `pictures`."""
        if not pictures:
            return
        scored = self._score_pieces(np.concatenate([picture.pieces for picture in pictures.values()]))
        ends = np.cumsum([len(picture.pieces) for picture in pictures.values()])
        for (row, picture), of_row in zip(pictures.items(), np.split(scored, ends[:-1]), strict=True):
            frames = [of_row[picture.frames == number] for number in np.unique(picture.frames)]
            logits[row] = np.max([_mean_probability(pieces) for pieces in frames], axis=0)

    def _score_pieces(self, pieces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The logits of r pieces (r, height, width, 3), (r, h) float32, NaN where the model failed."""
        logits = np.full((len(pieces), len(self.harms)), np.nan, dtype=np.float32)
        for batch in self._batches(len(pieces)):
            run_or_split(batch, lambda part: self._run(pieces, part, logits), fewest=1)
        # NaN in all of the row, so that no maximum over an image's frames can hide it.
        logits[~np.isfinite(logits).all(axis=1)] = np.nan
        return logits

    def _run(self, pieces: NDArray[np.uint8], batch: MicroBatch, logits: NDArray[np.float32]) -> None:
        """Fill `logits` for the rows of `batch`. Raises `RunError`."""
        pixels = self._reader.pixels(pieces[batch.rows])
        if batch.idle:
            pixels = np.concatenate([pixels, np.zeros((batch.idle, *pixels.shape[1:]), dtype=np.float32)])
        logits[batch.rows] = self._session.call({"pixels": pixels})["logits"][: len(batch.rows)]

    def _batches(self, count: int) -> list[MicroBatch]:
        rows = np.arange(count)
        calls = [rows[at : at + self._rows] for at in range(0, count, self._rows)]
        return [MicroBatch(call, self._reader.given.height).at_least(self._rows) for call in calls]

    def _score_probes(self) -> NDArray[np.float32]:
        """The logits of the probes, finite; otherwise raise `ScoringError`, for nothing can be scored."""
        logits = self._run_all(self._probes, self._batches(len(self._probes)))
        if not np.isfinite(logits).all():
            raise ScoringError(
                f"on {self.provider} the model gives no finite logits for a plain image; export it again"
            )
        return logits

    def _is_swayed_by_mates(self) -> bool:
        """Whether a probe's logits in a full call are others than in a call of its own."""
        probes, height = self._probes, self._reader.given.height
        together, each = np.arange(self._rows) % len(probes), np.split(np.arange(len(probes)), len(probes))
        full = self._run_all(probes[together], self._batches(self._rows))
        alone = self._run_all(probes, [MicroBatch(row, height).at_least(self._rows) for row in each])
        return not np.array_equal(full, alone[together])

    def _run_all(self, pieces: NDArray[np.uint8], batches: list[MicroBatch]) -> NDArray[np.float32]:
        """The logits of r pieces, (r, h) float32. Raises `RunError`."""
        logits = np.empty((len(pieces), len(self.harms)), dtype=np.float32)
        for batch in batches:
            self._run(pieces, batch, logits)
        return logits

    @property
    def _probes(self) -> NDArray[np.uint8]:
        """Images of our own, (4, height, width, 3): grey, a slope of colours, stripes, and what looks like noise."""
        y, x = np.indices((self._reader.given.height, self._reader.given.width))
        slope = np.stack([255 * x // x.max(), 255 * y // y.max(), 128 + 0 * x], axis=-1)
        stripes = np.repeat(((x // 7 + y // 5) % 2 * 255)[..., None], 3, axis=-1)
        noise = np.stack([(x * x * k + y * y * 17 + x * y * 13) % 256 for k in (31, 37, 41)], axis=-1)
        return np.stack([np.full_like(slope, 128), slope, stripes, noise]).astype(np.uint8)

    def _warm_up(self) -> None:
        """Run the largest call there will be, so that memory is found short now and not in traffic."""
        given = self._reader.given
        pixels = np.zeros((self._rows, 3, given.height, given.width), dtype=np.float32)
        try:
            logits = self._session.call({"pixels": pixels})["logits"]
        except RunError as error:
            raise BundleError(f"the model cannot take a full call of images: {error}; export it again") from None
        if logits.shape != (len(pixels), len(self.harms)):
            raise BundleError(f"the model gives logits of shape {logits.shape}, not {(len(pixels), len(self.harms))}")
        self._score_probes()


def _mean_probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logit of the mean probability of c pieces, (c, h) to (h,); a single piece's own, to the last bit."""
    if len(logits) == 1:
        return logits.reshape(-1)
    if np.isnan(logits).any():
        return np.full(logits.shape[1], np.nan, dtype=np.float32)
    wide = logits.astype(np.float64)
    likely: NDArray[np.float64] = np.logaddexp.reduce(-np.logaddexp(0, -wide), axis=0)
    unlikely: NDArray[np.float64] = np.logaddexp.reduce(-np.logaddexp(0, wide), axis=0)
    return (likely - unlikely).astype(np.float32)
