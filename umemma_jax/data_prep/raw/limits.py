"""What one picture, video or sound may ask for. It is checked by the file's header, before anything is decoded.

`--max-pixels` lifts the first two. How much memory that takes in each process: docs/own_data.md.
"""

PIXELS = 100_000_000  # of a picture
FRAME_PIXELS = 36_000_000  # of a frame of a video: 8192 x 4320
CHANNELS = 256  # of sound
RATES = range(100, 768_001)  # Hz, of sound
BYTES = 1 << 26  # of a picture that is stored as it is


def too_many_pixels(width: int, height: int, most: int) -> str | None:
    """Why a picture of this size is refused; None if it is not."""
    return f"{width}x{height} pixels, more than --max-pixels={most:,}" if width * height > most else None


def ffmpeg_options(max_pixels: int) -> dict[str, str]:
    """Keeps FFmpeg from making room for larger pictures; it counts widths as rounded up to a multiple of 64."""
    return {"max_pixels": str(2 * max_pixels + (1 << 22))}
