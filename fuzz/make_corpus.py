#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets into fuzz/corpus/<target>/; they are checked in.

Each seed is a small good input, or one that is wrong in one known way. Usage: fuzz/make_corpus.py
"""

import hashlib
import json
import struct
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"


def write(target: str, seeds: list[bytes]) -> None:
    """Name each seed by its digest, so that another run changes nothing."""
    folder = CORPUS / f"fuzz_{target}"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict:
    """One entry of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors(header: object, data_size: int) -> bytes:
    """The input of fuzz_safetensors_header: 2 bytes for the size of the data, then the file."""
    text = header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))
    encoded = text.encode()
    return data_size.to_bytes(2, "little") + len(encoded).to_bytes(8, "little") + encoded


def safetensors_seeds() -> list[bytes]:
    """Headers: good ones, odd ones, hostile ones."""
    two = {
        "__metadata__": {"format": "pt"},
        "a.weight": tensor("BF16", [2, 3], 0, 12),
        "b": tensor("F32", [], 12, 16),
    }
    whole = '{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
    return [
        safetensors({}, 0),
        safetensors(two, 16),
        safetensors(two, 15),
        safetensors({"q": tensor("F4", [3, 2], 0, 3), "e": tensor("I64", [0, 9], 3, 3)}, 3),
        safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, 6),
        safetensors({"a": tensor("U8", [2**63, 2], 0, 4)}, 4),
        safetensors(f' {{"a":{whole}}} \n', 4),
        safetensors(f'{{"a":{whole},"\\u0061":{whole}}}', 4),
        safetensors('{"a":{"x":[[{"y":null}],1e9,true],"dtype":"U8"}}', 0),
        safetensors('{"__metadata__":{"k":1}}', 0),
        safetensors('{"\\ud83d\\ude00":' + whole + "}", 4),
        safetensors("[" * 200, 0),
        (0).to_bytes(2, "little") + (2**64 - 1).to_bytes(8, "little") + b"{}",
        b"\0\0version https://git-lfs.github.com/spec/v1\n",
    ]


def index_seeds() -> list[bytes]:
    """Index files; the target has 1.safetensors with a and b, and 2.safetensors with c."""
    good = {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}
    maps: list[object] = [
        good,
        {"c": "2.safetensors"},
        {"a": "3.safetensors"},
        {"d": "1.safetensors"},
        {"a": "../1.safetensors"},
        {"a": "/etc/passwd"},
        {"a": 1},
        {},
    ]
    seeds = [json.dumps({"weight_map": entry}).encode() for entry in maps]
    return [
        *seeds,
        json.dumps({"metadata": {"total_size": 6}, "weight_map": good}, indent=2).encode(),
        b'{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}',
        b"<!DOCTYPE html>",
    ]


def manifest_seeds() -> list[bytes]:
    """Manifests with and without digests and leaves."""
    size = 2**20 + 4
    full = {
        "file": "a.safetensors",
        "dtype": "U8",
        "shape": [size],
        "size": size,
        "digest": "0" * 64,
        "leaves": ["1" * 64, "2" * 64],
    }
    files = [{"name": "a.safetensors", "size": size + 100}]
    whole = {
        "schema_version": 1,
        "format": "safetensors",
        "digest": "sha256-tree-1mib",
        "files": files,
        "tensors": {"w": full},
    }
    return [
        json.dumps(whole, indent=2).encode(),
        json.dumps({"schema_version": 1, "files": [], "tensors": {}}).encode(),
        json.dumps({"schema_version": 2}).encode(),
        json.dumps({**whole, "files": []}).encode(),
    ]


def ledger_seeds() -> list[bytes]:
    """Lists of intervals: touching, overlapping, with digests, in two ledgers."""
    return [
        bytes([1, 0, 16, 0, 16, 16, 0, 64, 8, 0]),
        bytes([1, 0, 32, 0, 16, 32, 1, 200, 56, 0]),
        bytes([1, 0, 16, 2, 0, 16, 3, 32, 16, 2]),
        bytes([1, 250, 10, 0, 0, 0, 0]),
        b"\0inrush ledger 1\n",
    ]


