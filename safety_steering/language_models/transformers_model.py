"""A language model from a Hugging Face folder or a GGUF file, run by transformers, as a source of directions.

Nothing is downloaded and no code of the model's folder is run: only local files, only safetensors or GGUF weights. The
model is loaded at the first request and unloaded when the last `open` block ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import SafetySteeringError
from .layer_states import Enough, find_layers, last_weights, mean_weights, pooled_states, token_weights, word_weights
from .model_files import check_files, check_reader, slug, weight_files
from .source_model import ONE_TOKEN, POOLINGS, Progress, check_request, token_fraction
from .words import NOTHING, Span, Words, find_words, join_words, piece_reader, token_spans, tokens_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
SAMPLED = 2**20  # bytes of each end of a weight file that are hashed
LONGEST = 512  # tokens; a caption has about 25
LOCAL_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class LanguageModel:
    """A language model on disk. path: a folder with config.json, or a .gguf file; its name becomes the space's.

    Raises:
        SafetySteeringError: on construction, if files are missing or were saved by a later transformers than is here;
            later, if they cannot be read as a language model.
    """

    def __init__(self, path: str | Path, *, device: str = "cpu", dtype: str = "float32", batch: int = 16) -> None:
        self.path = Path(path)
        check_files(self.path)
        check_reader(self.path)
        if dtype not in DTYPES:
            raise SafetySteeringError(f"The dtype is '{dtype}', expected one of {', '.join(DTYPES)}.")
        if batch < 1:
            raise SafetySteeringError(f"The batch size is {batch}, expected 1 or more.")
        self.device, self.dtype, self.batch = torch.device(device), DTYPES[dtype], batch
        self.name = slug(self.path.stem if self._gguf else self.path.name)
        self._model: torch.nn.Module | None = None
        self._users = 0

    @property
    def layers(self) -> int:
        return int(self._text_config.num_hidden_layers)

    @property
    def width(self) -> int:
        return int(self._text_config.hidden_size)

    @property
    def poolings(self) -> tuple[str, ...]:
        has_template = bool(getattr(self.tokenizer, "chat_template", None))
        return tuple(name for name in POOLINGS if name != "chat" or has_template)

    def space(self, layer: int) -> str:
        return f"{self.name}/source.{layer}"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of each weight file's size, first and last mebibyte: equal for copies, and fast for any size."""
        digest = hashlib.sha256(repr((self.layers, self.width)).encode())
        for file in weight_files(self.path):
            with open(file, "rb") as opened:
                digest.update(opened.read(SAMPLED))
                size = opened.seek(0, 2)
                opened.seek(max(0, size - SAMPLED))
                digest.update(opened.read() + str(size).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def parameters(self) -> int:
        """Number of parameters; times the dtype's size, the memory that the model needs."""
        with torch.device("meta"), _explained(self.path):
            model = _transformers().AutoModel.from_config(self._config, trust_remote_code=False)
        return sum(parameter.numel() for parameter in model.parameters())

    @contextmanager
    def open(self) -> Iterator[LanguageModel]:
        """Keep the model loaded inside the block; blocks may be nested."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._model = None

    def states(
        self, texts: Sequence[str], layers: Sequence[int], pooling: str = "mean", progress: Progress | None = None
    ) -> torch.Tensor:
        """As `SourceModel.states`. Texts are truncated to 512 tokens."""
        check_request(self, texts, layers, pooling)
        tokens = self._tokens(texts, pooling)
        result = torch.empty(len(texts), len(layers), self.width)

        def weigh(rows: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
            if pooling == "mean":
                return mean_weights(mask, drop_first=True)
            if pooling == ONE_TOKEN:
                return token_weights(mask, [token_fraction(texts[i]) for i in rows])
            return last_weights(mask)

        for rows, found in self._passes(tokens, layers, weigh, progress):
            result[rows] = torch.stack([found[layer] for layer in layers], dim=1)
        self._check_finite(result)
        return result

    def words(self, texts: Sequence[str], layer: int, progress: Progress | None = None) -> Words:
        """As `SourceModel.words`. Texts are truncated to 512 tokens."""
        check_request(self, texts, [layer], "mean")
        tokens = self._tokens(texts, "mean")
        spans = [[NOTHING, *self._spans(text, own)[1:]] for text, own in zip(texts, tokens, strict=True)]
        words = [
            [(word, owned) for word in find_words(text) if (owned := tokens_of(word, own))]
            for text, own in zip(texts, spans, strict=True)
        ]
        parts = []

        def weigh(rows: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
            return word_weights([[owned for _, owned in words[i]] for i in rows], mask)

        for rows, found in self._passes(tokens, [layer], weigh, progress):
            for place, i in enumerate(rows):
                count = len(words[i])
                own = torch.tensor([word for word, _ in words[i]], dtype=torch.long).reshape(-1, 2)
                parts.append(Words(torch.full((count,), i), own, found[layer][place, :count]))
        result = join_words(sorted(parts, key=lambda part: int(part.texts[0]) if len(part) else 0))
        self._check_finite(result.states)
        return result

    def _passes(
        self,
        tokens: Sequence[Sequence[int]],
        layers: Sequence[int],
        weigh: Callable[[Sequence[int], torch.Tensor], torch.Tensor],
        progress: Progress | None,
    ) -> Iterator[tuple[list[int], dict[int, torch.Tensor]]]:
        """Text numbers and their states by layer, float32 on the CPU, batch by batch.

        weigh: gives the weights of `pooled_states` for these texts, from the mask of their tokens.
        """
        # batches of texts of similar length need little padding
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        with self.open(), torch.inference_mode():
            model = self._loaded()
            for start in range(0, len(order), self.batch):
                rows = order[start : start + self.batch]
                found = self._pass(model, [tokens[i] for i in rows], layers, lambda mask: weigh(rows, mask))  # noqa: B023
                yield rows, {layer: states.float().cpu() for layer, states in found.items()}
                if progress is not None:
                    progress(start + len(rows), len(tokens))

    def _check_finite(self, states: torch.Tensor) -> None:
        if not bool(states.isfinite().all()):
            raise SafetySteeringError(
                f"{self.name} gave states that are not finite in {self.dtype}. Use float32 or bfloat16."
            )

    def _pass(
        self,
        model: torch.nn.Module,
        tokens: Sequence[Sequence[int]],
        layers: Sequence[int],
        weigh: Callable[[torch.Tensor], torch.Tensor],
    ) -> dict[int, torch.Tensor]:
        padded = self.tokenizer.pad({"input_ids": [list(row) for row in tokens]}, return_tensors="pt")
        mask = padded["attention_mask"].bool()
        weights = weigh(mask)
        # with padding on the left, positions count from the text's own first token
        positions = (mask.long().cumsum(dim=1) - 1).clamp_min(0)
        kept: Mapping[int, torch.Tensor]
        with pooled_states(find_layers(model), layers, lambda: weights, stop=True) as kept, suppress(Enough):
            model(
                input_ids=padded["input_ids"].to(self.device),
                attention_mask=mask.long().to(self.device),
                position_ids=positions.to(self.device),
                use_cache=False,
            )
        return dict(kept)

    def _spans(self, text: str, tokens: Sequence[int]) -> list[Span]:
        """The characters of each token of a text; none where they cannot be told."""
        if self.tokenizer.is_fast:
            found = self.tokenizer(text, truncation=True, max_length=LONGEST, return_offsets_mapping=True)
            offsets = [(int(start), int(end)) for start, end in found["offset_mapping"]]
            return offsets or [NOTHING]
        return token_spans(text, [self._read(token) for token in tokens]) or [NOTHING] * len(tokens)

    @cached_property
    def _read(self) -> Callable[[int], bytes]:
        return piece_reader(self.tokenizer.get_vocab(), self.tokenizer.all_special_ids)

    def _tokens(self, texts: Sequence[str], pooling: str) -> list[list[int]]:
        tokenizer = self.tokenizer
        if pooling == "chat":
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
                )
                for text in texts
            ]
        encoded = tokenizer(list(texts), truncation=True, max_length=LONGEST, add_special_tokens=pooling != "chat")[
            "input_ids"
        ]
        # an empty text has no tokens
        return [list(row) or [tokenizer.pad_token_id] for row in encoded]

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer."""
        with _explained(self.path):
            tokenizer = _transformers().AutoTokenizer.from_pretrained(self._folder, **self._gguf_file, **LOCAL_ONLY)
        if tokenizer.pad_token_id is None:
            # padding is masked, so any token is valid
            tokenizer.pad_token_id = tokenizer.eos_token_id or 0
        return tokenizer

    @cached_property
    def _config(self) -> Any:
        with _explained(self.path):
            config = _transformers().AutoConfig.from_pretrained(self._folder, **self._gguf_file, **LOCAL_ONLY)
        if config.is_encoder_decoder:
            raise SafetySteeringError(
                f"{self.path.name} is an encoder-decoder ({config.model_type}). Load it as a text encoder in ComfyUI "
                "and connect its CLIP."
            )
        return config

    @property
    def _text_config(self) -> Any:
        return self._config.get_text_config()

    @property
    def _gguf(self) -> bool:
        return self.path.suffix.lower() == ".gguf"

    @property
    def _folder(self) -> str:
        return str(self.path.parent if self._gguf else self.path)

    @property
    def _gguf_file(self) -> dict[str, str]:
        return {"gguf_file": self.path.name} if self._gguf else {}

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def _loaded(self) -> torch.nn.Module:
        if self._model is None:
            self._model = self._load()
        return self._model

    def _load(self) -> torch.nn.Module:
        options = {_dtype_option(): self.dtype, "output_loading_info": True, **LOCAL_ONLY}
        with _explained(self.path), _quietly():
            if self._gguf:
                # GGUF tensor names are mapped for the whole model only, so its head is loaded too
                whole, about = _transformers().AutoModelForCausalLM.from_pretrained(
                    self._folder, **self._gguf_file, **options
                )
                model = whole.base_model
            else:
                model, about = _transformers().AutoModel.from_pretrained(self._folder, use_safetensors=True, **options)
        missing = sorted(name for name in about["missing_keys"] if not name.startswith("lm_head"))
        if missing:
            raise SafetySteeringError(
                f"{self.path.name} lacks {len(missing)} of its tensors, the first is {missing[0]}. Download it again."
            )
        loaded: torch.nn.Module = model.eval().requires_grad_(False).to(self.device)
        return loaded


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn any error of transformers into one sentence that starts with the model's name."""
    try:
        yield
    except SafetySteeringError:
        raise
    except ImportError as error:
        packages = "the packages gguf and accelerate (pip install gguf accelerate)" if path.suffix else "a package"
        raise SafetySteeringError(f"{path.name} needs {packages}: {_first_line(error)}") from error
    except Exception as error:  # readers raise errors of many classes for damaged files
        raise SafetySteeringError(f"{path.name} cannot be read as a language model: {_first_line(error)}") from error


def _transformers() -> Any:
    """The library, imported when first needed, untyped."""
    import transformers

    return transformers


def _dtype_option() -> str:
    """The name of from_pretrained's dtype; ComfyUI 0.30 takes transformers from 4.50.3, which has the former name."""
    major, minor = map(int, _transformers().__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' warnings of unused heads; missing tensors are checked in `_load`."""
    logging = _transformers().utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
