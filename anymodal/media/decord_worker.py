"""decord in a process of its own: one JSON request per line in, a length, a JSON head and raw frames out.

Run as a script by `sparse`, so that a hang or a crash in decord takes nothing else with it.
"""

import json
import os
import sys


def answer(request: dict) -> tuple[dict, bytes]:
    """{path, size_px, indices} -> ({shape, times_s}, frames) or ({error}, b"")."""
    import decord

    size = {"width": request["size_px"], "height": request["size_px"]} if request["size_px"] else {}
    try:
        reader = decord.VideoReader(request["path"], **size)
        times_s = reader.get_frame_timestamp(range(len(reader)))[:, 0].tolist()
        frames = reader.get_batch(request["indices"]).asnumpy()
    except Exception as error:  # decord raises its own and IndexError alike: the caller then uses PyAV
        return {"error": str(error)}, b""
    return {"shape": frames.shape, "times_s": times_s}, frames.tobytes()


def main() -> None:
    """Serve until stdin closes. Whatever libraries print to stdout goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin:
        head, body = answer(json.loads(line))
        text = json.dumps(head).encode()
        out.write(len(text).to_bytes(8, "little") + text + body)
        out.flush()


if __name__ == "__main__":
    main()
