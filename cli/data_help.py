"""What does a row of a data set look like? Examples of every format, as `vidllava data --help` shows them."""

from __future__ import annotations

HELP = """Check data sets before training; say what is in them.

A row is one JSON object: a line of a .jsonl, or an entry of the list in a .json.

\b
llava        {"image": "a.png", "conversations": [
             {"from": "human", "value": "<image>\\nWhat is it?"},
             {"from": "gpt", "value": "A cat."}]}
             {"video": "b.mp4", "start": 2.5, "end": 9, "fps": 2, ...}
m4-instruct  {"sample_id": "n-1", "image": ["a.png", "b.png"],
             "conversations": [...], "choice_list": ["True", "False"]}
messages     {"messages": [{"role": "user", "content": [
             {"type": "image_url", "image_url": {"url": "a.png"}},
             {"type": "text", "text": "What is it?"}]},
             {"role": "assistant", "content": "A cat."}]}
swift        {"messages": [{"role": "user", "content": "<video>Why?"},
             {"role": "assistant", "content": "So."}], "videos": ["b.mp4"]}

\b
One <image> or <video> stands in the text for each file, in order. A folder
of pictures is a video of as many pictures a second as "fps" says. An answer
with "weight": 0 (or "loss": false) is read and not learned. An "id" may not
come twice. Files are named relative to --media-root and lie within it.
A row may have a "system" line, and pairs of question and answer as its
"history". A key that other formats know and that cannot be followed (tools,
audios, objects, rejected, ...) refuses its row; keys that no format knows are
named once per file.

\b
A mixture .yaml takes parts of several files:
datasets:
  - json_path: pictures.json       # relative to the .yaml
    sampling_strategy: random:30%  # all, first:N, end:N, random:N
    weight: 2                      # drawn twice an epoch
    media_root: coco
"""
