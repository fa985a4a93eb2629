"""The TFLite builder: litert-torch converts, ai-edge-quantizer quantizes with the trained ranges."""
