"""The command `lego-client live`."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from lego_core.errors import LegoError

from lego_client.backoff import Backoff
from lego_client.cli_options import (
    CONNECT_SECONDS,
    CacheIntervalOption,
    CaOption,
    CertOption,
    FidelityOption,
    GuidanceIntervalOption,
    ImageScaleOption,
    KeyOption,
    KeyringOption,
    MirrorOption,
    ModelOption,
    PresetOption,
    PreviewOption,
    PreviewsOption,
    QualityOption,
    ReconnectOption,
    RetriesOption,
    RotateOption,
    SamplerOption,
    SaverOption,
    SeedOption,
    ServerOption,
    StepsOption,
    TextScaleOption,
    TlsOption,
    TokenFileOption,
    check_requests,
    connection_of,
    with_previews,
)
from lego_client.events import GuidanceOptions
from lego_client.listen import MicrophoneOption, RecogniserOption, SpeechModelOption, WakeOption, audio_source
from lego_client.live.displays import DISPLAYS, check_display, default_display
from lego_client.live.run import LiveSettings, run_live
from lego_client.live.voice import LISTEN, Hearing
from lego_client.observer import SessionObserver
from lego_client.overlay.modes import MODES
from lego_client.recording.consent import recording_to
from lego_client.recording.options import DEFAULT_LIMIT_MB, RecordConsentOption, RecordLimitOption, RecordOption
from lego_client.sending import Sending
from lego_client.session import GuidanceClient
from lego_client.sources.factory import open_camera
from lego_client.sources.framing import Framing
from lego_client.tracing import traces_from_environment

if TYPE_CHECKING:
    from lego_client.speech.speak import Speaker


def live(
    source: Annotated[
        str, typer.Option(help="The camera: its index, an rtsp/http address, or a video, picture or folder.")
    ] = "0",
    server: ServerOption = "localhost:50051",
    query: Annotated[str, typer.Option(help="A question to ask at once.")] = "",
    display: Annotated[str, typer.Option(help=f"One of {', '.join(DISPLAYS)}; default: what this machine has.")] = "",
    mode: Annotated[str, typer.Option(help=f"How guidance is shown first, one of {', '.join(MODES)}.")] = MODES[0],
    out: Annotated[
        Path | None, typer.Option(help="Folder for every answer; default: those you choose to save.")
    ] = None,
    stream_fps: Annotated[
        float, typer.Option(help="Views sent per second, asked about or not; 0 sends those asked about only.")
    ] = 0.0,
    listen: Annotated[
        str,
        typer.Option(
            help="voice: speak when you like; talk: the space key begins and ends it; off. Needs the extra speech."
        ),
    ] = "off",
    microphone: MicrophoneOption = None,
    audio: Annotated[str | None, typer.Option(help="A WAV file in the microphone's place.")] = None,
    recogniser: RecogniserOption = "auto",
    speech_model: SpeechModelOption = None,
    wake: WakeOption = None,
    speak: Annotated[bool, typer.Option("--speak", help="Have answers spoken; V turns it on and off.")] = False,
    headphones: Annotated[
        bool, typer.Option("--headphones", help="The microphone cannot hear the voice, so you may interrupt it.")
    ] = False,
    rotate: RotateOption = 0,
    mirror: MirrorOption = False,
    data_saver: SaverOption = False,
    preset: PresetOption = None,
    seed: SeedOption = None,
    steps: StepsOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    guidance_interval: GuidanceIntervalOption = None,
    cache_interval: CacheIntervalOption = None,
    sampler: SamplerOption = None,
    previews: PreviewsOption = 4,
    preview: PreviewOption = None,
    quality: QualityOption = None,
    fidelity: FidelityOption = None,
    model: ModelOption = "",
    record: RecordOption = None,
    record_limit: RecordLimitOption = DEFAULT_LIMIT_MB,
    record_consent: RecordConsentOption = False,
    retries: RetriesOption = 3,
    reconnect: ReconnectOption = 3600.0,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    token_file: TokenFileOption = None,
    keyring: KeyringOption = False,
) -> None:
    """Shows what you see with guidance in it, and takes questions until you leave. Press H for the keys."""
    options = GuidanceOptions(
        seed=seed, steps=steps, text_scale=text_scale, image_scale=image_scale, sampler=sampler, jpeg_quality=quality,
        fidelity=fidelity, preview=preview, preset=preset,
        guidance_interval=guidance_interval, cache_interval=cache_interval,
    )  # fmt: skip
    settings = LiveSettings(
        check_display(display or default_display()), mode, out, stream_fps=stream_fps, ahead=not data_saver,
        retries=retries, first_query=query,
    )  # fmt: skip
    check_requests([query] if query else [], previews)
    frames = open_camera(source, Framing(rotate, mirror))
    connection = connection_of(server, tls, ca, cert, key, token_file, keyring)

    def open_client(observer: SessionObserver | None = None) -> GuidanceClient:
        return GuidanceClient(
            server, CONNECT_SECONDS, connection, traces_from_environment(), model=model, backoff=Backoff(reconnect),
            wait_seconds=reconnect, sending=Sending(data_saver=data_saver), observer=observer,
        )  # fmt: skip

    open_client()  # wrong settings are told before a window opens
    hearing = (
        None if listen == "off" else _hearing(listen, microphone, audio, recogniser, speech_model, wake, headphones)
    )
    speaker = _speaker() if speak else None
    about = {"command": "live", "source": frames.name, "server": server, "previews": previews}
    with recording_to(record, about, consent=record_consent, limit_mb=record_limit) as recorder:
        asyncio.run(
            run_live(
                partial(open_client, recorder), frames, lambda client: with_previews(options, previews, client),
                settings, server, hearing=hearing, speaker=speaker, recorder=recorder,
            )
        )  # fmt: skip


def _hearing(
    listen: str, microphone: str | None, audio: str | None, recogniser: str, model: Path | None, wake: str | None,
    headphones: bool,
) -> Hearing:  # fmt: skip
    if listen not in LISTEN:
        raise LegoError(f"listen is {listen!r}; it must be one of {', '.join(LISTEN)}")
    from lego_client.speech.recognise import open_recogniser
    from lego_client.speech.wake import WakeWord

    word = None if wake is None else WakeWord(wake)
    source = audio_source(microphone, audio)
    return Hearing(source, open_recogniser(recogniser, model), listen == "talk", word, headphones)


def _speaker() -> Speaker:
    from lego_client.speech.speak import Speaker

    return Speaker()
