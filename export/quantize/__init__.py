"""INT8 and FP16 forms of a model, judged before they are written."""