def plan_seeds() -> list[bytes]:
    """Bytes that the target's provider turns into indexes and selections."""
    return [hashlib.shake_128(bytes([i])).digest(40 + 20 * i) for i in range(12)]


def select_seeds() -> list[bytes]:
    """Pattern, NUL, slices, NUL, name."""
    return [
        b"layers.0\0\0layers.0",
        b"layers.*\0000:2\0layers.0",
        b"*.we[i-j]ght\0, ::2\0layers.0",
        b"re:^layers\\.[0-9]+(\\.weight)?$\0-2:, 1:5:3\0layers.10",
        b"re:(a|b)*c{2,3}\0:\0abcc",
        b"[!a]?\0\0xy",
    ]


def serverless_seeds() -> list[bytes]:
    """Index files of both dialects; the target has files of 100 and 60 bytes."""
    theirs = {"a": [0, 24, [2, 3], [3, 1], "torch.float32"], "b": [100, 8, [4], [1], "torch.int16"]}
    tensora = {"a": [0, 24, [2, 3], [3, 1], "f32", 0], "b": [52, 8, [], [], "f64", 1]}
    odd = {
        "t": [0, 24, [3, 2], [1, 3], "torch.float32"],
        "e": [0, 4, [9, 4], [0, 1], "torch.uint8"],
    }
    far = {"a": [2**64 - 1, 2**64 - 1, [2**63, 2], [2**63, 1], "torch.complex128"]}
    lying = [
        {"a": [0, 24, [6], [1], "torch.float32"], "b": [20, 24, [6], [1], "torch.float32"]},
        {"a": [96, 8, [2], [1], "torch.float32"]},
        {"a": [0, 8, [2], [-1], "torch.float32"]},
        {"a": [0, 8, [2, 1], [1], "torch.float32"]},
        {"a": [0, 8, [1], [1], "torch.float99"]},
        {"a": [0, 24, [2, 3], [3, 1], "f32", 7]},
        {"a": [0, 8.5, [1], [1], "f64", 0]},
        {"a": [True, None, "x", {}, 3, []]},
        # One element of 8 bytes, repeated: as a plan it had an error that named no file.
        {"t": [0, 48, [444444444444444443, 2], [0, 3], "torch.float32"]},
    ]
    packed = {
        "a": [0, 64, [4, 8], [8, 1], "torch.bfloat16"],
        "\u00e9": [64, 0, [0], [1], "torch.bool"],
    }
    twice = b'{"a":[0,4,[1],[1],"torch.float32"],"a":[4,4,[1],[1],"torch.float32"]}'
    good = (theirs, tensora, odd, far, packed, {}, {"a": []}, *lying)
    return [*(json.dumps(index).encode() for index in good), twice]


def pickle_of(size: str, strides: str, offset: int = 0) -> bytes:
    """{"w": a view of storage 0} as torch.save has it, protocol 2."""
    storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQ"
    extents = b"".join(
        b"(" + b"".join(b"K" + bytes([int(part)]) for part in text.split()) + b"t"
        for text in (size, strides)
    )
    build = b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"K" + bytes([offset]) + extents
    return b"\x80\x02}X\x01\0\0\0w" + build + b"\x89ccollections\nOrderedDict\n)RtRs."


def typed_pickle() -> bytes:
    """{"w": the same view with an attribute}, which torch rebuilds through another function."""
    whole = pickle_of("2 3", "3 1")
    head, build = whole.split(b"ctorch._utils\n_rebuild_tensor_v2\n")
    typed = b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n"
    passed = build.removesuffix(b"Rs.")
    return head + typed + b"ctorch\nTensor\n" + passed + b"}X\x01\0\0\0aK\x01stRs."


