"""How good are the answers? Labelled questions are read, asked, scored and counted, failures too."""
