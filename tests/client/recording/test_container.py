"""Files that were cut, damaged, made by others or by a newer version; and what other programs make of a recording."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from lego_client.recording.container import ContainerReader, ContainerWriter
from lego_client.recording.happenings import View
from lego_client.recording.messages import SESSION, Message
from lego_client.recording.recording import Recording
from lego_core.errors import LegoError
from lego_proto.v1 import recording_pb2 as pb
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from mcap_protobuf.decoder import DecoderFactory

from tests.client.recording.sessions import happenings, kinds


def records(data: bytes) -> list[tuple[int, int, int]]:
    """Returns opcode, begin and end of every record of a file."""
    found, position = [], 8
    while position < len(data) - 8:
        opcode, length = struct.unpack_from("<BQ", data, position)
        found.append((opcode, position, position + 9 + length))
        position += 9 + length
    return found


def end_of_data(data: bytes) -> int:
    return next(end for opcode, _, end in records(data) if opcode == Opcode.DATA_END)


def test_a_file_cut_at_any_byte_is_whole_up_to_there(recorded: Path, tmp_path: Path) -> None:
    data = recorded.read_bytes()
    everything = Recording(recorded).entries
    first = next(end for opcode, _, end in records(data) if opcode == Opcode.CHUNK)
    edges = {edge + shift for _, begin, end in records(data) for edge in (begin, end) for shift in (-1, 0, 1)}
    cut = tmp_path / "cut.mcap"
    for size in sorted(edge for edge in edges | set(range(0, end_of_data(data), 211)) if edge < end_of_data(data)):
        cut.write_bytes(data[:size])
        if size < first:
            with pytest.raises(LegoError, match=r"cut before anything|nothing of it is left|is empty"):
                Recording(cut)
            continue
        recording = Recording(cut)
        assert recording.entries == everything[: len(recording.entries)]
        whole = sum(opcode == Opcode.CHUNK and end <= size for opcode, _, end in records(data))
        assert len(recording.entries) == whole  # each happening is a chunk of its own
        assert not recording.whole
        assert len(recording.faults) == 1 and "was cut at byte" in recording.faults[0]


def test_a_file_without_its_index_is_still_whole(recorded: Path, tmp_path: Path) -> None:
    data = recorded.read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: end_of_data(data)])
    assert Recording(tmp_path / "cut.mcap").whole


def test_no_changed_byte_goes_unnoticed(recorded: Path, tmp_path: Path) -> None:
    data = recorded.read_bytes()
    heads = {begin + shift for _, begin, _ in records(data) for shift in range(12)}
    changed = tmp_path / "changed.mcap"
    for place in sorted(where for where in heads | set(range(8, len(data), 307)) if where < end_of_data(data)):
        changed.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        try:
            recording = Recording(changed)
        except LegoError as error:
            assert "changed.mcap" in str(error)
        else:
            assert not recording.whole and "was cut" in recording.faults[0]  # its length points beyond the end


def test_damage_is_named_with_its_place_and_can_be_passed_over(recorded: Path, tmp_path: Path) -> None:
    data = recorded.read_bytes()
    chunks = [(begin, end) for opcode, begin, end in records(data) if opcode == Opcode.CHUNK]
    begin, end = chunks[5]
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:])
    with pytest.raises(
        LegoError, match=rf"is damaged at byte {begin}, 0\.\d s from its beginning: its checksum does not"
    ):
        Recording(damaged)
    recording = Recording(damaged, pass_over_damage=True)
    assert len(recording.entries) == len(chunks) - 1
    assert recording.whole and len(recording.faults) == 1


@pytest.mark.parametrize("content", [b"", b"\x89MCAP0"])
def test_a_file_with_nothing_in_it_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.mcap").write_bytes(content)
    with pytest.raises(LegoError, match="is empty: the recording was cut before anything was in it"):
        Recording(tmp_path / "s.mcap")


def test_a_file_of_another_kind_is_named(picture: Path) -> None:
    with pytest.raises(LegoError, match=r"is no recording of lego-client; give a file made with --record"):
        Recording(picture)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"cannot be read \(No such file or directory\)"):
        Recording(tmp_path / "none.mcap")


def test_another_programs_mcap_file_is_named(tmp_path: Path) -> None:
    with (tmp_path / "robot.mcap").open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start("ros2")
        channel = writer.register_channel("/odometry", "json", writer.register_schema("pose", "jsonschema", b"{}"))
        writer.add_message(channel, 1, b"{}", 1)
        writer.finish()
    with pytest.raises(LegoError, match="is no recording of lego-client, or nothing of it is left"):
        Recording(tmp_path / "robot.mcap")


def test_compressed_chunks_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    with (tmp_path / "small.mcap").open("wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start("lego-ar")
        channel = writer.register_channel(SESSION, "protobuf", writer.register_schema("s", "protobuf", b""))
        writer.add_message(channel, 1, bytes(1_000_000), 1)
        writer.finish()
    with pytest.raises(LegoError, match=r"has compressed chunks \(zstd\)"):
        Recording(tmp_path / "small.mcap")


def written(path: Path, *data: bytes) -> Path:
    writer = ContainerWriter(path, "test")
    writer.append([(1_000, Message(SESSION, one)) for one in data])
    writer.close()
    return path


def test_a_recording_of_a_newer_version_is_refused_with_the_cure(tmp_path: Path) -> None:
    started = pb.SessionRecord(started=pb.RecordingStarted(format=2)).SerializeToString()
    with pytest.raises(LegoError, match=r"newer lego-client \(format 2; this one reads up to 1\); update with: pip"):
        Recording(written(tmp_path / "s.mcap", started))


def test_what_a_later_version_added_is_passed_over(tmp_path: Path) -> None:
    started = pb.SessionRecord(started=pb.RecordingStarted(format=1)).SerializeToString()
    unknown = b"\xd2\x0f\x03abc"  # field 250, a string
    recording = Recording(written(tmp_path / "s.mcap", started, unknown))
    assert kinds(recording) == ["Started"]


def test_bytes_that_are_no_record_are_refused(tmp_path: Path) -> None:
    started = pb.SessionRecord(started=pb.RecordingStarted(format=1)).SerializeToString()
    with pytest.raises(LegoError, match="holds what is no record, at byte"):
        Recording(written(tmp_path / "s.mcap", started, b"\xff\xff\xff"))


def test_a_file_that_disappears_while_it_is_used_is_named(recorded: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.mcap"
    shutil.copy(recorded, moved)
    recording = Recording(moved)
    moved.unlink()
    with pytest.raises(LegoError, match="cannot be read any more"):
        happenings(recording)


def test_other_readers_of_mcap_find_the_pictures_by_time_and_topic(recorded: Path) -> None:
    views = {one.frame_id: one.jpeg for one in happenings(Recording(recorded)) if isinstance(one, View)}
    with recorded.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        header = reader.get_header()
        assert header.profile == "lego-ar" and header.library.startswith("lego-ar ")
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        topics = {channel.topic: number for number, channel in summary.channels.items()}
        assert summary.statistics.channel_message_counts[topics["/view"]] == 2
        assert summary.statistics.channel_message_counts[topics["/guidance"]] == 2
        assert summary.schemas[summary.channels[topics["/view"]].schema_id].name == CompressedImage.DESCRIPTOR.full_name
        for _, _, message, image in reader.iter_decoded_messages(topics=["/view"]):
            assert image.format == "jpeg" and image.data == views[message.sequence]
            assert image.timestamp.ToNanoseconds() == message.log_time
        decoded = [record for *_, record in reader.iter_decoded_messages(topics=["/session"])]
    assert [record.asked.text for record in decoded if record.WhichOneof("record") == "asked"]


def test_a_record_too_large_to_be_one_is_not_read_into_memory(recorded: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.mcap"
    large.write_bytes(recorded.read_bytes()[:8] + struct.pack("<BQ", Opcode.CHUNK, 1 << 40))
    with pytest.raises(LegoError, match="is damaged at byte 8"):
        list(ContainerReader(large).scan())
