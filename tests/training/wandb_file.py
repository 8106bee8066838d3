"""Reads the file of an offline W&B run; wandb 0.31 has no public way to do that.

The file is a LevelDB log (github.com/google/leveldb, doc/log_format.md) behind 7 bytes of W&B's
own, whose records are the protocol buffers of wandb.proto.
"""

import json

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path):
    """All records of a .wandb file."""
    data, place, parts = path.read_bytes(), 7, []
    assert data.startswith(b":W&B")
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:  # too little for a header: padding
            place += left
            continue
        length = int.from_bytes(data[place + 4 : place + 6], "little")
        kind = data[place + 6]
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(b"".join(parts))
            yield record
            parts = []


def values(items):
    """Names → values of the items of a history, a summary or a configuration."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
