"""`prefalign cache ls | verify | clear`: the log-probabilities of references that are kept on disk."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from ..references import Shard


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument(
        "--folder", type=Path, metavar="DIR", help="the cache (default: $PREFALIGN_CACHE/reference, else the user's)"
    )
    common.add_argument("--json", action="store_true", help="print one JSON object")
    for name, summary in (
        ("ls", "List the references whose log-probabilities are kept."),
        ("verify", "Read everything, and hold it against its checksums; exit code 1 if something is damaged."),
        ("clear", "Remove references from the cache."),
    ):
        action = actions.add_parser(name, help=summary, description=summary, parents=[common], allow_abbrev=False)
        action.add_argument("keys", nargs="*", metavar="KEY", help="a reference's key, or how it begins; see `ls`")
        if name == "clear":
            action.add_argument("--all", action="store_true", help="all of them")


def run(args: argparse.Namespace) -> int:
    """List, verify or clear; returns 0, or 1 if something is damaged."""
    from ..references import cache_folder

    folder = args.folder or cache_folder()
    if args.folder is not None and not folder.is_dir():
        raise ConfigError(f"`--folder` must be a folder with a reference cache (got {str(folder)!r}).")
    if args.action == "clear" and bool(args.keys) == args.all:
        raise ConfigError("`prefalign cache clear` needs either keys, as `prefalign cache ls` shows them, or `--all`.")
    chosen = _chosen(folder, args.keys)
    if args.action == "clear":
        return _clear(folder, chosen, args.json)
    found = [_describe(each) for each in chosen] if args.action == "ls" else _verify(chosen)
    damaged = sum(len(each["damaged"]) for each in found)
    if args.json:
        print(json.dumps({"folder": str(folder), "references": found}, indent=2, ensure_ascii=False))
    else:
        for each in found:
            _print(each)
        total = sum(each["bytes"] for each in found)
        print(f"{len(found)} references, {_size(total)} in {folder}")
        if args.action == "verify":
            shards = sum(each["shards"] for each in found)
            print(f"Read to the end: {shards} shards are sound, {damaged or 'none'} damaged.")
    return 1 if damaged and args.action == "verify" else 0


def _chosen(folder: Path, keys: Sequence[str]) -> list[Path]:
    from ..references import stores_in

    stores = stores_in(folder)
    if not keys:
        return stores
    found = []
    for key in keys:
        fits = [each for each in stores if key and each.name.startswith(key)]
        if len(fits) != 1:
            what = f"begins {len(fits)} keys" if fits else "is no key"
            raise ConfigError(f"{key!r} {what} of the cache in {str(folder)!r}. `prefalign cache ls` lists them.")
        found += fits
    return list(dict.fromkeys(found))


def _describe(store: Path) -> dict[str, Any]:
    """What is known of a reference from the headers of its shards."""
    from ..references import open_shard, read_about

    shards, damaged = [], _set_aside(store)
    for path in sorted(store.glob("*.safetensors")):
        try:
            shards.append(open_shard(path))
        except CheckpointError:
            damaged.append(path.name)
    return _summary(store, shards, damaged, read_about(store))


def _verify(stores: Sequence[Path]) -> list[dict[str, Any]]:
    """Read every shard of the references to its end."""
    from tqdm import tqdm

    from ..references import open_shard, read_about

    found = []
    files = {store: sorted(store.glob("*.safetensors")) for store in stores}
    with tqdm(total=sum(map(len, files.values())), desc="Shards", delay=2.0) as bar:
        for store, paths in files.items():
            shards, damaged = [], _set_aside(store)
            for path in paths:
                try:
                    shard = open_shard(path)
                    good = shard.whole() and all(shard.row(number) is not None for number in range(len(shard.ends)))
                except CheckpointError:
                    good = False
                if good:
                    shards.append(shard)
                else:
                    damaged.append(path.name)
                bar.update()
            found.append(_summary(store, shards, damaged, read_about(store)))
    return found


def _set_aside(store: Path) -> list[str]:
    from ..references import DAMAGED

    return sorted(path.name for path in store.glob(f"*{DAMAGED}"))


def _summary(store: Path, shards: Sequence[Shard], damaged: list[str], about: dict[str, Any]) -> dict[str, Any]:
    files = [path for path in store.iterdir() if path.is_file()]
    return {
        "key": store.name,
        "reference": str(about.get("reference", "unknown")),
        "dtype": str(about.get("dtype", "unknown")),
        "autocast": str(about.get("autocast", "unknown")),
        "texts": sum(len(shard.ends) for shard in shards),
        "tokens": sum(shard.logps.numel for shard in shards),
        "shards": len(shards),
        "bytes": sum(path.stat().st_size for path in files),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(path.stat().st_mtime for path in files))),
        "damaged": damaged,
    }


def _printable(text: str) -> str:
    """Text of a file without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _print(each: dict[str, Any]) -> None:
    precision = each["dtype"] if each["autocast"] == "no" else f"{each['dtype']}, {each['autocast']} autocast"
    precision = _printable(precision)
    print(
        f"{each['key']}  {_printable(each['reference'])}\n"
        f"  {precision}; {each['texts']:,} texts, {each['tokens']:,} tokens in {each['shards']} shards, "
        f"{_size(each['bytes'])}; last written {each['written']}"
    )
    for name in each["damaged"]:
        print(f"  damaged: {name} (its texts are computed again when they are needed; `clear` removes the file)")


def _clear(folder: Path, stores: Sequence[Path], as_json: bool) -> int:
    freed = 0
    for store in stores:
        if store.is_symlink():  # what a link names may be another's
            raise ConfigError(f"{str(store)!r} is a link; remove it by hand.")
        freed += sum(path.stat().st_size for path in store.iterdir() if path.is_file())
        shutil.rmtree(store)
    if as_json:
        removed = [store.name for store in stores]
        print(json.dumps({"folder": str(folder), "removed": removed, "bytes": freed}, indent=2))
    else:
        print(f"Removed {len(stores)} references, {_size(freed)}, from {folder}")
    return 0


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
