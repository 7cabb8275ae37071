"""Mutations of valid inputs: bits, lengths and words of any file, and the content of the formats that we read.

An input is a *bundle*, the contents of some files by name. `mutated` changes one of them. If its content is an archive,
a safetensors file or JSON, half of the mutations change it inside and put it together again, with correct lengths and
checksums, so that the change gets past them to the code that reads the content.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from rankscope.io.tensor_file import DATA_CHECKSUM, HEADER_CHECKSUM

Bundle = dict[str, bytes]

MOST_BYTES = 1_000_000
"""Largest input; the contract is about smaller files."""

MOST_UNPACKED = 20_000_000
INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**48,
    2**63 - 1,
    2**64 - 1,
)
WORDS = (
    *(
        b"\0",
        b"\n",
        b"\r",
        b"\t",
        b" ",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        "\u2028".encode(),
        "\u0661".encode(),
    ),
    *(b"nan", b"inf", b"-inf", b"1e400", b"1e-400", b"-0", b"9" * 400, b"0x10", b"1_0", b"../", b"/", b"\\", b"C:"),
    *(b"{", b"}", b"[", b"]", b"(", b")", b'"', b"'", b":", b",", b"&a ", b"*a", b"<<: ", b"!!python/name:os.system "),
)
RAW_JSON = (
    *("null", "true", "false", "0", "-1", "1", "1.5", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e-320"),
    *("9223372036854775807", "18446744073709551616", "-9223372036854775809", "1" * 5000, '""', "{}", "[]", "[[]]"),
    *('"\\ud800"', '"\\u0000"', '"..\\/x"', '"e"', "[null]", '{"": null}', '"' + "x" * 70_000 + '"', '"nan"', '"1"'),
    *("[" * 60_000 + "]" * 60_000, '{"a":' * 30_000 + "1" + "}" * 30_000, '"a\\nb"', "[0, 0]", "1000000", "[1000000]"),
)
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "U64": 8,
          "U32": 4, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8}  # fmt: skip
_MARK = "\ue000mark{}\ue000"


def mutated(bundle: Bundle, rng: random.Random, words: Sequence[bytes] = ()) -> Bundle:
    """Return a bundle with one to four changes, nearly all of them in one file."""
    changed = dict(bundle)
    name = rng.choice(sorted(changed))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if rng.random() < 0.05:
            name = rng.choice(sorted(changed))
        content = content_mutated(changed[name], rng, words)
        if sum(map(len, changed.values())) - len(changed[name]) + len(content) < MOST_BYTES:
            changed[name] = content
    return changed


def content_mutated(content: bytes, rng: random.Random, words: Sequence[bytes] = (), depth: int = 0) -> bytes:
    """Return the content of a file with one change, of its bytes or inside its format."""
    inside = _format_of(content)
    if inside is None or depth > 3 or rng.random() < 0.4:
        return bytes_mutated(content, rng, words)
    try:
        return inside(content, rng, words, depth)
    except Exception:  # an earlier mutation has damaged it
        return bytes_mutated(content, rng, words)


def bytes_mutated(content: bytes, rng: random.Random, words: Sequence[bytes] = ()) -> bytes:
    """Return bytes with one change, regardless of format."""
    size = len(content)
    at = rng.randrange(size + 1)
    # Headers and directories are at the ends, and are small.
    if size > 400 and rng.random() < 0.5:
        at = rng.randrange(200) if rng.random() < 0.7 else size - rng.randrange(200)
    span = min(rng.choice((1, 1, 2, 4, 8, 20, 100, 1000)), size - at)
    before, here, after = content[:at], content[at : at + span], content[at + span :]
    kind = rng.randrange(9)
    if kind == 0 and here:
        return before + bytes([here[0] ^ (1 << rng.randrange(8))]) + here[1:] + after
    if kind == 1:
        return before + rng.randbytes(span) + after
    if kind == 2:
        return before
    if kind == 3:
        return before + after
    if kind == 4:
        times = min(rng.choice((2, 3, 50, 5000)), max(2, MOST_BYTES // max(1, 2 * len(here))))
        return before + here * times + after
    if kind == 5:
        other = rng.randrange(size + 1)
        return before + content[other : other + span] + after
    if kind in (6, 7):
        return before + rng.choice([*WORDS, *words, *words]) + (after if rng.random() < 0.7 else here + after)
    width = rng.choice((1, 2, 4, 8))
    order = rng.choice(("little", "big"))
    number = rng.choice((*INTERESTING, size, size - 1, size + 1, size * 8)) % 256**width
    return before + number.to_bytes(width, order) + content[at + width :]  # type: ignore[arg-type]


def json_mutated(text: str, rng: random.Random, words: Sequence[bytes] = ()) -> str:
    """Return a JSON text with one node of its tree changed, or one inside a text that is itself JSON."""
    tree = [json.loads(text)]
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        keys: Any = node if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                waiting.append(node[key])
    node, key = rng.choice(places)
    value = node[key]
    if isinstance(value, str) and value[:1] in ("{", "[") and rng.random() < 0.9:
        try:
            node[key] = json_mutated(value, rng, words)
            return json.dumps(tree[0])
        except ValueError:
            pass
    raw: dict[str, str] = {}

    def put(new: str) -> str:
        mark = _MARK.format(len(raw))
        raw[json.dumps(mark)] = new
        return mark

    kind = rng.randrange(7)
    if kind == 0 and isinstance(node, dict):
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(words).decode("utf-8", "replace") if words else "x"] = node.pop(key)
    elif kind == 2:
        other, its_key = rng.choice(places)
        node[key] = json.loads(json.dumps(other[its_key])) if other is not tree else 0
    elif kind == 3 and words:
        node[key] = rng.choice(words).decode("utf-8", "replace")
    elif kind == 4 and isinstance(value, (int, float)):
        node[key] = rng.choice((value + 1, -value, value * 1000, value / 3, value + 1e-9, 10**9, 2**40))
    elif kind == 5 and isinstance(value, list) and value:
        node[key] = rng.choice((value[1:], value * 2, [value], value[::-1]))
    else:
        node[key] = put(rng.choice(RAW_JSON))
    out = json.dumps(tree[0])
    for mark, new in raw.items():
        out = out.replace(mark, new)
    return out


def _inside_json(content: bytes, rng: random.Random, words: Sequence[bytes], depth: int) -> bytes:
    return json_mutated(content.decode(), rng, words).encode("utf-8", "surrogatepass")


def _inside_safetensors(content: bytes, rng: random.Random, words: Sequence[bytes], depth: int) -> bytes:
    """Change the header as JSON, or the tensors together with their description."""
    length = int.from_bytes(content[:8], "little")
    text, data = content[8 : 8 + length].decode(), content[8 + length :]
    if rng.random() < 0.4:
        return _safetensors(json_mutated(text, rng, words), data)
    header = json.loads(text)
    metadata = header.pop("__metadata__", {})
    parts = {name: [e["dtype"], e["shape"], data[slice(*e["data_offsets"])]] for name, e in header.items()}
    if not parts or rng.random() < 0.4:
        metadata = json.loads(json_mutated(json.dumps(metadata), rng, words))
        metadata = {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    else:
        name = rng.choice(sorted(parts))
        kind, shape, numbers = parts[name]
        action = rng.randrange(8)
        if action == 0:
            del parts[name]
        elif action == 1:
            parts[rng.choice(words).decode("utf-8", "replace") if words else "x"] = parts.pop(name)
        elif action == 2:
            parts[name][1] = rng.choice((shape[::-1], [math.prod(shape)], [1, *shape], [*shape, 1], [1] * 40 + shape))
        elif action == 3:
            parts[name] = [kind, rng.choice(([0], [0, *shape[1:]], [*shape, 0], [2**40, 0])), b""]
        elif action == 4:
            same = [other for other, size in DTYPES.items() if size == DTYPES.get(kind)]
            parts[name][0] = rng.choice(same)
        elif action == 5:
            new = rng.choice(sorted(DTYPES))
            parts[name] = [new, shape, rng.randbytes(math.prod(shape) * DTYPES[new])]
        elif action == 6:
            special = rng.choice((math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0, -1.0))
            at = rng.randrange(max(1, len(numbers) // 4)) * 4
            whole = struct.pack("<f", special) * (len(numbers) // 4)
            parts[name][2] = whole if len(whole) == len(numbers) and rng.random() < 0.5 else (
                numbers[:at] + struct.pack("<f", special) + numbers[at + 4 :])[: len(numbers)]  # fmt: skip
        else:
            parts[name + rng.choice((".x", "_1", " ", "\0", ".weight"))] = parts[name]
    header, stored = {"__metadata__": metadata}, b""
    for name, (kind, shape, numbers) in parts.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(stored), len(stored) + len(numbers)]}
        stored += numbers
    return _safetensors(json.dumps(header), stored)


def _safetensors(header: str, data: bytes) -> bytes:
    """Return a file with this header and, if it has checksums, with correct ones."""
    text = header.encode("utf-8", "surrogatepass")
    text = re.sub(
        rb'"%s": *"[^"]*"' % DATA_CHECKSUM.encode(), _entry(DATA_CHECKSUM, hashlib.sha256(data).hexdigest()), text
    )
    mark, cleared = rb'"%s": *"[^"]*"' % HEADER_CHECKSUM.encode(), _entry(HEADER_CHECKSUM, "0" * 64)
    text = re.sub(mark, cleared, text, count=1)
    text += b" " * (-len(text) % 8)
    text = text.replace(cleared, _entry(HEADER_CHECKSUM, hashlib.sha256(text).hexdigest()), 1)
    return len(text).to_bytes(8, "little") + text + data


def _entry(name: str, value: str) -> bytes:
    return f'"{name}":"{value}"'.encode()


def _inside_zip(content: bytes, rng: random.Random, words: Sequence[bytes], depth: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(item.file_size for item in archive.infolist()) > MOST_UNPACKED:
            raise ValueError("it unpacks to too much")
        members = [[item.filename, archive.read(item), item.compress_type] for item in archive.infolist()]
    chosen = rng.choice(members)
    action = rng.randrange(10)
    if action == 0:
        members.remove(chosen)
    elif action == 1:
        chosen[0] = rng.choice((*WORDS, *words)).decode("utf-8", "replace") + rng.choice(("", chosen[0]))
    elif action == 2:
        chosen[2] = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED))
    else:
        chosen[1] = content_mutated(chosen[1], rng, words, depth + 1)
    return _zip(members)


def _zip(members: list[list[Any]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content, kind in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), content, kind)
    return file.getvalue()


def _inside_tar_gz(content: bytes, rng: random.Random, words: Sequence[bytes], depth: int) -> bytes:
    plain = zlib.decompressobj(31).decompress(content, MOST_UNPACKED)
    if rng.random() < 0.3:
        return gzip.compress(bytes_mutated(plain, rng, words), 1)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        members = [(item, archive.extractfile(item).read() if item.isreg() else b"") for item in archive]  # type: ignore[union-attr]
    index = rng.randrange(len(members))
    info, inner = members[index]
    action = rng.randrange(8)
    size = None
    if action == 0:
        info.name = rng.choice((*WORDS, *words)).decode("utf-8", "replace") + rng.choice(("", info.name))
    elif action == 1:
        info.type = rng.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE)
        )
        info.linkname = rng.choice(("/etc/passwd", info.name, "../x", ""))
    elif action == 2:
        size = rng.choice((2**33, 2**40, 150_000_000, 0, 1, 2**63))
    else:
        inner = content_mutated(inner, rng, words, depth + 1)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as archive:
        for position, (item, its_content) in enumerate(members):
            changed = position == index
            item.size = len(inner if changed else its_content)
            if changed and size is not None:
                item.size = size
                archive.fileobj.write(item.tobuf(tarfile.GNU_FORMAT) + inner)  # type: ignore[union-attr]
            else:
                archive.addfile(item, io.BytesIO(inner if changed else its_content))
    return gzip.compress(file.getvalue(), 1)


def _format_of(content: bytes) -> Callable[[bytes, random.Random, Sequence[bytes], int], bytes] | None:
    if content[:4] == b"PK\3\4":
        return _inside_zip
    if content[:3] == b"\x1f\x8b\x08":
        return _inside_tar_gz
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content):
        return _inside_safetensors
    return _inside_json if content[:1] in (b"{", b"[") else None
