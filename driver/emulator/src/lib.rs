//! nvio-emulator