def pytorch_seeds() -> list[bytes]:
    """Pickles; the target puts them into an archive."""
    return [
        pickle_of("2 3", "3 1"),
        pickle_of("3 2", "1 3", 2),
        pickle_of("9 4", "0 1"),
        pickle_of("4 4", "4 1", 1),
        pickle_of("", ""),
        typed_pickle(),
        b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.",
        b"\x80\x04\x95\x02\0\0\0\0\0\0\0}\x94.",
        b"\x80\x02]q\0h\0a.",
    ]


def gguf_text(text: str) -> bytes:
    """A length and the text."""
    return len(text).to_bytes(8, "little") + text.encode()


def gguf_file(tensors: list[tuple[str, list[int], int, int]], metadata: bytes, count: int) -> bytes:
    """A file with these tensors (name, lengths, type, offset) and 128 bytes of data."""
    file = b"GGUF" + (3).to_bytes(4, "little")
    file += len(tensors).to_bytes(8, "little") + count.to_bytes(8, "little") + metadata
    for name, lengths, kind, offset in tensors:
        file += gguf_text(name) + len(lengths).to_bytes(4, "little")
        file += b"".join(length.to_bytes(8, "little") for length in lengths)
        file += kind.to_bytes(4, "little") + offset.to_bytes(8, "little")
    return file + bytes(-len(file) % 32) + bytes(128)


def gguf_seeds() -> list[bytes]:
    """Files of plain and quantised tensors, with metadata of several types."""
    name = gguf_text("general.name") + (8).to_bytes(4, "little") + gguf_text("tiny")
    align = gguf_text("general.alignment") + (4).to_bytes(4, "little") + (64).to_bytes(4, "little")
    words = gguf_text("tokens") + (9).to_bytes(4, "little") + (8).to_bytes(4, "little")
    words += (2).to_bytes(8, "little") + gguf_text("a") + gguf_text("b")
    return [
        gguf_file([("a", [3, 2], 0, 0), ("b", [32, 2], 8, 32)], name + words, 2),
        gguf_file([("a", [4], 1, 0), ("b", [8], 30, 64)], align, 1),
        gguf_file([("a", [2**62, 4], 0, 0)], b"", 0),
        gguf_file([], name, 2**60),
    ]


def tensors_record(path: bytes, kind: int, dtype: bytes, shape: list[int], *, wide: bool) -> bytes:
    """Path, kind, dtype and lengths as in a record's header."""
    lengths = b"".join(struct.pack("<Q" if wide else "<I", one) for one in shape)
    front = struct.pack("<BH", kind, len(path)) + path
    return front + struct.pack("<B", len(dtype)) + dtype + struct.pack("<B", len(shape)) + lengths


def tensors_file(version: int, flags: int, tensors: list[tuple], *, crypt: bytes = b"") -> bytes:
    """A .tensors file of (path, kind, dtype, shape, size), with the lines that version has."""
    lines, headers = [], []
    for path, kind, dtype, shape, size in tensors:
        wide = any(one >= 1 << 32 for one in shape)
        record = tensors_record(path, kind, dtype, shape, wide=wide)
        hashes = struct.pack("<HBBB", 35, 1, 1, 32) + bytes(32)
        after = hashes + (crypt if size else struct.pack("<QH", 2, 0) if crypt else b"")
        length = 8 + 2 + len(record) + len(after) + 8
        headers.append(struct.pack("<QH", length, 0) + record + after + struct.pack("<q", size))
        tag = struct.pack("<I", 5 if wide else 1) if version == 5 else b""
        line = struct.pack("<H", len(path)) + path + struct.pack("<B", kind)
        lines.append(tag + line + record[3 + len(path) :])
    at = 0x49 + sum(len(line) + 24 for line in lines)
    index_size = at - 0x49
    index = body = b""
    for line, header, (*_, size) in zip(lines, headers, tensors, strict=True):
        index += line + struct.pack("<QQQ", at, at + len(header), size)
        body += header + bytes(size)
        at += len(header) + size
    head = b"|TZR|" + struct.pack("<I", version) + flags.to_bytes(32, "little")
    total = sum(size for *_, size in tensors)
    return head + struct.pack("<QQQQ", total, 0, len(tensors), index_size) + index + body


