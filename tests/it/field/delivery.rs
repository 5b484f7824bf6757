//! Answers of a server that behaves in another way than the emulator.
