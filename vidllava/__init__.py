"""vidllava: ask questions of video, fine-tune on mixed images and video, count the frames that fit."""

__version__ = "0.1.0"