def tensorizer_seeds() -> list[bytes]:
    """The golden files with an index of the size that its lines need, and what they lack."""
    bfloat = b"<V2\0torch.bfloat16"
    structured = [
        (b'\x1e["a",0,"b"]', 2, b"<f4", [2], 8),
        (b'\x1e["a",1]', 2, bfloat, [3, 1], 6),
        (b"c", 2, b"<c16", [], 16),
    ]
    long = [(b"l", 0, b"|u1", [1 << 32, 0], 0), (b"m", 1, b"<i8", [2], 16)]
    chunk = struct.pack("<HQ24sQ", 2, 2 << 20, bytes(24), 1) + bytes(16)
    key = struct.pack("<QH", 2 + 8 + len(chunk), 1) + struct.pack("<Q", len(chunk)) + chunk
    argon = struct.pack("<HHQQiH", 1, 1, 3, 256 << 20, 2, 16) + bytes(16)
    chunks = struct.pack("<Q", len(argon)) + argon + struct.pack("<Q", len(chunk)) + chunk
    passphrase = struct.pack("<QH", 2 + len(chunks), 2) + chunks
    seeds = [
        tensors_file(2, 0, structured),
        tensors_file(5, 2, [*structured, *long]),
        tensors_file(5, 0, long),
        tensors_file(3, 0, structured, crypt=key),
        tensors_file(4, 1, [*structured, (b"z", 1, b"<f8", [4], 0)], crypt=passphrase),
        tensors_file(5, 3, long, crypt=key),
        tensors_file(1, 0, [(b"x", 0, b"<f4", [1], 4), (b"x", 0, b"<f4", [1], 4)]),
        tensors_file(1, 0, [(b"x", 0, b"<f4", [2**31, 2**31], 4)]),
        tensors_file(1, 0, [(b"\x1e[[]]", 2, b"<f4", [1], 4)]),
    ]
    golden = Path(__file__).resolve().parent.parent / "tests" / "formats" / "golden"
    for path in sorted(golden.glob("*.tensors")):
        data = path.read_bytes()
        head, index, records = data[:0x41], data[0x49:0x40049], data[0x40049:]
        index = index.rstrip(b"\0") + bytes(8)
        moved = 0x40000 - len(index)
        for offset in range(0x40049, len(data)):  # absolute offsets that the index has
            index = index.replace(
                offset.to_bytes(8, "little"), (offset - moved).to_bytes(8, "little")
            )
        seeds.append(head + len(index).to_bytes(8, "little") + index + records)
    return seeds


