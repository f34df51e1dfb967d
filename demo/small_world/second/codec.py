"""The second world's latents: principal components of 16 x 16 patches, fitted in closed form.

Latent frame 0 is picture frame 0: each 8 x 8 cell keeps 47 components, and of four cells together 128 components stay.
Latent frame 1 is frames 1 to 4: the 128 leading components of what cannot be predicted linearly from latent frame 0
(reduced-rank regression, Izenman 1975). Nothing is trained, so a generator can be trained on these latents at once; the
decoder that undoes them is not linear (`train_decoder.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from ..files import load_checkpoint, save_checkpoint
from ..scenes.dataset import random_scenes
from ..scenes.render import ENTERING, PRESENT, render
from .paths import work_dir

SIDE, CELL, PATCH = 96, 8, 16
GRID = SIDE // PATCH
CELL_COMPONENTS, CHANNELS = 47, 128
FIT_VIDEOS, FIT_SEED = 1200, 3


@dataclass(frozen=True)
class Codec:
    """What the fit found; all float32.

    cell_mean (192,), cell (47, 192): a cell's components. first (128, 188): latent frame 0 of the components of four
    cells. rest (128, 3072), known (128, 128), offset (128,): latent frame 1 = rest frames - known frame_0 - offset.
    mean, gain (2, 128): the latents' normalisation, for each latent frame.
    """

    cell_mean: torch.Tensor
    cell: torch.Tensor
    first: torch.Tensor
    rest: torch.Tensor
    known: torch.Tensor
    offset: torch.Tensor
    mean: torch.Tensor
    gain: torch.Tensor

    def encode(self, videos: np.ndarray) -> torch.Tensor:
        """Latents float32 (n, 128, 2, 6, 6), mean 0, mean variance 1, of videos uint8 (n, 5, 96, 96, 3)."""
        frames = to_frames(videos)
        first, rest = self._first(frames[:, 0]), patches(frames[:, 1:], PATCH).flatten(1, 2)
        second = _apply(self.rest, rest) - _apply(self.known, first) - self.offset[:, None, None]
        return self._normalised(torch.stack([first, second], 2))

    def encode_start(self, frames: np.ndarray) -> torch.Tensor:
        """Latents (n, 128, 1, 6, 6) of start frames uint8 (n, 96, 96, 3): what stock VAEEncode gives, scaled."""
        return self._normalised(self._first(to_frames(frames[:, None])[:, 0])[:, :, None])

    def _first(self, frame: torch.Tensor) -> torch.Tensor:
        cells = patches(frame, CELL) - self.cell_mean[:, None, None]
        return _apply(self.first, torch.nn.functional.pixel_unshuffle(_apply(self.cell, cells), 2))

    def _normalised(self, latents: torch.Tensor) -> torch.Tensor:
        count = latents.shape[2]
        return (latents - self.mean.T[:, :count, None, None]) * self.gain.T[:, :count, None, None]


def to_frames(videos: np.ndarray) -> torch.Tensor:
    """uint8 (n, frames, height, width, 3) -> float32 (n, frames, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(videos)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0


def patches(frames: torch.Tensor, side: int) -> torch.Tensor:
    """(..., c, h, w) -> (..., c side side, h / side, w / side), in the order (c, column, row) of ComfyUI's LTX VAE."""
    height, width = frames.shape[-2:]
    cut = frames.unflatten(-2, (height // side, side)).unflatten(-1, (width // side, side))
    return cut.movedim((-1, -3), (-4, -3)).flatten(-5, -3)


def principal(rows: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` leading principal directions (count, d) of rows (n, d)."""
    centred = rows - rows.mean(0)
    if len(rows) < rows.shape[1]:
        return torch.linalg.svd(centred.double(), full_matrices=False).Vh[:count].float()
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for part in centred.split(4096):
        gram += (part.T @ part).double()
    _, vectors = torch.linalg.eigh(gram)
    return vectors.flip(1)[:, :count].T.float()


def fit_codec(videos: np.ndarray) -> Codec:
    """Fit on videos uint8 (n, 5, 96, 96, 3)."""
    frames = to_frames(videos)
    cells = _rows(patches(frames[:, 0], CELL))
    cell_mean, cell = cells.mean(0), principal(cells, CELL_COMPONENTS)
    centred = patches(frames[:, 0], CELL) - cell_mean[:, None, None]
    features = torch.nn.functional.pixel_unshuffle(_apply(cell, centred), 2)
    first = principal(_rows(features), CHANNELS)
    shown = _rows(_apply(first, features))
    target = _rows(patches(frames[:, 1:], PATCH).flatten(1, 2))
    middle, centre = target.mean(0), shown.mean(0)
    prediction = torch.linalg.lstsq((shown - centre).double(), (target - middle).double()).solution.float()
    rest = principal(target - middle - (shown - centre) @ prediction, CHANNELS)
    known = rest @ prediction.T
    offset = rest @ middle - known @ centre
    codec = Codec(cell_mean, cell, first, rest, known, offset, torch.zeros(2, CHANNELS), torch.ones(2, CHANNELS))
    latents = codec.encode(videos)
    mean, std = latents.mean((0, 3, 4)).T, latents.std((0, 3, 4)).T
    # Channels keep half of their spread, on a log scale: full whitening would spend as much of the generator's effort
    # on the faintest component as on the strongest.
    gain = (std / std.mean()).sqrt() / std
    return Codec(cell_mean, cell, first, rest, known, offset, mean, gain)


def load_codec() -> Codec:
    """The fitted codec, fitted on first use and kept in the work folder."""
    path = work_dir() / "codec.pt"
    if (state := load_checkpoint(path)) is None:
        scenes = random_scenes(FIT_VIDEOS, FIT_SEED)
        shown = [render(s, ENTERING if i % 3 == 0 else PRESENT, side=SIDE) for i, s in enumerate(scenes)]
        codec = fit_codec(np.stack(shown))
        state = {field.name: getattr(codec, field.name) for field in fields(Codec)}
        save_checkpoint(path, state)
    return Codec(**state)


def _apply(matrix: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    return torch.einsum("kc,nchw->nkhw", matrix, features)


def _rows(features: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) -> (n h w, c)."""
    return features.movedim(1, -1).reshape(-1, features.shape[1])
