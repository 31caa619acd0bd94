"""Feeds broken checkpoints to ``interop.load``: nothing may crash, hang, run code or lie.

    python tools/fuzz_checkpoints.py --count 20000 --seed 0

Every file is a mutation of a good one, determined by the seed and its number. Workers read them, in
processes with a limit of memory and time. Allowed are equal trees, a CheckpointError, and, where a
format has no checksum, a changed tree: the bytes and header of .safetensors, what an index leaves
out, all of files of torch before 1.6, and pickles that were edited and given a fresh checksum.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import re
import resource
import select
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

CANARY = "canary"
FORMATS = ("zip", "pickle", "legacy", "safetensors", "index", "shard")
ALLOWED = {
    "zip": {"equal", "error"},
    "pickle": {"equal", "error", "changed"},
    "legacy": {"equal", "error", "changed"},
    "safetensors": {"equal", "error", "changed"},
    "index": {"equal", "error", "changed"},
    "shard": {"equal", "error", "changed"},
}
MEMORY = 2 * 2**30
SHARD = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


# Mutations: each takes bytes and a source of randomness.


def flip(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def truncate(data, rng):
    return data[: rng.randrange(len(data))]


def splice(data, rng):
    start, length = rng.randrange(len(data)), rng.randrange(1, 65)
    at = rng.randrange(len(data))
    piece = rng.choice([data[start : start + length], rng.randbytes(length), b""])
    return data[:at] + piece + data[at + rng.choice([0, len(piece), length]) :]


def extreme_field(data, rng):
    """Overwrites 1 to 8 bytes, in zip records more often than elsewhere, by an extreme integer."""
    records = [m.start() for m in re.finditer(rb"PK[\x01-\x07][\x02-\x08]", data)]
    if records and rng.random() < 0.8:
        at = rng.choice(records) + rng.randrange(56)
    else:
        at = rng.randrange(min(len(data), 64))
    width = rng.choice([1, 2, 4, 8])
    value = rng.choice([0, 1, 0x7F, 0x80, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
    raw = value.to_bytes(8, "little")[:width]
    return data[:at] + raw + data[at + width :]


def header_text(data, rng):
    """Edits the JSON of a .safetensors file or of an index, mostly keeping it well formed."""
    length = struct.unpack("<Q", data[:8])[0] if data[8:9] == b"{" else None
    text = data[8 : 8 + length].decode() if length is not None else data.decode()
    kind = rng.randrange(6)
    if kind == 0:
        found = list(re.finditer(r"\d+", text))
        value = rng.choice(["0", "-1", "1", "7", "1e5", "2.5", str(2**31), str(2**63), "9" * 4000])
    elif kind == 1:
        found = list(re.finditer(r'"[^"]*"', text))
        value = rng.choice(
            [
                '"F64"', '"F4"', '"U8"', '"x"', "null", "[]", "{}", '"../x"', '"/etc/hostname"',
                '""', f'"{INDEX}"', '"\\u0000"', '"__metadata__"', '"weight_map"', f'"{SHARD}"',
            ]
        )  # fmt: skip
    elif kind == 2:
        found = list(re.finditer(r"[\[\]{}:,]", text))
        value = rng.choice(["", "[", "]", "{", "}", ":", ",", "[" * 100_000])
    elif kind == 3:
        found = list(re.finditer(r"\[[^\[\]]*\]", text))
        numbers = ",".join(str(rng.choice([0, 1, 4, 48, 2**62])) for _ in range(rng.randrange(90)))
        value = f"[{numbers}]"
    elif kind == 4:
        found = list(re.finditer(r'"[^"]+":', text))
        value = rng.choice(found).group() if found else ""
    else:
        found = list(re.finditer(r'"[^"]+":\{[^{}]*\},?', text))
        value = rng.choice(["", rng.choice(found).group() if found else ""])
    if found:
        place = rng.choice(found)
        text = text[: place.start()] + value + text[place.end() :]
    raw = text.encode()
    if length is None:
        return raw
    return struct.pack("<Q", rng.choice([len(raw)] * 9 + [length])) + raw + data[8 + length :]


def evil(rng, canary):
    """Opcodes that would write the canary's file, or run something else, if they were obeyed."""
    path = canary.encode()
    text = b"X" + struct.pack("<I", len(path)) + path
    code = f"open({canary!r}, 'w')".encode()
    program = b"X" + struct.pack("<I", len(code)) + code
    shell = b"X" + struct.pack("<I", len(path) + 6) + b"touch " + path
    mode = b"X\x01\x00\x00\x00w"
    return rng.choice(
        [
            b"cbuiltins\nopen\n(" + text + mode + b"tR0",
            b"cio\nopen\n(" + text + mode + b"tR0",
            b"cbuiltins\nexec\n(" + program + b"tR0",
            b"cbuiltins\neval\n" + program + b"\x85R0",
            b"cos\nsystem\n(" + shell + b"tR0",
            b"cposix\nsystem\n" + shell + b"\x85R0",
            b"(" + shell + b"ios\nsystem\n0",
            b"(cos\nsystem\n" + shell + b"o0",
            b"\x8c\x02os\x8c\x06system\x93" + shell + b"\x85R0",
            b"cpathlib\nPath\n(" + text + b"tR(dX\x05\x00\x00\x00touchtb0",
            b"ctorch.storage\n_load_from_bytes\n(" + text + b"tR0",
            b"ctorch\nload\n(" + text + b"tR0",
            b"cbuiltins\ngetattr\n(cbuiltins\n__import__\nX\x08\x00\x00\x00__call__tR0",
            b"ccollections\nOrderedDict\n)R}(" + text + b"cbuiltins\nexec\nsb0",
            b"ctorch._utils\n_rebuild_wrapper_subclass\n(" + program + b"tR0",
            b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nexec\ncbuiltins\nstr\n("
            + program + b"tNtR0",
        ]
    )  # fmt: skip


def opcodes(data, rng, canary):
    """Edits a pickle: other opcodes, extreme numbers, doubled pieces, code that must not run."""
    kind = rng.randrange(5)
    at = rng.randrange(2, len(data))
    if kind == 0:
        return data[:2] + evil(rng, canary) + data[2:]
    if kind == 1:
        # Where a value is pushed, so that the stack stays right.
        places = [m.start() for m in re.finditer(rb"[XKM](?=.)", data, re.DOTALL)] or [2]
        at = rng.choice(places)
        return data[:at] + evil(rng, canary) + data[at:]
    if kind == 2:
        every = b"(.012FGIJKLMNPQRSTUVX]abcdeghijlopqrstu)}\x80\x81\x82\x85\x86\x87\x88\x8a\x8b\x8c"
        return data[:at] + bytes([rng.choice(every)]) + data[at + rng.choice([0, 1]) :]
    if kind == 3:
        numbers = list(re.finditer(rb"K.|M..|J....", data, re.DOTALL))
        place = rng.choice(numbers)
        number = rng.choice(
            [
                b"K\x00", b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"J\x00\x00\x00\x80", b"N",
                b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8a\x09" + b"\xff" * 8 + b"\x00",
            ]
        )  # fmt: skip
        return data[: place.start()] + number + data[place.end() :]
    return splice(data, rng)


def mutate(kind, good, rng, canary):
    """Files of one case, name to bytes; the first is loaded."""
    anything = [flip, truncate, splice, extreme_field]
    if kind == "zip":
        return {"model.pt": rng.choice(anything)(good["model.pt"], rng)}
    if kind == "legacy":
        data = good["legacy.pt"]
        if rng.random() < 0.5:
            return {"model.pt": rng.choice(anything)(data, rng)}
        # The third pickle of the stream, after a magic number, a protocol and the system's sizes.
        start = [m.start() for m in re.finditer(rb"\x80\x02", data)][3]
        return {"model.pt": data[:start] + opcodes(data[start:], rng, canary)}
    if kind == "pickle":
        out = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(good["model.pt"])) as old,
            zipfile.ZipFile(out, "w") as new,
        ):
            for name in old.namelist():
                data = old.read(name)
                if name.endswith("data.pkl"):
                    data = opcodes(data, rng, canary)
                new.writestr(name, data)
        return {"model.pt": out.getvalue()}
    if kind == "safetensors":
        edit = rng.choice([*anything, header_text, header_text])
        return {"model.safetensors": edit(good["model.safetensors"], rng)}
    files = {name: good[name] for name in good if name.startswith("model-")}
    index = good[INDEX]
    if kind == "index":
        return {INDEX: rng.choice([flip, truncate, splice, header_text])(index, rng), **files}
    if rng.random() < 0.1:
        del files[SHARD]
    else:
        files[SHARD] = rng.choice([*anything, header_text])(files[SHARD], rng)
    return {INDEX: index, **files}


