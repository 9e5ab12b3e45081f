"""A session: one stream watched for as long as it lasts, and what was said about it. The log is the session; the mind's
keys and values are a cache of it.

| module | holds |
|---|---|
| session | `Session`: fed, asked, closed; the way of a window and of a question through it |
| local | sessions in this process, by where their log is |
| feeder, intake | windows on their way in: of fed media and of pushed packets |
| rules, rule_text | standing rules, judged at every window |
| sift | which rules a window could concern |
| recall | search over the log, and windows brought back for a question |
| phrases | what the joint space tells apart: the phrases that a text names and a window shows |
| log | what a log stores: `Percept`s and the entries (turns, rules, events, feeds), and the `SessionLog` interface |
| values | arrays and rows as bytes, in the dtype that is stored; rounding to it |
| retention | what is dropped of the log's past |
| sqlite_log | the log in one SQLite file, the embedded default; `forget` |
| sqlite_file | that file: tables, checks, errors in words |

Only what answers needs torch: reading and forgetting a log do not.
"""
