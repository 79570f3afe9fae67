"""TensorBoard's side: which scalars it shows of a folder of event files."""

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped,unused-ignore]

from falcon_trainer.report.board import FOLDER


def events(folder: Path) -> list[Event]:
    """All events of a folder, in the order in which TensorBoard reads them: by file name, then as written.

    A record is its length (8 bytes), a checksum (4), the event, a checksum (4).
    """
    found = []
    for file in sorted((folder / FOLDER).iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            found.append(Event.FromString(data[place + 12 : place + 12 + length]))
            place += length + 16
    return found


def shown(folder: Path) -> list[tuple[str, int, float]]:
    """What TensorBoard shows: a session that starts at a step takes back what was written for it and later steps
    (event_accumulator.py, _CheckForRestartAndMaybePurge)."""
    scalars: list[tuple[str, int, float]] = []
    for event in events(folder):
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            scalars = [scalar for scalar in scalars if scalar[1] < event.step]
        scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return scalars