# The worker.


def good_files(folder):
    """Small checkpoints of each format: several dtypes, a tie, a scalar, an empty array."""
    import torch

    import interop

    weight = torch.arange(12.0).reshape(3, 4)
    state = {
        "weight": weight,
        "half": torch.arange(6, dtype=torch.bfloat16),
        "count": torch.tensor([1, -2, 3], dtype=torch.int8),
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
        "tied": weight,
    }
    nested = {"state_dict": state, "epoch": 3, "note": "good", "list": [1.5, None, (True, "x")]}
    torch.save(nested, folder / "model.pt")
    torch.save(nested, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    interop.save(folder / "model.safetensors", state)
    (folder / "one").mkdir()
    interop.save(folder / "one" / "model.safetensors", state, max_shard_bytes=50)
    files = [*folder.glob("*.*"), *(folder / "one").glob("*.*")]
    # Each save has shards of other names; these are the same for the same seed.
    tag = re.compile(rb"-[0-9a-f]{16}(?=-)")
    return {
        tag.sub(b"", file.name.encode()).decode(): tag.sub(b"", file.read_bytes()) for file in files
    }


def same(one, other):
    """Equal trees: structure, plain leaves, dtypes, shapes and bits."""
    import numpy as np

    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "dtype") and hasattr(other, "dtype"):
        a, b = np.asarray(one), np.asarray(other)
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return type(one) is type(other) and one == other


