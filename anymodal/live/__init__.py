"""Live sources: cameras, microphones, network streams and files at their own speed, onto one session's media clock.

    device, rtsp, hls, http, udp --reader (a thread each)--> waiting packets --pump (one thread)--> Session.push
                                  \\--Recorder--> session.mkv     (held until due)

| module | holds |
|---|---|
| address | what a user calls a source -> how it is opened |
| clock | `MediaClock`, the session's time as it goes by; `Timeline`, one connection's times on it |
| reconnect | when a lost source is tried again |
| connection | one opened source: its packets and frames, with a limit on every wait |
| grid | frames and sound of unknown rates onto the bundle's grid |
| source | a source: its reader, what waits, what was lost, and its state |
| record | what came in, unchanged, in an mkv that survives a kill |
| live | several sources into a session |
"""
