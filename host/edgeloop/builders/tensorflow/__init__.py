"""Keras files and SavedModels to .tflite, by TensorFlow in a process of its own."""
