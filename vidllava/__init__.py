"""vidllava: ask questions of video, fine-tune on mixed images and video, benchmark frame rates."""

__version__ = "0.1.0"