def peak():
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0]) * 1024


def work(seed, start, stop, folder):
    """Prints one line for each case: its number, kind, outcome and detail."""
    import interop

    warnings.simplefilter("ignore")
    os.chdir(folder)
    with tempfile.TemporaryDirectory(dir=folder) as at:
        good = good_files(Path(at))
        expected = {}
        for kind, name in (
            ("zip", "model.pt"), ("legacy", "legacy.pt"), ("safetensors", "model.safetensors"),
            ("index", f"one/{INDEX}"),
        ):  # fmt: skip
            expected[kind] = interop.load(Path(at) / name)
    expected |= {"pickle": expected["zip"], "shard": expected["index"]}
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    base = peak()
    for number in range(start, stop):
        rng = random.Random(f"{seed}:{number}")
        kind = FORMATS[number % len(FORMATS)]
        case = folder / "case"
        case.mkdir(exist_ok=True)
        canary = folder / CANARY
        files = mutate(kind, good, rng, str(canary))
        for name, data in files.items():
            (case / name).write_bytes(data)
        print(number, kind, "started", flush=True)
        detail = ""
        try:
            outcome = (
                "equal"
                if same(interop.load(case / next(iter(files))), expected[kind])
                else "changed"
            )
        except interop.CheckpointError as error:
            outcome = "error"
            if len(str(error).splitlines()) > 3 or str(case) not in str(error):
                outcome, detail = "message", repr(str(error))[:300]
        except BaseException as error:
            outcome, detail = "exception", f"{type(error).__name__}: {error!s}"[:300]
        try:
            # What is refused keeps the rest from being read no longer.
            with contextlib.suppress(interop.CheckpointError):
                dict(interop.open_checkpoint(case / next(iter(files))))
        except BaseException as error:
            outcome, detail = "view", f"{type(error).__name__}: {error!s}"[:300]
        if canary.exists() or list(folder.glob("x*")):
            outcome = "executed"
        if peak() > base + 2**29:
            outcome, base = "memory", peak()
        for name in files:
            (case / name).unlink()
        print(number, kind, outcome, ascii(detail), flush=True)


# The parent.


def watch(arguments):
    """Starts workers, each again after the case at which it died or hung; gives the counts."""
    counts = collections.Counter()
    failures = []
    start = arguments.start
    while start < arguments.start + arguments.count:
        with tempfile.TemporaryDirectory() as folder:
            stop = arguments.start + arguments.count
            command = [sys.executable, __file__, "--worker", folder]
            command += ["--seed", str(arguments.seed), "--start", str(start)]
            worker = subprocess.Popen(
                [*command, "--count", str(stop - start)], stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            )  # fmt: skip
            current = start
            ended = "crashed"
            while True:
                # Importing takes long on a busy machine; one case does not.
                ready, _, _ = select.select([worker.stdout], [], [], arguments.timeout)
                if not ready:
                    ended = "hung"
                    worker.kill()
                    break
                line = worker.stdout.readline()
                if not line:
                    break
                number, kind, outcome, *detail = line.rstrip("\n").split(" ", 3)
                current = int(number)
                if outcome == "started":
                    continue
                counts[kind, outcome] += 1
                if outcome not in ALLOWED[kind]:
                    failures.append(f"case {number} ({kind}): {outcome} {' '.join(detail)}")
                if current % 2000 == 1999:
                    print(f"{current + 1} files, {len(failures)} failures", flush=True)
                current += 1
            if worker.wait() == 0 and current == stop:
                break
            failures.append(f"case {current}: {ended}, exit status {worker.returncode}")
            start = current + 1
    return counts, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--worker", type=Path)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        with contextlib.suppress(BrokenPipeError):
            work(
                arguments.seed, arguments.start, arguments.start + arguments.count, arguments.worker
            )
        return
    counts, failures = watch(arguments)
    for (kind, outcome), number in sorted(counts.items()):
        print(f"{kind:12} {outcome:10} {number}")
    for failure in failures[:50]:
        print(failure)
    print(json.dumps({"files": sum(counts.values()), "failures": len(failures)}))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
