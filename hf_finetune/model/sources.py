"""Where checkpoints are found, and what is said when they are not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_finetune.errors import UserError, unreachable

_ASSETS = Path(__file__).parent.parent / "assets"
_PACKAGE = "package:"


def resolve_checkpoint(checkpoint: str) -> str:
    """A Hub id or folder as transformers takes it; `package:NAME` becomes the folder that ships with hf_finetune.

    Raises:
        UserError: no such checkpoint ships with the package.
    """
    if not checkpoint.startswith(_PACKAGE):
        return checkpoint
    folder = _ASSETS / checkpoint.removeprefix(_PACKAGE)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"No checkpoint {checkpoint} ships with hf_finetune; there are: {', '.join(packaged()) or 'none'}."
        )
    return str(folder)


def packaged() -> list[str]:
    """Names of the checkpoints that ship with hf_finetune, as recipes write them."""
    return sorted(f"{_PACKAGE}{file.parent.name}" for file in _ASSETS.glob("*/config.json"))


def cached() -> list[str]:
    """Hub ids of the models in the local cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = Path(HF_HUB_CACHE).glob("models--*")
    return sorted(folder.name.removeprefix("models--").replace("--", "/") for folder in folders if folder.is_dir())


def commit_of(path: str, revision: str | None) -> str | None:
    """The commit of a Hub checkpoint that has just been loaded; None for a folder."""
    if Path(path).is_dir():
        return None
    from transformers.utils import cached_file

    file = cached_file(path, "config.json", revision=revision, _raise_exceptions_for_missing_entries=False)
    found = re.search(r"/snapshots/([^/]+)/", Path(file).as_posix()) if file else None
    return found.group(1) if found else None


@contextmanager
def loading(checkpoint: str, revision: str | None = None) -> Iterator[None]:
    """Turns what libraries raise while a checkpoint is loaded into one message that says what to do.

    Whatever it is: of a file that was made to break them it may be anything, also a panic of those written in Rust,
    which is no `Exception`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as fault:
        raise UserError(_explain(checkpoint, revision, fault)) from fault
    except BaseException as fault:
        if type(fault).__name__ != "PanicException":
            raise
        raise UserError(_explain(checkpoint, revision, fault)) from fault


def _explain(checkpoint: str, revision: str | None, fault: BaseException) -> str:
    """What to do, in words; raised here where there is no network."""
    names, text = _chain(fault)
    what = checkpoint if revision is None else f"{checkpoint} at revision {revision}"
    if "GatedRepoError" in names:
        return f"{what} is gated: accept its licence on its page on the Hub, then `hf auth login`."
    if "RevisionNotFoundError" in names:
        return (
            f"{checkpoint} has no revision {revision}: give a branch, tag or commit that is listed on its page on "
            f"the Hub."
        )
    if "safetensors" in text and ("no file named" in text or "does not appear to have" in text):
        return (
            f"{what} has no safetensors file, and other formats can run code when they are opened. Convert it "
            "(https://huggingface.co/spaces/safetensors/convert; files of your own: `from safetensors.torch import "
            'save_file; save_file(torch.load("pytorch_model.bin", weights_only=True), "model.safetensors", '
            '{"format": "pt"})`), or give another checkpoint.'
        )
    if "trust_remote_code" in text:
        return (
            f"{what} comes with Python code of its own. Read it; to let it run, add --trust-remote-code on the "
            f"command line."
        )
    if "LocalEntryNotFoundError" in names or "OfflineModeIsEnabled" in names or "connect to" in text:
        raise unreachable(
            f"{what} is not in the local cache, and the Hub cannot be reached (or HF_HUB_OFFLINE is set). "
            f"{_nearest(checkpoint)}"
        ) from fault
    if "RepositoryNotFoundError" in names:
        return (
            f"There is no model {checkpoint} on the Hub, or it is private (then `hf auth login`). "
            f"{_nearest(checkpoint)}"
        )
    if "HFValidationError" in names or "Repo id must" in text:
        return f"{checkpoint} is neither a folder nor a Hub id (owner/name). {_nearest(checkpoint)}"
    kind = "" if isinstance(fault, (OSError, ValueError, ImportError)) else f"{type(fault).__name__}: "
    return f"{what} cannot be loaded: {kind}{fault}"


def _chain(fault: BaseException | None) -> tuple[set[str], str]:
    """Class names and messages of an exception and of those that led to it."""
    names: set[str] = set()
    texts = []
    while fault is not None:
        names.update(kind.__name__ for kind in type(fault).__mro__)
        texts.append(str(fault))
        fault = fault.__cause__ or fault.__context__
    return names, " ".join(texts)


def _nearest(checkpoint: str) -> str:
    if said := _names_of_timm(checkpoint):
        return said
    at_hand = packaged() + cached()
    close = difflib.get_close_matches(checkpoint, at_hand, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"At hand here: {', '.join(at_hand[:8])}." if at_hand else "No checkpoint is at hand here."


def _names_of_timm(checkpoint: str) -> str | None:
    """What timm's checkpoints of that architecture are called on the Hub: `timm/ARCHITECTURE.TAG`."""
    import timm

    owner, _, name = checkpoint.rpartition("/")
    if owner not in ("", "timm") or len(name) < 3:
        return None
    known = timm.list_pretrained()
    if owner and name in known:
        return "timm has published it under this name: run once with the network to fetch it."
    architecture = name.partition(".")[0].lower()
    found = [each for each in known if each.partition(".")[0] == architecture]
    if not found:
        alike = {each.partition(".")[0] for each in known if architecture in each.partition(".")[0]}
        # A whole word first: xception is legacy_xception, its former name, before it is xception65.
        closest = sorted(alike, key=lambda each: (architecture not in each.split("_"), len(each), each))[:4]
        found = [next(each for each in known if each.partition(".")[0] == one) for one in closest]
    if not found:
        return None
    shown = [f"timm/{each}" for each in found[:4]]
    more = f" (and {len(found) - len(shown)} more)" if len(found) > len(shown) else ""
    return f"Checkpoints of timm are named timm/ARCHITECTURE.TAG: {', '.join(shown)}{more}."
