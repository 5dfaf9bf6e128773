"""The file: MCAP, in chunks without compression and each with a checksum, whole up to the byte at which it was cut."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, cast

from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from google.protobuf.message import DecodeError
from lego_core.errors import LegoError
from lego_proto.v1 import recording_pb2 as pb
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, DataEnd
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer
from mcap_protobuf.schema import register_schema

from lego_client.recording.messages import PICTURES, SESSION, Message

_PROFILE = "lego-ar"
_LARGEST_RECORD = 256 * 1024 * 1024  # bytes; a recording's own are far smaller, so a larger one is damage
_RECORD_HEAD = struct.Struct("<BQ")  # opcode, length
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHECKSUM_BYTES = 4
_NANOSECONDS = 1_000_000_000


class ContainerWriter:
    """Appends messages to a new file. Each `append` is one chunk, and is with the operating system when it returns."""

    def __init__(self, path: Path, library: str) -> None:
        """Makes the file, readable for nobody else.

        Args:
            path: A file is never overwritten.
            library: What writes it, with its version.

        Raises:
            OSError: It exists already, or cannot be made.
        """
        self._file = _Output(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._writer = Writer(cast(IO[bytes], self._file), compression=CompressionType.NONE, enable_data_crcs=True)
        try:
            self._writer.start(_PROFILE, library)
            record = register_schema(self._writer, pb.SessionRecord)
            image = register_schema(self._writer, CompressedImage)
            self._channels = {
                topic: self._writer.register_channel(topic, "protobuf", record if topic == SESSION else image)
                for topic in (SESSION, *PICTURES)
            }
            self.size = self._flush()
        except OSError:
            self._file.close()
            raise

    def append(self, messages: Sequence[tuple[int, Message]]) -> None:
        """Adds messages.

        Args:
            messages: Each with its nanoseconds since 1970.

        Raises:
            OSError: They cannot be written. The file is then as it was before, and takes no more.
        """
        for time, message in messages:
            data = message.data if message.topic == SESSION else _image(message, time)
            self._writer.add_message(self._channels[message.topic], time, data, time, message.sequence)
        self.size = self._flush()

    def sync(self) -> None:
        """Has the disk keep what was appended even if the machine's power goes.

        Raises:
            OSError: The disk reports a failure.
        """
        os.fsync(self._file.descriptor)

    def close(self) -> None:
        """Writes the index by which other programs find their way, and closes the file.

        Raises:
            OSError: There is no room for it; what was appended is in the file.
        """
        whole = self._file.position
        try:
            self._writer.finish()
            self.sync()
        except OSError:
            os.ftruncate(self._file.descriptor, whole)
            raise
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Closes the file with nothing after what was appended."""
        self._file.close()

    def _flush(self) -> int:
        whole = self._file.position
        try:
            self._writer.flush()
        except OSError:
            os.ftruncate(self._file.descriptor, whole)
            raise
        return self._file.position


