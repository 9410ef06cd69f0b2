//! nvio-driver
