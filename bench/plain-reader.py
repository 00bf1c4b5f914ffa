"""What a plain reader costs, beside which bench/growth.ts measures: the kmsg zones of an area whose size is known, each header
read, each payload inflated by zlib, a line of JSON or a file with its SHA-256 for each. Nothing is searched for or proved.

    plain-reader.py ls AREA KMSG_SIZE
    plain-reader.py extract AREA KMSG_SIZE FOLDER
    plain-reader.py segments ELF
"""
import hashlib
import json
import os
import struct
import sys
import zlib


def zones(path, size):
    with open(path, "rb") as area:
        while zone := area.read(size):
            signature, datalen, _, magic = struct.unpack_from("<IiiI", zone)
            if signature != 0x43474244 or magic != 0x4DFC3AE5 or datalen == 0:
                continue
            seconds, nanoseconds, compressed, counter, reason = struct.unpack_from("<qqBxxxII", zone, 20)
            payload = zone[52 : 12 + datalen]
            yield seconds, nanoseconds, counter, reason, zlib.decompress(payload, -15) if compressed else payload


def ls(path, size):
    rows = []
    for i, (seconds, nanoseconds, counter, reason, text) in enumerate(zones(path, size)):
        row = {"name": f"dmesg-pstore_blk-{i}", "time": seconds, "nsec": nanoseconds, "count": counter}
        rows.append({**row, "reason": reason, "size": len(text)})
    print(json.dumps(rows, indent=2))


def extract(path, size, folder):
    os.makedirs(folder)
    rows = []
    for i, (seconds, _, _, _, text) in enumerate(zones(path, size)):
        name = f"dmesg-pstore_blk-{i}"
        with open(os.path.join(folder, name), "xb") as file:
            file.write(text)
            file.flush()
            os.fdatasync(file.fileno())
        os.utime(os.path.join(folder, name), (seconds, seconds))
        rows.append({"name": name, "size": len(text), "sha256": hashlib.sha256(text).hexdigest()})
    with open(os.path.join(folder, "manifest.json"), "x", encoding="utf-8") as file:
        json.dump(rows, file, indent=2)


def segments(path):
    with open(path, "rb") as core:
        header = core.read(64)
        offset, entry, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        if count == 0xFFFF:
            core.seek(struct.unpack_from("<Q", header, 40)[0] + 44)
            (count,) = struct.unpack("<I", core.read(4))
        core.seek(offset)
        table = core.read(entry * count)
    for i in range(count):
        kind, flags, at, vaddr, paddr, filesz, memsz, align = struct.unpack_from("<IIQQQQQQ", table, i * entry)
        print(f"{i:6} {kind:x} {flags:x} {at:18} {vaddr:#20x} {paddr:#20x} {filesz:12} {memsz:12} {align}")


if __name__ == "__main__":
    if sys.argv[1] == "ls":
        ls(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "extract":
        extract(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        segments(sys.argv[2])
