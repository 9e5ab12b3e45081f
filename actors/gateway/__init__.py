"""The gateway: HTTP and WebSockets in front of sessions, in a process of its own. `anymodal serve` starts it.

    client --HTTP, SSE--> chat, files --\\
                                          host --> sessions, in this process or on Ray
    client --WebSocket--> realtime ------/

| module | what |
|---|---|
| serve | the command: options, starting, draining at SIGTERM |
| app | puts the parts together: `make_app(host, settings)` |
| settings | every limit, in one dataclass |
| hosts | the two ways to run: `LocalHost` in this process, `ActorHost` on Ray |
| clips | media and a conversation about them as one session, for as long as an answer takes |
| workers | blocking work in bounded pools of threads, never on the event loop |
| chat | /v1/chat/completions and /v1/models; `chat_shapes` what they look like on the wire |
| files | /v1/files: uploads |
| media | a content part -> a local file: data URLs, addresses, uploaded files |
| fetching | addresses, fetched without reaching what is private |
| sniff | what a file is, by its bytes; refused if it would not fit |
| decoding | clips decoded in processes of their own |
| connection | an HTTP connection that must say something |
| auth, keys | keys, and who may call from which page |
| limits | how often, how much at once, how large |
| faults | errors in OpenAI's shape |
| metrics | /metrics and /health; `tracing` the way from packet to answer |
| realtime, live | WS /v1/realtime, and sessions that outlive their sockets |
| testing | a real server on a free port, for tests |
"""
