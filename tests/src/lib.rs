//! nvio-tests
