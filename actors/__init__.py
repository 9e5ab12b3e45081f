"""The running system: the stages of `anymodal/agent.py` as Ray actors. Only this package imports Ray.

| module | what |
|---|---|
| pipeline | the main path, distributed: starts the actors, asks them questions |
| source, perception, mind | thin hosts of the stages, and their part of the protocol |
| runtime | a bundle's `runtime:` key: resources, threads, credits, timeouts |
| cluster | joining a Ray, or starting a private one and leaving nothing of it behind |
| placement | room for the actors, or an error that names what is missing |
| faults | Ray's errors in our own words |
| head | a private Ray head that takes jobs |
| job, manifest, results | video QA over many files: `python -m actors.job` |
"""
