"""A bundle's configuration, made to take volumes from memory and to leave its result there.

Imports MONAI, so only a host process imports this.
"""

import difflib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import monai
import torch
import yaml
from monai.bundle.config_parser import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver
from monai.transforms.io.dictionary import LoadImaged
from monai.utils.module import OptionalImportError

from services.core.errors import ModelFailed
from services.worker.runtimes.monai_bundle_folder import BundleFolder
from services.worker.runtimes.monai_bundle_images import MemoryReader

LOADERS = frozenset({"LoadImaged", "LoadImageD", "LoadImageDict"})
SAVERS = frozenset({"SaveImaged", "SaveImageD", "SaveImageDict"})

LOADER_ARGUMENTS = frozenset(inspect.signature(LoadImaged).parameters) - {"args", "kwargs"}

EVALUATORS = frozenset({"SupervisedEvaluator"})
HEEDED = frozenset({"network", "inferer", "postprocessing", "amp", "amp_kwargs"})
WITHOUT_EFFECT = frozenset(
    {"device", "val_data_loader", "epoch_length", "non_blocking", "val_handlers", "decollate"}
    | {"key_val_metric", "additional_metrics", "metric_cmp_fn"}
)
"""Arguments of an evaluator that change no result here."""

WRAPPERS = ("Failed to instantiate", "Failed to evaluate", "applying transform")
"""How MONAI's own words begin, around what a component raised."""

NOT_RUN = frozenset({"evaluator", "dataset", "dataloader", "handlers"})
"""What this server does itself; what needs it is not evaluated."""


