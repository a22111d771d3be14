"""The training core as a device: registers, words, buses and serial line."""
