"""Signal -> features: one file per encoder. Tensors in, tensors out; knows neither anymodal nor actors."""
