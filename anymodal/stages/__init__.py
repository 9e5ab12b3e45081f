"""The stages of the main path. Each takes one item with `push`, gives an iterable of what it made of it, and gives
what it still holds with `close`, so that `anymodal.testing.run_stage` tests any of them without Ray.

    Clip --Source--> Window --Perceive--> Percept --Think--> (question's number, Delta | Answer)

| stage | push takes | gives | module |
|---|---|---|---|
| Source | Clip | its Windows, as they are decoded | source |
| Perceive | (session, Window) | Percepts, a batch at a time | perceive |
| Think | Opening, Percept | nothing: the session grows | think |
| Think | Question | (number, Delta)..., (number, Answer) | think |
| Think | Closing | nothing: the session is forgotten | think |

Only `perceive` needs torch, and `source` PyAV; a process imports the stage that it hosts.
"""
