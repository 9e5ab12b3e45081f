"""A session: one stream watched for as long as it lasts, and what was said about it. The log is the session; the mind's
KV cache is a cache of it.

| module | holds |
|---|---|
| log | what a log stores: `Percept`s and the entries (turns, rules, events, feeds), and the `SessionLog` interface |
| values | arrays and rows as bytes, in the dtype that is stored; rounding to it |
| sqlite_log | the log in one SQLite file, the embedded default; `forget` |
| sqlite_file | that file: tables, checks, errors in words |

Only what answers needs torch: reading and forgetting a log do not.
"""
