"""Training: float, and with fake quantization on the exported graph; what is written is what builders read.

`key` and `pool` are for the controller and import no torch; `graph`, `quantizers`, `fake_quantize`, `objective`, `fit`
and `train` run in the worker process. Networks and data come in as modules and arrays: `wiring.training_worker` fetches
them.
"""