def sealed_seeds() -> list[bytes]:
    """Heads of files with tensors of no to several chunks, parts and passphrases; odd ones."""

    def seed(sizes: list[int], chunk: int, *, kdf=(0, 0, 0), part=(0, 1), chunks=None) -> bytes:
        tensors, end = {}, 0
        for i, size in enumerate(sizes):
            tensors[f"t{i}"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(tensors).encode()
        count = sum(-(-size // chunk) for size in sizes) if chunks is None else chunks
        head = b"INRSEAL1" + struct.pack("<3Q", *kdf) + bytes(64)
        head += struct.pack("<2I", *part) + struct.pack("<3Q", chunk, count, len(text)) + bytes(64)
        whole = head + bytes(16 * min(count, 64)) + text
        return whole + bytes(-len(whole) % 4096 if end else 0)

    return [
        seed([], 1024),
        seed([4096], 1024),
        seed([1000, 0, 96, 3000], 1024),
        seed([4096], 4096, kdf=(1, 3, 256 << 20), part=(2, 3)),
        seed([4096], 1024, kdf=(1, 2**63, 2**63)),
        seed([4096], 1024, chunks=2**60),
        seed([4096], 1024, chunks=3),
        seed([16], 1, part=(5, 2)),
        seed([9000], 1024),
    ]


def url_seeds() -> list[bytes]:
    """URLs with what a redirect from them says."""
    return [
        b"https://user:pass@host.example:8443/a/b?sig=1#x\0../c?d",
        b"http://[fe80::1%25eth0]:80/\0//other/x",
        b"http://2852039166\0http://169.254.169.254/latest",
        b"HTTPS://Host\0?only=query",
        b"redis://:p%40ss@host:6379/key%20x?db=2&ssl_ca_certs=/a\0%2G",
        b"rediss://host\0file:///etc/passwd",
        b"http://h/%\0%zz%41",
    ]


def http_answer_seeds() -> list[bytes]:
    """Heads that are good, odd and hostile, with bodies that explain a refusal."""
    error = b"<Error><Code>AccessDenied</Code><Message>&lt;no&gt;</Message></Error>"
    return [
        b'HTTP/1.1 206 Partial\r\nContent-Range: bytes 8-15/100\r\nETag: W/"x"\r\n\r\nbody',
        b"HTTP/2 416\nContent-Range: bytes */18446744073709551615\n\n",
        b"HTTP/1.1 100 Continue\nHTTP/1.1 403 No\nx-amz-request-id: 17\n\n" + error,
        b"HTTP/1.1 503 x\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\n\n",
        b'HTTP/1.1 429 x\nretry-after: 99999999999\n\n{"error": "slow \\\\ down"}',
        b"HTTP/1.1 200 OK\nx-goog-hash: crc32c=n03x6A==\nx-goog-hash: md5=Ojk9\n\n",
        b"HTTP/1.1 200 OK\nx-amz-checksum-crc64nvme: AAAAAAAAAAA=\n\n",
        b"HTTP/\n:\nx-error-message: \x1b[31m\n\n",
    ]


def listing_seeds() -> list[bytes]:
    """Pages of both kinds, whole and cut."""
    s3 = (
        b"sm/\0<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>t&amp;1</NextContinuationToken>"
        b"<Contents><Key>m/a+b%2B.bin</Key><Size>7</Size></Contents>"
        b"<Contents><Key>m/..%2F..%2Fetc</Key></Contents></ListBucketResult>"
    )
    azure = (
        b"am/\0<EnumerationResults><Blobs><Blob><Name>m/a</Name></Blob></Blobs>"
        b"<NextMarker>n</NextMarker></EnumerationResults>"
    )
    return [s3, s3[: len(s3) // 2], azure, azure[:-30]]


def redis_reply_seeds() -> list[bytes]:
    """Replies of every kind, and what is none."""
    return [
        b"+OK\r\n-ERR no\r\n:-17\r\n$-1\r\n*-1\r\n$3\r\na\r\n\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n$5\r\nmodel\r\n",
        b"*1\r\n" * 40,
        b"*1000000000\r\n",
        b"$9223372036854775807\r\nx",
        b"HTTP/1.1 400 Bad Request\r\n",
    ]


def ini_seeds() -> list[bytes]:
    """Files of AWS's tools and of s3cmd."""
    return [
        b"[default]\naws_access_key_id = A\n# x\n[profile work]\ns3 =\n  endpoint_url = u\n",
        b"[default]\r\naccess_key=A\r\nsecret_key = s=t\r\n",
        b"[\n]=\n=\n[[x]]\nname",
    ]


if __name__ == "__main__":
    write("safetensors_header", safetensors_seeds())
    write("index_json", index_seeds())
    write("serverlessllm", serverless_seeds())
    write("pytorch", pytorch_seeds())
    write("gguf", gguf_seeds())
    write("tensorizer", tensorizer_seeds())
    write("sealed", sealed_seeds())
    write("manifest", manifest_seeds())
    write("ledger", ledger_seeds())
    write("plan", plan_seeds())
    write("select", select_seeds())
    write("url", url_seeds())
    write("http_answer", http_answer_seeds())
    write("listing", listing_seeds())
    write("redis_reply", redis_reply_seeds())
    write("ini", ini_seeds())
