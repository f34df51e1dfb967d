"""Judges that need nothing of ComfyUI: photo detectors in onnx files, and classifiers in judge files."""
