"""The running system: the stages of `anymodal/agent.py` as Ray actors. Only this package imports Ray.

| module | what |
|---|---|
| pipeline | the main path, distributed: starts the actors, asks them questions |
| source, perception, mind | thin hosts of the stages, and their part of the protocol |
| sessions | detached sessions, as their users see them; `session_commands` for the command line |
| supervisor | owns the sessions of a bundle, their logs and their lives |
| session_parts | what sessions share: reader, perception and mind as actors; a bundle to them |
| chaos | kills any of these, and compares with a run that nothing hit |
| hosting | loading a part once, and computing it in one thread |
| testing | the parts without Ray, killed at chosen moments |
| runtime | a bundle's `runtime:` key: resources, threads, credits, timeouts |
| cluster | joining a Ray, or starting a private one and leaving nothing of it behind |
| placement | room for the actors, or an error that names what is missing |
| faults | Ray's errors in our own words |
| head | a private Ray head that takes jobs |
| job, manifest, results | video QA over many files: `python -m actors.job` |
"""
