"""Enriched action descriptions by a chat LLM, from labels and named boxes (paper 3.2; lego-reference E).

A scene (`scenes`) becomes a request (`prompt`), the endpoint answers (`endpoint`), the answer is kept (`journal`) and
checked (`checks`). `run` puts them together; `cost` says what it takes; `output` and `report` write what comes of it.
"""
