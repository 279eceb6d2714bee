"""nano: the embedded model, the generated world it was trained on, and its score.

scene, draw             the world: its words, what is there, what it does, and its pixels (numpy only)
questions, lessons      what can be asked, and the true answers
source                  the world as `--data nano-world:<stage>`
weights, score          the model that ships, and its figures from real files

`examples/train_nano` in the repository trains it from nothing.
"""