class BundleConfiguration:
    """The parts of a bundle, each made when it is asked for."""

    def __init__(
        self, folder: BundleFolder, overrides: Mapping[str, Any], device: torch.device, reader: MemoryReader
    ) -> None:
        """Raises ModelFailed when a file cannot be read, an override names nothing, or the bundle cannot run here."""
        self._parser = ConfigParser()
        self._parser.read_config(_read(folder.configuration))
        self._parser.read_meta(_read(folder.metadata) if folder.metadata.is_file() else {})
        self._override(overrides)
        self._parser["bundle_root"] = str(folder.root)
        self._parser["device"] = f"$torch.device('{device}')"
        self._check_evaluator()
        try:
            self._parser.resolve_macro_and_relative_ids()  # type: ignore[no-untyped-call]  # MONAI's own gap
        except Exception as error:
            raise self._cannot_make("configuration", error) from error
        loaders = self._redirect(reader)
        self._parser.parse()
        self.image_keys = self._keys_of(loaders)
        if not self.image_keys:
            raise ModelFailed(
                "The bundle's configuration has no LoadImaged, which is where this server hands it the volumes; load "
                "images with it in preprocessing."
            )

    @property
    def result_key(self) -> str:
        """Which entry is the result: what would be saved, `pred` where nothing would be."""
        saved = self._keys_of(self._savers)
        return saved[0] if len(saved) == 1 else "pred"

    def first_of(self, *parts: str) -> str | None:
        """The first of these parts that there is and that is not null."""
        return next((part for part in parts if self._parser.get(part) is not None), None)

    def value(self, part: str, default: Any) -> Any:
        """The part where there is one. Raises ModelFailed where it cannot be made."""
        return default if self.first_of(part) is None else self.make(part)

    def raw(self, part: str) -> Any:
        """The part as it is written; None where there is none."""
        return self._parser.get(part)

    def make(self, part: str) -> Any:
        """The object that the configuration describes. Raises ModelFailed."""
        try:
            return self._parser.get_parsed_content(part)
        except Exception as error:
            raise self._cannot_make(part, error) from error

    def components(self, names: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every component of one of these classes that is not disabled, with its id."""
        for part, value in _walk("", self._parser.get()):
            if isinstance(value, dict) and _class_of(value) in names and not _is_disabled(value):
                yield part, value

    def mentions(self, *texts: str) -> bool:
        """Whether any expression of the configuration has one of these in it."""
        return any(
            text in value for _, value in _walk("", self._parser.get()) if isinstance(value, str) for text in texts
        )

    @property
    def input_channels(self) -> int | None:
        """How many channels the network takes, where the metadata says so."""
        inputs = self._parser.get("_meta_::network_data_format::inputs")
        image = inputs.get("image") if isinstance(inputs, dict) else None
        count = image.get("num_channels") if isinstance(image, dict) else None
        return count if isinstance(count, int) else None

    def initialize(self) -> None:
        """Do what the bundle does first, but for what needs an evaluator or loads weights. Raises ModelFailed."""
        skipped = NOT_RUN | {part for part, _ in self.components(frozenset({"CheckpointLoader"}))}
        entries = self._parser.get("initialize", [])
        for position, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            if not self._leads_to(entry, skipped, set()):
                self.make(f"initialize::{position}" if isinstance(entries, list) else "initialize")

    # -----------------------------------------------------------------------------------------------------------------

    def _override(self, overrides: Mapping[str, Any]) -> None:
        for part, value in overrides.items():
            top = ReferenceResolver.split_id(part)[0]
            known = [name for name in self._parser.get() if name != ConfigParser.meta_key]
            if top in {"device", "bundle_root"}:
                instead = "set inference.device" if top == "device" else "it is where the server unpacks the bundle"
                raise ModelFailed(f"The option bundle cannot override {top}; {instead}, and leave it out.")
            if top not in known:
                close = difflib.get_close_matches(top, known, 1)
                raise ModelFailed(
                    f"The option bundle overrides {part!r}, but the bundle's configuration has no {top}"
                    + (f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known)}.")
                )
            try:
                self._parser[part] = value
            except (KeyError, ValueError, IndexError, TypeError) as error:
                raise ModelFailed(
                    f"The option bundle overrides {part!r}, which does not lead to an entry of the bundle's "
                    "configuration; name its parts as they are nested there, separated by ::."
                ) from error

    def _check_evaluator(self) -> None:
        """Refuse what would run otherwise than it does here."""
        evaluator = self._parser.get("evaluator")
        if not isinstance(evaluator, dict) or _is_disabled(evaluator):
            return
        kind = _class_of(evaluator)
        if kind not in EVALUATORS:
            raise ModelFailed(
                f"The bundle runs by an evaluator of its own, {evaluator.get('_target_')}, and this server runs what "
                "SupervisedEvaluator runs; write the inference with that one."
            )
        own = sorted(name for name in evaluator if not name.startswith("_") and name not in HEEDED | WITHOUT_EFFECT)
        if own:
            raise ModelFailed(
                f"The bundle's evaluator is given {', '.join(own)}, which this server does not run; write the "
                "inference without, in preprocessing, inferer and postprocessing."
            )

    def _redirect(self, reader: MemoryReader) -> list[str]:
        """Have images read from memory, and nothing saved. Returns the ids of the loaders."""
        loaders = []
        for part, value in list(self.components(LOADERS)):
            foreign = sorted(name for name in value if not name.startswith("_") and name not in LOADER_ARGUMENTS)
            if foreign:
                raise ModelFailed(
                    f"The bundle's LoadImaged gives its reader {', '.join(foreign)}, which volumes that come over the "
                    f"network know nothing of; override {part} by the option bundle, or leave it out there."
                )
            self._parser[f"{part}::reader"] = reader
            loaders.append(part)
        self._savers = []
        for part, _ in list(self.components(SAVERS)):
            self._parser[f"{part}::_disabled_"] = True
            self._savers.append(part)
        return loaders

    def _keys_of(self, parts: list[str]) -> list[str]:
        keys: list[str] = []
        for part in parts:
            made = self.make(f"{part}::keys")
            keys += [made] if isinstance(made, str) else made
        return list(dict.fromkeys(map(str, keys)))

    def _leads_to(self, value: Any, parts: frozenset[str], seen: set[str]) -> bool:
        """Whether an entry refers to one of the parts, directly or not."""
        for _, text in _walk("", value):
            if not isinstance(text, str):
                continue
            for reference in ReferenceResolver.match_refs_pattern(text):
                if reference in parts or ReferenceResolver.split_id(reference)[0] in parts:
                    return True
                if reference not in seen:
                    seen.add(reference)
                    if self._leads_to(self._parser.get(reference), parts, seen):
                        return True
        return False

    def _cannot_make(self, part: str, error: Exception) -> ModelFailed:
        cause = cause_of(error)
        what = f"The bundle's {part} cannot be made ({type(cause).__name__}: {one_line(cause)})"
        if isinstance(cause, OptionalImportError):
            return ModelFailed(f"{what}; install that package into the worker's environment.")
        wanted = self._parser.get("_meta_::monai_version")
        written = f"it was written for MONAI {wanted}, and " if wanted else ""
        return ModelFailed(f"{what}; {written}MONAI {monai.__version__} is installed here. Correct its configuration.")


def cause_of(error: BaseException) -> BaseException:
    """What a component raised, without what MONAI put around it."""
    while isinstance(error, RuntimeError) and str(error).startswith(WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def unwrapped() -> Iterator[None]:
    """Lets what a component of the bundle raises through as itself. Raises ModelFailed where a package is missing."""
    try:
        yield
    except Exception as error:
        cause = cause_of(error)
        if isinstance(cause, ImportError):
            raise ModelFailed(
                f"The bundle needs a package that is missing ({one_line(cause)}); install it into the worker's "
                "environment."
            ) from error
        if cause is error:
            raise
        raise cause from None


def one_line(error: BaseException) -> str:
    """An error's message, short, on one line and without a full stop."""
    text = str(error).split("\n\n")[0]  # MONAI adds its installation guide and a traceback
    return re.sub(r"\s+", " ", text).strip().rstrip(".")[:300]


def _read(path: Path) -> dict[str, Any]:
    name = f"configs/{path.name}"
    try:
        content = ConfigParser.load_config_file(path)
    except json.JSONDecodeError as error:
        raise ModelFailed(
            f"The bundle's {name} is not valid JSON: {error.msg} in line {error.lineno}; correct it and attach the "
            "bundle again."
        ) from error
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ModelFailed(
            f"The bundle's {name} cannot be read ({type(error).__name__}: {one_line(error)}); correct it and attach "
            "the bundle again."
        ) from error
    if not isinstance(content, dict):
        raise ModelFailed(
            f"The bundle's {name} holds a {type(content).__name__}, not a configuration; correct it and attach the "
            "bundle again."
        )
    return content


def _walk(part: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The value and all that is nested in it, each with its id."""
    yield part, value
    if isinstance(value, dict | list):
        for _, inner, nested in ReferenceResolver.iter_subconfigs(part, value):
            yield from _walk(inner, nested)


def _class_of(component: Mapping[str, Any]) -> str:
    """The last part of its `_target_`, which may be a path or an expression."""
    target = component.get("_target_")
    return re.split(r"\W", target)[-1] if isinstance(target, str) else ""


def _is_disabled(component: Mapping[str, Any]) -> bool:
    return str(component.get("_disabled_", False)).strip().lower() == "true"