class _Output:
    """A file without a buffer, so that nothing is left to be written once a write has failed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.position = 0

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            written = os.write(self.descriptor, left)
            self.position += written
            left = left[written:]
        return len(data)

    def tell(self) -> int:
        return self.position

    def flush(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(frozen=True)
class Place:
    """A message in a file: its topic, sequence and time (nanoseconds since 1970), and where its data lies in bytes."""

    topic: str
    sequence: int
    time: int
    offset: int
    length: int


class ContainerReader:
    """Reads a file from its beginning, and notes where it is not as it should be.

    Attributes:
        whole: Whether the end was found; known after `scan`.
        faults: What a person should know of the file, a sentence each; known after `scan`.
    """

    def __init__(self, path: Path, pass_over_damage: bool = False) -> None:
        """Nothing is read yet.

        Args:
            path: The file.
            pass_over_damage: Leave out chunks that are damaged, instead of refusing the file.
        """
        self.whole = False
        self.faults: list[str] = []
        self._path = path
        self._pass_over = pass_over_damage
        self._topics: dict[int, str] = {}
        self._first_time: int | None = None
        self._newest_time = 0

    def scan(self) -> Iterator[tuple[Place, bytes]]:
        """Yields every message and its data, in the order in which they were written.

        Raises:
            LegoError: The file cannot be read, is of another kind, or is damaged.
        """
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._check_magic(file.read(len(MCAP0_MAGIC)))
                checksum = zlib.crc32(MCAP0_MAGIC)
                while True:
                    offset = file.tell()
                    head = file.read(_RECORD_HEAD.size)
                    if len(head) < _RECORD_HEAD.size:
                        return self._cut(offset)
                    opcode, length = _RECORD_HEAD.unpack(head)
                    if not _known(opcode) or length > _LARGEST_RECORD:
                        self._damaged(offset, "there is no record of this kind or length")
                        return self._cut(offset)
                    if length > size - file.tell():
                        return self._cut(offset)
                    content = file.read(length)
                    if opcode == Opcode.DATA_END:
                        self._check_all(content, checksum, offset)
                        self.whole = True
                        return None
                    checksum = zlib.crc32(content, zlib.crc32(head, checksum))
                    if opcode == Opcode.CHUNK:
                        yield from self._messages(content, offset)
        except OSError as error:
            raise LegoError(f"{self._path} cannot be read ({error.strerror}); check the path") from error

    def read(self, place: Place) -> bytes:
        """Returns the picture at a place that `scan` has yielded.

        Raises:
            LegoError: The file cannot be read any more.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(place.offset)
                return _picture(file.read(place.length))
        except (OSError, DecodeError) as error:
            raise LegoError(f"{self._path} cannot be read any more ({error}); was it changed meanwhile?") from error

    def _check_magic(self, magic: bytes) -> None:
        if len(magic) < len(MCAP0_MAGIC) and MCAP0_MAGIC.startswith(magic):
            raise LegoError(f"{self._path} is empty: the recording was cut before anything was in it; make another")
        if magic != MCAP0_MAGIC:
            raise LegoError(f"{self._path} is no recording of lego-client; give a file made with --record")

    def _messages(self, content: bytes, offset: int) -> Iterator[tuple[Place, bytes]]:
        try:
            chunk = Chunk.read(ReadDataStream(BytesIO(content)))
            if chunk.compression:
                raise _Compressed(chunk.compression)
            if chunk.uncompressed_size != len(chunk.data) or zlib.crc32(chunk.data) != chunk.uncompressed_crc:
                raise ValueError("its checksum does not fit")
            found = list(self._records(chunk.data, offset + _RECORD_HEAD.size + len(content) - len(chunk.data)))
        except _Compressed as error:
            raise LegoError(
                f"{self._path} has compressed chunks ({error}), which lego-client does not write; "
                "take the file as it was recorded"
            ) from error
        except (ValueError, struct.error, McapError, DecodeError) as error:
            self._damaged(offset, str(error) or "it ends too early")
            return
        for place, data in found:
            self._first_time = place.time if self._first_time is None else self._first_time
            self._newest_time = place.time
            yield place, data

    def _records(self, data: bytes, base: int) -> Iterator[tuple[Place, bytes]]:
        """Yields the messages of a chunk whose data lie at `base` in the file."""
        position = 0
        while position < len(data):
            opcode, length = _RECORD_HEAD.unpack_from(data, position)
            position += _RECORD_HEAD.size
            content = data[position : position + length]
            if opcode == Opcode.CHANNEL:
                channel = Channel.read(ReadDataStream(BytesIO(content)))
                self._topics[channel.id] = channel.topic
            elif opcode == Opcode.MESSAGE:
                channel_id, sequence, time, _ = _MESSAGE_HEAD.unpack_from(content)
                body = content[_MESSAGE_HEAD.size :]
                place = Place(
                    self._topics.get(channel_id, ""), sequence, time, base + position + _MESSAGE_HEAD.size, len(body)
                )
                yield place, body
            position += length

    def _check_all(self, content: bytes, checksum: int, offset: int) -> None:
        """Compares the checksum of everything, where the file has one."""
        if len(content) != _CHECKSUM_BYTES:
            self._damaged(offset, "the end is not as long as it should be")
            return
        expected = DataEnd.read(ReadDataStream(BytesIO(content))).data_section_crc
        if expected and expected != checksum and not self.faults:
            self._damaged(offset, "the checksum of all that goes before does not fit")

    def _damaged(self, offset: int, what: str) -> None:
        seconds = (self._newest_time - (self._first_time or self._newest_time)) / _NANOSECONDS
        where = f"{self._path} is damaged at byte {offset}, {seconds:.1f} s from its beginning: {what}"
        if not self._pass_over:
            raise LegoError(f"{where}; take it from a backup, or add --damaged to use what is whole")
        self.faults.append(where)

    def _cut(self, offset: int) -> None:
        self.faults.append(
            f"{self._path} was cut at byte {offset}: the program or the machine was stopped, or the disk was full; "
            "what goes before is whole"
        )


class _Compressed(Exception):
    """A chunk is compressed. What it would grow to is not known before it is too late."""


def _known(opcode: int) -> bool:
    return Opcode.HEADER <= opcode <= Opcode.DATA_END or opcode >= 0x80  # from there on they are anyone's own


def _image(message: Message, time: int) -> bytes:
    image = CompressedImage(frame_id=message.topic.strip("/"), data=message.data, format="jpeg")
    image.timestamp.FromNanoseconds(time)
    data: bytes = image.SerializeToString()
    return data


def _picture(data: bytes) -> bytes:
    picture: bytes = CompressedImage.FromString(data).data
    return picture
