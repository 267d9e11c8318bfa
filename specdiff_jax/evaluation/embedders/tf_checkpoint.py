"""Read a TensorFlow checkpoint, a "tensor bundle" of one data file, without TensorFlow.

The index is a sorted-string table as LevelDB writes it (its doc/table_format.md): blocks of keys,
each given by what it shares with the key before, and a footer with their places. A value is
a protocol buffer, tensorflow/core/protobuf/tensor_bundle.proto, with the place of a tensor.
"""

import math

import numpy as np

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two places of blocks, padding, the magic number
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of a protocol buffer
TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}  # of tensorflow/core/framework/types.proto


def read_tensors(index, data):
    """Return the tensors of a bundle.

    Checksums are not compared: the caller has compared the sha256 of the bytes.

    Args:
      index: bytes of the `.index` file.
      data: bytes of the `.data-00000-of-00001` file.

    Returns:
      {name: array}, views of `data`.

    Raises:
      ValueError: these are no such files, or they use a feature that this reader lacks.
    """
    try:
        entries = dict(read_table(index))
        header = read_message(entries.pop(b""))
        if header.get(1, 1) != 1 or header.get(2, 0):
            raise ValueError("the bundle has several data files or big-endian numbers")
        return {
            name.decode(): parse_tensor(read_message(entry), data)
            for name, entry in entries.items()
        }
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError("the index of the TensorFlow bundle is damaged") from error


def parse_tensor(entry, data):
    """Return the array of a BundleEntryProto."""
    if entry.get(1) not in TYPES or 7 in entry:
        raise ValueError(f"the bundle holds a tensor of type {entry.get(1)} or cut into slices")
    shape = [read_message(dim).get(1, 0) for dim in read_repeated(entry.get(2, b""), 2)]
    start, size = entry.get(4, 0), entry.get(5, 0)
    dtype = np.dtype(TYPES[entry[1]])
    if size != math.prod(shape) * dtype.itemsize or start + size > len(data):
        raise ValueError("the index of the TensorFlow bundle does not fit its data")
    return np.frombuffer(data[start : start + size], dtype).reshape(shape)


def read_table(index):
    """Yield (key, value) of every entry, in order."""
    if len(index) < FOOTER or int.from_bytes(index[-8:], "little") != MAGIC:
        raise ValueError("this is no index of a TensorFlow bundle")
    footer = index[-FOOTER:]
    at = 0
    for _ in range(2):  # past the place of the block of filters, which a bundle does not have
        _, at = read_varint(footer, at)
    for _, place in read_block(index, *read_handle(footer, at)):
        yield from read_block(index, *read_handle(place, 0))


def read_handle(content, at):
    """Return (start, size) of a block."""
    start, at = read_varint(content, at)
    return start, read_varint(content, at)[0]


def read_block(index, start, size):
    """Yield (key, value) of every entry of a block."""
    if index[start + size]:
        raise ValueError("the index of the TensorFlow bundle is compressed")
    content = index[start : start + size]
    restarts = int.from_bytes(content[-4:], "little")
    end = size - 4 * (restarts + 1)
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(content, at)
        fresh, at = read_varint(content, at)
        length, at = read_varint(content, at)
        key = key[:shared] + content[at : at + fresh]
        yield key, content[at + fresh : at + fresh + length]
        at += fresh + length


def read_varint(content, at):
    """Return (a number written in groups of seven bits, the place after it)."""
    number = shift = 0
    while True:
        number |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 128:
            return number, at


def read_fields(content):
    """Yield (number, value) of every field of a protocol buffer: an int, or bytes."""
    at = 0
    while at < len(content):
        tag, at = read_varint(content, at)
        if tag & 7 == VARINT:
            value, at = read_varint(content, at)
        elif tag & 7 == BYTES:
            length, at = read_varint(content, at)
            value, at = content[at : at + length], at + length
        elif tag & 7 in (FIXED32, FIXED64):
            width = 4 if tag & 7 == FIXED32 else 8
            value, at = int.from_bytes(content[at : at + width], "little"), at + width
        else:
            raise ValueError(f"the bundle's index holds a field of wire type {tag & 7}")
        yield tag >> 3, value


def read_message(content):
    """Return {number: value} of a protocol buffer, the last of each number."""
    return dict(read_fields(content))


def read_repeated(content, number):
    """Return the values of a field that may come several times."""
    return [value for n, value in read_fields(content) if n == number]
